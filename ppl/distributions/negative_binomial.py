"""Counts that spread more than Poisson's: negative binomials by odds, by mean and by a gamma rate."""

from __future__ import annotations

from typing import cast

import torch
import torch.distributions as td
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.count import Count
from ppl.distributions.distribution import Distribution
from ppl.distributions.odds import Odds
from ppl.tensors.count_draws import draw_gamma_poisson
from ppl.tensors.incomplete import betainc
from ppl.tensors.mass import Chances, log_negative_binomial

_FIELD = cast(Tensor, None)  # stands where torch has a property, so that the object's own field is found


class NegativeBinomial(Odds, td.NegativeBinomial, Distribution):
    """The number of successes of probability `probs` < 1 before `total_count` >= 0 failures, which need not be whole.

    The mean is total_count * exp(logits). The log density is Loader's saddle-point form.
    """

    parameters = ("total_count", "probs", "logits")

    def __init__(
        self,
        total_count: Tensor | float,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._take_odds(probs, logits, validate_args, total_count=total_count)

    def _draw(self, shape: Size) -> Tensor:
        return draw_gamma_poisson(self.total_count.expand(shape), self._odds().expand(shape))

    def _log_mass(self, value: Tensor) -> Tensor:
        return log_negative_binomial(value, self.total_count, self._chances(value, self.total_count))

    def _cumulative(self, value: Tensor) -> Tensor:
        sure = self.total_count == 0
        chance = betainc(torch.where(sure, 1.0, self.total_count), value + 1, self._failure(), self.probs)
        return torch.where(sure, 1.0, chance)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self._odds()

    @property
    def mode(self) -> Tensor:
        return ((self.total_count - 1) * self._odds()).floor().clamp(min=0)

    @property
    def variance(self) -> Tensor:
        return self.mean / self._failure()


class _GammaMixture(Count, Distribution):
    """Poisson counts with gamma rates of shape `concentration`; a subclass gives `_chances` and `_scale`."""

    support = constraints.nonnegative_integer
    concentration: Tensor

    def _chances(self) -> Chances:
        raise NotImplementedError

    def _scale(self) -> Tensor:
        """The scale of the gamma rates."""
        raise NotImplementedError

    def _draw(self, shape: Size) -> Tensor:
        return draw_gamma_poisson(self.concentration.expand(shape), self._scale().expand(shape))

    def _log_mass(self, value: Tensor) -> Tensor:
        return log_negative_binomial(value, self.concentration, self._chances())

    def _cumulative(self, value: Tensor) -> Tensor:
        chances = self._chances()
        return betainc(self.concentration, value + 1, chances.q, chances.p)

    @property
    def mode(self) -> Tensor:
        return ((self.concentration - 1) * self._scale()).floor().clamp(min=0)

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 + self._scale())


class GammaPoisson(_GammaMixture):
    """A Poisson count whose rate is a gamma draw with shape `concentration` and inverse scale `rate`.

    A negative binomial with total_count = concentration and odds of 1 / rate.
    """

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    parameters = ("concentration", "rate")
    rate: Tensor

    def __init__(
        self, concentration: Tensor | float, rate: Tensor | float = 1.0, validate_args: bool | None = None
    ) -> None:
        self._take((concentration, rate), validate_args)

    def _chances(self) -> Chances:
        both, log_both = 1 + self.rate, torch.log1p(self.rate)
        return Chances(1 / both, self.rate / both, -log_both, self.rate.log() - log_both)

    def _scale(self) -> Tensor:
        return 1 / self.rate

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.rate


class NegativeBinomial2(_GammaMixture):
    """A negative binomial by its `mean` > 0 and `concentration` > 0: the variance is mean + mean² / concentration."""

    arg_constraints = {"mean": constraints.positive, "concentration": constraints.positive}
    parameters = ("mean", "concentration")
    mean = _FIELD

    def __init__(self, mean: Tensor | float, concentration: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((mean, concentration), validate_args)

    def _chances(self) -> Chances:
        mean, concentration = self.mean, self.concentration
        both = mean + concentration
        log_both = both.log()
        return Chances(mean / both, concentration / both, mean.log() - log_both, concentration.log() - log_both)

    def _scale(self) -> Tensor:
        return self.mean / self.concentration
