"""The Laplace distribution, its skewed and its softened kin."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions import noise
from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.location_scale import LocationScale
from ppl.distributions.scalar import Scalar
from ppl.tensors.special import log1mexp

_LOG_2 = math.log(2)


class Laplace(LocationScale, torch.distributions.Laplace, Distribution):
    """The double exponential around `loc`: density exp(-|x - loc| / scale) / (2 scale)."""

    symmetric = True

    def _noise(self, sample_shape: ShapeLike) -> Tensor:
        return noise.exponential(self.loc, sample_shape) - noise.exponential(self.loc, sample_shape)

    def _log_density(self, z: Tensor) -> Tensor:
        return -z.abs() - _LOG_2

    def _cdf(self, z: Tensor) -> Tensor:
        half = 0.5 * (-z.abs()).exp()
        return torch.where(z < 0, half, 1 - half)

    def _log_cdf(self, z: Tensor) -> Tensor:
        return torch.where(z < 0, z - _LOG_2, torch.log1p(-0.5 * (-z.abs()).exp()))

    def _log_survival(self, z: Tensor) -> Tensor:
        return self._log_cdf(-z)

    def _icdf(self, q: Tensor) -> Tensor:
        low = torch.where(q < 0.5, q, 1 - q)
        return torch.where(q < 0.5, 1.0, -1.0) * (2 * low).log()

    def _inverse_log_cdf(self, log_p: Tensor) -> Tensor:
        lower = log_p < -_LOG_2
        return torch.where(lower, log_p + _LOG_2, -_LOG_2 - log1mexp(torch.where(lower, -_LOG_2, log_p)))

    def _mean(self) -> float:
        return 0.0

    def _variance(self) -> float:
        return 2.0

    def _entropy(self) -> float:
        return 1 + _LOG_2


class _TwoExponentials(Scalar, Distribution):
    """The difference of two exponential draws of means `right_scale` and `left_scale`, added to `loc`."""

    expands_without_init = True
    has_rsample = True
    support = constraints.real
    loc: Tensor
    scale: Tensor

    @property
    def left_scale(self) -> Tensor:
        """The scale of the side below `loc`."""
        raise NotImplementedError

    @property
    def right_scale(self) -> Tensor:
        """The scale of the side above `loc`."""
        raise NotImplementedError

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        right = self.right_scale * noise.exponential(self.loc, sample_shape)
        return self.loc + right - self.left_scale * noise.exponential(self.loc, sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        x, left, right = value - self.loc, self.left_scale, self.right_scale
        return -x.abs() / torch.where(x < 0, left, right) - (left + right).log()

    def cdf(self, value: Tensor) -> Tensor:
        return torch.where(value < self.loc, self.log_cdf(value).exp(), -self.log_survival(value).expm1())

    def log_cdf(self, value: Tensor) -> Tensor:
        """The logarithm of `cdf`, right also where that is tiny."""
        return self._log_below(value, lower=True)

    def log_survival(self, value: Tensor) -> Tensor:
        """The logarithm of 1 - `cdf`, right also where that is tiny."""
        return self._log_below(value, lower=False)

    def _log_below(self, value: Tensor, lower: bool) -> Tensor:
        x = value - self.loc if lower else self.loc - value
        near, far = (self.left_scale, self.right_scale) if lower else (self.right_scale, self.left_scale)
        total = near + far
        inner = (near / total).log() + x.clamp(max=0) / near
        outer = torch.log1p(-(far / total) * (-x.clamp(min=0) / far).exp())
        return torch.where(x < 0, inner, outer)

    def icdf(self, value: Tensor) -> Tensor:
        left, right = self.left_scale, self.right_scale
        below = left / (left + right)
        low = value < below
        lower = left * (torch.where(low, value, below) / below).log()
        upper = -right * ((1 - torch.where(low, below, value)) / (1 - below)).log()
        return self.loc + torch.where(low, lower, upper)

    @property
    def mean(self) -> Tensor:
        return self.loc + self.right_scale - self.left_scale

    @property
    def variance(self) -> Tensor:
        return self.right_scale.square() + self.left_scale.square()

    def entropy(self) -> Tensor:
        return 1 + (self.left_scale + self.right_scale).log()


class AsymmetricLaplace(_TwoExponentials):
    """A Laplace with scale `scale · asymmetry` below `loc` and `scale / asymmetry` above.

    Source: Kotz, Kozubowski & Podgórski 2001, chapter 3.
    """

    parameters = ("loc", "scale", "asymmetry")
    arg_constraints = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "asymmetry": constraints.positive,
    }
    asymmetry: Tensor

    def __init__(
        self,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        asymmetry: Tensor | float = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self._take((loc, scale, asymmetry), validate_args)

    @property
    def left_scale(self) -> Tensor:
        return self.scale * self.asymmetry

    @property
    def right_scale(self) -> Tensor:
        return self.scale / self.asymmetry


class AsymmetricLaplaceQuantile(_TwoExponentials):
    """A Laplace whose `quantile` is at `loc`: its log density is minus the check loss of quantile regression.

    Args: quantile, the probability below `loc`, in (0, 1).
    Source: Yu & Moyeed 2001.
    """

    parameters = ("loc", "scale", "quantile")
    arg_constraints = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "quantile": constraints.unit_interval,
    }
    quantile: Tensor

    def __init__(
        self,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        quantile: Tensor | float = 0.5,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self._take((loc, scale, quantile), validate_args)

    @property
    def left_scale(self) -> Tensor:
        return self.scale / (1 - self.quantile)

    @property
    def right_scale(self) -> Tensor:
        return self.scale / self.quantile


class SoftLaplace(LocationScale, Distribution):
    """A smooth Laplace, the hyperbolic secant: density 2 / (π scale (e^z + e^-z)), z = (x - loc) / scale."""

    symmetric = True

    def _noise(self, sample_shape: ShapeLike) -> Tensor:
        ratio = noise.normal(self.loc, sample_shape) / noise.normal(self.loc, sample_shape)
        return ratio.abs().clamp(min=torch.finfo(ratio.dtype).tiny).log()

    def _log_density(self, z: Tensor) -> Tensor:
        return math.log(2 / math.pi) - torch.logaddexp(z, -z)

    def _cdf(self, z: Tensor) -> Tensor:
        half = (2 / math.pi) * (-z.abs()).exp().atan()
        return torch.where(z < 0, half, 1 - half)

    def _log_cdf(self, z: Tensor) -> Tensor:
        small = (-z.abs()).exp().atan() * (2 / math.pi)
        tiny = torch.finfo(z.dtype).tiny
        # far out atan(e^z) is e^z, which underflows before its logarithm does
        low = torch.where(z < -30, z, small.clamp(min=tiny).log() - math.log(2 / math.pi)) + math.log(2 / math.pi)
        return torch.where(z < 0, low, torch.log1p(-small))

    def _log_survival(self, z: Tensor) -> Tensor:
        return self._log_cdf(-z)

    def _icdf(self, q: Tensor) -> Tensor:
        low = torch.where(q < 0.5, q, 1 - q)
        return torch.where(q < 0.5, 1.0, -1.0) * (low * (math.pi / 2)).tan().log()

    def _mean(self) -> float:
        return 0.0

    def _variance(self) -> float:
        return math.pi**2 / 4

    def _entropy(self) -> float:
        return math.log(2 * math.pi)


class SoftAsymmetricLaplace(Scalar, Distribution):
    """An asymmetric Laplace draw plus a normal one of standard deviation `scale · softness`.

    Source: Reed 2007, the normal-Laplace distribution.
    """

    expands_without_init = True
    has_rsample = True
    parameters = ("loc", "scale", "asymmetry", "softness")
    arg_constraints = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "asymmetry": constraints.positive,
        "softness": constraints.positive,
    }
    support = constraints.real
    loc: Tensor
    scale: Tensor
    asymmetry: Tensor
    softness: Tensor

    def __init__(
        self,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        asymmetry: Tensor | float = 1.0,
        softness: Tensor | float = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self._take((loc, scale, asymmetry, softness), validate_args)

    @property
    def left_scale(self) -> Tensor:
        """The scale of the exponential below `loc`."""
        return self.scale * self.asymmetry

    @property
    def right_scale(self) -> Tensor:
        """The scale of the exponential above `loc`."""
        return self.scale / self.asymmetry

    @property
    def soft_scale(self) -> Tensor:
        """The standard deviation of the normal draw."""
        return self.scale * self.softness

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        right = self.right_scale * noise.exponential(self.loc, sample_shape)
        left = self.left_scale * noise.exponential(self.loc, sample_shape)
        return self.loc + right - left + self.soft_scale * noise.normal(self.loc, sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        x, soft = (value - self.loc) / self.soft_scale, self.soft_scale
        sides = torch.logaddexp(_log_tail(x, soft / self.right_scale), _log_tail(-x, soft / self.left_scale))
        return sides - (self.left_scale + self.right_scale).log()

    def cdf(self, value: Tensor) -> Tensor:
        x, soft, left, right = (value - self.loc) / self.soft_scale, self.soft_scale, self.left_scale, self.right_scale
        above, below = _log_tail(x, soft / right).exp(), _log_tail(-x, soft / left).exp()
        cdf: Tensor = torch.special.ndtr(x) + (left * below - right * above) / (left + right)
        return cdf

    @property
    def mean(self) -> Tensor:
        return self.loc + self.right_scale - self.left_scale

    @property
    def variance(self) -> Tensor:
        return self.right_scale.square() + self.left_scale.square() + self.soft_scale.square()


def _log_tail(x: Tensor, rate: Tensor) -> Tensor:
    """log of exp(rate²/2 - rate x) Φ(x - rate), the exponential side of the convolution in units of the normal's scale."""
    t = (rate - x) * math.sqrt(0.5)
    inside = t > 0  # where Φ is small: there the exponents nearly cancel, and erfcx has them cancelled
    scaled: Tensor = cast(Any, torch.special).erfcx(torch.where(inside, t, torch.zeros_like(t)))
    far = -0.5 * x * x + scaled.log() - _LOG_2
    near = rate * (0.5 * rate - x) + torch.special.log_ndtr(torch.where(inside, torch.zeros_like(t), x - rate))
    return torch.where(inside, far, near)
