"""Counts with more zeros than their family has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import Distribution, ShapeLike, broadcast_shape
from ppl.distributions.gated import Gated, Number, as_tensors
from ppl.distributions.lifting import lift
from ppl.distributions.negative_binomial import NegativeBinomial
from ppl.distributions.poisson import Poisson
from ppl.distributions.prototype import log_prob_anywhere


class ZeroInflatedDistribution(Gated):
    """Zero with probability `gate`, and otherwise a draw of a discrete `base_dist` (which may be zero as well).

    Args: gate in [0, 1], or gate_logits, its log odds; exactly one of the two.
    Raises: ValueError for a base that is continuous or has event dims, and unless exactly one of gate and gate_logits
        is given.
    """

    def __init__(
        self,
        base_dist: torch.distributions.Distribution,
        gate: Number | None = None,
        gate_logits: Number | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not lift(base_dist).is_discrete:
            raise ValueError(
                f"{type(self).__name__}: base_dist must be discrete, but {type(base_dist).__name__} is continuous; "
                "write HurdleDistribution."
            )
        self._take(base_dist, gate, gate_logits, validate_args)

    @property
    def support(self) -> Any:
        return self.base_dist.support

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return bool(self.base_dist.has_enumerate_support)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return self.base_dist.enumerate_support(expand)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        with torch.no_grad():
            drawn = self.base_dist.sample(Size(sample_shape))
            return torch.where(self._is_gated(sample_shape), torch.zeros_like(drawn), drawn)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        base = log_prob_anywhere(self.base_dist, value)
        zero = value == 0
        at_zero = torch.where(zero, base, torch.full_like(base, -1.0))
        elsewhere = self._log_not_gate(~zero) + torch.where(zero, torch.zeros_like(base), base)
        return torch.where(zero, self._inflated(at_zero), elsewhere)

    def _inflated(self, log_p: Tensor) -> Tensor:
        """log(gate + (1 - gate) p), whose gradients are finite also at gates of 0 and 1."""
        if self.gate_logits is not None:
            log_gate = torch.nn.functional.logsigmoid(self.gate_logits)
            some = log_p > -torch.inf
            rest = torch.nn.functional.logsigmoid(-self.gate_logits) + torch.where(some, log_p, torch.zeros_like(log_p))
            both = torch.logaddexp(log_gate, rest)
            return torch.where(some, both, log_gate.expand(both.shape))
        gate: Any = self.gate
        gate, log_p = torch.broadcast_tensors(gate, log_p)
        high = gate > 0.5
        likely = ~high & (log_p > -30.0)  # that is, unless p is tiny
        rare = ~high & ~likely
        from_one = torch.log1p((1 - torch.where(high, gate, torch.ones_like(gate))) * torch.expm1(log_p))
        bounded = torch.where(likely, log_p, torch.full_like(log_p, -1.0))
        from_base = bounded + torch.log1p(torch.where(likely, gate, torch.zeros_like(gate)) * torch.expm1(-bounded))
        tiny = torch.finfo(gate.dtype).tiny
        safe = torch.where(rare, gate.clamp(min=tiny), torch.full_like(gate, 0.5))
        some = rare & (log_p > -torch.inf)
        both = torch.logaddexp(safe.log(), torch.log1p(-safe) + torch.where(some, log_p, torch.zeros_like(log_p)))
        both = torch.where(some, torch.where(gate > 0, both, log_p), torch.where(gate > 0, safe.log(), -torch.inf))
        return torch.where(high, from_one, torch.where(likely, from_base, both))

    def cdf(self, value: Tensor) -> Tensor:
        gate = self._gate()
        inside = self.base_dist.cdf(value)
        return torch.where(value >= 0, gate + (1 - gate) * inside, (1 - gate) * inside)

    @property
    def mean(self) -> Tensor:
        return (1 - self._gate()) * self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        gate = self._gate()
        return (1 - gate) * (self.base_dist.variance + gate * self.base_dist.mean**2)


class _Family(ZeroInflatedDistribution):
    """Zero-inflated families by their own parameters, whose shapes all broadcast."""

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        return broadcast_shape(*(Size(s) for s in arg_shapes.values())), Size()


class ZeroInflatedPoisson(_Family):
    """Zero with probability `gate`, and otherwise a Poisson count at the given `rate`."""

    def __init__(
        self,
        rate: Number,
        gate: Number | None = None,
        gate_logits: Number | None = None,
        validate_args: bool | None = None,
    ) -> None:
        rate, gate, gate_logits = as_tensors(rate, gate, gate_logits)
        super().__init__(Poisson(rate, validate_args=validate_args), gate, gate_logits, validate_args)

    rate = property(lambda self: self.base_dist.rate, doc="The Poisson's rate.")


class ZeroInflatedNegativeBinomial(_Family):
    """Zero with probability `gate`, and otherwise the number of successes before `total_count` failures."""

    def __init__(
        self,
        total_count: Number,
        probs: Number | None = None,
        logits: Number | None = None,
        gate: Number | None = None,
        gate_logits: Number | None = None,
        validate_args: bool | None = None,
    ) -> None:
        total_count, probs, logits, gate, gate_logits = as_tensors(total_count, probs, logits, gate, gate_logits)
        family: Any = NegativeBinomial
        base = family(total_count, probs, logits, validate_args=validate_args)
        super().__init__(base, gate, gate_logits, validate_args)

    total_count = property(lambda self: self.base_dist.total_count, doc="The number of failures.")
    probs = property(lambda self: self.base_dist.probs, doc="The probability of a success.")
    logits = property(lambda self: self.base_dist.logits, doc="The log odds of a success.")


class ZeroInflatedNegativeBinomial2(_Family):
    """Zero with probability `gate`, and otherwise a count of the given `mean` and variance mean + mean² / concentration."""

    def __init__(
        self,
        mean: Number,
        concentration: Number,
        gate: Number | None = None,
        gate_logits: Number | None = None,
        validate_args: bool | None = None,
    ) -> None:
        mean, concentration, gate, gate_logits = as_tensors(mean, concentration, gate, gate_logits)
        super().__init__(negative_binomial2(mean, concentration, validate_args), gate, gate_logits, validate_args)

    concentration = property(lambda self: self.base_dist.total_count, doc="The inverse of the overdispersion.")


def negative_binomial2(mean: Any, concentration: Any, validate_args: bool | None) -> Distribution:
    """A negative binomial by its mean and concentration."""
    logits = torch.as_tensor(mean).log() - torch.as_tensor(concentration).log()
    base: Any = NegativeBinomial(concentration, logits=logits, validate_args=validate_args)
    return base  # type: ignore[no-any-return]
