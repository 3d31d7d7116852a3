"""Batch dims read as event dims."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import Distribution, ScoreParts, ShapeLike, expanded
from ppl.distributions.lifting import Wraps, lift


class Independent(Wraps, torch.distributions.Independent[torch.distributions.Distribution], Distribution):
    """The last batch dims of a distribution read as event dims (`d.to_event(n)`); log densities sum over them."""

    arg_constraints = {}

    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> Any:
        count = len(self.batch_shape) if reinterpreted_batch_ndims is None else reinterpreted_batch_ndims
        return self if count == 0 else Independent(self.base_dist, self.reinterpreted_batch_ndims + count)

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        inner = self.event_shape[: self.reinterpreted_batch_ndims]
        base = expanded(lift(self.base_dist), Size((*batch_shape, *inner)))
        return Independent(base, self.reinterpreted_batch_ndims, self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return sum_rightmost(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def log_prob_of_draw(self, draw: Tensor) -> Tensor:
        if type(self) is not Independent:
            return self.log_prob(draw)
        return sum_rightmost(lift(self.base_dist).log_prob_of_draw(draw), self.reinterpreted_batch_ndims)

    @property
    def cardinality(self) -> int:
        """The number of values of the product, which is known also where nobody would list them."""
        return int(lift(self.base_dist).cardinality ** self.event_shape[: self.reinterpreted_batch_ndims].numel())

    def enumerate_support(self, expand: bool = True) -> Tensor:
        if self.reinterpreted_batch_ndims:
            raise ValueError(
                f"{type(self.base_dist).__name__}.to_event({self.reinterpreted_batch_ndims}) cannot be enumerated: its "
                "support is a product over the event dims. Leave the dims to a plate instead of to_event."
            )
        return self.base_dist.enumerate_support(expand)

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return self.reinterpreted_batch_ndims == 0 and bool(self.base_dist.has_enumerate_support)

    def score_parts(self, x: Tensor) -> ScoreParts:
        count = self.reinterpreted_batch_ndims
        parts = lift(self.base_dist).score_parts(x)
        return ScoreParts(*(sum_rightmost(p, count) if isinstance(p, Tensor) else p for p in parts))  # type: ignore[arg-type]


def sum_rightmost(value: Tensor, count: int) -> Tensor:
    """The sum over the last `count` dims; over none it is the value itself."""
    return value.sum(tuple(range(-count, 0))) if count else value


Distribution.wrappers["to_event"] = Independent
