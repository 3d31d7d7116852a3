"""Standard draws, shaped like a parameter."""

from __future__ import annotations

import torch
from torch import Tensor

from ppl.distributions.distribution import ShapeLike


def normal(like: Tensor, sample_shape: ShapeLike) -> Tensor:
    """Standard normal draws; shape: sample_shape + that of `like`, whose dtype and device they have."""
    if not sample_shape:
        return torch.randn_like(like)
    return torch.randn((*sample_shape, *like.shape), dtype=like.dtype, device=like.device)


def uniform(like: Tensor, sample_shape: ShapeLike) -> Tensor:
    """Uniform draws from [0, 1)."""
    return torch.rand((*sample_shape, *like.shape), dtype=like.dtype, device=like.device)


def exponential(like: Tensor, sample_shape: ShapeLike) -> Tensor:
    """Standard exponential draws, never 0."""
    return torch.empty((*sample_shape, *like.shape), dtype=like.dtype, device=like.device).exponential_()
