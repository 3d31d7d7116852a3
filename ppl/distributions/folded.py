"""Absolute values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import Distribution, ShapeLike, expanded
from ppl.distributions.lifting import Wraps
from ppl.distributions.normal import Normal
from ppl.distributions.prototype import log_prob_anywhere, unchecked
from ppl.tensors.normal_tail import ndtr
from ppl.tensors.special import log_diff_exp

_SQRT_TWO_OVER_PI = (2 / torch.pi) ** 0.5


class FoldedDistribution(Wraps):
    """The absolute value of a univariate draw of any distribution: its density at x is p(x) + p(-x).

    Raises: ValueError for a base with event dims.
    """

    arg_constraints = {}
    base_dist: Distribution

    def __init__(self, base_dist: torch.distributions.Distribution, validate_args: bool | None = None) -> None:
        if base_dist.event_shape:
            raise ValueError(
                f"FoldedDistribution: base_dist must be univariate, but {type(base_dist).__name__} has event shape "
                f"{tuple(base_dist.event_shape)}. Fold before to_event."
            )
        self.base_dist = unchecked(base_dist)
        super().__init__(base_dist.batch_shape, Size(), validate_args)

    @property
    def support(self) -> Any:
        return constraints.nonnegative_integer if self.base_dist.is_discrete else constraints.nonnegative

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return False

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        return FoldedDistribution(expanded(self.base_dist, batch_shape), self._validate_args)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.base_dist.sample(Size(sample_shape)).abs()

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.base_dist.rsample(Size(sample_shape)).abs()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        above, below = (log_prob_anywhere(self.base_dist, x) for x in (value, -value))
        both = _log_add(above, below)
        if self.base_dist.is_discrete:
            both = torch.where(value == 0, above, both)
        return torch.where(value >= 0, both, torch.full_like(both, -torch.inf))

    def cdf(self, value: Tensor) -> Tensor:
        if self.base_dist.is_discrete:
            raise NotImplementedError
        x = value.clamp(min=0)
        return torch.where(value >= 0, self.base_dist.cdf(x) - self.base_dist.cdf(-x), torch.zeros_like(value))

    def log_survival(self, value: Tensor) -> Tensor:
        if self.base_dist.is_discrete:
            raise NotImplementedError
        x = value.clamp(min=0)
        return _log_add(self.base_dist.log_survival(x), self.base_dist.log_cdf(-x))

    def log_cdf(self, value: Tensor) -> Tensor:
        if self.base_dist.is_discrete:
            raise NotImplementedError
        x = value.clamp(min=0)
        below = log_diff_exp(self.base_dist.log_cdf(x), self.base_dist.log_cdf(-x))
        return torch.where(value >= 0, below, torch.full_like(below, -torch.inf))

    @property
    def mean(self) -> Tensor:
        """In closed form for a normal base."""
        base: Any = self.base_dist
        if not isinstance(base, Normal):
            raise NotImplementedError(f"FoldedDistribution({type(base).__name__}) has no mean in closed form.")
        z = base.loc / base.scale
        mean: Tensor = base.scale * _SQRT_TWO_OVER_PI * torch.exp(-0.5 * z * z) + base.loc * (ndtr(z) - ndtr(-z))
        return mean

    @property
    def variance(self) -> Tensor:
        """In closed form for a normal base."""
        mean, base = self.mean, self.base_dist
        return base.variance + base.mean**2 - mean**2

    def __repr__(self) -> str:
        return f"FoldedDistribution({self.base_dist})"


def _log_add(a: Tensor, b: Tensor) -> Tensor:
    """torch.logaddexp, with gradient 0 where both are -inf."""
    some = (a > -torch.inf) | (b > -torch.inf)
    return torch.where(some, torch.logaddexp(torch.where(some, a, 0.0), b), torch.full_like(a, -torch.inf))
