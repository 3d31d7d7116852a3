"""The distribution of a plate's indices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.tensors.seen import Seen

#: Plates larger than this are not shuffled as a whole for a small part of them.
MANY = 2**15


# by a tensor's id: the indices of whole plates, which another program's plate is often given
_wholes: dict[int, Seen] = {}
_MANY = 64  # how many of these are remembered


def draw_distinct(size: int, count: int, device: torch.device | str | None = None) -> Tensor:
    """The first `count` different ones of independent draws below `size`, in the order in which they come.

    Time does not depend on `size`, which must be at least 8 `count`: then 2 `count` + 16 draws have less than `count`
    different ones with a probability below 1e-14.
    """
    drawn = torch.randint(size, (2 * count + 16,), device=device)
    values, order = drawn.sort(stable=True)
    again = torch.zeros_like(values)
    again[1:] = values[1:] == values[:-1]
    first = (order + again * len(drawn)).sort().values[:count] % len(drawn)
    return drawn[first]


class Subsample(Distribution):
    """`subsample_size` different indices below `size`, in random order; all of them, in order, without subsampling.

    Shapes: a draw is (subsample_size,), of dtype int64.
    """

    arg_constraints = {}

    def __init__(self, size: int, subsample_size: int, device: torch.device | str | None = None) -> None:
        self.size, self.subsample_size, self.device = size, subsample_size, device
        vars(self).update(_batch_shape=Size(), _event_shape=Size((subsample_size,)), _validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.independent(constraints.integer_interval(0, self.size - 1), 1)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        if sample_shape:
            raise ValueError("Subsample: a plate has one set of indices; sample_shape must be ().")
        if self.subsample_size == self.size:
            indices = torch.arange(self.size, device=self.device)
            if len(_wholes) >= _MANY:
                _wholes.clear()
            _wholes[id(indices)] = Seen(indices, self.size)
            return indices
        if self.size < 16 * self.subsample_size + MANY:
            return torch.randperm(self.size, device=self.device)[: self.subsample_size].clone()
        return draw_distinct(self.size, self.subsample_size, self.device)

    def is_possible(self, value: Tensor) -> bool:
        """Whether a value is that many indices; a quick look, for the many plates that are replayed."""
        if value.shape != self.event_shape or value.dtype != torch.int64 or not self.subsample_size:
            return False
        known = _wholes.get(id(value))
        if known is not None and known.of(value) == self.size:
            return True
        low, high = value.aminmax()
        return low.item() >= 0 and high.item() < self.size

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.zeros((), device=value.device)


def same_plate(a: Distribution, b: Distribution) -> bool:
    """Whether two plate sites may share a name: one plate entered again, or two whole plates of one size."""
    if a is b:
        return True
    if not (isinstance(a, Subsample) and isinstance(b, Subsample)):
        return False
    return a.size == a.subsample_size == b.size == b.subsample_size
