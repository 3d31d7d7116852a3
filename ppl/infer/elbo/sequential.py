"""Enumerate sites by running the program once for each of their values.

The runs' factors are then stacked along one named axis a site, and from there on nothing knows the difference. All runs
start from one state of the random generator, so that what does not depend on the choices is drawn alike in each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch

from ppl.handlers.enum import support_on_dim
from ppl.site import Site, expand_to_plates
from ppl.stack import Handler, perform
from ppl.tensors.factor import Factor, union

T = TypeVar("T")
Assignment = dict[str, int]


class choose(Handler):
    """Give the sites marked `sequential` the values on one path through the tree of their choices."""

    def __init__(self, path: Sequence[int] = ()) -> None:
        super().__init__()
        self.path = path
        self.chosen: Assignment = {}
        self.sizes: list[int] = []

    def handle(self, site: Site) -> Site:
        marked = site.kind == "sample" and site.infer.enumerate == "sequential"
        if not marked or site.value is not None or site.observed:
            return perform(site)
        d = expand_to_plates(site, site.fn)
        values = support_on_dim(site, -1 - len(d.batch_shape))
        position = len(self.sizes)
        index = self.path[position] if position < len(self.path) else 0
        self.sizes.append(values.size(0))
        self.chosen[site.name] = index
        return perform(site.replace(value=values[index].expand(d.shape())))


def runs(program: Callable[[], T]) -> Iterator[tuple[Assignment, dict[str, int], T]]:
    """Run a program once for each combination of values of its sequential sites.

    Yields: the index of each site's value, the cardinality of each site, and what the program returned.
    """
    path: list[int] | None = []
    start = torch.get_rng_state()
    while path is not None:
        if path:
            torch.set_rng_state(start)
        with choose(path) as chooser:
            result = program()
        yield dict(chooser.chosen), dict(zip(chooser.chosen, chooser.sizes, strict=True)), result
        path = _next_path(list(chooser.chosen.values()), chooser.sizes)


def _next_path(path: list[int], sizes: list[int]) -> list[int] | None:
    while path and path[-1] + 1 == sizes[len(path) - 1]:
        path.pop()
    if not path:
        return None
    path[-1] += 1
    return path


def stack(
    parts: Sequence[tuple[Assignment, Mapping[str, Factor]]], sizes: Mapping[str, int], impossible: float
) -> dict[str, Factor]:
    """The factors of all runs, each over one more axis for every sequential site that it depends on.

    Args: impossible, what a site's own factor is where the site does not have that value, or does not exist.
    """
    if not sizes:
        return dict(parts[0][1])
    axes, shape = tuple(sizes), tuple(sizes.values())
    names = dict.fromkeys(name for _, factors in parts for name in factors)
    cells = [_occupant(dict(zip(axes, cell, strict=True)), parts) for cell in itertools.product(*map(range, shape))]
    indices = list(itertools.product(*map(range, shape)))
    stacked = {}
    for name in names:
        present = [factors[name] for _, factors in parts if name in factors]
        inner = union(present)
        size = {axis: f.size(axis) for f in present for axis in f.axes}
        blank = present[0].tensor.new_zeros([size[axis] for axis in inner])
        rows = []
        for index, (assignment, factors) in zip(indices, cells, strict=True):
            row = factors[name].aligned(inner).expand(blank.shape) if name in factors else blank
            if name in sizes and assignment.get(name, 0) != index[axes.index(name)]:
                row = blank + impossible
            rows.append(row)
        full = Factor(axes + inner, torch.stack(rows).reshape(shape + blank.shape))
        stacked[name] = _without_constant_axes(full, [axis for axis in axes if axis != name])
    return stacked


def _occupant(
    cell: Assignment, parts: Sequence[tuple[Assignment, Mapping[str, Factor]]]
) -> tuple[Assignment, Mapping[str, Factor]]:
    """The run that a combination of values belongs to; for one that never occurs, the nearest run, to fill the place."""
    for assignment, factors in parts:
        if all(cell[axis] == index for axis, index in assignment.items()):
            return assignment, factors
    return max(parts, key=lambda part: sum(cell[axis] == index for axis, index in part[0].items()))


def _without_constant_axes(factor: Factor, axes: Sequence[str]) -> Factor:
    for axis in axes:
        dim = factor.axes.index(axis)
        first = factor.tensor.narrow(dim, 0, 1)
        if bool((factor.tensor == first).all()):
            factor = Factor(factor.axes[:dim] + factor.axes[dim + 1 :], first.squeeze(dim))
    return factor
