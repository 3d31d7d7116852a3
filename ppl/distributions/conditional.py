"""Distributions that depend on a context: `condition(context)` gives the distribution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ppl.distributions.distribution import Distribution, broadcast_shape
from ppl.distributions.lifting import lift
from ppl.distributions.transformed import TransformedDistribution
from ppl.distributions.transforms.compose import ComposeTransform
from ppl.distributions.transforms.conditional import ConditionalInverse, ConstantConditionalTransform, as_conditional
from ppl.distributions.transforms.transform import Transform


class ConditionalDistribution(ABC):
    """A family of distributions, one for each context."""

    @abstractmethod
    def condition(self, context: Tensor) -> Distribution:
        """The distribution of this context.

        Shapes: context (*batch, context_dim); its batch dims become batch dims of the distribution.
        """

    def clear_cache(self) -> None:  # noqa: B027, an empty default
        """Forget what was remembered; by default nothing is."""


class ConstantConditionalDistribution(ConditionalDistribution):
    """The same distribution for every context."""

    def __init__(self, base_dist: torch.distributions.Distribution) -> None:
        self.base_dist = lift(base_dist)

    def condition(self, context: Tensor) -> Distribution:
        """The distribution, whatever the context."""
        return self.base_dist


class ConditionalTransformedDistribution(ConditionalDistribution):
    """A distribution whose draws go through transforms, where some of either depend on a context.

    At a context with batch dims, each of them has draws of its own: `d.condition(context).sample(S)` has shape S + the
    context's batch dims + the event's. Of a base distribution of independent entries, the dims that the transforms act
    on stand right of those.

    Args: base_dist, a distribution, conditional or not; transforms, one or several, conditional or not, first to last.
    """

    def __init__(self, base_dist: torch.distributions.Distribution | ConditionalDistribution, transforms: Any) -> None:
        given: Sequence[Any] = transforms if isinstance(transforms, (list, tuple)) else [transforms]
        is_conditional = isinstance(base_dist, ConditionalDistribution)
        self.base_dist = base_dist if is_conditional else ConstantConditionalDistribution(base_dist)  # type: ignore[arg-type]
        self.transforms: list[Any] = [as_conditional(t) for t in given]

    def condition(self, context: Tensor) -> TransformedDistribution:
        """The distribution of this context."""
        parts: list[Any] = [t.condition(context) for t in self.transforms]
        base: Any = self.base_dist.condition(context)  # type: ignore[union-attr]
        event_dim = ComposeTransform(parts).domain.event_dim if parts else 0
        if event_dim > base.event_dim:
            base = base.to_event(event_dim - base.event_dim)
        # of dims that are not the event's: those on the right that a context's batch dims stand left of
        inner = max(0, min(max(map(_value_dim, self.transforms), default=0) - base.event_dim, len(base.batch_shape)))
        cut = len(base.batch_shape) - inner
        batch = broadcast_shape(base.batch_shape[:cut], context.shape[:-1])
        return TransformedDistribution(base.expand(batch + base.batch_shape[cut:]), parts)

    def clear_cache(self) -> None:
        """Forget what the transforms remembered."""
        for transform in self.transforms:
            if isinstance(transform, ConstantConditionalTransform) and isinstance(transform.transform, Transform):
                transform.transform.clear_cache()  # the others are new at each context


def _value_dim(transform: Any) -> int:
    """The dims of a value that the batch dims of a context stand left of."""
    if isinstance(transform, ConditionalInverse):
        return _value_dim(transform.transform)
    parts = getattr(transform, "parts", None)
    if parts is not None:
        return max(map(_value_dim, parts), default=0)
    return int(getattr(transform, "value_dim", transform.domain.event_dim))
