"""The gamma distribution and its kin: waiting times, sums of squares, reciprocals."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributions as td
from torch import Size, Tensor

from ppl.distributions import noise
from ppl.distributions.bounded import Bounded, keep_positive
from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.tensors.incomplete import log_gammainc, log_gammaincc
from ppl.tensors.quantile import gamma_quantile, gammaincinv
from ppl.tensors.saddlepoint import log_gamma_density, log_inverse_gamma_density, widened
from ppl.tensors.special import log1mexp

_FIELD = cast(Tensor, None)  # stands where torch has a property, so that the object's own field is found


def standard_gamma(concentration: Tensor, sample_shape: ShapeLike = Size()) -> Tensor:
    """Gamma draws of rate 1, differentiable in the concentration, never 0."""
    shape = (*sample_shape, *concentration.shape) if sample_shape else concentration.shape
    return keep_positive(torch._standard_gamma(concentration.expand(shape)))


class Gamma(Bounded, td.Gamma, Distribution):
    """The gamma distribution with shape `concentration` a and inverse scale `rate` r: density ∝ x^(a - 1) exp(-r x)."""

    parameters: tuple[str, ...] = ("concentration", "rate")

    def __init__(self, concentration: Tensor | float, rate: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((concentration, rate), validate_args)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return keep_positive(standard_gamma(self.concentration, sample_shape) / self.rate)

    def _log_density(self, x: Tensor) -> Tensor:
        return log_gamma_density(self.concentration, x, self.rate)

    def _log_cdf(self, x: Tensor) -> Tensor:
        return log_gammainc(self.concentration, self.rate * x)

    def _log_survival(self, x: Tensor) -> Tensor:
        return log_gammaincc(self.concentration, self.rate * x)

    def icdf(self, value: Tensor) -> Tensor:
        return gammaincinv(self.concentration, value) / self.rate

    def inverse_log_cdf(self, log_p: Tensor) -> Tensor:
        return gamma_quantile(self.concentration, log_p, log1mexp(log_p)) / self.rate

    def inverse_log_survival(self, log_q: Tensor) -> Tensor:
        return gamma_quantile(self.concentration, log1mexp(log_q), log_q) / self.rate

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        return (self.concentration - 1).clamp(min=0) / self.rate

    @property
    def variance(self) -> Tensor:
        return self.concentration / self.rate.square()

    def entropy(self) -> Tensor:
        return widened(_standard_entropy, self.concentration) - self.rate.log()

    def conjugate_update(self, other: Any) -> tuple[Gamma, Tensor]:
        """The product of this density and another gamma's, renormalised, and the log of its integral.

        A likelihood that as a function of the rate is gamma-shaped, such as a Poisson's or an exponential's, updates a
        prior in this way.
        """
        if not isinstance(other, td.Gamma):
            raise ValueError(
                f"{type(self).__name__}.conjugate_update needs a Gamma over the same variable, but got "
                f"{type(other).__name__}."
            )
        a, b = self.concentration, other.concentration
        concentration, rate = a + b - 1, self.rate + other.rate
        updated = Gamma(concentration, rate, validate_args=self._validate_args)
        log_normalizer = widened(_log_overlap, a, b, self.rate, other.rate)
        return updated, log_normalizer


def _standard_entropy(a: Tensor) -> Tensor:
    return a + torch.lgamma(a) + (1 - a) * torch.digamma(a)


def _log_overlap(a: Tensor, b: Tensor, r: Tensor, s: Tensor) -> Tensor:
    """log of the integral of the product of two gamma densities."""
    joint = a + b - 1
    return a * r.log() + b * s.log() - joint * (r + s).log() + torch.lgamma(joint) - torch.lgamma(a) - torch.lgamma(b)


class Chi2(Gamma, td.Chi2):
    """The chi-squared distribution with `df` degrees of freedom: the sum of so many squared standard normal draws."""

    parameters = ("df",)
    df = _FIELD

    def __init__(self, df: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((df,), validate_args)

    @property
    def concentration(self) -> Tensor:  # type: ignore[override]
        """Half the degrees of freedom."""
        return 0.5 * self.df

    @property
    def rate(self) -> Tensor:  # type: ignore[override]
        """One half."""
        return torch.full_like(self.df, 0.5)


class InverseGamma(Bounded, td.InverseGamma, Distribution):
    """The reciprocal of a gamma draw with shape `concentration` and inverse scale `rate`."""

    parameters = ("concentration", "rate")
    concentration = _FIELD
    rate = _FIELD

    def __init__(self, concentration: Tensor | float, rate: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((concentration, rate), validate_args)

    @property
    def base_dist(self) -> Gamma:  # type: ignore[override]
        """The distribution of the reciprocal."""
        return Gamma(self.concentration, self.rate, validate_args=False)

    @property
    def transforms(self) -> list[Any]:  # type: ignore[override]
        """What leads from the reciprocal to the draw."""
        return [td.PowerTransform(-torch.ones_like(self.rate))]

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return keep_positive(self.rate / standard_gamma(self.concentration, sample_shape))

    def _log_density(self, x: Tensor) -> Tensor:
        return log_inverse_gamma_density(self.concentration, x, self.rate)

    def _log_cdf(self, x: Tensor) -> Tensor:
        return log_gammaincc(self.concentration, self.rate / x)

    def _log_survival(self, x: Tensor) -> Tensor:
        return log_gammainc(self.concentration, self.rate / x)

    def icdf(self, value: Tensor) -> Tensor:
        return self.rate / gammaincinv(self.concentration, 1 - value)

    @property
    def mean(self) -> Tensor:
        a = self.concentration
        return torch.where(a > 1, self.rate / torch.where(a > 1, a - 1, 1.0), torch.inf)

    @property
    def mode(self) -> Tensor:
        return self.rate / (self.concentration + 1)

    @property
    def variance(self) -> Tensor:
        a = self.concentration
        b = torch.where(a > 2, a, 3.0)
        return torch.where(a > 2, self.rate.square() / ((b - 1).square() * (b - 2)), torch.inf)

    def entropy(self) -> Tensor:
        return widened(_reciprocal_entropy, self.concentration) + self.rate.log()


def _reciprocal_entropy(a: Tensor) -> Tensor:
    return a + torch.lgamma(a) - (1 + a) * torch.digamma(a)


class Exponential(Bounded, td.Exponential, Distribution):
    """Waiting times at the given `rate`: density rate · exp(-rate x)."""

    parameters = ("rate",)

    def __init__(self, rate: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((rate,), validate_args)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return noise.exponential(self.rate, sample_shape) / self.rate

    def _log_density(self, x: Tensor) -> Tensor:
        return self.rate.log() - self.rate * x

    def _log_cdf(self, x: Tensor) -> Tensor:
        return log1mexp(-self.rate * x)

    def _log_survival(self, x: Tensor) -> Tensor:
        return -self.rate * x

    def cdf(self, value: Tensor) -> Tensor:
        low, _ = self._placed(value)
        return -torch.expm1(-self.rate * torch.where(low, 0.0, value))

    def icdf(self, value: Tensor) -> Tensor:
        return -torch.log1p(-value) / self.rate

    @property
    def mean(self) -> Tensor:
        return self.rate.reciprocal()

    @property
    def mode(self) -> Tensor:
        return torch.zeros_like(self.rate)

    @property
    def variance(self) -> Tensor:
        return self.rate.pow(-2)

    def entropy(self) -> Tensor:
        return 1 - self.rate.log()
