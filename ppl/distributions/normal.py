"""The normal distribution and its kin."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Size, Tensor

from ppl.distributions.bounded import Bounded, keep_positive
from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.half import Half
from ppl.distributions.location_scale import LocationScale
from ppl.distributions.noise import normal
from ppl.tensors.constants import constant
from ppl.tensors.normal_tail import ndtr, ndtri_exp
from ppl.tensors.seen import Seen
from ppl.tensors.special import log_ndtr

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_HALF_LOG_HALF_PI = 0.5 * math.log(math.pi / 2)
_FIELD = cast(Tensor, None)  # stands where torch has a property, so that the object's own field is found


class Normal(LocationScale, torch.distributions.Normal, Distribution):
    """The normal distribution with mean `loc` and standard deviation `scale` > 0."""

    symmetric = True
    _drawn = Seen()  # the latest draw, and the noise that it was made of

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        noise = normal(self.loc, sample_shape)
        draw = torch.addcmul(self.loc, noise, self.scale)
        if draw.requires_grad:
            vars(self)["_drawn"] = Seen(draw, noise)
        return draw

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self._density_at((value - self.loc) / self.scale)

    def log_prob_of_draw(self, draw: Tensor) -> Tensor:
        if type(self) is not Normal:  # a class of one's own may draw in another way
            return self.log_prob(draw)
        noise = self._drawn.of(draw)
        if noise is not None:
            return self._density_at(noise)
        # the noise behind the draw, of which no parameter is part
        return self._density_at((draw.detach() - self.loc.detach()) / self.scale.detach())

    def _density_at(self, z: Tensor) -> Tensor:
        return torch.addcmul(constant(-_HALF_LOG_2PI, z), z, z, value=-0.5) - self.scale.log()

    def _cdf(self, z: Tensor) -> Tensor:
        return ndtr(z)

    def _log_cdf(self, z: Tensor) -> Tensor:
        return log_ndtr(z)

    def _log_survival(self, z: Tensor) -> Tensor:
        return log_ndtr(-z)

    def _icdf(self, q: Tensor) -> Tensor:
        return cast(Tensor, torch.special.ndtri(q))

    def _inverse_log_cdf(self, log_p: Tensor) -> Tensor:
        return ndtri_exp(log_p)

    def _mean(self) -> float:
        return 0.0

    def _variance(self) -> float:
        return 1.0

    def _entropy(self) -> float:
        return 0.5 + _HALF_LOG_2PI


class LogNormal(Bounded, torch.distributions.LogNormal, Distribution):
    """The exponential of a normal draw with mean `loc` and standard deviation `scale`."""

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
        return keep_positive(torch.addcmul(self.loc, normal(self.loc, sample_shape), self.scale).exp())

    def _standardised(self, x: Tensor) -> Tensor:
        return (x.log() - self.loc) / self.scale

    def _log_density(self, x: Tensor) -> Tensor:
        log = x.log()
        z = (log - self.loc) / self.scale
        return torch.addcmul(constant(-_HALF_LOG_2PI, z), z, z, value=-0.5) - self.scale.log() - log

    def log_prob_of_draw(self, draw: Tensor) -> Tensor:
        if type(self) is not LogNormal:
            return self.log_prob(draw)
        z = (draw.detach().log() - self.loc.detach()) / self.scale.detach()
        log = torch.addcmul(self.loc, z, self.scale)  # of the draw, as it was made of the noise z
        return torch.addcmul(constant(-_HALF_LOG_2PI, z), z, z, value=-0.5) - self.scale.log() - log

    def _log_cdf(self, x: Tensor) -> Tensor:
        return log_ndtr(self._standardised(x))

    def _log_survival(self, x: Tensor) -> Tensor:
        return log_ndtr(-self._standardised(x))

    def icdf(self, value: Tensor) -> Tensor:
        return keep_positive((self.loc + self.scale * torch.special.ndtri(value)).exp())

    def inverse_log_cdf(self, log_p: Tensor) -> Tensor:
        return keep_positive(self.base_dist.inverse_log_cdf(log_p).exp())

    def inverse_log_survival(self, log_q: Tensor) -> Tensor:
        return keep_positive(self.base_dist.inverse_log_survival(log_q).exp())

    @property
    def mean(self) -> Tensor:
        return (self.loc + 0.5 * self.scale.square()).exp()

    @property
    def mode(self) -> Tensor:
        return (self.loc - self.scale.square()).exp()

    @property
    def variance(self) -> Tensor:
        spread = self.scale.square()
        return torch.expm1(spread) * (2 * self.loc + spread).exp()

    def entropy(self) -> Tensor:
        return 0.5 + _HALF_LOG_2PI + self.scale.log() + self.loc


class HalfNormal(Half, torch.distributions.HalfNormal, Distribution):
    """The absolute value of a normal draw around 0 with standard deviation `scale`."""

    whole = Normal
    noise = staticmethod(normal)

    @staticmethod
    def log_density(z: Tensor) -> Tensor:
        """The log density of a draw of scale 1, at and above 0."""
        return torch.addcmul(constant(-_HALF_LOG_HALF_PI, z), z, z, value=-0.5)

    @staticmethod
    def below(z: Tensor) -> Tensor:
        """The distribution function of scale 1."""
        return torch.erf(z * math.sqrt(0.5))

    @staticmethod
    def log_above(z: Tensor) -> Tensor:
        """log of 1 minus the distribution function of scale 1."""
        return log_ndtr(-z) + math.log(2)

    @staticmethod
    def quantile(q: Tensor) -> Tensor:
        """The quantile function of scale 1."""
        return torch.erfinv(q) * math.sqrt(2)

    @property
    def mean(self) -> Tensor:
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Tensor:
        return self.scale.square() * (1 - 2 / math.pi)

    def entropy(self) -> Tensor:
        return self.scale.log() + 0.5 + _HALF_LOG_HALF_PI
