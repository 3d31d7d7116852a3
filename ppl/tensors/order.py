"""In which order to multiply factors and sum variables out: found once for each structure, and remembered."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from opt_einsum.paths import greedy

Axes = tuple[str, ...]
Shape = tuple[int, ...]

#: How many structures are remembered; the least recently used is forgotten first.
REMEMBERED = 256
#: Up to so many factors, the best of all orders is found; beyond, a greedy one.
FEW = 7


@dataclass(frozen=True, slots=True)
class Step:
    """Two factors are multiplied (or one is taken), and those variables summed out that occur nowhere else.

    Factors are numbered: first those given, then the result of each step.
    """

    members: tuple[int, ...]
    axes: Axes  # of the product
    done: Axes  # summed out
    dims: tuple[int, ...]  # where they are in the product
    left: Axes  # the axes of the result
    entries: int  # of the product


@functools.lru_cache(maxsize=REMEMBERED)
def contraction(factors: tuple[Axes, ...], shapes: tuple[Shape, ...], gone: frozenset[str]) -> tuple[Step, ...]:
    """The steps that make one factor of many.

    Args: the axes of each factor, and the sizes of these; the variables to sum out.
    """
    sizes = {
        axis: size for axes, shape in zip(factors, shapes, strict=True) for axis, size in zip(axes, shape, strict=True)
    }
    work = list(range(len(factors)))
    known = list(factors)
    uses = Counter(axis for axes in factors for axis in axes)
    steps = []
    for positions in _order(factors, sizes, gone):
        members = tuple(work[i] for i in positions)
        for i in sorted(positions, reverse=True):
            del work[i]
        axes = tuple(dict.fromkeys(axis for m in members for axis in known[m]))
        uses.subtract(axis for m in members for axis in known[m])
        done = tuple(axis for axis in axes if axis in gone and not uses[axis])
        left = tuple(axis for axis in axes if axis not in done)
        uses.update(left)
        entries = math.prod(sizes[axis] for axis in axes)
        steps.append(Step(members, axes, done, tuple(axes.index(axis) for axis in done), left, entries))
        work.append(len(known))
        known.append(left)
    return tuple(steps)


def _order(factors: Sequence[Axes], sizes: dict[str, int], gone: frozenset[str]) -> list[tuple[int, ...]]:
    """Positions in a list from which those of each step are taken, and to whose end its result is put."""
    if len(factors) <= 2:
        return [tuple(range(len(factors)))]
    inputs = [frozenset(axes) for axes in factors]
    kept = frozenset().union(*inputs) - gone
    if len(factors) <= FEW:
        return _best(inputs, kept, sizes)
    found: list[tuple[int, ...]] = greedy(inputs, kept, sizes)
    return found


def _best(inputs: Sequence[frozenset[str]], kept: frozenset[str], sizes: dict[str, int]) -> list[tuple[int, ...]]:
    """The order whose products have the fewest entries together, by looking at every way to split every set in two."""
    everything = (1 << len(inputs)) - 1

    def axes_of(some: int) -> frozenset[str]:
        """What is left of a set of factors that has been multiplied."""
        inside = frozenset().union(*(a for i, a in enumerate(inputs) if some >> i & 1))
        return inside & kept.union(*(a for i, a in enumerate(inputs) if not some >> i & 1))

    left = [frozenset[str]()] + [axes_of(some) for some in range(1, everything + 1)]
    cost = [0] * (everything + 1)
    half = [0] * (everything + 1)
    for i, axes in enumerate(inputs):
        left[1 << i] = axes
    for some in range(1, everything + 1):
        part = (some - 1) & some
        while part:
            other = some ^ part
            if part > other:
                total = cost[part] + cost[other] + math.prod(sizes[axis] for axis in left[part] | left[other])
                if not half[some] or total < cost[some]:
                    cost[some], half[some] = total, part
            part = (part - 1) & some
    work = [1 << i for i in range(len(inputs))]
    order: list[tuple[int, ...]] = []

    def visit(some: int) -> None:
        part = half[some]
        if not part:
            return
        visit(part)
        visit(some ^ part)
        positions = tuple(sorted((work.index(part), work.index(some ^ part))))
        order.append(positions)
        for i in reversed(positions):
            del work[i]
        work.append(some)

    visit(everything)
    return order
