"""The von Mises distribution of angles."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributions as td
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions import noise
from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.scalar import Scalar

_LOG_2PI = math.log(2 * math.pi)
#: Each round accepts at least 0.658 of its proposals, so that one in 10^16 draws is still open after all of them.
_ROUNDS = 35
_ROOM = 2**20  # numbers to draw at once


class VonMises(Scalar, td.VonMises, Distribution):
    """Angles around `loc`, in radians from -π to π: density proportional to exp(concentration · cos(x - loc)).

    `mean` and `variance` are the circular ones: `loc`, and 1 minus the mean resultant length.
    Source: the sampler is Best & Fisher's (1979) with a fixed number of rounds.
    """

    expands_without_init = True
    parameters = ("loc", "concentration")
    support: Any = constraints.interval(-math.pi, math.pi)
    loc: Tensor
    concentration: Tensor

    def __init__(self, loc: Tensor | float, concentration: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((loc, concentration), validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # cos(x) - 1, which for small angles would cancel
        below = -2 * (0.5 * (value - self.loc)).sin().square()
        log_prob: Tensor = self.concentration * below - torch.special.i0e(self.concentration).log() - _LOG_2PI
        return log_prob

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        with torch.no_grad():
            angle = _centred(self.concentration.expand(self.shape(sample_shape)))
            return (angle + self.loc + math.pi) % (2 * math.pi) - math.pi

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        return 1 - self._resultant()

    def entropy(self) -> Tensor:
        log_bessel: Tensor = torch.special.i0e(self.concentration).log() + self.concentration
        return _LOG_2PI + log_bessel - self.concentration * self._resultant()

    def _resultant(self) -> Tensor:
        resultant: Tensor = torch.special.i1e(self.concentration) / torch.special.i0e(self.concentration)
        return resultant


def _centred(concentration: Tensor) -> Tensor:
    """Draws around 0, by rejection from the wrapped Cauchy distribution of resultant length rho.

    Everything is written through half angles and differences from 1, so that it holds at any concentration.
    """
    root = (1 + 4 * concentration * concentration).sqrt()
    tau = 1 + root
    whole = tau + (2 * tau).sqrt()
    # (1 - rho) / (1 + rho), with rho = 2 concentration / whole
    short = 1 + 1 / (root + 2 * concentration) + (2 * tau).sqrt()
    stretch = short / (whole + 2 * concentration)
    floor = 0.25 * short * short / whole
    at_once = max(1, min(_ROUNDS, _ROOM // max(1, concentration.numel())))
    angle = torch.zeros_like(concentration)
    waiting = torch.ones_like(concentration, dtype=torch.bool)
    for _ in range(0, _ROUNDS, at_once):
        uniform = noise.uniform(concentration, (at_once,))
        proposal = 2 * (stretch * (math.pi * (uniform - 0.5)).tan()).atan()
        cost = floor + 2 * concentration * (0.5 * proposal).sin().square()
        accepted = cost.log() + 1 - cost >= torch.log1p(-noise.uniform(concentration, (at_once,)))
        first = accepted.to(torch.uint8).argmax(0, keepdim=True)
        chosen = proposal.gather(0, first).squeeze(0)
        now = waiting & accepted.any(0)
        angle = torch.where(now, chosen, angle)
        waiting = waiting & ~now
    return angle
