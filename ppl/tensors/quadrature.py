"""Rules for integrals over an interval."""

from __future__ import annotations

import functools
import math


@functools.cache
def gauss_legendre(order: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Nodes and weights on (0, 1), exact for polynomials up to degree 2 * order - 1.

    Plain numbers, so that a graph that is being captured does not keep them as tensors of its own kind.
    """
    nodes, weights = [], []
    for i in range(order):
        x = math.cos(math.pi * (i + 0.75) / (order + 0.5))
        slope = 0.0
        for _ in range(8):  # Newton's method on the Legendre polynomial, by its recurrence
            before, value = 0.0, 1.0
            for k in range(order):
                before, value = value, ((2 * k + 1) * x * value - k * before) / (k + 1)
            slope = order * (x * value - before) / (x * x - 1)
            x -= value / slope
        nodes.append((1 - x) / 2)
        weights.append(1 / ((1 - x * x) * slope * slope))
    return tuple(nodes), tuple(weights)
