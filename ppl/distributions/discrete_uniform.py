"""Integers, all of them equally likely."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions import constraints
from ppl.distributions.count import Count, along_batch, largest_number
from ppl.distributions.distribution import Distribution
from ppl.distributions.validation import InvalidArgument, describe_entries


class DiscreteUniform(Count, Distribution):
    """An integer from `low` to `high`, both included. Draws are of dtype int64, or of the floating point dtype of its arguments.

    Raises: ValueError where low is above high.
    """

    arg_constraints = {"low": constraints.integer, "high": constraints.integer}
    has_enumerate_support = True
    _kept = ("_ends", "_is_integral")
    parameters = ("low", "high")
    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor | int = 0, high: Tensor | int = 1, validate_args: bool | None = None) -> None:
        numbers = not (isinstance(low, Tensor) or isinstance(high, Tensor))
        self._ends = (low, high) if numbers else None  # known to graphs, too
        ends = (low, high)
        self._is_integral = not any(
            v.is_floating_point() if isinstance(v, Tensor) else isinstance(v, float) for v in ends
        )
        self._take((low, high), validate_args)
        if self._validate_args:
            above = self.low > self.high
            if bool(above.any()):
                raise InvalidArgument(
                    f"DiscreteUniform: argument 'low' must be at most 'high', but {describe_entries(above, self.low)}.",
                    above,
                )

    @property
    def lowest(self) -> Any:
        """The least value."""
        return self.low

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(self.low, self.high)

    @property
    def _size(self) -> Tensor:
        return self.high - self.low + 1

    def _draw(self, shape: Size) -> Tensor:
        # in double precision: a float32 has but 2^24 values
        low, size = self.low.expand(shape), self._size.expand(shape)
        steps = (torch.rand(shape, dtype=_wide(low), device=low.device) * size).floor()
        drawn = low + steps.minimum(size - 1)
        return drawn.long() if self._is_integral else drawn.to(low.dtype)

    def _log_mass(self, value: Tensor) -> Tensor:
        return -self._size.log() + torch.zeros_like(value)

    def _cumulative(self, value: Tensor) -> Tensor:
        return (value - self.low + 1) / self._size

    def icdf(self, value: Tensor) -> Tensor:
        """The least integer at which `cdf` reaches the value."""
        return self.low + ((value * self._size).ceil() - 1).clamp(min=0)

    @property
    def mean(self) -> Tensor:
        return self.low + (self.high - self.low) / 2

    @property
    def variance(self) -> Tensor:
        return (self._size * self._size - 1) / 12

    def entropy(self) -> Tensor:
        return self._size.log()

    def _number_of_values(self) -> int:
        low, high = self._extremes()
        return high - low + 1

    def _extremes(self) -> tuple[int, int]:
        """The least and the largest value that any entry of the batch has."""
        if self._ends is not None:
            return int(self._ends[0]), int(self._ends[1])
        return -largest_number(-self.low), largest_number(self.high)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """The values that any entry of the batch has; for an entry with fewer, the others have log density -inf."""
        low, high = self._extremes()
        dtype = torch.int64 if self._is_integral else self.low.dtype
        values = torch.arange(low, high + 1, dtype=dtype, device=self.low.device)
        return along_batch(values, self.batch_shape, expand)


def _wide(like: Tensor) -> torch.dtype:
    return like.dtype if like.device.type == "mps" else torch.float64
