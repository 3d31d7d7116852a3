"""Tensors whose dims have names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Axes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Factor:
    """A tensor with one named axis a dim: `tensor.dim() == len(axes)`."""

    axes: Axes
    tensor: Tensor

    def size(self, axis: str) -> int:
        """The size of a named axis."""
        return self.tensor.size(self.axes.index(axis))

    def aligned(self, axes: Sequence[str]) -> Tensor:
        """The tensor with its dims in the order of `axes`, which must contain its own, and size 1 where it has none."""
        if self.axes == tuple(axes):
            return self.tensor
        order = [self.axes.index(axis) for axis in axes if axis in self.axes]
        moved = self.tensor.permute(order) if order != list(range(len(order))) else self.tensor
        if len(order) == len(axes):
            return moved
        return moved[tuple(slice(None) if axis in self.axes else None for axis in axes)]

    def sum(self, axes: Iterable[str]) -> Factor:
        """Summed over some axes."""
        gone = set(axes)
        dims = [i for i, axis in enumerate(self.axes) if axis in gone]
        if not dims:
            return self
        return Factor(tuple(a for a in self.axes if a not in gone), self.tensor.sum(dims))


def union(factors: Iterable[Factor]) -> Axes:
    """All axes of some factors, each once, in the order in which they come."""
    return tuple(dict.fromkeys(axis for factor in factors for axis in factor.axes))


def add(factors: Sequence[Factor]) -> Factor:
    """The sum of factors (the product of densities, in log space), broadcast over all their axes."""
    axes = union(factors)
    total = factors[0].aligned(axes)
    for factor in factors[1:]:
        total = total + factor.aligned(axes)
    return Factor(axes, total)


def weigh(log_weight: Factor, value: Factor) -> Factor:
    """exp(log_weight) · value, where a weight of zero wins over any value, infinite ones too."""
    axes = union((log_weight, value))
    weight, tensor = log_weight.aligned(axes).exp(), value.aligned(axes)
    zero = (weight == 0).expand(torch.broadcast_shapes(weight.shape, tensor.shape))
    return Factor(axes, weight * tensor.expand(zero.shape).masked_fill(zero, 0.0))


def take(factor: Factor, chosen: Mapping[str, Factor], batch: Sequence[str], rest: Sequence[str]) -> Tensor:
    """The entries of a factor at the chosen indices.

    Shapes: (*batch, *rest).
    """
    index: list[Tensor | slice] = []
    tensor = factor.tensor.permute(
        [factor.axes.index(a) for a in factor.axes if a not in rest] + [factor.axes.index(a) for a in rest]
    )
    for axis in (a for a in factor.axes if a not in rest):
        if axis in chosen:
            index.append(chosen[axis].aligned(batch)[None])  # no scalar indices: torch reads them with .item()
        else:
            shape = [1] * len(batch)
            shape[list(batch).index(axis)] = -1
            index.append(torch.arange(factor.size(axis), device=tensor.device).reshape([1, *shape]))
    return tensor[tuple(index)].squeeze(0) if index else tensor
