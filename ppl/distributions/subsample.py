"""The distribution of a plate's indices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import Distribution, ShapeLike


class Subsample(Distribution):
    """`subsample_size` different indices below `size`, in random order; all of them, in order, without subsampling.

    Shapes: a draw is (subsample_size,), of dtype int64.
    """

    arg_constraints = {}

    def __init__(self, size: int, subsample_size: int, device: torch.device | str | None = None) -> None:
        self.size, self.subsample_size, self.device = size, subsample_size, device
        vars(self).update(_batch_shape=Size(), _event_shape=Size((subsample_size,)), _validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.independent(constraints.integer_interval(0, self.size - 1), 1)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        if sample_shape:
            raise ValueError("Subsample: a plate has one set of indices; sample_shape must be ().")
        if self.subsample_size == self.size:
            return torch.arange(self.size, device=self.device)
        return torch.randperm(self.size, device=self.device)[: self.subsample_size].clone()

    def is_possible(self, value: Tensor) -> bool:
        """Whether a value is that many indices; a quick look, for the many plates that are replayed."""
        if value.shape != self.event_shape or value.dtype != torch.int64 or not self.subsample_size:
            return False
        low, high = value.aminmax()
        return low.item() >= 0 and high.item() < self.size

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.zeros((), device=value.device)


def same_plate(a: Distribution, b: Distribution) -> bool:
    """Whether two plate sites may share a name: one plate entered again, or two whole plates of one size."""
    if a is b:
        return True
    if not (isinstance(a, Subsample) and isinstance(b, Subsample)):
        return False
    return a.size == a.subsample_size == b.size == b.subsample_size
