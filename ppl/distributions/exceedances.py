"""Intervals whose upper ends may be infinite, entry by entry, and the way to them from the reals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from ppl.distributions.distribution import broadcast_shape
from ppl.distributions.registry import biject_to, transform_to
from ppl.distributions.transforms.elementwise import Elementwise


class Exceedances(constraints.Constraint):
    """From `lower_bound` to `upper_bound`, which is infinite for some entries and finite for others."""

    is_discrete = False
    event_dim = 0

    def __init__(self, lower_bound: Tensor, upper_bound: Tensor) -> None:
        self.lower_bound = lower_bound
        self.upper_bound = upper_bound
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return (value >= self.lower_bound) & (value <= self.upper_bound) & (value < torch.inf)

    def __repr__(self) -> str:
        return f"Exceedances({self.lower_bound}, {self.upper_bound})"


class ToExceedances(Elementwise):
    """low + exp(x) where the upper end is infinite, low + (high - low) sigmoid(x) where it is not."""

    def __init__(self, low: Tensor, high: Tensor, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.low, self.high = low, high
        self.bounded = high < torch.inf
        self.length = torch.where(self.bounded, high, low + 1) - low
        self.codomain = Exceedances(low, high)

    def forward_shape(self, shape: Size) -> Size:
        return broadcast_shape(shape, self.length.shape)

    def inverse_shape(self, shape: Size) -> Size:
        return self.forward_shape(shape)

    def _call(self, x: Tensor) -> Tensor:
        return self.low + torch.where(self.bounded, self.length * x.sigmoid(), torch.where(self.bounded, 0.0, x).exp())

    def _inverse(self, y: Tensor) -> Tensor:
        excess = y - self.low
        share = torch.where(self.bounded, excess / self.length, 0.5)
        return torch.where(
            self.bounded, share.log() - torch.log1p(-share), torch.where(self.bounded, 1.0, excess).log()
        )

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        inside = self.length.log() + logsigmoid(x) + logsigmoid(-x)
        return torch.where(self.bounded, inside, x)


@biject_to.register(Exceedances)
@transform_to.register(Exceedances)
def _to_exceedances(constraint: Any) -> ToExceedances:
    return ToExceedances(constraint.lower_bound, constraint.upper_bound)
