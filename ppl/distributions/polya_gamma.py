"""The Pólya-Gamma law, truncated."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions import constraints
from ppl.distributions.distribution import Distribution, ShapeLike

_TERMS = 8  # of each series: what is left out is below 1e-25 of the density
_SWITCH = 0.16  # 4x = 2/π, where both series converge equally fast
_TRIES = 3
_GAMMAS = 100  # of the infinite sum of exponentials that a draw is


class TruncatedPolyaGamma(Distribution):
    """The Pólya-Gamma law PG(1, 0) of Polson, Scott and Windle (2013), truncated to (0, 2.5).

    The density is f(x) = Σ_n (-1)^n (2n + 1) (2πx³)^(-1/2) exp(-(2n + 1)² / 8x) / P(x < 2.5), or after the theta
    function's reflection Σ_n (-1)^n (2n + 1) 2π exp(-(2n + 1)² π² x / 2); each is used where it converges fast.
    Draws are sums of 100 exponential draws and the mean of the rest, whose standard deviation is 3e-5. Three are made
    of each, and the first below the end (each is with probability 1 - 6e-6) is taken.

    Args:
        prototype: a tensor whose dtype and device draws get (batch shape ()), or the batch shape, also as
            `batch_shape`.
    """

    arg_constraints = {}
    truncation_point = 2.5
    num_log_prob_terms = _TERMS
    num_gamma_variates = _GAMMAS
    support = constraints.interval(0.0, truncation_point)

    def __init__(
        self,
        prototype: Tensor | ShapeLike = (),
        batch_shape: ShapeLike | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(prototype, Tensor):
            batch_shape = prototype if batch_shape is None else batch_shape
            prototype = torch.zeros(())
        self.prototype = prototype
        super().__init__(Size(batch_shape or ()), validate_args=validate_args)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        """Batch and event shape: a prototype's shape is of no account."""
        return Size(), Size()

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        return self._hand_on(TruncatedPolyaGamma(self.prototype, batch_shape, self._validate_args))

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        like = self.prototype
        with torch.no_grad():
            n = torch.arange(_GAMMAS, dtype=like.dtype, device=like.device) + 0.5
            weights = 1 / (2 * math.pi**2 * n * n)
            shape = (_TRIES, *sample_shape, *self.batch_shape, _GAMMAS)
            waits = torch.empty(shape, dtype=like.dtype, device=like.device).exponential_()
            draw = (waits * weights).sum(-1) + (0.25 - weights.sum())
            fits = draw < self.truncation_point
            last = draw[2].clamp(max=self.truncation_point)
            return torch.where(fits[0], draw[0], torch.where(fits[1], draw[1], last))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        inside = (value > 0) & (value <= self.truncation_point)
        small = value < _SWITCH
        low = torch.where(inside & small, value, _SWITCH)
        high = torch.where(inside & ~small, value, _SWITCH)
        odd = 2 * torch.arange(_TERMS, dtype=value.dtype, device=value.device) + 1
        signed = odd * (1 - (odd - 1) % 4)
        rest = odd * odd - 1
        left = (signed * (-rest / (8 * low.unsqueeze(-1))).exp()).sum(-1).log()
        left = left - 0.5 * math.log(2 * math.pi) - 1.5 * low.log() - 1 / (8 * low)
        right = (signed * (-rest * (0.5 * math.pi**2) * high.unsqueeze(-1)).exp()).sum(-1).log()
        right = right + math.log(2 * math.pi) - (0.5 * math.pi**2) * high
        log_prob = torch.where(inside, torch.where(small, left, right), -torch.inf) - _LOG_MASS
        return log_prob.expand(torch.broadcast_shapes(value.shape, self.batch_shape))


def _log_mass(end: float) -> float:
    """log P(x < end), for ends that are not small."""
    terms = ((-1) ** n * math.exp(-((2 * n + 1) ** 2) * math.pi**2 * end / 2) / (2 * n + 1) for n in range(5))
    return math.log1p(-4 / math.pi * math.fsum(terms))


_LOG_MASS = _log_mass(TruncatedPolyaGamma.truncation_point)
