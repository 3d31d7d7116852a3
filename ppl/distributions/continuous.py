"""Continuous distributions of torch on the real line or part of it, extended."""

from __future__ import annotations

import torch.distributions as td

from ppl.distributions.distribution import Distribution


class Beta(td.Beta, Distribution):
    """On the unit interval, with `concentration1` for the ones and `concentration0` for the zeros."""


class Cauchy(td.Cauchy, Distribution):
    """The Cauchy distribution with median `loc` and half width at half maximum `scale`."""


class Chi2(td.Chi2, Distribution):
    """The chi-squared distribution with `df` degrees of freedom."""


class ContinuousBernoulli(td.ContinuousBernoulli, Distribution):
    """The density on the unit interval proportional to a Bernoulli's mass."""


class Exponential(td.Exponential, Distribution):
    """Waiting times at the given `rate`."""


class FisherSnedecor(td.FisherSnedecor, Distribution):
    """The F distribution with `df1` and `df2` degrees of freedom."""


class Gamma(td.Gamma, Distribution):
    """The gamma distribution with shape `concentration` and inverse scale `rate`."""


class GeneralizedPareto(td.GeneralizedPareto, Distribution):
    """Exceedances over a threshold `loc`, with a tail index `concentration`."""


class Gumbel(td.Gumbel, Distribution):
    """The distribution of maxima with mode `loc`."""


class HalfCauchy(td.HalfCauchy, Distribution):
    """The absolute value of a Cauchy draw around 0."""


class HalfNormal(td.HalfNormal, Distribution):
    """The absolute value of a normal draw around 0 with standard deviation `scale`."""


class InverseGamma(td.InverseGamma, Distribution):
    """The reciprocal of a gamma draw."""


class Kumaraswamy(td.Kumaraswamy, Distribution):
    """On the unit interval, like a beta but with closed-form quantiles."""


class Laplace(td.Laplace, Distribution):
    """The double exponential around `loc`."""


class LogNormal(td.LogNormal, Distribution):
    """The exponential of a normal draw with mean `loc` and standard deviation `scale`."""


class Pareto(td.Pareto, Distribution):
    """A power law above `scale` with exponent `alpha`."""


class RelaxedBernoulli(td.RelaxedBernoulli, Distribution):
    """A differentiable coin on the unit interval; the lower the `temperature`, the closer to 0 and 1."""


class StudentT(td.StudentT, Distribution):
    """Student's t with `df` degrees of freedom around `loc`."""


class Uniform(td.Uniform, Distribution):
    """Equally likely anywhere from `low` to `high`."""


class VonMises(td.VonMises, Distribution):
    """Angles around `loc`, in radians."""


class Weibull(td.Weibull, Distribution):
    """Life times with the given `scale` and shape `concentration`."""
