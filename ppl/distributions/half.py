"""The short path of families folded at 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Size, Tensor

from ppl.distributions.bounded import Bounded
from ppl.distributions.distribution import ShapeLike


class Half(Bounded):
    """The absolute value of a draw around 0. Stands before torch's class.

    A subclass gives `whole` and `noise`, and of the draw of scale 1: `log_density` and `below` (the distribution
    function) at and above 0, `log_above` (log of the rest) and `quantile`.
    """

    parameters = ("scale",)
    scale = cast(Tensor, None)  # stands where torch has a property, so that the object's own field is found
    transforms: Any = (torch.distributions.transforms.AbsTransform(),)
    whole: type[torch.distributions.Distribution]  # the family before the absolute value is taken
    noise: Callable[[Tensor, ShapeLike], Tensor]  # draws of scale 1, shaped like a tensor
    log_density: Callable[[Tensor], Tensor]
    below: Callable[[Tensor], Tensor]
    log_above: Callable[[Tensor], Tensor]
    quantile: Callable[[Tensor], Tensor]

    def __init__(self, scale: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((scale,), validate_args)

    def _before(self) -> Any:
        whole: Any = self.whole
        return whole(torch.zeros_like(self.scale), self.scale, validate_args=False)

    base_dist: Any = property(_before, doc="The distribution before the absolute value is taken.")

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw, differentiably."""
        return (self.noise(self.scale, sample_shape) * self.scale).abs()

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density, -inf below 0."""
        this: Any = self
        inside = this._is_inside(value)
        log_density = self.log_density(value / self.scale) - self.scale.log()
        return log_density if inside else torch.where(value >= 0, log_density, -torch.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw up to the value."""
        this: Any = self
        if self._validate_args:
            this._validate_sample(value)
        return self.below(value.clamp(min=0) / self.scale)

    def _log_cdf(self, x: Tensor) -> Tensor:
        return self.below(x / self.scale).log()

    def _log_survival(self, x: Tensor) -> Tensor:
        return self.log_above(x / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        """The value up to which draws fall with the given probability."""
        return self.scale * self.quantile(value)

    @property
    def mode(self) -> Tensor:
        """0."""
        return torch.zeros_like(self.scale)
