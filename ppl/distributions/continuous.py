"""Continuous distributions of torch on the real line or part of it, extended."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributions as td
from torch import Size, Tensor
from torch.distributions.relaxed_bernoulli import LogitRelaxedBernoulli
from torch.distributions.utils import broadcast_all

from ppl.distributions.composed import Composed
from ppl.distributions.distribution import Distribution, ShapeLike, broadcast_shape, forceable


class Beta(Composed, td.Beta, Distribution):
    """On the unit interval, with `concentration1` for the ones and `concentration0` for the zeros."""


class Chi2(td.Chi2, Distribution):
    """The chi-squared distribution with `df` degrees of freedom."""


class ContinuousBernoulli(td.ContinuousBernoulli, Distribution):
    """The density on the unit interval proportional to a Bernoulli's mass."""


class Exponential(td.Exponential, Distribution):
    """Waiting times at the given `rate`."""


class FisherSnedecor(td.FisherSnedecor, Distribution):
    """The F distribution with `df1` and `df2` degrees of freedom."""

    expands_without_init = True

    def __init__(self, df1: Tensor | float, df2: Tensor | float, validate_args: bool | None = None) -> None:
        self.df1, self.df2 = broadcast_all(df1, df2)
        self._gamma1 = td.Gamma(self.df1 * 0.5, self.df1, validate_args=False)
        self._gamma2 = td.Gamma(self.df2 * 0.5, self.df2, validate_args=False)
        Distribution.__init__(self, self.df1.shape, validate_args=validate_args)


class Gamma(td.Gamma, Distribution):
    """The gamma distribution with shape `concentration` and inverse scale `rate`."""


class GeneralizedPareto(td.GeneralizedPareto, Distribution):
    """Exceedances over a threshold `loc`, with a tail index `concentration`."""

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # torch's compares with a constant of the default dtype, and fails for any other
        z = (value - self.loc) / self.scale
        exponential = self.concentration.abs() < 1e-8
        k = torch.where(exponential, torch.ones_like(z), self.concentration)
        power = (1 / k + 1) * torch.log1p(k * z)
        log_prob: Tensor = -self.scale.log() - torch.where(exponential, z, power)
        return log_prob


class InverseGamma(Composed, td.InverseGamma, Distribution):
    """The reciprocal of a gamma draw."""


class Kumaraswamy(Composed, td.Kumaraswamy, Distribution):
    """On the unit interval, like a beta but with closed-form quantiles."""


class Pareto(Composed, td.Pareto, Distribution):
    """A power law above `scale` with exponent `alpha`."""

    has_rsample = forceable(td.TransformedDistribution.has_rsample)


class RelaxedBernoulli(td.RelaxedBernoulli, Distribution):
    """A differentiable coin on the unit interval; the lower the `temperature`, the closer to 0 and 1."""

    expands_without_init = True

    def __init__(
        self,
        temperature: Tensor | float,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None:
        base: Any = LogitRelaxedBernoulli
        td.TransformedDistribution.__init__(
            self, base(temperature, probs, logits, validate_args=False), td.SigmoidTransform(), validate_args
        )

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        return Size(arg_shapes["probs"] if "probs" in arg_shapes else arg_shapes["logits"]), Size()


class StudentT(td.StudentT, Distribution):
    """Student's t with `df` degrees of freedom around `loc`."""

    expands_without_init = True

    def __init__(
        self,
        df: Tensor | float,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        validate_args: bool | None = None,
    ) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        self._chi2 = td.Chi2(self.df, validate_args=False)
        Distribution.__init__(self, self.df.shape, validate_args=validate_args)


class Uniform(td.Uniform, Distribution):
    """Equally likely anywhere from `low` to `high`."""

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        return broadcast_shape(*arg_shapes.values()), Size()


class Weibull(Composed, td.Weibull, Distribution):
    """Life times with the given `scale` and shape `concentration`."""

    has_rsample = forceable(td.TransformedDistribution.has_rsample)
