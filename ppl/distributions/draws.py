"""Many draws of a distribution on one of its batch dims, instead of in front of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ppl.distributions.distribution import Distribution


def draws_on_dim(d: Distribution, count: int, dim: int, mixed: Sequence[int] = (), diagonal: bool = False) -> Tensor:
    """Independent draws along a batch dim on which the distribution does not vary.

    Along the dims `mixed`, the distribution's components are not all drawn from: each draw is of one of them. These are
    chosen at random, independently for each draw and all else in the batch; or, `diagonal`, draw k is of component k.

    Shapes: (*batch, *event), with `count` at the negative batch dim `dim` and 1 at the dims `mixed`.
    Raises: ValueError where the distribution varies along `dim`.
    """
    event = tuple(d.event_shape)
    width = max(len(d.batch_shape), -dim)
    batch = (1,) * (width - len(d.batch_shape)) + tuple(d.batch_shape)
    if batch[dim] != 1:
        raise ValueError(
            f"{type(d).__name__}: draws shall lie on dim {dim}, where the batch shape {tuple(d.batch_shape)} has size "
            f"{batch[dim]} already."
        )
    value = d((count,)).reshape((count, *batch, *event))
    value = value.transpose(0, 1 + width + dim).squeeze(0)
    for other in mixed:
        value = _one_each(value, width + other, width + dim if diagonal else None, width)
    return value


def _one_each(value: Tensor, position: int, along: int | None, width: int) -> Tensor:
    """One entry along a dim for each place in the rest of the batch: at random, or at the place's index `along`."""
    batch = list(value.shape[:width])
    size, batch[position] = batch[position], 1
    if along is None:
        index = torch.randint(size, batch, device=value.device)
    else:
        shape = [1] * width
        shape[along] = batch[along]
        index = torch.arange(batch[along], device=value.device).reshape(shape).expand(batch)
    event = value.shape[width:]
    index = index.reshape(*batch, *(1 for _ in event)).expand(*batch, *event)
    return value.gather(position, index)
