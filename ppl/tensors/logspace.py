"""Sums and differences of numbers known by their logarithms, and their gradients where a term is zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOG_2 = math.log(2.0)


def log_positive(p: Tensor) -> Tensor:
    """The logarithm; -inf at 0 (and below, by rounding), where its gradient is 0."""
    some = p > 0
    return torch.where(some, torch.where(some, p, torch.ones_like(p)).log(), torch.full_like(p, -torch.inf))


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) for x >= 0, accurate near 0 and far from it; its gradient at infinity is 0."""
    near = x < _LOG_2
    small = torch.where(near, x, torch.ones_like(x))
    large = torch.where(near, torch.ones_like(x), x)
    return torch.where(near, torch.log(-torch.expm1(-small)), torch.log1p(-torch.exp(-large)))


def log_difference(a: Tensor, b: Tensor) -> Tensor:
    """log(exp(a) - exp(b)) for a >= b; -inf where they are equal, and then without a gradient."""
    apart = (a > b) & (b > -torch.inf)
    gap = torch.where(apart, a - torch.where(apart, b, torch.zeros_like(b)), torch.ones_like(a))
    rest = torch.where(a > b, torch.zeros_like(a), torch.full_like(a, -torch.inf))
    return a + torch.where(apart, log1mexp(gap), rest)


def log_sum(x: Tensor, dim: int = -1) -> Tensor:
    """torch.logsumexp, whose gradient is 0 instead of NaN where every term is -inf."""
    some = (x > -torch.inf).any(dim, keepdim=True)
    total = torch.where(some, x, torch.zeros_like(x)).logsumexp(dim)
    return torch.where(some.squeeze(dim), total, torch.full_like(total, -torch.inf))
