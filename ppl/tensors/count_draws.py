"""Draws of counts that graphs, compilers, vmap and the meta device can follow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# torch.binomial has no kernel for the meta device, and so cannot be compiled. This operator of our own is the same
# draw with the shape rule that torch's lacks.
_library = torch.library.Library("ppl", "FRAGMENT")
_library.define("binomial(Tensor count, Tensor prob) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))
_library.impl("binomial", lambda count, prob: torch.binomial(count, prob), "CompositeExplicitAutograd")
torch.library.register_fake("ppl::binomial", lambda count, prob: torch.empty_like(count), lib=_library)


def _batched(info: Any, in_dims: tuple[int | None, int | None], count: Tensor, prob: Tensor) -> tuple[Tensor, Any]:
    if info.randomness == "error" or (info.randomness == "same" and in_dims != (None, None)):
        raise RuntimeError("vmap over a binomial draw needs randomness='different'.")
    if info.randomness == "same":
        return torch.ops.ppl.binomial(count, prob), None
    moved = [
        t.movedim(dim, 0) if dim is not None else t.expand(info.batch_size, *t.shape)
        for t, dim in zip((count, prob), in_dims, strict=True)
    ]
    return torch.ops.ppl.binomial(*moved), 0


torch.library.register_vmap("ppl::binomial", _batched, lib=_library)


def draw_binomial(count: Tensor, prob: Tensor) -> Tensor:
    """The number of successes in `count` trials of probability `prob`; shapes broadcast."""
    count, prob = torch.broadcast_tensors(count, prob)
    with torch.no_grad():
        drawn: Tensor = torch.ops.ppl.binomial(count, prob)
    return drawn


def draw_multinomial(count: Tensor, weights: Tensor) -> Tensor:
    """Counts of K categories in `count` draws with chances proportional to `weights`.

    Binomials along a binary tree over the categories: log2 K draws, each of all the batch.

    Shapes: count (*batch), weights (*batch, K) -> (*batch, K); the batches broadcast.
    """
    count, weights = count.detach().to(weights.dtype), weights.detach()
    size = weights.shape[-1]
    depth = max(size - 1, 0).bit_length()
    level = torch.nn.functional.pad(weights, (0, 2**depth - size))
    left_shares = []  # from the leaves up: the chance of a pair's left half
    for _ in range(depth):
        left, right = level[..., 0::2], level[..., 1::2]
        level = left + right
        left_shares.append(torch.where(level == 0, 0.0, left / torch.where(level == 0, 1.0, level)))
    counts = count.unsqueeze(-1)
    for share in reversed(left_shares):
        counts, share = torch.broadcast_tensors(counts, share)
        left = draw_binomial(counts, share)
        counts = torch.stack([left, counts - left], -1).flatten(-2)
    return counts[..., :size].expand(torch.broadcast_shapes((*count.shape, size), weights.shape))


def draw_log_gamma(concentration: Tensor) -> Tensor:
    """Logs of standard gamma draws, which do not underflow where the concentration is small.

    A draw at a + 1 times U^(1/a) is a draw at a (Marsaglia & Tsang 2000).
    """
    with torch.no_grad():
        exponent = torch.empty_like(concentration).exponential_()
        drawn: Tensor = torch._standard_gamma(concentration + 1).log() - exponent / concentration
    return drawn


def draw_gamma_poisson(concentration: Tensor, scale: Tensor) -> Tensor:
    """Poisson counts whose rates are gamma draws; a concentration of 0 gives the count 0."""
    with torch.no_grad():
        rate = torch._standard_gamma(concentration.contiguous()) * scale
        # 2^62 is as far as the sampler counts
        drawn: Tensor = torch.poisson(torch.where(concentration == 0, 0.0, rate).clamp(max=2.0**62))
    return drawn
