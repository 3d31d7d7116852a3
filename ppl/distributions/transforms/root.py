"""Inverses of increasing functions without a formula: a search of fixed length, then steps that carry gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: Rounds of the search, and points looked at in each: a bracket shrinks by 17¹⁰ = 2·10¹².
ROUNDS, POINTS = 10, 16
#: How far a search without a bracket looks.
FAR = 1e15


def increasing_root(
    fn: Callable[[Tensor], tuple[Tensor, Tensor]],
    target: Tensor,
    low: Tensor | None = None,
    high: Tensor | None = None,
) -> Tensor:
    """Where an increasing function has a value, elementwise, with derivatives in all that the function depends on.

    In each round of a search without gradients, points that cut the bracket into 17 parts are looked at, all at once,
    and the part with the target in it is the next bracket. Three steps of Newton's follow, the last two with gradients:
    by the implicit function theorem the first of these makes first derivatives exact, both make those to third order.
    Nothing branches on a value, so it runs under `make_fx` and `vmap`.

    Costs:  10 evaluations at 16 points, and 3 at one.
    Shapes: target (*batch); fn must take points (16, *batch), too.
    Args:   fn, its value and its derivative; low and high, a bracket, by default all within 10¹⁵ of 0, where the search
            is by orders of magnitude.
    """
    with torch.no_grad():
        is_open = low is None or high is None
        if low is None or high is None:
            high = torch.full_like(target, math.asinh(FAR))
            low = -high
        parts = torch.arange(1, POINTS + 1, dtype=target.dtype, device=target.device)
        parts = (parts / (POINTS + 1)).reshape(-1, *[1] * target.dim())
        for _ in range(ROUNDS):
            size = high - low
            points = low + parts * size
            below = (fn(points.sinh() if is_open else points)[0] < target).sum(0)
            part = size / (POINTS + 1)
            low = low + below * part
            high = low + part
        x = 0.5 * (low + high)
        x, low, high = (x.sinh(), low.sinh(), high.sinh()) if is_open else (x, low, high)
        value, slope = fn(x)
        x = torch.clamp(x - (value - target) / slope.clamp_min(torch.finfo(x.dtype).tiny), low, high)
    for _ in range(2):
        value, slope = fn(x)
        x = x - (value - target) / slope.clamp_min(torch.finfo(x.dtype).tiny)
    return x
