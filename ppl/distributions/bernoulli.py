"""One trial, and trials until the first success."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributions as td
from torch import Size, Tensor
from torch.nn.functional import logsigmoid

from ppl.distributions.distribution import Distribution
from ppl.distributions.odds import Odds
from ppl.distributions.validation import InvalidArgument, describe_entries


class Bernoulli(Odds, td.Bernoulli, Distribution):
    """A coin: 1 with probability `probs` (or `sigmoid(logits)`), else 0.

    With validation off, a value between 0 and 1 has the interpolated log density x log p + (1 - x) log(1 - p): the
    cross entropy that autoencoders of grey images are trained with. Outside of [0, 1] it is -inf.
    """

    def __init__(
        self,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._take_odds(probs, logits, validate_args)

    def _draw(self, shape: Size) -> Tensor:
        return torch.bernoulli(self.probs.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
            return self._log_mass(value)
        value = value.to(self._param.dtype)
        inside = (value >= 0) & (value <= 1)
        value = torch.where(inside, value, 0.0)
        if "logits" in self.parameters:
            return torch.where(inside, self._interpolated(value), -math.inf)
        chances = self._chances(value, 1 - value)
        return torch.where(inside, value * chances.log_p + (1 - value) * chances.log_q, -math.inf)

    def _interpolated(self, value: Tensor) -> Tensor:
        # one logarithm, of the outcome that the value is nearer to: exact at 0 and 1, and nothing cancels between them
        success = value > 0.5
        toward = torch.where(success, self.logits, -self.logits)
        away = torch.where(success, 1 - value, value)
        return logsigmoid(toward) - away * torch.where(away == 0, 0.0, toward)

    def _log_mass(self, value: Tensor) -> Tensor:
        success = value == 1
        if "logits" in self.parameters:
            return logsigmoid(torch.where(success, self.logits, -self.logits))
        probs = self.probs
        impossible = torch.where(success, probs, 1 - probs) == 0
        probs = torch.where(impossible, success, probs)  # of which the log is 0: -inf would give NaN times 0
        log_prob = torch.where(success, probs, 1.0).log() + torch.log1p(-torch.where(success, 0.0, probs))
        return torch.where(impossible, -math.inf, log_prob)

    def _cumulative(self, value: Tensor) -> Tensor:
        return self._failure().expand(torch.broadcast_shapes(value.shape, self.batch_shape))

    def cdf(self, value: Tensor) -> Tensor:
        value, failure = torch.broadcast_tensors(value, self._failure())
        return torch.where(value < 0, 0.0, torch.where(value < 1, failure, 1.0))

    def entropy(self) -> Tensor:
        failure = self._failure()
        chances = self._chances(self.probs, failure)
        return -(self.probs * chances.log_p + failure * chances.log_q)

    def _number_of_values(self) -> int:
        return 2


class Geometric(Odds, td.Geometric, Distribution):
    """The number of failures before the first success of probability `probs` > 0."""

    def __init__(
        self,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._take_odds(probs, logits, validate_args)
        if self._validate_args and "probs" in self.parameters:
            never = self.probs == 0
            if bool(never.any()):
                raise InvalidArgument(
                    f"Geometric: argument 'probs' must be positive (> 0), but {describe_entries(never, self.probs)}.",
                    never,
                )

    def _draw(self, shape: Size) -> Tensor:
        # an exponential waiting time, rounded down
        log_q = self._chances(self._param, torch.ones_like(self._param)).log_q.expand(shape)
        return (torch.empty_like(log_q).exponential_() / -log_q).floor()

    def _log_mass(self, value: Tensor) -> Tensor:
        chances = self._chances(torch.ones_like(value), value)
        return chances.log_p + value * chances.log_q

    def _cumulative(self, value: Tensor) -> Tensor:
        return -torch.expm1((value + 1) * self._chances(value, value + 1).log_q)

    def icdf(self, value: Tensor) -> Tensor:
        """The least count at which `cdf` reaches the value."""
        one = torch.ones_like(value)
        count = torch.ceil(torch.log1p(-value) / self._chances(one, one).log_q - 1)
        # the division may be off by a rounding
        lower = (count - 1).clamp(min=0)
        return torch.where(self._cumulative(lower) >= value, lower, count.clamp(min=0))

    @property
    def mean(self) -> Tensor:
        return 1 / self._odds()

    @property
    def variance(self) -> Tensor:
        return 1 / self._odds() / self.probs

    def entropy(self) -> Tensor:
        return Bernoulli(validate_args=False, **self._given()).entropy() / self.probs

    def _given(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.parameters}
