"""Repetition, for distributions that cannot repeat themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import Distribution, ScoreParts, ShapeLike
from ppl.distributions.lifting import Wraps, lift


class ExpandedDistribution(Wraps):
    """A distribution repeated to a larger batch shape, each repetition drawn by itself.

    For distributions that have no `expand` of their own.

    Args: batch_shape, to which `base_dist.batch_shape` broadcasts.
    Raises: ValueError naming both shapes where it does not.
    """

    arg_constraints = {}
    base_dist: Distribution

    def __init__(self, base_dist: torch.distributions.Distribution, batch_shape: ShapeLike) -> None:
        batch_shape = Size(batch_shape)
        base = base_dist.batch_shape
        fits = len(base) <= len(batch_shape) and all(
            old in (1, new) for old, new in zip(reversed(base), reversed(batch_shape), strict=False)
        )
        if not fits:
            raise ValueError(
                f"{type(base_dist).__name__}: batch shape {tuple(base)} does not expand to {tuple(batch_shape)}; each "
                "dim must be equal or 1, counted from the right."
            )
        self.base_dist = lift(base_dist)
        super().__init__(batch_shape, base_dist.event_shape, validate_args=base_dist._validate_args)
        aligned = (1,) * (len(batch_shape) - len(base)) + tuple(base)
        # dims that the base does not have, or has at size 1: drawn anew as sample dims, then moved into place
        self._fresh = [i for i, (old, new) in enumerate(zip(aligned, batch_shape, strict=True)) if old != new]
        self._aligned = Size(aligned)

    @property
    def support(self) -> Any:
        return self.base_dist.support

    def _place(self, draw: Tensor, sample_dim: int) -> Tensor:
        fresh, batch = len(self._fresh), len(self.batch_shape)
        head = sample_dim + fresh
        event = tuple(self.event_shape)
        draw = draw.reshape(draw.shape[:head] + self._aligned + event)
        for order, position in enumerate(self._fresh):
            axis, target = sample_dim + order, head + position
            draw = draw.transpose(axis, target)
        draw = draw.squeeze(tuple(range(sample_dim, head))) if fresh else draw
        return draw.reshape(draw.shape[:sample_dim] + self.batch_shape + event) if batch else draw

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        shape = (*sample_shape, *(self.batch_shape[i] for i in self._fresh))
        return self._place(self.base_dist.sample(Size(shape)), len(sample_shape))

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        shape = (*sample_shape, *(self.batch_shape[i] for i in self._fresh))
        return self._place(self.base_dist.rsample(Size(shape)), len(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_form(value)
        batch = value.shape[: value.dim() - len(self.event_shape)]
        return self.base_dist.log_prob(value).expand(torch.broadcast_shapes(batch, self.batch_shape))

    @property
    def cardinality(self) -> int:
        """The base's number of values."""
        return lift(self.base_dist).cardinality

    def score_parts(self, x: Tensor) -> ScoreParts:
        parts = self.base_dist.score_parts(x)
        batch = torch.broadcast_shapes(x.shape[: x.dim() - len(self.event_shape)], self.batch_shape)
        return ScoreParts(*(p.expand(batch) if isinstance(p, Tensor) else p for p in parts))  # type: ignore[arg-type]

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values: Tensor = self.base_dist.enumerate_support(expand=False)
        missing = len(self.batch_shape) - len(self.base_dist.batch_shape)
        values = values.reshape(values.shape[:1] + (1,) * missing + values.shape[1:])
        return values.expand((-1, *self.batch_shape, *self.event_shape)) if expand else values

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        return ExpandedDistribution(self.base_dist, batch_shape)

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean.expand(self.shape())

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance.expand(self.shape())

    def entropy(self) -> Tensor:
        return self.base_dist.entropy().expand(self.batch_shape)

    def __repr__(self) -> str:
        return f"ExpandedDistribution({self.base_dist}, {tuple(self.batch_shape)})"


Distribution.wrappers["expand"] = ExpandedDistribution
