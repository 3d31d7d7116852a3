"""Inverses of increasing functions without a formula: a search of fixed length, then steps that carry gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Evaluations in the search. Each second one at least halves the bracket, and most are Newton's.
STEPS = 60


def increasing_root(
    fn: Callable[[Tensor], tuple[Tensor, Tensor]],
    target: Tensor,
    low: Tensor | float = -torch.inf,
    high: Tensor | float = torch.inf,
    steps: int = STEPS,
) -> Tensor:
    """Where an increasing function has a value, elementwise, with derivatives in all that the function depends on.

    A search without gradients keeps a bracket. It takes Newton's step where that stays in the bracket and is less than
    half the step before last, else it halves the bracket; while one side is open, it goes that way instead, by twice its
    distance from 0. Two steps of Newton's follow, with gradients: by the implicit function theorem the first makes first
    derivatives exact, both make those to third order exact.
    Nothing branches on a value, so it runs under `make_fx` and `vmap`, and always takes `steps` + 2 evaluations.

    Args: fn, its value and its derivative; low and high, a bracket, in whose middle the search begins; at 0 where one
          is not given.
    """
    with torch.no_grad():
        low, high = torch.as_tensor(low).to(target), torch.as_tensor(high).to(target)
        middle = low + 0.5 * (high - low)
        x = best = torch.where(middle.isfinite(), middle, torch.zeros_like(target))
        best_gap = step = step_before = torch.full_like(x, torch.inf)
        for _ in range(steps):
            value, slope = fn(x)
            gap = value - target
            better = gap.abs() < best_gap
            best, best_gap = torch.where(better, x, best), torch.where(better, gap.abs(), best_gap)
            low, high = torch.where(gap <= 0, x, low), torch.where(gap >= 0, x, high)
            closed = low.isfinite() & high.isfinite()
            reach = 2 * (1 + x.abs())  # while a side is open
            newton = (-gap / slope).clamp(-reach, reach)
            take = (x + newton >= low) & (x + newton <= high) & (newton.abs() < 0.5 * step_before)  # false for NaN
            other = torch.where(closed, 0.5 * (high - low) + (low - x), -gap.sign() * reach)
            move = torch.where(take, newton, other)
            x, step_before, step = x + move, step, move.abs()
        x = best
    tiny = torch.finfo(x.dtype).tiny
    for _ in range(2):
        value, slope = fn(x)
        x = x - (value - target) / slope.clamp_min(tiny)
    return x
