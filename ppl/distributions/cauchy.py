"""The Cauchy distribution and its half."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.scalar import Half, Scalar
from ppl.tensors.logspace import log_positive

_LOG_PI = math.log(math.pi)
_LOG_HALF_PI = math.log(math.pi / 2)


def _noise(like: Tensor, sample_shape: ShapeLike) -> Tensor:
    shape = (*sample_shape, *like.shape)
    return torch.empty(shape, dtype=like.dtype, device=like.device).cauchy_()


class Cauchy(Scalar, torch.distributions.Cauchy, Distribution):
    """The Cauchy distribution with median `loc` and half width at half maximum `scale`."""

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
        return -_LOG_PI - self.scale.log() - _log_one_plus_square(z)

    def cdf(self, value: Tensor) -> Tensor:
        return _lower((value - self.loc) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * _quantile(value, 1 - value)

    def log_cdf(self, value: Tensor) -> Tensor:
        return _log_lower((value - self.loc) / self.scale)

    def log_survival(self, value: Tensor) -> Tensor:
        return _log_lower((self.loc - value) / self.scale)

    def inverse_log_cdf(self, log_p: Tensor) -> Tensor:
        return self.loc + self.scale * _quantile(log_p.exp(), -log_p.expm1())

    def inverse_log_survival(self, log_q: Tensor) -> Tensor:
        return self.loc - self.scale * _quantile(log_q.exp(), -log_q.expm1())


def _log_one_plus_square(z: Tensor) -> Tensor:
    """log(1 + z²), also where the square overflows."""
    far = z.abs() > 1e8
    square = torch.where(far, torch.zeros_like(z), z)
    return torch.where(far, 2 * torch.where(far, z, torch.ones_like(z)).abs().log(), torch.log1p(square * square))


def _lower(z: Tensor) -> Tensor:
    """P(Z <= z) = atan2(1, -z) / pi, which keeps its relative precision in the lower tail."""
    return torch.atan2(torch.ones_like(z), -z) / math.pi


def _log_lower(z: Tensor) -> Tensor:
    lower = z < 0
    far = _lower(torch.where(lower, z, torch.zeros_like(z))).log()
    near = torch.log1p(-_lower(torch.where(lower, torch.zeros_like(z), -z)))
    return torch.where(lower, far, near)


def _quantile(p: Tensor, q: Tensor) -> Tensor:
    """The z with P(Z <= z) = p = 1 - q, from the smaller of the two."""
    lower = p < q
    tan = torch.tan(math.pi * torch.where(lower, p, q))
    middle = (p - q).abs() < 0.5  # where the tangent is large, its argument tells less than p - q
    tilt = torch.tan(0.5 * math.pi * torch.where(middle, p - q, torch.zeros_like(p)))
    inverse = 1 / torch.where(middle, torch.ones_like(tan), tan)
    return torch.where(middle, tilt, torch.where(lower, -inverse, inverse))


class HalfCauchy(Half, torch.distributions.HalfCauchy, Distribution):
    """The absolute value of a Cauchy draw around 0."""

    whole = Cauchy
    noise = staticmethod(_noise)

    @staticmethod
    def log_density(z: Tensor) -> Tensor:
        """The log density of a draw of scale 1, at and above 0."""
        return -_LOG_HALF_PI - _log_one_plus_square(z)

    def cdf(self, value: Tensor) -> Tensor:
        return 2 / math.pi * torch.atan(value.clamp(min=0) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        lower = value < 0.5
        low = torch.tan(0.5 * math.pi * torch.where(lower, value, torch.zeros_like(value)))
        high = torch.tan(0.5 * math.pi * torch.where(lower, torch.ones_like(value), 1 - value))
        return self.scale * torch.where(lower, low, 1 / high)

    def log_cdf(self, value: Tensor) -> Tensor:
        z = value.clamp(min=0) / self.scale
        lower = z < 1
        far = log_positive(2 / math.pi * torch.atan(torch.where(lower, z, torch.zeros_like(z))))
        return torch.where(lower, far, torch.log1p(-2 * _lower(-torch.where(lower, torch.ones_like(z), z))))

    def log_survival(self, value: Tensor) -> Tensor:
        return (2 * _lower(-value.clamp(min=0) / self.scale)).log()

    def inverse_log_survival(self, log_q: Tensor) -> Tensor:
        half = 0.5 * log_q.exp()
        return self.scale * _quantile(1 - half, half)
