"""Standard draws, shaped like a parameter."""

from __future__ import annotations

import torch
from torch import Size, Tensor

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


def normal_of(like: Tensor, shape: ShapeLike) -> Tensor:
    """Standard normal draws of a whole shape, of another tensor's dtype and device."""
    return torch.randn(Size(shape), dtype=like.dtype, device=like.device)


def log_gamma(concentration: Tensor) -> Tensor:
    """The logarithms of gamma draws of rate 1, one for each entry, which do not underflow at small concentrations.

    A draw of concentration a is one of concentration a + 1 times u^(1/a), with u uniform.
    """
    shift = torch.log1p(-torch.rand_like(concentration)) / concentration
    return torch._standard_gamma(concentration + 1).log() + shift
