"""The normal distribution and its kin."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.scalar import Half, Scalar
from ppl.tensors.logspace import log_positive
from ppl.tensors.normal_tail import log_ndtr, ndtr, ndtri_exp

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_HALF_LOG_HALF_PI = 0.5 * math.log(math.pi / 2)
_SQRT_HALF = math.sqrt(0.5)
_HALF_SQRT_PI = 0.5 * math.sqrt(math.pi)
_LOG_2 = math.log(2.0)
_FIELD = cast(Tensor, None)  # stands where torch has a property, so that the object's own field is found


def _noise(like: Tensor, sample_shape: ShapeLike) -> Tensor:
    if not sample_shape:
        return torch.randn_like(like)
    return torch.randn((*sample_shape, *like.shape), dtype=like.dtype, device=like.device)


class Normal(Scalar, torch.distributions.Normal, Distribution):
    """The normal distribution with mean `loc` and standard deviation `scale` > 0."""

    expands_without_init = True
    parameters = ("loc", "scale")

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((loc, scale), validate_args)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return torch.addcmul(self.loc, _noise(self.loc, sample_shape), self.scale)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        z = (value - self.loc) / self.scale
        return torch.addcmul(-_HALF_LOG_2PI - self.scale.log(), z, z, value=-0.5)

    def cdf(self, value: Tensor) -> Tensor:
        return ndtr((value - self.loc) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        quantile: Tensor = torch.special.ndtri(value)
        return torch.addcmul(self.loc, self.scale, quantile)

    def log_cdf(self, value: Tensor) -> Tensor:
        return log_ndtr((value - self.loc) / self.scale)

    def log_survival(self, value: Tensor) -> Tensor:
        return log_ndtr((self.loc - value) / self.scale)

    def inverse_log_cdf(self, log_p: Tensor) -> Tensor:
        return self.loc + self.scale * ndtri_exp(log_p)

    def inverse_log_survival(self, log_q: Tensor) -> Tensor:
        return self.loc - self.scale * ndtri_exp(log_q)


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
        return torch.addcmul(self.loc, _noise(self.loc, sample_shape), self.scale).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log = value.log()
        z = (log - self.loc) / self.scale
        return torch.addcmul(-_HALF_LOG_2PI - self.scale.log() - log, z, z, value=-0.5)

    def _z(self, value: Tensor) -> Tensor:
        """The standardised logarithm; -inf at 0 and below, without a gradient."""
        positive = value > 0
        z = (torch.where(positive, value, torch.ones_like(value)).log() - self.loc) / self.scale
        return torch.where(positive, z, torch.full_like(z, -torch.inf))

    def cdf(self, value: Tensor) -> Tensor:
        return ndtr(self._z(value))

    def icdf(self, value: Tensor) -> Tensor:
        return self.base_dist.icdf(value).exp()

    def log_cdf(self, value: Tensor) -> Tensor:
        return log_ndtr(self._z(value))

    def log_survival(self, value: Tensor) -> Tensor:
        return log_ndtr(-self._z(value))

    def inverse_log_cdf(self, log_p: Tensor) -> Tensor:
        return self.base_dist.inverse_log_cdf(log_p).exp()

    def inverse_log_survival(self, log_q: Tensor) -> Tensor:
        return self.base_dist.inverse_log_survival(log_q).exp()


class HalfNormal(Half, torch.distributions.HalfNormal, Distribution):
    """The absolute value of a normal draw around 0 with standard deviation `scale`."""

    whole = Normal
    noise = staticmethod(_noise)

    @staticmethod
    def log_density(z: Tensor) -> Tensor:
        """The log density of a draw of scale 1, at and above 0."""
        return -_HALF_LOG_HALF_PI - 0.5 * z * z

    def cdf(self, value: Tensor) -> Tensor:
        return torch.erf(_SQRT_HALF * value.clamp(min=0) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        tiny = value < 1e-6  # torch's erfinv has an absolute error of 1e-20 there
        z = torch.where(tiny, _HALF_SQRT_PI * value, torch.erfinv(torch.where(tiny, torch.zeros_like(value), value)))
        return self.scale * z / _SQRT_HALF

    def log_cdf(self, value: Tensor) -> Tensor:
        z = _SQRT_HALF * value / self.scale
        lower = z < 0.5
        far = log_positive(torch.erf(torch.where(lower, z, torch.zeros_like(z))))
        return torch.where(lower, far, torch.log1p(-torch.erfc(torch.where(lower, torch.ones_like(z), z))))

    def log_survival(self, value: Tensor) -> Tensor:
        return _LOG_2 + log_ndtr(-value.clamp(min=0) / self.scale)

    def inverse_log_survival(self, log_q: Tensor) -> Tensor:
        return -self.scale * ndtri_exp(log_q - _LOG_2)
