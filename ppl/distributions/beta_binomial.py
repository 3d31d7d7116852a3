"""Binomial and negative binomial counts whose probability of success is a beta draw."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions import constraints
from ppl.distributions.count import Count, largest_number, summed_entropy, summed_tails
from ppl.distributions.distribution import Distribution
from ppl.tensors.count_draws import draw_binomial, draw_gamma_poisson, draw_log_gamma
from ppl.tensors.mass import log_beta_binomial


class BetaBinomial(Count, Distribution):
    """The number of successes in `total_count` trials, all of one probability, a beta draw.

    `concentration1` counts for successes, `concentration0` for failures. The log density is a sum of saddle-point
    forms.
    """

    arg_constraints = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
        "total_count": constraints.nonnegative_integer,
    }
    has_enumerate_support = True
    parameters = ("concentration1", "concentration0", "total_count")
    _kept = ("_number",)
    concentration1: Tensor
    concentration0: Tensor
    total_count: Tensor

    def __init__(
        self,
        concentration1: Tensor | float,
        concentration0: Tensor | float,
        total_count: Tensor | int = 1,
        validate_args: bool | None = None,
    ) -> None:
        self._number = None if isinstance(total_count, Tensor) else total_count  # known to graphs, too
        self._take((concentration1, concentration0, total_count), validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.total_count)

    def _draw(self, shape: Size) -> Tensor:
        logits = draw_log_gamma(self.concentration1.expand(shape)) - draw_log_gamma(self.concentration0.expand(shape))
        return draw_binomial(self._possible.floor().expand(shape), torch.sigmoid(logits))

    def _log_mass(self, value: Tensor) -> Tensor:
        return log_beta_binomial(value, self.total_count - value, self.concentration1, self.concentration0)

    def _tails(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return summed_tails(self, self.total_count if self._number is None else self._number, value)

    def _cumulative(self, value: Tensor) -> Tensor:
        below, above = self._tails(value)
        return torch.where(below < above, below.exp(), -above.expm1())

    def log_cdf(self, value: Tensor) -> Tensor:
        """The log probability of a draw at or below a value, by the sum over those."""
        return self._log_tail(value, 0)

    def log_survival(self, value: Tensor) -> Tensor:
        """The log probability of a draw above a value, by the sum over those."""
        return self._log_tail(value, 1)

    def _log_tail(self, value: Tensor, side: int) -> Tensor:
        value = value.to(self._like.dtype).floor()
        below, above = value < 0, value >= self.total_count
        tail = self._tails(torch.where(below | above, 0.0, value))[side]
        ends = (-math.inf, 0.0) if side == 0 else (0.0, -math.inf)
        return torch.where(below, ends[0], torch.where(above, ends[1], tail))

    @property
    def _possible(self) -> Tensor:
        return self.total_count

    @property
    def mean(self) -> Tensor:
        return self._possible * (self.concentration1 / (self.concentration1 + self.concentration0))

    @property
    def variance(self) -> Tensor:
        both = self.concentration1 + self.concentration0
        return self.mean * (self.concentration0 / both) * ((both + self._possible) / (both + 1))

    def entropy(self) -> Tensor:
        """The entropy, by the sum over all values up to the largest `total_count`."""
        return summed_entropy(self, self.total_count if self._number is None else self._number)

    def _number_of_values(self) -> int:
        return 1 + largest_number(self.total_count if self._number is None else self._number)


class ExtendedBetaBinomial(BetaBinomial):
    """A beta-binomial whose `total_count` may be any real, as in `ExtendedBinomial`, and with the same support."""

    arg_constraints = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
        "total_count": constraints.real,
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
        return torch.where(inside, log_beta_binomial(value, rest, self.concentration1, self.concentration0), -math.inf)

    @property
    def _possible(self) -> Tensor:
        return self.total_count.clamp(min=0)

    def cdf(self, value: Tensor) -> Tensor:
        raise NotImplementedError("ExtendedBetaBinomial has no closed form for its cdf.")

    def _log_tail(self, value: Tensor, side: int) -> Tensor:
        raise NotImplementedError("ExtendedBetaBinomial has no closed form for its cdf.")

    def entropy(self) -> Tensor:
        raise NotImplementedError("ExtendedBetaBinomial has no closed form for its entropy.")


class BetaNegativeBinomial(Count, Distribution):
    """The number of successes before `n` failures, all of one probability, a Beta(concentration1, concentration0) draw.

    P(x) = Γ(n + x) / (Γ(n) x!) B(concentration1 + x, concentration0 + n) / B(concentration1, concentration0).
    """

    arg_constraints = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
        "n": constraints.positive,
    }
    support = constraints.nonnegative_integer
    parameters = ("concentration1", "concentration0", "n")
    concentration1: Tensor
    concentration0: Tensor
    n: Tensor

    def __init__(
        self,
        concentration1: Tensor | float,
        concentration0: Tensor | float,
        n: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        self._take((concentration1, concentration0, n), validate_args)

    def _draw(self, shape: Size) -> Tensor:
        logits = draw_log_gamma(self.concentration1.expand(shape)) - draw_log_gamma(self.concentration0.expand(shape))
        return draw_gamma_poisson(self.n.expand(shape), logits.exp())

    def _log_mass(self, value: Tensor) -> Tensor:
        share = (self.n / (self.n + value)).log()
        return share + log_beta_binomial(value, self.n, self.concentration1, self.concentration0)

    def cdf(self, value: Tensor) -> Tensor:
        raise NotImplementedError("BetaNegativeBinomial has no closed form for its cdf.")

    @property
    def mean(self) -> Tensor:
        """n · concentration1 / (concentration0 - 1); infinite up to concentration0 = 1."""
        finite = self.concentration0 > 1
        return torch.where(
            finite, self.n * self.concentration1 / torch.where(finite, self.concentration0 - 1, 1.0), math.inf
        )

    @property
    def variance(self) -> Tensor:
        """Infinite up to concentration0 = 2."""
        finite = self.concentration0 > 2
        a, b, n = self.concentration1, torch.where(finite, self.concentration0, 3.0), self.n
        return torch.where(finite, n * a * (n + b - 1) * (a + b - 1) / ((b - 2) * (b - 1) ** 2), math.inf)
