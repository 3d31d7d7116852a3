"""The Laplace distribution."""

from __future__ import annotations

import math

import torch
import torch.distributions as td
from torch import Tensor

from ppl.distributions.distribution import Distribution
from ppl.tensors.logspace import log1mexp

_LOG_2 = math.log(2.0)


class Laplace(td.Laplace, Distribution):
    """The double exponential around `loc`, with mean absolute deviation `scale` > 0."""

    def cdf(self, value: Tensor) -> Tensor:
        return self.log_cdf(value).exp()

    def icdf(self, value: Tensor) -> Tensor:
        lower = value < 0.5
        p = torch.where(lower, value, 1 - value)
        return self.loc + self.scale * torch.where(lower, (2 * p).log(), -(2 * p).log())

    def log_cdf(self, value: Tensor) -> Tensor:
        return _log_lower((value - self.loc) / self.scale)

    def log_survival(self, value: Tensor) -> Tensor:
        return _log_lower((self.loc - value) / self.scale)

    def inverse_log_cdf(self, log_p: Tensor) -> Tensor:
        return self.loc + self.scale * _quantile(log_p)

    def inverse_log_survival(self, log_q: Tensor) -> Tensor:
        return self.loc - self.scale * _quantile(log_q)


def _log_lower(z: Tensor) -> Tensor:
    lower = z < 0
    above = torch.log1p(-0.5 * torch.exp(-torch.where(lower, torch.zeros_like(z), z)))
    return torch.where(lower, z - _LOG_2, above)


def _quantile(log_p: Tensor) -> Tensor:
    """The z with log P(Z <= z) = log_p."""
    lower = log_p < -_LOG_2
    above = torch.where(lower, torch.full_like(log_p, -_LOG_2), log_p)
    return torch.where(lower, log_p + _LOG_2, -_LOG_2 - log1mexp(-above))
