"""Rejection samplers as distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import Distribution, ScoreParts, ShapeLike, expanded
from ppl.distributions.lifting import lift

_MAX_ROUNDS = 100_000


class Rejector(Distribution):
    """Draws from `propose`, each accepted with probability exp(log_prob_accept(draw)), until one is accepted.

    Where the proposal is reparameterised, gradients pass through the accepted draw, and `score_parts` adds the part
    that this leaves out (Naesseth et al. 2017, Reparameterization gradients through acceptance-rejection sampling):
    the gradient of E f(x) is E[∇f(x)] + E[f(x) ∇ score_function], the second taken at the detached noise.

    Args:
        propose: the proposal.
        log_prob_accept: the log probability of acceptance of each draw, of shape sample + batch; at most 0.
        log_scale: the log of the total probability of acceptance, of batch shape or a number.
        batch_shape, event_shape: the proposal's by default.

    Sampling loops until all are accepted, so it cannot become a graph; log_prob can.
    """

    arg_constraints = {}

    def __init__(
        self,
        propose: torch.distributions.Distribution,
        log_prob_accept: Callable[[Tensor], Tensor],
        log_scale: Tensor | float,
        *,
        batch_shape: ShapeLike | None = None,
        event_shape: ShapeLike | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.propose = lift(propose)
        self.log_prob_accept = log_prob_accept
        self._log_scale = log_scale
        super().__init__(
            self.propose.batch_shape if batch_shape is None else batch_shape,
            self.propose.event_shape if event_shape is None else event_shape,
            validate_args,
        )

    @property
    def support(self) -> Any:
        return self.propose.support

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether the proposal's draws are reparameterised."""
        return bool(vars(self).get("has_rsample", self.propose.has_rsample))

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        """The same with an expanded proposal; `log_prob_accept` sees its larger draws and must broadcast."""
        shape = Size(batch_shape)
        new = Rejector(
            expanded(self.propose, shape),
            self.log_prob_accept,
            self._log_scale,
            batch_shape=shape,
            event_shape=self.event_shape,
            validate_args=self._validate_args,
        )
        return self._hand_on(new)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw, with the gradient of the accepted proposals."""
        shape = Size(sample_shape)
        return self._accept(lambda: self.propose.rsample(shape))

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        shape = Size(sample_shape)
        with torch.no_grad():
            return self._accept(lambda: self.propose.sample(shape))

    def _accept(self, propose: Callable[[], Tensor]) -> Tensor:
        drawn = propose()
        with torch.no_grad():
            done = self._is_accepted(drawn)
        for _ in range(_MAX_ROUNDS):
            if bool(done.all()):
                return drawn
            again = propose()
            with torch.no_grad():
                accepted = self._is_accepted(again) & ~done
            mask = accepted.reshape(accepted.shape + (1,) * len(self.event_shape))
            drawn = torch.where(mask, again, drawn)
            done = done | accepted
        raise ValueError(
            f"Rejector: after {_MAX_ROUNDS} proposals {int((~done).sum())} draws are still rejected; propose closer to "
            "the target, or check log_prob_accept."
        )

    def _is_accepted(self, value: Tensor) -> Tensor:
        log_accept = self.log_prob_accept(value)
        return torch.rand_like(log_accept).log() < log_accept

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_prob = self.propose.log_prob(value) + (self.log_prob_accept(value) - self._log_scale)
        try:
            support = self.support
        except NotImplementedError:  # a foreign proposal that declares none
            return log_prob
        return torch.where(support.check(value), log_prob, -torch.inf)

    def score_parts(self, x: Tensor) -> ScoreParts:
        """With a reparameterised proposal, its acceptance is the score function part and the whole the entropy's."""
        if not self.has_rsample:
            return super().score_parts(x)
        log_prob = self.log_prob(x)
        # what a reparameterised draw leaves out: the density of the accepted noise, which depends on the parameters
        score = self.propose.score_parts(x).score_function + (self.log_prob_accept(x) - self._log_scale)
        return ScoreParts(log_prob, score, log_prob)
