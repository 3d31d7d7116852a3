"""Monotone splines from a line onto itself: rational pieces between knots, the identity outside a bound."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ppl.distributions.transforms.increasing import Increasing
from ppl.distributions.transforms.networks import inverse_softplus

#: The least width and height of a bin as a share of the whole, and the least slope at a knot.
MIN_BIN, MIN_SLOPE = 1e-3, 1e-3


@dataclass(frozen=True)
class Bins:
    """The bin of each point: its lower corner, its sizes, the slopes at its two knots, and where it is parted."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    slope: Tensor
    next_slope: Tensor
    part: Tensor | None


@dataclass(frozen=True)
class SplineFamily(Increasing):
    """Splines with `count_bins` bins between -bound and bound.

    Parameters: widths and heights (*, K, D), slopes (*, K - 1, D) and, for order "linear", parts (*, K, D), all
    unconstrained; at zero the map is the identity. The slope at the bound is 1, so the derivative is continuous there.
    Source: order "quadratic": rational quadratic pieces, Durkan et al. 2019, equations 4 to 8; order "linear": two
    linear rational pieces a bin, Dolatabadi et al. 2020, section 3.
    """

    count_bins: int = 8
    bound: float = 3.0
    order: str = "linear"

    def __post_init__(self) -> None:
        if self.order not in ("linear", "quadratic"):
            raise ValueError(f"a spline's order must be 'linear' or 'quadratic', but got {self.order!r}.")
        if not 1 <= self.count_bins < 1 / MIN_BIN:
            raise ValueError(
                f"a spline's count_bins must be from 1 to {1 / MIN_BIN - 1:.0f}, but got {self.count_bins}."
            )
        if not self.bound > 0:
            raise ValueError(f"a spline's bound must be positive, but got {self.bound}.")

    @property
    def param_dims(self) -> tuple[int, ...]:
        """The numbers of parameters of each kind."""
        k = self.count_bins
        return (k, k, k - 1, k) if self.order == "linear" else (k, k, k - 1)

    def forward(self, x: Tensor, *params: Tensor) -> tuple[Tensor, Tensor]:
        """The spline at x, and the logarithm of its slope."""
        inside = x.abs() <= self.bound
        within = x.clamp(-self.bound, self.bound)
        bins = self._find(within, 0, *params)
        shifted = (within - bins.x) / bins.width
        offset, log_slope = (_linear if self.order == "linear" else _quadratic)(shifted, bins)
        return torch.where(inside, bins.y + offset, x), torch.where(inside, log_slope, 0)

    def inverse(self, y: Tensor, *params: Tensor) -> Tensor:
        """Where the spline is y, by formula."""
        inside = y.abs() <= self.bound
        within = y.clamp(-self.bound, self.bound)
        bins = self._find(within, 1, *params)
        shifted = (_linear_inverse if self.order == "linear" else _quadratic_inverse)(within - bins.y, bins)
        return torch.where(inside, bins.x + shifted * bins.width, y)

    def _find(self, value: Tensor, side: int, *params: Tensor) -> Bins:
        """The bins that values lie in, by their x (side 0) or y (side 1)."""
        if len(params) != len(self.param_dims):
            raise ValueError(
                f"a spline of order {self.order!r} needs parameters of sizes {self.param_dims}, but got "
                f"{tuple(p.shape[-2] for p in params)}."
            )
        raw = [p.mT for p in params]  # (*, D, K)
        knots = [self._knots(raw[0]), self._knots(raw[1])]
        offset = inverse_softplus(1 - MIN_SLOPE)
        slopes = functional.pad(MIN_SLOPE + functional.softplus(raw[2] + offset), (1, 1), value=1.0)
        index = (value.unsqueeze(-1) >= knots[side][..., 1:-1]).sum(-1, keepdim=True)

        def at(table: Tensor, index: Tensor) -> Tensor:
            batch = torch.broadcast_shapes(table.shape[:-1], index.shape[:-1])
            return table.expand(*batch, -1).gather(-1, index.expand(*batch, 1)).squeeze(-1)

        x, y = at(knots[0], index), at(knots[1], index)
        part = 0.025 + 0.95 * at(raw[3], index).sigmoid() if self.order == "linear" else None
        width, height = at(knots[0], index + 1) - x, at(knots[1], index + 1) - y
        return Bins(x, y, width, height, at(slopes, index), at(slopes, index + 1), part)

    def _knots(self, raw: Tensor) -> Tensor:
        """Knots from -bound to bound, both exactly."""
        shares = MIN_BIN + (1 - MIN_BIN * self.count_bins) * raw.softmax(-1)
        inner = self.bound * (2 * shares.cumsum(-1)[..., :-1] - 1)
        return functional.pad(functional.pad(inner, (1, 0), value=-self.bound), (0, 1), value=self.bound)


def _quadratic(t: Tensor, b: Bins) -> tuple[Tensor, Tensor]:
    """Equations 4 and 5 of Durkan et al.: the height above the lower knot, and the log slope, at t in [0, 1]."""
    mean, between = b.height / b.width, t * (1 - t)
    below = mean + (b.slope + b.next_slope - 2 * mean) * between
    offset = b.height * (mean * t**2 + b.slope * between) / below
    above = b.next_slope * t**2 + 2 * mean * between + b.slope * (1 - t) ** 2
    return offset, 2 * mean.log() + above.log() - 2 * below.log()


def _quadratic_inverse(offset: Tensor, b: Bins) -> Tensor:
    """Equations 6 to 8 of Durkan et al.: the root of a quadratic, in the form that does not cancel."""
    mean = b.height / b.width
    bend = offset * (b.slope + b.next_slope - 2 * mean)
    p, q, r = b.height * (mean - b.slope) + bend, b.height * b.slope - bend, -mean * offset
    return 2 * r / (-q - (q**2 - 4 * p * r).clamp_min(0).sqrt())


def _linear_weights(b: Bins) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The part, the height of its point, and the weights there and at the upper knot (1 at the lower one)."""
    assert b.part is not None
    upper = (b.slope / b.next_slope).sqrt()
    rise = b.height * b.part * upper / (1 - b.part + b.part * upper)
    middle = (b.part * b.slope + (1 - b.part) * b.next_slope * upper) * b.width / b.height
    return b.part, rise, middle, upper


def _linear(t: Tensor, b: Bins) -> tuple[Tensor, Tensor]:
    """Two homographic pieces: the height above the lower knot, and the log slope, at t in [0, 1]."""
    part, rise, middle, upper = _linear_weights(b)
    first = t <= part
    below = torch.where(first, part - t + middle * t, middle * (1 - t) + upper * (t - part))
    offset = torch.where(first, middle * rise * t, upper * (b.height - rise) * (t - part)) / below
    above = torch.where(first, part * middle * rise, (1 - part) * middle * upper * (b.height - rise))
    return torch.where(first, offset, rise + offset), above.log() - 2 * below.log() - b.width.log()


def _linear_inverse(offset: Tensor, b: Bins) -> Tensor:
    part, rise, middle, upper = _linear_weights(b)
    first = offset <= rise
    over = middle * (offset - rise)
    left, right = offset, upper * (b.height - offset)  # distances to the knots, times their weights
    above = torch.where(first, part * left, part * right + over)
    return above / torch.where(first, left - over, right + over)
