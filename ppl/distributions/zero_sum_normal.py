"""Normal arrays that sum to zero."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions import constraints
from ppl.distributions.distribution import ShapeLike
from ppl.distributions.family import Family


class ZeroSumNormal(Family):
    """Independent normal entries of one scale, given that they sum to zero along each event dim.

    A draw is an array of normal entries minus its means. The density is that of the degenerate normal on the subspace,
    with respect to its Lebesgue measure: of ∏(n_i - 1) orthonormal coordinates.

    Shapes: scale (*batch); a draw (*batch, | *event_shape).
    """

    arg_constraints = {"scale": constraints.positive}
    has_rsample = True
    scale: Tensor

    def __init__(self, scale: Tensor | float, event_shape: ShapeLike, validate_args: bool | None = None) -> None:
        shape = Size(event_shape)
        if not shape:
            raise ValueError("ZeroSumNormal: argument 'event_shape' must have at least one dim, such as (3,).")
        self._take({"scale": scale}, shape, validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """Arrays that sum to zero along each event dim."""
        return constraints.zero_sum(self.event_dim)

    @property
    def rank(self) -> int:
        """The number of dims of the subspace."""
        return math.prod(n - 1 for n in self.event_shape)

    def _wide(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape + (1,) * self.event_dim)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw, differentiably."""
        x = torch.randn(self.shape(sample_shape), dtype=self.scale.dtype, device=self.scale.device)
        for dim in range(-self.event_dim, 0):
            x = x - x.mean(dim, True)
        return x * self._wide(self.scale)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density. Shapes: (*sample, *batch, *event) -> (*sample, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        square = (value / self._wide(self.scale)).square().sum(tuple(range(-self.event_dim, 0)))
        return -0.5 * square - self.rank * (self.scale.log() + 0.5 * math.log(2 * math.pi))

    @property
    def mean(self) -> Tensor:
        return self.scale.new_zeros(self.shape())

    @property
    def variance(self) -> Tensor:
        share = math.prod(1 - 1 / n for n in self.event_shape)
        return self._wide(self.scale.square() * share).expand(self.shape())

    def entropy(self) -> Tensor:
        """Expected -log density."""
        return self.rank * (self.scale.log() + 0.5 * (1 + math.log(2 * math.pi)))

    @classmethod
    def infer_shapes(cls, **arg_shapes: Any) -> tuple[Size, Size]:
        """Batch and event shape from the scale's shape; `event_shape` is the shape itself."""
        return Size(arg_shapes["scale"]), Size(arg_shapes["event_shape"])
