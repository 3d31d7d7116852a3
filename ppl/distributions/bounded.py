"""The short path of univariate families on part of the line."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import threshold

from ppl.distributions.scalar import Scalar


class Bounded(Scalar):
    """A mixin for families on a half line or an interval. Stands before torch's class.

    A subclass gives `rsample`, `support`, `_log_density(x)` for x in the support, and `_log_cdf(x)` and
    `_log_survival(x)` for x inside; for another support than the positive numbers, `_ends()` and `_inner()`.
    Outside the support the log density is -inf, and gradients are 0 there, never NaN.
    """

    expands_without_init = True
    has_rsample = True
    support: Any
    _validate_args: bool

    def _ends(self) -> tuple[Tensor | float, Tensor | float]:
        return 0.0, torch.inf

    def _inner(self) -> Tensor | float:
        """A point inside the support, to work with where the value is not."""
        return 1.0

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density, -inf outside the support."""
        this: Any = self
        if this._is_inside(value):
            return self._log_density(value)
        support = self.support
        if support is constraints.nonnegative:
            outside = value < 0
        elif support is constraints.positive:
            outside = value <= 0
        elif support is constraints.unit_interval:
            outside = (value < 0) | (value > 1)
        else:
            outside = ~support.check(value)
            x = torch.where(outside, self._inner(), value)
            return torch.where(outside, -torch.inf, self._log_density(x))
        inner: Any = self._inner()  # of these supports a number; filling is quicker than choosing
        return self._log_density(value.masked_fill(outside, inner)).masked_fill(outside, -torch.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw up to the value."""
        return self.log_cdf(value).exp()

    def log_cdf(self, value: Tensor) -> Tensor:
        """The logarithm of `cdf`, right also where that is tiny."""
        low, high = self._placed(value)
        inner = torch.where(low | high, self._inner(), value)
        return torch.where(low, -torch.inf, torch.where(high, 0.0, self._log_cdf(inner)))

    def log_survival(self, value: Tensor) -> Tensor:
        """The logarithm of 1 - `cdf`, right also where that is tiny."""
        low, high = self._placed(value)
        inner = torch.where(low | high, self._inner(), value)
        return torch.where(low, 0.0, torch.where(high, -torch.inf, self._log_survival(inner)))

    def _placed(self, value: Tensor) -> tuple[Tensor, Tensor]:
        this: Any = self
        if self._validate_args:
            this._validate_sample(value)
        low, high = self._ends()
        return value <= low, value >= high

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        this: Any = self
        variance: Tensor = this.variance
        return variance.sqrt()

    def _log_density(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _log_cdf(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _log_survival(self, x: Tensor) -> Tensor:
        raise NotImplementedError


def keep_positive(x: Tensor) -> Tensor:
    """Draws that underflowed, as the smallest normal number."""
    tiny = torch.finfo(x.dtype).tiny
    return threshold(x, tiny, tiny)  # in less time than clamp, whose gradient takes three operations


def keep_inside_unit(x: Tensor) -> Tensor:
    """Draws that rounding took to 0 or 1, as the numbers next to them."""
    info = torch.finfo(x.dtype)
    return x.clamp(min=info.tiny, max=1 - info.eps / 2)
