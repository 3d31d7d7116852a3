"""The beta distribution, by its mean, moved and stretched, and Kumaraswamy's with quantiles in closed form."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributions as td
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions import noise
from ppl.distributions.bounded import Bounded, keep_inside_unit
from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.tensors.incomplete import log_beta_tails
from ppl.tensors.quantile import betaincinv, logit_beta_quantile
from ppl.tensors.saddlepoint import log_beta_density, log_beta_function, widened
from ppl.tensors.special import log1mexp, times_log, times_log1p

_EULER = 0.5772156649015329
_FIELD = cast(Tensor, None)  # stands where torch has a property, so that the object's own field is found


def standard_beta(a: Tensor, b: Tensor, sample_shape: ShapeLike = Size()) -> Tensor:
    """Beta draws, never 0 or 1, differentiable in both concentrations.

    The logit is the difference of the logs of two gamma draws, and each log that of a draw of concentration one higher
    plus log(U) / concentration, so that nothing underflows (Marsaglia & Tsang 2000).
    """
    return keep_inside_unit((_log_standard_gamma(a, sample_shape) - _log_standard_gamma(b, sample_shape)).sigmoid())


def _log_standard_gamma(a: Tensor, sample_shape: ShapeLike) -> Tensor:
    shape = (*sample_shape, *a.shape) if sample_shape else a.shape
    return torch._standard_gamma((a + 1).expand(shape)).log() - noise.exponential(a, sample_shape) / a


class Beta(Bounded, td.Beta, Distribution):
    """On the unit interval, with `concentration1` a for the ones and `concentration0` b for the zeros.

    The density is proportional to x^(a - 1) (1 - x)^(b - 1).
    """

    parameters: tuple[str, ...] = ("concentration1", "concentration0")
    concentration1 = _FIELD
    concentration0 = _FIELD

    def __init__(
        self,
        concentration1: Tensor | float,
        concentration0: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        self._take((concentration1, concentration0), validate_args)

    def _ends(self) -> tuple[float, float]:
        return 0.0, 1.0

    def _inner(self) -> float:
        return 0.5

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return standard_beta(self.concentration1, self.concentration0, sample_shape)

    def _log_density(self, x: Tensor) -> Tensor:
        return log_beta_density(self.concentration1, self.concentration0, x)

    def _log_cdf(self, x: Tensor) -> Tensor:
        return log_beta_tails(self.concentration1, self.concentration0, x)[0]

    def _log_survival(self, x: Tensor) -> Tensor:
        return log_beta_tails(self.concentration1, self.concentration0, x)[1]

    def icdf(self, value: Tensor) -> Tensor:
        return betaincinv(self.concentration1, self.concentration0, value)

    def inverse_log_cdf(self, log_p: Tensor) -> Tensor:
        return logit_beta_quantile(self.concentration1, self.concentration0, log_p, log1mexp(log_p)).sigmoid()

    def inverse_log_survival(self, log_q: Tensor) -> Tensor:
        return logit_beta_quantile(self.concentration1, self.concentration0, log1mexp(log_q), log_q).sigmoid()

    @property
    def mean(self) -> Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> Tensor:
        """The highest point; the end with the higher concentration where the density rises to both ends."""
        a, b = self.concentration1, self.concentration0
        inside = (a > 1) & (b > 1)
        interior = (a - 1) / torch.where(inside, a + b - 2, 1.0)
        return torch.where(inside, interior, torch.where(a > b, 1.0, torch.where(a < b, 0.0, 0.5)))

    @property
    def variance(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        total = a + b
        return (a / total) * (b / total) / (total + 1)

    def entropy(self) -> Tensor:
        return widened(_beta_entropy, self.concentration1, self.concentration0)

    def conjugate_update(self, other: Any) -> tuple[Beta, Tensor]:
        """The product of this density and another beta's, renormalised, and the log of its integral.

        A likelihood that as a function of the probability is beta-shaped, such as a binomial's, a Bernoulli's or a
        geometric's, updates a prior in this way.
        """
        if not isinstance(other, td.Beta):
            raise ValueError(
                f"{type(self).__name__}.conjugate_update needs a Beta over the same variable, but got "
                f"{type(other).__name__}."
            )
        a, b, c, d = self.concentration1, self.concentration0, other.concentration1, other.concentration0
        updated = Beta(a + c - 1, b + d - 1, validate_args=self._validate_args)
        joint = log_beta_function(updated.concentration1, updated.concentration0)
        return updated, joint - log_beta_function(a, b) - log_beta_function(c, d)


def _beta_entropy(a: Tensor, b: Tensor) -> Tensor:
    total = a + b
    digammas = (a - 1) * torch.digamma(a) + (b - 1) * torch.digamma(b) - (total - 2) * torch.digamma(total)
    return log_beta_function(a, b) - digammas


class BetaProportion(Beta):
    """The beta distribution by its `mean` m and its `concentration` k: of shapes m k and (1 - m) k."""

    parameters = ("mean", "concentration")
    arg_constraints = {"mean": constraints.unit_interval, "concentration": constraints.positive}
    mean = _FIELD
    concentration: Tensor

    def __init__(self, mean: Tensor | float, concentration: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((mean, concentration), validate_args)

    @property
    def concentration1(self) -> Tensor:  # type: ignore[override]
        """The concentration of the ones."""
        return self.mean * self.concentration

    @property
    def concentration0(self) -> Tensor:  # type: ignore[override]
        """The concentration of the zeros."""
        return (1 - self.mean) * self.concentration


class AffineBeta(Bounded, Distribution):
    """loc + scale · x for a beta draw x; on [loc, loc + scale]."""

    parameters = ("concentration1", "concentration0", "loc", "scale")
    arg_constraints = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    concentration1: Tensor
    concentration0: Tensor
    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        concentration1: Tensor | float,
        concentration0: Tensor | float,
        loc: Tensor | float,
        scale: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        self._take((concentration1, concentration0, loc, scale), validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """From `loc` to `loc + scale`."""
        return constraints.interval(*self._ends())

    def _ends(self) -> tuple[Tensor, Tensor]:
        return self.low, self.high

    def _inner(self) -> Tensor:
        return self.loc + 0.5 * self.scale

    @property
    def base_dist(self) -> Beta:
        """The distribution before it is moved and stretched."""
        return Beta(self.concentration1, self.concentration0, validate_args=False)

    @property
    def sample_size(self) -> Tensor:
        """The sum of the concentrations."""
        return self.concentration1 + self.concentration0

    @property
    def low(self) -> Tensor:
        """The lower end."""
        return self.loc

    @property
    def high(self) -> Tensor:
        """The upper end."""
        return self.loc + self.scale

    def _unit(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Where x lies between the ends, from either of them."""
        below, above = x - self.low, self.high - x
        return (below / self.scale).clamp(0.0, 1.0), (above / self.scale).clamp(0.0, 1.0)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        x = self.loc + self.scale * standard_beta(self.concentration1, self.concentration0, sample_shape)
        return torch.minimum(torch.maximum(x, self.low), self.high)

    def _log_density(self, x: Tensor) -> Tensor:
        return log_beta_density(self.concentration1, self.concentration0, *self._unit(x)) - self.scale.log()

    def _log_cdf(self, x: Tensor) -> Tensor:
        return log_beta_tails(self.concentration1, self.concentration0, *self._unit(x))[0]

    def _log_survival(self, x: Tensor) -> Tensor:
        return log_beta_tails(self.concentration1, self.concentration0, *self._unit(x))[1]

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * betaincinv(self.concentration1, self.concentration0, value)

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * self.base_dist.mean

    @property
    def mode(self) -> Tensor:
        return self.loc + self.scale * self.base_dist.mode

    @property
    def variance(self) -> Tensor:
        return self.scale.square() * self.base_dist.variance

    def entropy(self) -> Tensor:
        return self.base_dist.entropy() + self.scale.log()


class Kumaraswamy(Bounded, td.Kumaraswamy, Distribution):
    """On the unit interval, like a beta but with quantiles in closed form: distribution function 1 - (1 - x^a)^b.

    Source: Kumaraswamy 1980. a is `concentration1`, b `concentration0`.
    """

    parameters = ("concentration1", "concentration0")

    def __init__(
        self,
        concentration1: Tensor | float,
        concentration0: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        self._take((concentration1, concentration0), validate_args)

    @property
    def base_dist(self) -> td.Uniform:  # type: ignore[override]
        """A uniform draw, which the transforms lead to this one's."""
        zero = torch.zeros_like(self.concentration1)
        return td.Uniform(zero, zero + 1, validate_args=False)

    @property
    def transforms(self) -> list[Any]:  # type: ignore[override]
        """What leads from a uniform draw to this one's."""
        return [
            td.PowerTransform(exponent=self.concentration0.reciprocal()),
            td.AffineTransform(loc=1.0, scale=-1.0),
            td.PowerTransform(exponent=self.concentration1.reciprocal()),
        ]

    def _ends(self) -> tuple[float, float]:
        return 0.0, 1.0

    def _inner(self) -> float:
        return 0.5

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        tail = -noise.exponential(self.concentration1, sample_shape) / self.concentration0
        return keep_inside_unit((log1mexp(tail) / self.concentration1).exp())

    def _log_density(self, x: Tensor) -> Tensor:
        a, b = self.concentration1, self.concentration0
        log_power = a * torch.where(x > 0, x, 0.5).log()
        power = torch.where(x > 0, torch.expm1(log_power), -1.0)  # x^a - 1, accurate next to 1
        rest = torch.where(log_power < -0.7, times_log1p(b - 1, -log_power.exp()), times_log(b - 1, -power))
        return a.log() + b.log() + times_log(a - 1, x) + torch.where(x > 0, rest, 0.0)

    def _log_cdf(self, x: Tensor) -> Tensor:
        return log1mexp(self._log_survival(x))

    def _log_survival(self, x: Tensor) -> Tensor:
        return self.concentration0 * log1mexp(self.concentration1 * x.log())

    def cdf(self, value: Tensor) -> Tensor:
        return -torch.expm1(self.log_survival(value))

    def icdf(self, value: Tensor) -> Tensor:
        return (log1mexp(torch.log1p(-value) / self.concentration0) / self.concentration1).exp()

    def _log_moment(self, n: float) -> Tensor:
        b = self.concentration0
        return b.log() + log_beta_function(1 + n / self.concentration1, b)

    @property
    def mean(self) -> Tensor:
        return self._log_moment(1).exp()

    @property
    def mode(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        inside = (a > 1) & (b > 1)
        log_mode = ((a - 1).log() - (a * b - 1).log()) / a
        return torch.where(inside, log_mode.exp(), torch.nan)

    @property
    def variance(self) -> Tensor:
        first, second = self._log_moment(1), self._log_moment(2)
        return (2 * first).exp() * torch.expm1(second - 2 * first)

    def entropy(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        harmonic = torch.digamma(b + 1) + _EULER
        return (1 - 1 / b) + (1 - 1 / a) * harmonic - a.log() - b.log()
