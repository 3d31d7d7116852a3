"""Products of matrices of log weights, and compositions of maps between finitely many states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ppl.tensors.scan import Bundle
from ppl.tensors.semiring import log_sum_exp

#: Products of more terms than this are worked out a part at a time, and again in the backward pass.
LARGE = 2**22
#: The terms of a part, few enough for a processor's cache.
PART = 2**17


def log_matmul(x: Tensor, y: Tensor) -> Tensor:
    """log(exp(x) @ exp(y)), exact however far apart the weights lie: nothing underflows that matters.

    Shapes: x (*, a, k), y (*, k, b) -> (*, a, b). The a·k·b terms of each product are held at once up to `LARGE` in all;
    beyond, memory stays in the order of the matrices and of `LARGE`.
    """
    batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    if batch.numel() * x.shape[-2] * x.shape[-1] * y.shape[-1] <= LARGE:
        return log_sum_exp(_terms(x, y), (-1,))
    flat = (v.expand(batch + v.shape[-2:]).reshape((-1, *v.shape[-2:])) for v in (x, y))
    product: Tensor = _LogMatmul.apply(*flat)  # type: ignore[no-untyped-call]
    return product.reshape(batch + product.shape[-2:])


def _terms(x: Tensor, y: Tensor) -> Tensor:
    """Shapes: (*, a, k), (*, k, b) -> (*, a, b, k)."""
    return x[..., :, None, :] + y.mT[..., None, :, :]


class _LogMatmul(torch.autograd.Function):
    """The product of a batch, part by part; the derivative by a term is its share of the sum."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        size, rows = _parts(x, y)
        return torch.cat(
            [
                torch.cat([log_sum_exp(_terms(part, other), (-1,)) for part in some.split(rows, -2)], -2)
                for some, other in zip(x.split(size), y.split(size), strict=True)
            ]
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, y, z = ctx.saved_tensors
        z = z.masked_fill(z == -torch.inf, torch.inf)  # impossible: no share
        size, rows = _parts(x, y)
        by_x, by_y = [], []
        for some in zip(*(v.split(size) for v in (x, y, z, gradient)), strict=True):
            found_x, found_y = [], torch.zeros_like(some[1])
            for row, sums, slopes in zip(*(some[i].split(rows, -2) for i in (0, 2, 3)), strict=True):
                share = (_terms(row, some[1]) - sums[..., None]).exp() * slopes[..., None]
                found_x.append(share.sum(-2))
                found_y = found_y + share.sum(-3).mT
            by_x.append(torch.cat(found_x, -2))
            by_y.append(found_y)
        return torch.cat(by_x), torch.cat(by_y)


def _parts(x: Tensor, y: Tensor) -> tuple[int, int]:
    """How many products, and how many rows of them, to work out at a time."""
    row = max(1, y.shape[-2] * y.shape[-1])
    rows = max(1, min(x.shape[-2], PART // row))
    return max(1, PART // (row * rows)), rows


def chain_maps(first: Bundle, second: Bundle) -> Bundle:
    """Apply one map after another; a map is the list of the images of 0 … K - 1. Shapes: (*, K), (*, K) -> (*, K)."""
    return (second[0].gather(-1, first[0]),)


def draw_index(logits: Tensor, sample_shape: tuple[int, ...] = ()) -> Tensor:
    """An index from each row of log weights. Shapes: (*, K) -> (*sample_shape, *)."""
    noise = torch.empty((*sample_shape, *logits.shape), dtype=logits.dtype, device=logits.device).exponential_()
    return (logits - noise.log()).argmax(-1)
