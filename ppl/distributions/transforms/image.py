"""Where monotone functions take half lines and intervals."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ppl.distributions import constraints


def image(domain: Any, monotone: Any, sign: int) -> Any:
    """The image of a half line or an interval under an increasing (sign 1) or decreasing (-1) function."""

    def at(bound: Any) -> Any:
        if isinstance(bound, Tensor):
            return monotone(bound)
        value = monotone(torch.tensor(bound, dtype=torch.float64))
        return value if value.dim() else value.item()

    if isinstance(domain, constraints.independent):
        return constraints.independent(image(domain.base_constraint, monotone, sign), domain.reinterpreted_batch_ndims)
    if constraints.same(domain, constraints.real) and sign:
        return constraints.real
    low, high = getattr(domain, "lower_bound", None), getattr(domain, "upper_bound", None)
    if domain.is_discrete or not sign or (low is None and high is None):
        raise ValueError(f"the image of {domain} is not known: use an interval, a half line or all reals.")
    new_low, new_high = (None if bound is None else at(bound) for bound in ((low, high) if sign > 0 else (high, low)))
    return between(new_low, new_high, is_closed=sign > 0 and isinstance(domain, constraints.greater_than_eq))


def between(low: Any, high: Any, is_closed: bool = False) -> Any:
    """The numbers between two bounds, of which None or an infinite number is none.

    Args: is_closed, whether a lower bound alone belongs to the set.
    """
    low = None if isinstance(low, float) and low == -math.inf else low
    high = None if isinstance(high, float) and high == math.inf else high
    if low is None:
        return constraints.real if high is None else constraints.less_than(high)
    if high is None:
        return (constraints.greater_than_eq if is_closed else constraints.greater_than)(low)
    return constraints.interval(low, high)
