"""Bijections from all reals to half lines and intervals, accurate next to each end and never on an open one."""

from __future__ import annotations

import torch
from torch import Size, Tensor
from torch.nn.functional import logsigmoid

from ppl.distributions import constraints
from ppl.distributions.distribution import broadcast_shape
from ppl.distributions.transforms.elementwise import Elementwise, shape_of

Bound = Tensor | float


class GreaterThanTransform(Elementwise):
    """y = lower_bound + exp(x), kept off the bound by at least one rounding step."""

    def __init__(self, lower_bound: Bound, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.lower_bound = lower_bound
        self.codomain = constraints.greater_than(lower_bound)

    def _call(self, x: Tensor) -> Tensor:
        return self.lower_bound + _at_least(x.exp(), _gap(self.lower_bound, x))

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.lower_bound).clamp(min=torch.finfo(y.dtype).tiny).log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.expand(y.shape)

    def forward_shape(self, shape: Size) -> Size:
        return broadcast_shape(shape, shape_of(self.lower_bound))

    def inverse_shape(self, shape: Size) -> Size:
        return self.forward_shape(shape)

    def __repr__(self) -> str:
        return f"GreaterThanTransform({self.lower_bound})"


class LessThanTransform(Elementwise):
    """y = upper_bound - exp(x), kept off the bound by at least one rounding step."""

    sign = -1

    def __init__(self, upper_bound: Bound, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.upper_bound = upper_bound
        self.codomain = constraints.less_than(upper_bound)

    def _call(self, x: Tensor) -> Tensor:
        return self.upper_bound - _at_least(x.exp(), _gap(self.upper_bound, x))

    def _inverse(self, y: Tensor) -> Tensor:
        return (self.upper_bound - y).clamp(min=torch.finfo(y.dtype).tiny).log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.expand(y.shape)

    def forward_shape(self, shape: Size) -> Size:
        return broadcast_shape(shape, shape_of(self.upper_bound))

    def inverse_shape(self, shape: Size) -> Size:
        return self.forward_shape(shape)

    def __repr__(self) -> str:
        return f"LessThanTransform({self.upper_bound})"


class IntervalTransform(Elementwise):
    """y = lower_bound + (upper_bound - lower_bound) sigmoid(x), with full accuracy next to both bounds.

    Args: is_half_open, whether the upper bound itself is left out.
    """

    def __init__(self, lower_bound: Bound, upper_bound: Bound, is_half_open: bool = False, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.lower_bound = lower_bound
        self.upper_bound = upper_bound
        self.is_half_open = is_half_open
        kind = constraints.half_open_interval if is_half_open else constraints.interval
        self.codomain = kind(lower_bound, upper_bound)

    def _call(self, x: Tensor) -> Tensor:
        low, high = self.lower_bound, self.upper_bound
        width = high - low
        above = width * x.clamp(max=0.0).sigmoid()  # how far above the lower bound, for negative x
        below = width * (-x.clamp(min=0.0)).sigmoid()
        if self.is_half_open:
            below = _at_least(below, _gap(high, x))
        return torch.where(x < 0, low + above, high - below)

    def _inverse(self, y: Tensor) -> Tensor:
        tiny = torch.finfo(y.dtype).tiny
        return (y - self.lower_bound).clamp(min=tiny).log() - (self.upper_bound - y).clamp(min=tiny).log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        width = self.upper_bound - self.lower_bound
        log_width = width.log() if isinstance(width, Tensor) else torch.full_like(y, width).log()
        return log_width + logsigmoid(x) + logsigmoid(-x)

    def forward_shape(self, shape: Size) -> Size:
        return broadcast_shape(shape, shape_of(self.lower_bound), shape_of(self.upper_bound))

    def inverse_shape(self, shape: Size) -> Size:
        return self.forward_shape(shape)

    def __repr__(self) -> str:
        return f"IntervalTransform({self.lower_bound}, {self.upper_bound})"


def _gap(bound: Bound, like: Tensor) -> Bound:
    """At least the distance from a bound to the next number of this dtype."""
    finfo = torch.finfo(like.dtype)
    if isinstance(bound, Tensor):
        return (bound.abs() * finfo.eps).clamp(min=finfo.tiny)
    return max(abs(bound) * finfo.eps, finfo.tiny)


def _at_least(x: Tensor, floor: Bound) -> Tensor:
    return torch.maximum(x, floor) if isinstance(floor, Tensor) else x.clamp(min=floor)
