"""The logistic distribution and a skewed one."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from ppl.distributions import noise
from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.location_scale import LocationScale
from ppl.tensors.special import log1mexp

_EULER = 0.5772156649015329


class Logistic(LocationScale, Distribution):
    """The distribution whose cumulative probabilities are sigmoid((x - loc) / scale)."""

    symmetric = True

    def _noise(self, sample_shape: ShapeLike) -> Tensor:
        first, second = noise.exponential(self.loc, sample_shape), noise.exponential(self.loc, sample_shape)
        return first.log() - second.log()

    def _log_density(self, z: Tensor) -> Tensor:
        size = z.abs()
        return -size - 2 * torch.log1p((-size).exp())

    def _cdf(self, z: Tensor) -> Tensor:
        return z.sigmoid()

    def _log_cdf(self, z: Tensor) -> Tensor:
        return logsigmoid(z)

    def _log_survival(self, z: Tensor) -> Tensor:
        return logsigmoid(-z)

    def _icdf(self, q: Tensor) -> Tensor:
        return q.log() - torch.log1p(-q)

    def _inverse_log_cdf(self, log_p: Tensor) -> Tensor:
        return log_p - log1mexp(log_p)

    def _mean(self) -> float:
        return 0.0

    def _variance(self) -> float:
        return math.pi**2 / 3

    def _entropy(self) -> float:
        return 2.0


class SkewLogistic(LocationScale, Distribution):
    """A logistic whose cumulative probabilities are sigmoid((x - loc) / scale) ** asymmetry.

    Source: Johnson, Kotz & Balakrishnan 1995, chapter 23, type I.
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
        loc: Tensor | float,
        scale: Tensor | float,
        asymmetry: Tensor | float = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self._take((loc, scale, asymmetry), validate_args)

    def _noise(self, sample_shape: ShapeLike) -> Tensor:
        return -_log_expm1(noise.exponential(self.loc, sample_shape) / self.asymmetry)

    def _log_density(self, z: Tensor) -> Tensor:
        # below 0, -z - (a + 1) softplus(-z) would cancel down to a · z
        rest = torch.log1p((-z.abs()).exp())
        return self.asymmetry.log() + torch.where(z < 0, self.asymmetry * z, -z) - (self.asymmetry + 1) * rest

    def _cdf(self, z: Tensor) -> Tensor:
        return self._log_cdf(z).exp()

    def _log_cdf(self, z: Tensor) -> Tensor:
        return self.asymmetry * logsigmoid(z)

    def _log_survival(self, z: Tensor) -> Tensor:
        log_cdf = self._log_cdf(z)
        return (-log_cdf.expm1()).log()

    def _icdf(self, q: Tensor) -> Tensor:
        return -_log_expm1(-q.log() / self.asymmetry)

    def _mean(self) -> Tensor:
        return torch.digamma(self.asymmetry) + _EULER

    def _variance(self) -> Tensor:
        return torch.polygamma(1, self.asymmetry) + math.pi**2 / 6

    def _entropy(self) -> Tensor:
        return self._mean() - self.asymmetry.log() + (self.asymmetry + 1) / self.asymmetry


def _log_expm1(x: Tensor) -> Tensor:
    """log(e^x - 1) for x > 0."""
    return x + (-(-x).expm1()).log()
