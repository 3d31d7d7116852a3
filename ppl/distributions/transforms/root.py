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
    start: Tensor | None = None,
    steps: int = STEPS,
) -> Tensor:
    """Where an increasing function has a value, elementwise, with derivatives in all that the function depends on.

    A search without gradients keeps a bracket and takes Newton's step where that stays in it and shrinks fast enough,
    else halves the bracket (or, while one side is open, goes on by threefold). Two steps of Newton's follow, with
    gradients: by the implicit function theorem the first makes first derivatives exact, both those to third order.
    Nothing branches on a value, so it runs under `make_fx` and `vmap`, and always takes `steps` + 2 evaluations.

    Args: fn, its value and its derivative; low and high, a bracket; start, where to begin (the bracket's middle, or
          the target where the bracket is open).
    """
    with torch.no_grad():
        low, high = torch.as_tensor(low).to(target), torch.as_tensor(high).to(target)
        if start is None:
            middle = low + 0.5 * (high - low)
            start = torch.where(middle.isfinite(), middle, target)
        x = best = start.detach() + torch.zeros_like(target)
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
            halves = closed.logical_not() | (newton.abs() < 0.5 * step_before)
            take = (x + newton >= low) & (x + newton <= high) & halves  # false for NaN
            other = torch.where(closed, 0.5 * (high - low) + (low - x), -gap.sign() * reach)
            move = torch.where(take, newton, other)
            x, step_before, step = x + move, step, move.abs()
        x = best
    tiny = torch.finfo(x.dtype).tiny
    for _ in range(2):
        value, slope = fn(x)
        x = x - (value - target) / slope.clamp_min(tiny)
    return x
