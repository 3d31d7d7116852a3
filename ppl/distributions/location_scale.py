"""The short path of families on the whole line that are shifted and stretched copies of a standard one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import ShapeLike
from ppl.distributions.scalar import Scalar


class LocationScale(Scalar):
    """A mixin for draws loc + scale · z. Stands before torch's class.

    A subclass gives the standard draw's `_noise(sample_shape)` and `_log_density(z)`, and where there are any, its
    `_cdf`, `_log_cdf`, `_log_survival` (of z), `_icdf` (of a probability), `_mean`, `_variance` and `_entropy`.
    """

    expands_without_init = True
    has_rsample = True
    parameters: tuple[str, ...] = ("loc", "scale")
    arg_constraints: Any = {"loc": constraints.real, "scale": constraints.positive}
    support: Any = constraints.real
    symmetric = False  # whether z and -z have one law, so that both tails are inverted with all their digits
    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((loc, scale), validate_args)

    def _standardised(self, value: Tensor) -> Tensor:
        this: Any = self
        if this._validate_args:
            this._validate_sample(value)
        return (value - self.loc) / self.scale

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw, differentiably."""
        return torch.addcmul(self.loc, self._noise(sample_shape), self.scale)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density."""
        return self._log_density(self._standardised(value)) - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw up to the value."""
        return self._cdf(self._standardised(value))

    def log_cdf(self, value: Tensor) -> Tensor:
        """The logarithm of `cdf`, right also where that is tiny."""
        return self._log_cdf(self._standardised(value))

    def log_survival(self, value: Tensor) -> Tensor:
        """The logarithm of 1 - `cdf`, right also where that is tiny."""
        return self._log_survival(self._standardised(value))

    def icdf(self, value: Tensor) -> Tensor:
        """The value up to which draws fall with the given probability."""
        return self.loc + self.scale * self._icdf(value)

    def inverse_log_cdf(self, log_p: Tensor) -> Tensor:
        """The value up to which draws fall with log probability `log_p`."""
        return self.loc + self.scale * self._inverse_log_cdf(log_p)

    def inverse_log_survival(self, log_q: Tensor) -> Tensor:
        """The value above which draws fall with log probability `log_q`."""
        z = -self._inverse_log_cdf(log_q) if self.symmetric else self._icdf(-log_q.expm1())
        return self.loc + self.scale * z

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.loc + self.scale * self._mean()

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return self.scale * self.scale * self._variance()

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return self.variance.sqrt()

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        return self.scale.log() + self._entropy()

    def _noise(self, sample_shape: ShapeLike) -> Tensor:
        raise NotImplementedError

    def _log_density(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _cdf(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _log_cdf(self, z: Tensor) -> Tensor:
        return self._cdf(z).log()

    def _log_survival(self, z: Tensor) -> Tensor:
        return torch.log1p(-self._cdf(z))

    def _icdf(self, q: Tensor) -> Tensor:
        raise NotImplementedError

    def _inverse_log_cdf(self, log_p: Tensor) -> Tensor:
        return self._icdf(log_p.exp())

    def _mean(self) -> Tensor | float:
        raise NotImplementedError

    def _variance(self) -> Tensor | float:
        raise NotImplementedError

    def _entropy(self) -> Tensor | float:
        raise NotImplementedError
