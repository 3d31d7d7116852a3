"""Power laws: Pareto's, the generalised one of exceedances, and truncated ones."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributions as td
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions import noise
from ppl.distributions.bounded import Bounded
from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.exceedances import Exceedances
from ppl.distributions.ordered_ends import check_ends
from ppl.tensors import tilted
from ppl.tensors.saddlepoint import widened
from ppl.tensors.special import log1mexp, log_ratio, times_log1p


class _PowerLaw(Bounded):
    """Density proportional to x^-(exponent + 1) above a lower end."""

    @property
    def _low(self) -> Tensor:
        raise NotImplementedError

    @property
    def _exponent(self) -> Tensor:
        raise NotImplementedError

    def _ends(self) -> tuple[Tensor, float]:
        return self._low, torch.inf

    def _inner(self) -> Tensor:
        return 2 * self._low

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        draw = self._low * (noise.exponential(self._low, sample_shape) / self._exponent).exp()
        return torch.maximum(draw, self._low)

    def _log_density(self, x: Tensor) -> Tensor:
        return self._exponent.log() - self._low.log() - (self._exponent + 1) * log_ratio(x, self._low)

    def _log_cdf(self, x: Tensor) -> Tensor:
        return log1mexp(self._log_survival(x))

    def _log_survival(self, x: Tensor) -> Tensor:
        return -self._exponent * log_ratio(x, self._low)

    def cdf(self, value: Tensor) -> Tensor:
        return -torch.expm1(self.log_survival(value))

    def icdf(self, value: Tensor) -> Tensor:
        return self._low * (-torch.log1p(-value) / self._exponent).exp()

    @property
    def mean(self) -> Tensor:
        exists = self._exponent > 1
        a = torch.where(exists, self._exponent, 2.0)
        return torch.where(exists, self._low * a / (a - 1), torch.inf)

    @property
    def mode(self) -> Tensor:
        return self._low

    @property
    def variance(self) -> Tensor:
        exists = self._exponent > 2
        a = torch.where(exists, self._exponent, 3.0)
        return torch.where(exists, self._low.square() * a / ((a - 1).square() * (a - 2)), torch.inf)

    def entropy(self) -> Tensor:
        return self._low.log() - self._exponent.log() + 1 + 1 / self._exponent


class Pareto(_PowerLaw, td.Pareto, Distribution):
    """A power law above `scale` with exponent `alpha`: density alpha scale^alpha / x^(alpha + 1)."""

    parameters = ("scale", "alpha")

    def __init__(self, scale: Tensor | float, alpha: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((scale, alpha), validate_args)

    @property
    def base_dist(self) -> td.Exponential:  # type: ignore[override]
        """The distribution of log(x / scale)."""
        return td.Exponential(self.alpha, validate_args=False)

    @property
    def transforms(self) -> list[Any]:  # type: ignore[override]
        """What leads from log(x / scale) to x."""
        return [td.ExpTransform(), td.AffineTransform(loc=0, scale=self.scale)]

    @property
    def _low(self) -> Tensor:
        return self.scale

    @property
    def _exponent(self) -> Tensor:
        return self.alpha


class LowerTruncatedPowerLaw(_PowerLaw, Distribution):
    """Density proportional to x^alpha above `low`, for alpha < -1."""

    parameters = ("alpha", "low")
    arg_constraints = {"alpha": constraints.less_than(-1.0), "low": constraints.positive}
    alpha: Tensor
    low: Tensor

    def __init__(self, alpha: Tensor | float, low: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((alpha, low), validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """From `low` on."""
        return constraints.greater_than_eq(self.low)

    @property
    def _low(self) -> Tensor:
        return self.low

    @property
    def _exponent(self) -> Tensor:
        return -1 - self.alpha


class DoublyTruncatedPowerLaw(Bounded, Distribution):
    """Density proportional to x^alpha from `low` to `high`, both positive, for any alpha; smooth through alpha = -1.

    log(x / low) / log(high / low) is a uniform draw tilted by (1 + alpha) log(high / low).
    """

    parameters = ("alpha", "low", "high")
    arg_constraints = {"alpha": constraints.real, "low": constraints.positive, "high": constraints.positive}
    alpha: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        alpha: Tensor | float,
        low: Tensor | float,
        high: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        self._take((alpha, low, high), validate_args)
        check_ends(self)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """From `low` to `high`."""
        return constraints.interval(self.low, self.high)

    def _ends(self) -> tuple[Tensor, Tensor]:
        return self.low, self.high

    def _inner(self) -> Tensor:
        return 0.5 * (self.low + self.high)

    def _tilt(self) -> tuple[Tensor, Tensor]:
        """The length of the support on a log scale, and by how much it is tilted."""
        length = log_ratio(self.high, self.low)
        return length, (1 + self.alpha) * length

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.icdf(noise.uniform(self.low, sample_shape))

    def _log_density(self, x: Tensor) -> Tensor:
        length, c = self._tilt()
        from_low = self.alpha * log_ratio(x, self.low) - tilted.log_normaliser(c) - self.low.log()
        from_high = self.alpha * log_ratio(x, self.high) - tilted.log_normaliser(-c) - self.high.log()
        return torch.where(c < 0, from_low, from_high) - length.log()

    def _position(self, x: Tensor) -> Tensor:
        return log_ratio(x, self.low) / log_ratio(self.high, self.low)

    def _log_cdf(self, x: Tensor) -> Tensor:
        return tilted.log_cdf(self._position(x), self._tilt()[1])

    def _log_survival(self, x: Tensor) -> Tensor:
        return tilted.log_survival(self._position(x), self._tilt()[1])

    def icdf(self, value: Tensor) -> Tensor:
        length, c = self._tilt()
        x = self.low * (tilted.icdf(value, c) * length).exp()
        return torch.minimum(torch.maximum(x, self.low), self.high)

    def _log_moment(self, n: float) -> Tensor:
        length, c = self._tilt()
        return n * self.low.log() + tilted.log_normaliser(c + n * length) - tilted.log_normaliser(c)

    @property
    def mean(self) -> Tensor:
        return self._log_moment(1).exp()

    @property
    def mode(self) -> Tensor:
        return torch.where(self.alpha > 0, self.high, self.low)

    @property
    def variance(self) -> Tensor:
        first, second = self._log_moment(1), self._log_moment(2)
        return (2 * first).exp() * torch.expm1(second - 2 * first)

    def entropy(self) -> Tensor:
        length, c = self._tilt()
        log_x = self.low.log() + length * tilted.mean(c)
        return log_x - c * tilted.mean(c) + length.log() + tilted.log_normaliser(c)


class GeneralizedPareto(Bounded, td.GeneralizedPareto, Distribution):
    """Exceedances over a threshold `loc`, with a tail index `concentration` k; smooth through k = 0, the exponential.

    The survival function is (1 + k z)^(-1 / k), z = (x - loc) / scale; for k < 0 the support ends at z = -1 / k.
    """

    parameters = ("loc", "scale", "concentration")

    def __init__(
        self,
        loc: Tensor | float,
        scale: Tensor | float,
        concentration: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        self._take((loc, scale, concentration), validate_args)

    def _ends(self) -> tuple[Tensor, Tensor]:
        k = self.concentration
        bounded = k < 0
        return self.loc, torch.where(bounded, self.loc - self.scale / torch.where(bounded, k, -1.0), torch.inf)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """From `loc` on; up to `loc - scale / concentration` where the concentration is negative."""
        return Exceedances(*self._ends())

    def _inner(self) -> Tensor:
        k = self.concentration
        return self.loc + 0.5 * self.scale / (1 + k.abs())

    def _hazard(self, z: Tensor) -> Tensor:
        """log(1 + k z) / k: minus the log of the survival function."""
        y = self.concentration * z
        near = y.abs() < 1e-3
        small, large = torch.where(near, y, 0.0), torch.where(near, 1.0, y).clamp(min=-1.0)
        series = 1 - small * (1 / 2 - small * (1 / 3 - small * (1 / 4 - small / 5)))
        return z * torch.where(near, series, torch.log1p(large) / large)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self._at_hazard(noise.exponential(self.loc, sample_shape))

    def _at_hazard(self, h: Tensor) -> Tensor:
        y = self.concentration * h
        near = y.abs() < 1e-3
        small, large = torch.where(near, y, 0.0), torch.where(near, 1.0, y)
        series = 1 + small * (1 / 2 + small * (1 / 6 + small * (1 / 24 + small / 120)))
        x = self.loc + self.scale * h * torch.where(near, series, torch.expm1(large) / large)
        return torch.minimum(torch.maximum(x, self.loc), self._ends()[1])

    def _log_density(self, x: Tensor) -> Tensor:
        # in double precision, for 1 + k z near the upper end
        return widened(_generalized_log_density, x, self.loc, self.scale, self.concentration)

    def _log_cdf(self, x: Tensor) -> Tensor:
        return log1mexp(self._log_survival(x))

    def _log_survival(self, x: Tensor) -> Tensor:
        return -self._hazard((x - self.loc) / self.scale)

    def cdf(self, value: Tensor) -> Tensor:
        return -torch.expm1(self.log_survival(value))

    def icdf(self, value: Tensor) -> Tensor:
        return self._at_hazard(-torch.log1p(-value))

    @property
    def mean(self) -> Tensor:
        exists = self.concentration < 1
        k = torch.where(exists, self.concentration, 0.0)
        return torch.where(exists, self.loc + self.scale / (1 - k), torch.inf)

    @property
    def mode(self) -> Tensor:
        return torch.where(self.concentration < -1, self._ends()[1], self.loc)

    @property
    def variance(self) -> Tensor:
        exists = self.concentration < 0.5
        k = torch.where(exists, self.concentration, 0.0)
        return torch.where(exists, self.scale.square() / ((1 - k).square() * (1 - 2 * k)), torch.inf)

    def entropy(self) -> Tensor:
        return self.scale.log() + self.concentration + 1


def _generalized_log_density(x: Tensor, loc: Tensor, scale: Tensor, k: Tensor) -> Tensor:
    z = (x - loc) / scale
    y = (k * z).clamp(min=-1.0)
    near = y.abs() < 1e-3
    small = torch.where(near, y, 0.0)
    series = 1 - small * (1 / 2 - small * (1 / 3 - small * (1 / 4 - small / 5)))
    close = torch.log1p(small) + z * series
    far = times_log1p(1 + 1 / torch.where(k == 0, 1.0, k), torch.where(near, 1.0, y))
    return -scale.log() - torch.where(near, close, far)
