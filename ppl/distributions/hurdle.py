"""Zeros from one process, and positive values from another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import ShapeLike, broadcast_shape
from ppl.distributions.gamma import Gamma
from ppl.distributions.gated import Gated, Number, as_tensors
from ppl.distributions.normal import LogNormal
from ppl.distributions.poisson import Poisson
from ppl.distributions.prototype import log_prob_anywhere
from ppl.distributions.zero_inflated import negative_binomial2
from ppl.tensors.special import log1mexp


class HurdleDistribution(Gated):
    """Zero with probability `gate`, and otherwise a positive draw of `base_dist`: a discrete one conditioned on not being 0.

    A continuous base must be positive. Its hurdle has an atom at 0: `log_prob(0)` is the log probability of the gate,
    other values have densities. A discrete base's draw is exact and without rejection for Poisson and NegativeBinomial
    and for bases with a finite support; others are drawn again, in a loop, until none is 0.

    Args: gate in [0, 1], or gate_logits, its log odds; exactly one of the two.
    Raises: ValueError for a base with event dims, or one that can be negative, and unless exactly one of gate and
        gate_logits is given.
    """

    def __init__(
        self,
        base_dist: torch.distributions.Distribution,
        gate: Number | None = None,
        gate_logits: Number | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._take(base_dist, gate, gate_logits, validate_args)
        support: Any = self.base_dist.support
        low = getattr(support, "lower_bound", None)
        if not support.is_discrete and (not isinstance(low, (int, float)) or low < 0):
            raise ValueError(
                f"{type(self).__name__}: base_dist must be positive, but {type(base_dist).__name__} lies in {support}; "
                "for an atom within a continuous range write Mixture with a Delta."
            )

    @property
    def support(self) -> Any:
        return self.base_dist.support if self.base_dist.is_discrete else constraints.nonnegative

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return bool(self.base_dist.has_enumerate_support)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return self.base_dist.enumerate_support(expand)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        with torch.no_grad():
            drawn = _positive(self.base_dist, Size(sample_shape))
            return torch.where(self._is_gated(sample_shape), torch.zeros_like(drawn), drawn)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        zero = value == 0
        inner = torch.where(zero | (value < 0), torch.ones_like(value), value)
        log_prob = self._log_not_gate(~zero) + log_prob_anywhere(self.base_dist, inner) - self._log_positive()
        log_prob = torch.where(value < 0, torch.full_like(log_prob, -torch.inf), log_prob)
        return torch.where(zero, self._log_gate(zero), log_prob)

    def _log_positive(self) -> Tensor | float:
        """The log probability that the base is not 0."""
        if not self.base_dist.is_discrete:
            return 0.0
        at_zero = self.base_dist.log_prob(torch.zeros_like(self._gate()))
        return log1mexp(at_zero)

    def _zero_probability(self) -> Tensor | float:
        if not self.base_dist.is_discrete:
            return 0.0
        return self.base_dist.log_prob(torch.zeros_like(self._gate())).exp()

    def cdf(self, value: Tensor) -> Tensor:
        gate, p = self._gate(), self._zero_probability()
        above = (self.base_dist.cdf(value.clamp(min=0)) - p) / (1 - p)
        return torch.where(value >= 0, gate + (1 - gate) * above, torch.zeros_like(above))

    @property
    def mean(self) -> Tensor:
        return (1 - self._gate()) / (1 - self._zero_probability()) * self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        share = (1 - self._gate()) / (1 - self._zero_probability())
        mean = self.base_dist.mean
        return share * (self.base_dist.variance + (1 - share) * mean**2)


class _Family(HurdleDistribution):
    """Hurdles by the base's parameters, whose shapes all broadcast."""

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        return broadcast_shape(*(Size(s) for s in arg_shapes.values())), Size()


class HurdleGamma(_Family):
    """Zero with probability `gate`, and otherwise gamma."""

    def __init__(
        self,
        gate: Number | None = None,
        concentration: Number = 1.0,
        rate: Number = 1.0,
        gate_logits: Number | None = None,
        validate_args: bool | None = None,
    ) -> None:
        gate, concentration, rate, gate_logits = as_tensors(gate, concentration, rate, gate_logits)
        base: Any = Gamma(concentration, rate, validate_args=validate_args)
        super().__init__(base, gate, gate_logits, validate_args)

    concentration = property(lambda self: self.base_dist.concentration, doc="The gamma's shape.")
    rate = property(lambda self: self.base_dist.rate, doc="The gamma's inverse scale.")


class HurdleLogNormal(_Family):
    """Zero with probability `gate`, and otherwise log-normal."""

    def __init__(
        self,
        gate: Number | None = None,
        loc: Number = 0.0,
        scale: Number = 1.0,
        gate_logits: Number | None = None,
        validate_args: bool | None = None,
    ) -> None:
        gate, loc, scale, gate_logits = as_tensors(gate, loc, scale, gate_logits)
        super().__init__(LogNormal(loc, scale, validate_args), gate, gate_logits, validate_args)

    loc = property(lambda self: self.base_dist.loc, doc="The mean of the logarithm.")
    scale = property(lambda self: self.base_dist.scale, doc="The standard deviation of the logarithm.")


class HurdlePoisson(_Family):
    """Zero with probability `gate`, and otherwise a Poisson count that is not zero."""

    def __init__(
        self,
        gate: Number | None = None,
        rate: Number = 1.0,
        gate_logits: Number | None = None,
        validate_args: bool | None = None,
    ) -> None:
        gate, rate, gate_logits = as_tensors(gate, rate, gate_logits)
        base: Any = Poisson(rate, validate_args=validate_args)
        super().__init__(base, gate, gate_logits, validate_args)

    rate = property(lambda self: self.base_dist.rate, doc="The Poisson's rate.")


class HurdleNegativeBinomial2(_Family):
    """Zero with probability `gate`, and otherwise a negative binomial count, by `mean` and `concentration`, not zero."""

    def __init__(
        self,
        gate: Number | None = None,
        mean: Number = 1.0,
        concentration: Number = 1.0,
        gate_logits: Number | None = None,
        validate_args: bool | None = None,
    ) -> None:
        gate, mean, concentration, gate_logits = as_tensors(gate, mean, concentration, gate_logits)
        super().__init__(negative_binomial2(mean, concentration, validate_args), gate, gate_logits, validate_args)

    concentration = property(lambda self: self.base_dist.total_count, doc="The inverse of the overdispersion.")


def _positive(d: Any, sample_shape: Size) -> Tensor:
    """Draws of a distribution conditioned on not being 0."""
    if not d.is_discrete:
        return d.sample(sample_shape)  # type: ignore[no-any-return]
    shape = d.shape(sample_shape)
    if isinstance(d, torch.distributions.Poisson):
        # Events of a process on (0, 1): the first by inversion, given that there is one; then those after it.
        until = -torch.log1p(torch.rand(shape, dtype=d.rate.dtype, device=d.rate.device) * torch.expm1(-d.rate))
        return 1 + torch.poisson((d.rate - until).clamp(min=0))
    if isinstance(d, torch.distributions.NegativeBinomial):
        # The same, for a process whose rate is gamma distributed. The log of its survival at time t is
        # -count * log(1 + odds * t); what it is given the first event has count + 1 and a posterior rate.
        count, odds = d.total_count, d.logits.exp()
        none = -count * torch.nn.functional.softplus(d.logits)
        u = torch.rand(shape, dtype=odds.dtype, device=odds.device)
        first = torch.expm1(-torch.log1p(u * torch.expm1(none)) / count)  # odds * t
        rate = torch._standard_gamma((count + 1).expand(shape)) * ((odds - first) / (1 + first)).clamp(min=0)
        return 1 + torch.poisson(rate)
    if d.has_enumerate_support:
        values = d.enumerate_support(expand=True)
        log_probs = torch.where(values == 0, -torch.inf, d.log_prob(values)).movedim(0, -1)
        index = torch.distributions.Categorical(logits=log_probs, validate_args=False).sample(sample_shape)
        return values.movedim(0, -1).expand((*shape, -1)).gather(-1, index.unsqueeze(-1)).squeeze(-1)  # type: ignore[no-any-return]
    drawn: Tensor = d.sample(sample_shape)
    while bool((drawn == 0).any()):
        drawn = torch.where(drawn == 0, d.sample(sample_shape), drawn)
    return drawn
