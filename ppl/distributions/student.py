"""Student's t and the F distribution: ratios with an estimated variance below."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributions as td
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions import noise
from ppl.distributions.bounded import Bounded, keep_positive
from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.gamma import standard_gamma
from ppl.distributions.location_scale import LocationScale
from ppl.tensors.incomplete import log_beta_tails
from ppl.tensors.quantile import logit_betaincinv
from ppl.tensors.saddlepoint import log_beta_density, log_beta_function, widened

_LOG_2 = math.log(2.0)


class StudentT(LocationScale, td.StudentT, Distribution):
    """Student's t with `df` degrees of freedom, moved by `loc` and stretched by `scale`.

    The density is proportional to (1 + z² / df)^(-(df + 1) / 2), z = (x - loc) / scale.
    """

    symmetric = True

    parameters = ("df", "loc", "scale")
    arg_constraints: Any = {
        "df": constraints.positive,
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    df: Tensor

    def __init__(
        self,
        df: Tensor | float,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        validate_args: bool | None = None,
    ) -> None:
        self._take((df, loc, scale), validate_args)

    def _noise(self, sample_shape: ShapeLike) -> Tensor:
        half = 0.5 * self.df
        return noise.normal(self.df, sample_shape) * (half / standard_gamma(half, sample_shape)).sqrt()

    def _log_density(self, z: Tensor) -> Tensor:
        half = 0.5 * self.df
        log_norm = log_beta_function(torch.full_like(half, 0.5), half) + 0.5 * self.df.log()
        # log(1 + z² / df), also where the square overflows
        size = z.abs() / self.df.sqrt()
        large = size.clamp(min=1.0)
        log_power = 2 * large.log() + torch.log1p((size.clamp(max=1.0) / large).square())
        return -(half + 0.5) * log_power - log_norm

    def _log_tail(self, z: Tensor) -> Tensor:
        """log of the probability beyond |z| on one side."""
        size = (z.abs() / self.df.sqrt()).clamp(min=torch.finfo(z.dtype).tiny ** 0.5)
        ratio = size.square()
        half = 0.5 * self.df
        below, above = 1 / (1 + ratio), 1 / (1 + 1 / ratio)
        return log_beta_tails(half, torch.full_like(half, 0.5), below, above)[0] - _LOG_2

    def _cdf(self, z: Tensor) -> Tensor:
        tail = self._log_tail(z).exp()
        peak = self._log_density(torch.zeros_like(z)).exp()
        middle = z.abs() < 1e-6 * self.df.sqrt()  # where the tail has no derivative, but the whole has
        return torch.where(middle, 0.5 + peak * z, torch.where(z < 0, tail, 1 - tail))

    def _log_cdf(self, z: Tensor) -> Tensor:
        log_tail = self._log_tail(z)
        return torch.where(z < 0, log_tail, torch.log1p(-log_tail.exp()))

    def _log_survival(self, z: Tensor) -> Tensor:
        return self._log_cdf(-z)

    def _icdf(self, q: Tensor) -> Tensor:
        half = 0.5 * self.df
        both = 2 * torch.minimum(q, 1 - q)
        logit = logit_betaincinv(half, torch.full_like(half, 0.5), both)
        size = self.df.sqrt() * (-0.5 * logit).exp()
        return torch.where(q < 0.5, -size, size)

    def _mean(self) -> Tensor:
        return torch.where(self.df > 1, 0.0, torch.nan)

    def _variance(self) -> Tensor:
        finite = self.df > 2
        df = torch.where(finite, self.df, 3.0)
        return torch.where(finite, df / (df - 2), torch.where(self.df > 1, torch.inf, torch.nan))

    @property
    def mode(self) -> Tensor:
        return self.loc

    def _entropy(self) -> Tensor:
        return widened(_student_entropy, self.df)


def _student_entropy(df: Tensor) -> Tensor:
    half, above = 0.5 * df, 0.5 * (df + 1)
    log_norm = log_beta_function(torch.full_like(half, 0.5), half) + 0.5 * df.log()
    return above * (torch.digamma(above) - torch.digamma(half)) + log_norm


class FisherSnedecor(Bounded, td.FisherSnedecor, Distribution):
    """The F distribution: the ratio of two chi-squared draws, each divided by its degrees of freedom `df1`, `df2`."""

    parameters = ("df1", "df2")

    def __init__(self, df1: Tensor | float, df2: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((df1, df2), validate_args)

    def _fractions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The beta variable of which x is a function, and its complement."""
        ratio = (self.df1 / self.df2) * x
        return 1 / (1 + 1 / ratio), 1 / (1 + ratio)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        first, second = 0.5 * self.df1, 0.5 * self.df2
        upper = standard_gamma(first, sample_shape) / first
        return keep_positive(upper / (standard_gamma(second, sample_shape) / second))

    def _log_density(self, x: Tensor) -> Tensor:
        w, rest = self._fractions(x)
        log_density = log_beta_density(0.5 * self.df1, 0.5 * self.df2, w, rest)
        return log_density + w.log() + rest.log() - x.log()

    def _log_cdf(self, x: Tensor) -> Tensor:
        return log_beta_tails(0.5 * self.df1, 0.5 * self.df2, *self._fractions(x))[0]

    def _log_survival(self, x: Tensor) -> Tensor:
        return log_beta_tails(0.5 * self.df1, 0.5 * self.df2, *self._fractions(x))[1]

    def icdf(self, value: Tensor) -> Tensor:
        return (self.df2 / self.df1) * logit_betaincinv(0.5 * self.df1, 0.5 * self.df2, value).exp()

    @property
    def mean(self) -> Tensor:
        exists = self.df2 > 2
        df2 = torch.where(exists, self.df2, 3.0)
        return torch.where(exists, df2 / (df2 - 2), torch.inf)

    @property
    def mode(self) -> Tensor:
        return ((self.df1 - 2) / self.df1).clamp(min=0) * self.df2 / (self.df2 + 2)

    @property
    def variance(self) -> Tensor:
        exists = self.df2 > 4
        n = torch.where(exists, self.df2, 5.0)
        variance = 2 * (n / (n - 2)).square() * (self.df1 + n - 2) / (self.df1 * (n - 4))
        return torch.where(exists, variance, torch.inf)

    def entropy(self) -> Tensor:
        return widened(_fisher_entropy, self.df1, self.df2)


def _fisher_entropy(df1: Tensor, df2: Tensor) -> Tensor:
    a, b = 0.5 * df1, 0.5 * df2
    digammas = (1 - a) * torch.digamma(a) - (1 + b) * torch.digamma(b) + (a + b) * torch.digamma(a + b)
    return log_beta_function(a, b) + df2.log() - df1.log() + digammas
