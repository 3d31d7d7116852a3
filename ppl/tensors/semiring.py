"""Ways to sum out a dim of log factors: all of one value together, or the best one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ppl.tensors.rewind import is_recorded

Reduction = Callable[[Tensor, Sequence[int]], Tensor]

# From so many entries on, those are left out that beside the largest come near the smallest normal number, so that their
# part of a gradient may lie below it: processors take many times as long over such numbers, and the sum is the same to its
# last digit. In recorded programs alone: without a compiler the mask costs more than it saves, and memory besides.
_MANY = 1 << 14


def log_sum_exp(x: Tensor, dims: Sequence[int]) -> Tensor:
    """log Σ exp(x) over some dims; where all entries are -inf, -inf with a zero gradient instead of NaN."""
    top = x.detach().amax(tuple(dims), keepdim=True)
    top = torch.where(top.isfinite(), top, torch.zeros_like(top))
    below = x - top
    if below.numel() >= _MANY and is_recorded():
        numbers = torch.finfo(x.dtype)
        below = below.masked_fill_(below < math.log(numbers.tiny / numbers.eps), -torch.inf)
    total = below.exp_().sum(tuple(dims))  # in place: one copy of the size of x, not two
    empty = total == 0
    safe = torch.where(empty, torch.ones_like(total), total).log() + top.squeeze(tuple(dims))
    return safe.masked_fill(empty, -torch.inf)


def maximum(x: Tensor, dims: Sequence[int]) -> Tensor:
    """The largest entry over some dims; the gradient goes to one of the largest."""
    for dim in sorted(dims, reverse=True):
        x = x.max(dim).values
    return x
