"""The Lévy distribution."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions import noise
from ppl.distributions.bounded import Bounded
from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.tensors.special import HALF_LOG_2PI, log_ndtr

_EULER = 0.5772156649015329
_LOG_2 = math.log(2.0)


class Levy(Bounded, Distribution):
    """The stable law of the half line above `loc`: loc + scale / z² for a standard normal draw z."""

    parameters = ("loc", "scale")
    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((loc, scale), validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """Above `loc`."""
        return constraints.greater_than(self.loc)

    def _ends(self) -> tuple[Tensor, float]:
        return self.loc, torch.inf

    def _inner(self) -> Tensor:
        return self.loc + self.scale

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self._above(self.scale / noise.normal(self.loc, sample_shape).square())

    def _above(self, excess: Tensor) -> Tensor:
        """loc + excess, above `loc` also where rounding would lose the excess."""
        x = self.loc + excess
        above = torch.full_like(self.loc, torch.inf)
        return torch.where(x > self.loc, x, torch.nextafter(self.loc, above))

    def _log_density(self, x: Tensor) -> Tensor:
        y = x - self.loc
        return 0.5 * self.scale.log() - HALF_LOG_2PI - 1.5 * y.log() - 0.5 * self.scale / y

    def _log_cdf(self, x: Tensor) -> Tensor:
        return log_ndtr(-(self.scale / (x - self.loc)).sqrt()) + _LOG_2

    def _log_survival(self, x: Tensor) -> Tensor:
        return torch.erf((0.5 * self.scale / (x - self.loc)).sqrt()).log()

    def icdf(self, value: Tensor) -> Tensor:
        z: Tensor = torch.special.ndtri(0.5 * value)
        return self._above(self.scale / z.square())

    @property
    def mean(self) -> Tensor:
        return torch.full_like(self.loc, torch.inf)

    @property
    def mode(self) -> Tensor:
        return self.loc + self.scale / 3

    @property
    def variance(self) -> Tensor:
        return torch.full_like(self.loc, torch.inf)

    def entropy(self) -> Tensor:
        return self.scale.log() + 0.5 * (1 + 3 * _EULER + math.log(16 * math.pi))
