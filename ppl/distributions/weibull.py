"""Life times: Weibull's, Gompertz's, and Dagum's of incomes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributions as td
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from ppl.distributions import noise
from ppl.distributions.bounded import Bounded, keep_positive
from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.tensors.special import log1mexp, log_ratio

_EULER = 0.5772156649015329


class Weibull(Bounded, td.Weibull, Distribution):
    """Life times with the given `scale` and shape `concentration` k: survival function exp(-(x / scale)^k)."""

    parameters = ("scale", "concentration")

    def __init__(self, scale: Tensor | float, concentration: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((scale, concentration), validate_args)

    @property
    def base_dist(self) -> td.Exponential:  # type: ignore[override]
        """The distribution of (x / scale)^concentration."""
        return td.Exponential(torch.ones_like(self.scale), validate_args=False)

    @property
    def transforms(self) -> list[Any]:  # type: ignore[override]
        """What leads from (x / scale)^concentration to x."""
        power = td.PowerTransform(exponent=self.concentration.reciprocal())
        return [power, td.AffineTransform(loc=0, scale=self.scale)]

    def _log_power(self, x: Tensor) -> Tensor:
        """log of (x / scale)^concentration, which the survival function is exp of minus of."""
        return self.concentration * log_ratio(x, self.scale)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        log_power = noise.exponential(self.scale, sample_shape).log()
        return keep_positive(self.scale * (log_power / self.concentration).exp())

    def _log_density(self, x: Tensor) -> Tensor:
        log_power = self._log_power(x)
        return self.concentration.log() - x.log() + log_power - log_power.exp()

    def _log_cdf(self, x: Tensor) -> Tensor:
        return log1mexp(self._log_survival(x))

    def _log_survival(self, x: Tensor) -> Tensor:
        return -self._log_power(x).exp()

    def cdf(self, value: Tensor) -> Tensor:
        return -torch.expm1(self.log_survival(value))

    def icdf(self, value: Tensor) -> Tensor:
        return self.scale * ((-torch.log1p(-value)).log() / self.concentration).exp()

    @property
    def mean(self) -> Tensor:
        return self.scale * torch.lgamma(1 + 1 / self.concentration).exp()

    @property
    def mode(self) -> Tensor:
        k = self.concentration
        inside = k > 1
        return torch.where(inside, self.scale * (torch.log1p(-1 / torch.where(inside, k, 2.0)) / k).exp(), 0.0)

    @property
    def variance(self) -> Tensor:
        log_mean = torch.lgamma(1 + 1 / self.concentration)
        ratio = torch.lgamma(1 + 2 / self.concentration) - 2 * log_mean
        return self.scale.square() * (2 * log_mean).exp() * torch.expm1(ratio)

    def entropy(self) -> Tensor:
        k = self.concentration
        return _EULER * (1 - 1 / k) + self.scale.log() - k.log() + 1


class Gompertz(Bounded, Distribution):
    """Life times whose hazard, `concentration` · `rate` at 0, grows exponentially at `rate`.

    The survival function is exp(-concentration (exp(rate x) - 1)).
    """

    parameters = ("concentration", "rate")
    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative
    concentration: Tensor
    rate: Tensor

    def __init__(
        self, concentration: Tensor | float, rate: Tensor | float = 1.0, validate_args: bool | None = None
    ) -> None:
        self._take((concentration, rate), validate_args)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return torch.log1p(noise.exponential(self.rate, sample_shape) / self.concentration) / self.rate

    def _log_density(self, x: Tensor) -> Tensor:
        growth = self.rate * x
        return self.concentration.log() + self.rate.log() + growth - self.concentration * torch.expm1(growth)

    def _log_cdf(self, x: Tensor) -> Tensor:
        return log1mexp(self._log_survival(x))

    def _log_survival(self, x: Tensor) -> Tensor:
        return -self.concentration * torch.expm1(self.rate * x)

    def cdf(self, value: Tensor) -> Tensor:
        return -torch.expm1(self.log_survival(value))

    def icdf(self, value: Tensor) -> Tensor:
        return torch.log1p(-torch.log1p(-value) / self.concentration) / self.rate

    @property
    def mode(self) -> Tensor:
        return -self.concentration.log().clamp(max=0) / self.rate


class Dagum(Bounded, Distribution):
    """Incomes: distribution function (1 + (x / scale)^-sharpness)^-concentration.

    Source: Dagum 1977, the inverse Burr distribution.
    """

    parameters = ("concentration", "sharpness", "scale")
    arg_constraints = {
        "concentration": constraints.positive,
        "sharpness": constraints.positive,
        "scale": constraints.positive,
    }
    support = constraints.positive
    concentration: Tensor
    sharpness: Tensor
    scale: Tensor

    def __init__(
        self,
        concentration: Tensor | float,
        sharpness: Tensor | float,
        scale: Tensor | float = 1.0,
        validate_args: bool | None = None,
    ) -> None:
        self._take((concentration, sharpness, scale), validate_args)

    def _logit(self, x: Tensor) -> Tensor:
        return self.sharpness * log_ratio(x, self.scale)

    def _at_log(self, log_cdf: Tensor) -> Tensor:
        """The quantile of a probability whose log is given."""
        share = log_cdf / self.concentration
        logit = share - log1mexp(share)
        return keep_positive(self.scale * (logit / self.sharpness).exp())

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self._at_log(-noise.exponential(self.scale, sample_shape))

    def _log_density(self, x: Tensor) -> Tensor:
        z = self._logit(x)
        return (
            self.sharpness.log()
            + self.concentration.log()
            - x.log()
            + self.concentration * logsigmoid(z)
            + logsigmoid(-z)
        )

    def _log_cdf(self, x: Tensor) -> Tensor:
        return self.concentration * logsigmoid(self._logit(x))

    def _log_survival(self, x: Tensor) -> Tensor:
        return log1mexp(self._log_cdf(x))

    def icdf(self, value: Tensor) -> Tensor:
        return self._at_log(value.log())

    def _log_moment(self, n: float) -> Tensor:
        p, step = self.concentration, n / self.sharpness
        exists = step < 1
        step = torch.where(exists, step, 0.5)
        log_moment = torch.lgamma(1 - step) + torch.lgamma(p + step) - torch.lgamma(p)
        return torch.where(exists, log_moment, torch.inf)

    @property
    def mean(self) -> Tensor:
        return self.scale * self._log_moment(1).exp()

    @property
    def mode(self) -> Tensor:
        inside = self.sharpness * self.concentration > 1
        odds = (self.sharpness * self.concentration - 1) / (self.sharpness + 1)
        return torch.where(inside, self.scale * (torch.where(inside, odds, 1.0).log() / self.sharpness).exp(), 0.0)

    @property
    def variance(self) -> Tensor:
        first, second = self._log_moment(1), self._log_moment(2)
        exists = second.isfinite()
        first, second = torch.where(exists, first, 0.0), torch.where(exists, second, 1.0)
        variance = self.scale.square() * (2 * first).exp() * torch.expm1(second - 2 * first)
        return torch.where(exists, variance, torch.inf)

    def entropy(self) -> Tensor:
        p, a = self.concentration, self.sharpness
        spread = torch.digamma(p) + _EULER
        return self.scale.log() - a.log() - p.log() + spread * (1 + 1 / a) + 1 + 1 / p
