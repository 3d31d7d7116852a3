"""The Gumbel distribution."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributions as td
from torch import Tensor
from torch.distributions import constraints

from ppl.distributions import noise
from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.location_scale import LocationScale

_EULER = 0.5772156649015329


class Gumbel(LocationScale, td.Gumbel, Distribution):
    """The distribution of maxima, with mode `loc`: cumulative probabilities exp(-exp(-(x - loc) / scale))."""

    support = constraints.real

    @property
    def base_dist(self) -> Any:  # type: ignore[override]
        """The standard Gumbel that `transforms` shift and stretch."""
        return Gumbel(torch.zeros_like(self.loc), torch.ones_like(self.scale), validate_args=False)

    @property
    def transforms(self) -> Any:  # type: ignore[override]
        """From a standard draw to one of this distribution."""
        return [td.AffineTransform(self.loc, self.scale)]

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return self.loc

    def _noise(self, sample_shape: ShapeLike) -> Tensor:
        return -noise.exponential(self.loc, sample_shape).log()

    def _log_density(self, z: Tensor) -> Tensor:
        return -z - (-z).exp()

    def _cdf(self, z: Tensor) -> Tensor:
        return self._log_cdf(z).exp()

    def _log_cdf(self, z: Tensor) -> Tensor:
        return -(-z).exp()

    def _log_survival(self, z: Tensor) -> Tensor:
        # 1 - exp(-e) is e for e below the dtype's precision, and e underflows before its logarithm does
        small = (-z).exp()
        return torch.where(z > 40, -z, (-(-small.clamp(min=1e-18)).expm1()).log())

    def _icdf(self, q: Tensor) -> Tensor:
        return -(-q.log()).log()

    def _mean(self) -> float:
        return _EULER

    def _variance(self) -> float:
        return math.pi**2 / 6

    def _entropy(self) -> float:
        return 1 + _EULER
