"""A function applied slice by slice, whose backward pass computes each slice again instead of remembering it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Work = Callable[..., tuple[Tensor, ...]]
Dims = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A slice: where it starts and how many elements it has."""

    start: int
    size: int

    def of(self, tensor: Tensor, dim: int | None) -> Tensor:
        """The slice of a tensor along a dim; all of it without one."""
        return tensor if dim is None else tensor.narrow(dim, self.start, self.size)


def recomputed(
    work: Work, parts: Sequence[Part], dims: Dims, joins: Callable[[], Dims], tensors: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Apply `work` to each part of the tensors, and put its results together.

    Args:
        work: from slices of all tensors to some tensors; deterministic.
        dims: the dim along which each tensor is cut; None for one that every part gets as a whole.
        joins: asked after work was done: for each result the dim along which parts are joined; None for one that is
            summed over the parts.
    """
    results: tuple[Tensor, ...] = _Recomputed.apply(work, parts, dims, joins, *tensors)  # type: ignore[no-untyped-call]
    return results


class _Recomputed(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        work: Work, parts: Sequence[Part], dims: Dims, joins: Callable[[], Dims], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        together: list[_Together] = []
        for part in parts:
            found = work(*(part.of(t, d) for t, d in zip(tensors, dims, strict=True)))
            together = together or [_Together(parts, dim) for dim in joins()]
            for one, result in zip(together, found, strict=True):
                one.put(part, result)
            del found, result
        return tuple(one.value() for one in together)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        work, parts, dims, joins, *tensors = inputs
        ctx.work, ctx.parts, ctx.dims, ctx.joins = work, parts, dims, joins()
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[4:]) if needed]
        together = [_Together(ctx.parts, ctx.dims[i]) for i in wanted]
        for part in ctx.parts:
            slices = [part.of(t, d) for t, d in zip(tensors, ctx.dims, strict=True)]
            slopes = tuple(part.of(g, d) for g, d in zip(gradients, ctx.joins, strict=True))
            found = _pull_back(ctx.work, slices, wanted, slopes)
            for one, result in zip(together, found, strict=True):
                one.put(part, result)
            del found, result
        by: dict[int, Tensor] = {i: one.value() for i, one in zip(wanted, together, strict=True)}
        return (None, None, None, None, *(by.get(i) for i in range(len(tensors))))


def _pull_back(work: Work, slices: list[Tensor], wanted: list[int], slopes: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    def of_wanted(*some: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(wanted, some, strict=True))
        return work(*(given.get(i, t) for i, t in enumerate(slices)))

    pull = torch.func.vjp(of_wanted, *(slices[i] for i in wanted))[1]
    found: tuple[Tensor, ...] = pull(slopes)
    return found


class _Together:
    """Results of all parts: side by side along a dim, or their sum."""

    def __init__(self, parts: Sequence[Part], dim: int | None) -> None:
        self.length, self.dim = parts[-1].start + parts[-1].size, dim
        self.pieces: list[Tensor] = []

    def put(self, part: Part, piece: Tensor) -> None:
        if self.dim is None:
            self.pieces = [self.pieces[0] + piece] if self.pieces else [piece]
        elif part.size == self.length or torch._C._are_functorch_transforms_active():
            self.pieces.append(piece)  # a batch of tensors cannot be written into one
        else:
            if not self.pieces:
                shape = list(piece.shape)
                shape[self.dim] = self.length
                self.pieces = [piece.new_empty(shape)]
            self.pieces[0].narrow(self.dim, part.start, part.size).copy_(piece)

    def value(self) -> Tensor:
        if len(self.pieces) == 1:
            return self.pieces[0]
        assert self.dim is not None
        return torch.cat(self.pieces, self.dim)
