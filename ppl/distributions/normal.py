"""The normal distribution and its kin."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.location_scale import LocationScale
from ppl.distributions.noise import normal
from ppl.distributions.scalar import Half, Scalar

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_HALF_LOG_HALF_PI = 0.5 * math.log(math.pi / 2)
_FIELD = cast(Tensor, None)  # stands where torch has a property, so that the object's own field is found


class Normal(LocationScale, torch.distributions.Normal, Distribution):
    """The normal distribution with mean `loc` and standard deviation `scale` > 0."""

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return torch.addcmul(self.loc, normal(self.loc, sample_shape), self.scale)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        z = (value - self.loc) / self.scale
        return torch.addcmul(-_HALF_LOG_2PI - self.scale.log(), z, z, value=-0.5)

    def _cdf(self, z: Tensor) -> Tensor:
        return cast(Tensor, torch.special.ndtr(z))

    def _log_cdf(self, z: Tensor) -> Tensor:
        return cast(Tensor, torch.special.log_ndtr(z))

    def _log_survival(self, z: Tensor) -> Tensor:
        return cast(Tensor, torch.special.log_ndtr(-z))

    def _icdf(self, q: Tensor) -> Tensor:
        return cast(Tensor, torch.special.ndtri(q))

    def _mean(self) -> float:
        return 0.0

    def _variance(self) -> float:
        return 1.0

    def _entropy(self) -> float:
        return 0.5 + _HALF_LOG_2PI


class LogNormal(Scalar, torch.distributions.LogNormal, Distribution):
    """The exponential of a normal draw with mean `loc` and standard deviation `scale`."""

    expands_without_init = True
    parameters = ("loc", "scale")
    loc = _FIELD
    scale = _FIELD
    transforms = (torch.distributions.transforms.ExpTransform(),)  # type: ignore[assignment]

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((loc, scale), validate_args)

    @property
    def base_dist(self) -> Normal:  # type: ignore[override]
        """The distribution of the logarithm."""
        return Normal(self.loc, self.scale, validate_args=False)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return torch.addcmul(self.loc, normal(self.loc, sample_shape), self.scale).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log = value.log()
        z = (log - self.loc) / self.scale
        return torch.addcmul(-_HALF_LOG_2PI - self.scale.log() - log, z, z, value=-0.5)


class HalfNormal(Half, torch.distributions.HalfNormal, Distribution):
    """The absolute value of a normal draw around 0 with standard deviation `scale`."""

    whole = Normal
    noise = staticmethod(normal)

    @staticmethod
    def log_density(z: Tensor) -> Tensor:
        """The log density of a draw of scale 1, at and above 0."""
        return -_HALF_LOG_HALF_PI - 0.5 * z * z
