"""The Cauchy distribution and its half."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.scalar import Scalar

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


class HalfCauchy(Scalar, torch.distributions.HalfCauchy, Distribution):
    """The absolute value of a Cauchy draw around 0."""

    expands_without_init = True
    parameters = ("scale",)
    scale = cast(Tensor, None)  # stands where torch has a property
    transforms = (torch.distributions.transforms.AbsTransform(),)  # type: ignore[assignment]

    def __init__(self, scale: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((scale,), validate_args)

    @property
    def base_dist(self) -> Cauchy:  # type: ignore[override]
        """The distribution before the absolute value is taken."""
        return Cauchy(torch.zeros_like(self.scale), self.scale, validate_args=False)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return (_noise(self.scale, sample_shape) * self.scale).abs()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        z = value / self.scale
        log_prob = -_LOG_HALF_PI - self.scale.log() - torch.log1p(z * z)
        return torch.where(value >= 0, log_prob, -torch.inf)
