"""Sums of numbers known by their logarithms, and logarithms, whose gradients are not NaN where a term is zero."""

from __future__ import annotations

import torch
from torch import Tensor


def log_positive(p: Tensor) -> Tensor:
    """The logarithm; -inf at 0 (and below, by rounding), where its gradient is 0."""
    some = p > 0
    return torch.where(some, torch.where(some, p, torch.ones_like(p)).log(), torch.full_like(p, -torch.inf))


def log_sum(x: Tensor, dim: int = -1) -> Tensor:
    """torch.logsumexp, whose gradient is 0 instead of NaN where every term is -inf."""
    some = (x > -torch.inf).any(dim, keepdim=True)
    total = torch.where(some, x, torch.zeros_like(x)).logsumexp(dim)
    return torch.where(some.squeeze(dim), total, torch.full_like(total, -torch.inf))
