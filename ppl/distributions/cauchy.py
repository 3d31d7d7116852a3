"""The Cauchy distribution and its half."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.half import Half
from ppl.distributions.location_scale import LocationScale
from ppl.tensors.constants import constant

_LOG_PI = math.log(math.pi)
_LOG_HALF_PI = math.log(math.pi / 2)


def _noise(like: Tensor, sample_shape: ShapeLike) -> Tensor:
    shape = (*sample_shape, *like.shape)
    return torch.empty(shape, dtype=like.dtype, device=like.device).cauchy_()


def _minus_log_one_plus_square(z: Tensor, number: float) -> Tensor:
    """A number minus log(1 + z²), also where z² overflows."""
    return torch.sub(constant(number, z), torch.hypot(z, constant(1.0, z)).log(), alpha=2)


class Cauchy(LocationScale, torch.distributions.Cauchy, Distribution):
    """The Cauchy distribution with median `loc` and half width at half maximum `scale`."""

    symmetric = True

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return torch.addcmul(self.loc, _noise(self.loc, sample_shape), self.scale)

    def _log_density(self, z: Tensor) -> Tensor:
        return _minus_log_one_plus_square(z, -_LOG_PI)

    def _cdf(self, z: Tensor) -> Tensor:
        return torch.atan2(torch.ones_like(z), -z) / math.pi

    def _log_survival(self, z: Tensor) -> Tensor:
        return self._log_cdf(-z)

    def _icdf(self, q: Tensor) -> Tensor:
        low = torch.where(q < 0.5, q, 1 - q)
        return torch.where(q < 0.5, -1.0, 1.0) / (math.pi * low).tan()

    def _mean(self) -> float:
        return math.nan

    def _variance(self) -> float:
        return math.inf

    def _entropy(self) -> float:
        return math.log(4 * math.pi)


class HalfCauchy(Half, torch.distributions.HalfCauchy, Distribution):
    """The absolute value of a Cauchy draw around 0."""

    whole = Cauchy
    noise = staticmethod(_noise)

    @staticmethod
    def log_density(z: Tensor) -> Tensor:
        """The log density of a draw of scale 1, at and above 0."""
        return _minus_log_one_plus_square(z, -_LOG_HALF_PI)

    @staticmethod
    def below(z: Tensor) -> Tensor:
        """The distribution function of scale 1."""
        return z.atan() * (2 / math.pi)

    @staticmethod
    def log_above(z: Tensor) -> Tensor:
        """log of 1 minus the distribution function of scale 1."""
        return (torch.atan2(torch.ones_like(z), z) * (2 / math.pi)).log()

    @staticmethod
    def quantile(q: Tensor) -> Tensor:
        """The quantile function of scale 1."""
        return (0.5 * math.pi * q).tan()

    @property
    def mean(self) -> Tensor:
        return torch.full_like(self.scale, torch.inf)

    @property
    def variance(self) -> Tensor:
        return torch.full_like(self.scale, torch.inf)

    def entropy(self) -> Tensor:
        return self.scale.log() + math.log(2 * math.pi)
