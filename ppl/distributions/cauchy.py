"""The Cauchy distribution and its half."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.scalar import Half, Scalar

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
        return -_LOG_PI - self.scale.log() - torch.log1p(z * z)


class HalfCauchy(Half, torch.distributions.HalfCauchy, Distribution):
    """The absolute value of a Cauchy draw around 0."""

    whole = Cauchy
    noise = staticmethod(_noise)

    @staticmethod
    def log_density(z: Tensor) -> Tensor:
        """The log density of a draw of scale 1, at and above 0."""
        return -_LOG_HALF_PI - torch.log1p(z * z)
