"""Successes in a number of trials."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributions as td
from torch import Size, Tensor

from ppl.distributions import constraints
from ppl.distributions.count import largest_number, summed_entropy
from ppl.distributions.distribution import Distribution
from ppl.distributions.odds import Odds
from ppl.tensors.count_draws import draw_binomial
from ppl.tensors.incomplete import betainc
from ppl.tensors.mass import log_binomial


class Binomial(Odds, td.Binomial, Distribution):
    """The number of successes in `total_count` trials of probability `probs`.

    The log density is Loader's saddle-point form, which keeps its digits for millions of trials. It can be
    differentiated by `total_count`, which may lie between the integers where validation is off.
    """

    parameters = ("total_count", "probs", "logits")
    _kept = ("_number",)

    def __init__(
        self,
        total_count: Tensor | int = 1,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._number = None if isinstance(total_count, Tensor) else total_count  # known to graphs, too
        self._take_odds(probs, logits, validate_args, total_count=total_count)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.total_count)

    def _draw(self, shape: Size) -> Tensor:
        return draw_binomial(self.total_count.expand(shape), self.probs.expand(shape))

    def _log_mass(self, value: Tensor) -> Tensor:
        rest = self.total_count - value
        return log_binomial(value, rest, self._chances(value, rest))

    def _cumulative(self, value: Tensor) -> Tensor:
        return betainc(self.total_count - value, value + 1, self._failure(), self.probs)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.probs

    @property
    def variance(self) -> Tensor:
        return self.mean * self._failure()

    @property
    def mode(self) -> Tensor:
        return ((self.total_count + 1) * self.probs).floor().minimum(self.total_count)

    def entropy(self) -> Tensor:
        """The entropy, by the sum over all values up to the largest `total_count`."""
        return summed_entropy(self, self.total_count if self._number is None else self._number)

    def _number_of_values(self) -> int:
        return 1 + largest_number(self.total_count if self._number is None else self._number)


class ExtendedBinomial(Binomial):
    """A binomial whose `total_count` may be any real, for models in which it is the output of other computations.

    Its support is declared to be all integers, so that neither validation nor an enumeration elsewhere stumbles over
    counts that the total does not allow; those have log density -inf, and every count does where the total is
    negative. Elsewhere the log density is a binomial's, differentiable in `total_count`. Draws at a negative total
    are 0.
    """

    arg_constraints = {
        "total_count": constraints.real,
        "probs": constraints.unit_interval,
        "logits": constraints.real,
    }
    support: Any = constraints.integer
    has_enumerate_support = False

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value = value.to(self._like.dtype)
        inside = (value >= 0) & (value <= self.total_count) & (value.floor() == value)
        value = torch.where(inside, value, 0.0)
        rest = torch.where(inside, self.total_count - value, 0.0)
        return torch.where(inside, log_binomial(value, rest, self._chances(value, rest)), -math.inf)

    @property
    def _possible(self) -> Tensor:
        return self.total_count.clamp(min=0)

    def _draw(self, shape: Size) -> Tensor:
        return draw_binomial(self._possible.floor().expand(shape), self.probs.expand(shape))

    def cdf(self, value: Tensor) -> Tensor:
        value = value.to(self._like.dtype).floor()
        above = value >= self._possible
        inside = (value >= 0) & ~above
        count = torch.where(inside, value, 0.0)
        rest = torch.where(inside, self.total_count - count, 1.0)
        return torch.where(inside, betainc(rest, count + 1, self._failure(), self.probs), above.to(value.dtype))

    @property
    def mean(self) -> Tensor:
        return self._possible * self.probs

    @property
    def mode(self) -> Tensor:
        return ((self._possible + 1) * self.probs).floor().minimum(self._possible)

    def entropy(self) -> Tensor:
        """The entropy, by the sum over all values up to the largest `total_count`."""
        return summed_entropy(self, self._possible)
