"""Enumerate sites by running the program once for each of their values.

The runs' factors are then stacked along one named axis a site, and from there on nothing knows the difference. All runs
start from one state of the random generator, so that what does not depend on the choices is drawn alike in each. Which
factors depend on which choices is found by provenance, not by comparing values: two branches may agree at one point and
still have different gradients.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import torch

from ppl.distributions.distribution import broadcast_shape
from ppl.handlers.enum import support_on_dim
from ppl.site import Site, expand_to_plates, plate_shape
from ppl.stack import Handler, perform
from ppl.tensors.factor import Factor, union
from ppl.tensors.provenance import Names, Provenance
from ppl.tensors.rewind import is_recorded, random_state, rewind

T = TypeVar("T")
Assignment = dict[str, int]


@dataclass(slots=True)
class Run(Generic[T]):
    """One run of a program."""

    chosen: Assignment  # the index of each sequential site's value
    sizes: dict[str, int]  # and how many it has
    result: T  # what the program returned
    sources: dict[str, Names] = field(default_factory=dict)  # the sequential sites that each site depends on


class choose(Handler):
    """Give the sites marked `sequential` the values on one path through the tree of their choices.

    Args: provenance, tracks what depends on the choices, while it is active; is_watched, whether it is.
    """

    def __init__(self, path: Sequence[int], provenance: Provenance, is_watched: bool) -> None:
        super().__init__()
        self.path, self.provenance, self.is_watched = path, provenance, is_watched
        self._blind = not provenance.is_used  # in the run that finds the first choice nothing is tracked
        self.chosen: Assignment = {}
        self.sizes: list[int] = []
        self.sources: dict[str, Names] = {}

    def handle(self, site: Site) -> Site:
        if site.kind != "sample":
            return perform(site)
        marked = site.infer.enumerate == "sequential" and site.value is None and not site.observed
        if self.is_watched:
            known = self.provenance.of((site.distribution, site.mask, site.scale)) | self.provenance.control
        else:
            known = frozenset()
        if known or (self.chosen and self._blind):
            site = site.replace(branch=True)
        done = self._decide(site) if marked else perform(site)
        if not marked and not self.is_watched:
            return done
        seen = (site.distribution, site.mask, site.scale, done.value)
        names = self.provenance.of(seen) | self.provenance.control
        if marked:
            names |= {site.name}
        if not names:
            return done
        self.sources[site.name] = names
        return done.replace(value=self.provenance.mark(done.tensor, names))

    def _decide(self, site: Site) -> Site:
        d = expand_to_plates(site, site.fn)
        slim = site.replace(infer=replace(site.infer, expand=False))  # there is no dim to expand along
        values = support_on_dim(slim, -1 - len(d.batch_shape))
        position = len(self.sizes)
        index = self.path[position] if position < len(self.path) else 0
        self.sizes.append(values.size(0))
        self.chosen[site.name] = index
        shape = broadcast_shape(values.shape[1:], plate_shape(site.plates) + d.event_shape)  # of no enumeration dims
        return perform(site.replace(value=values[index].expand(shape), branch=True))


def watch() -> Provenance:
    """What follows the choices through the runs; the library's own checks of values do not count as branches."""
    return Provenance(quiet=("ppl.", "torch."))


def runs(program: Callable[[], T], provenance: Provenance) -> Iterator[Run[T]]:
    """Run a program once for each combination of values of its sequential sites.

    Args: provenance, shared with the runs of the guide, whose choices the program may use.
    """
    path: list[int] | None = []
    start = random_state()
    tracked = provenance.is_used
    while path is not None:
        if path:
            rewind(start)
        provenance.control = frozenset()
        with provenance if tracked else contextlib.nullcontext(), choose(path, provenance, tracked) as chooser:
            result = program()
        if chooser.chosen and not tracked:  # the first run met a choice: do it again and watch
            tracked = True
            rewind(start)
            continue
        yield Run(chooser.chosen, dict(zip(chooser.chosen, chooser.sizes, strict=True)), result, chooser.sources)
        path = _next_path(list(chooser.chosen.values()), chooser.sizes)


def _next_path(path: list[int], sizes: list[int]) -> list[int] | None:
    while path and path[-1] + 1 == sizes[len(path) - 1]:
        path.pop()
    if not path:
        return None
    path[-1] += 1
    return path


def stack(
    parts: Sequence[tuple[Assignment, Mapping[str, Factor]]],
    sizes: Mapping[str, int],
    sources: Mapping[str, Names],
    impossible: float,
) -> dict[str, Factor]:
    """The factors of all runs, each over one more axis for every sequential site that it depends on.

    Args:
        sources: the sequential sites that each site depends on.
        impossible: what a site's own factor is where the site does not have that value, or does not exist.
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
        size: dict[str, int] = {}
        _grow(size, [{axis: f.size(axis) for axis in f.axes} for f in present])
        blank = present[0].tensor.new_zeros([size[axis] for axis in inner])
        rows = []
        everywhere = all(name in factors and (name not in sizes or name in cell) for cell, factors in cells)
        for index, (assignment, factors) in zip(indices, cells, strict=True):
            if name in factors:
                row = _filled(factors[name], name, size, impossible).aligned(inner).expand(blank.shape)
            elif name in inner:  # an enumerated site that this run does not have: one value, which is certain
                first = torch.zeros(1, dtype=torch.long, device=blank.device)
                row = (blank + impossible).index_fill(inner.index(name), first, 0.0)
            else:
                row = blank
            if name in sizes and assignment.get(name, 0) != index[axes.index(name)]:
                row = blank + impossible
            rows.append(row)
        full = Factor(axes + inner, torch.stack(rows).reshape(shape + blank.shape))
        free = [axis for axis in axes if axis != name and axis not in sources.get(name, ())]
        stacked[name] = _without_constant_axes(full, free, everywhere and is_recorded())
    return stacked


def _grow(sizes: dict[str, int], seen: Sequence[Mapping[str, int]]) -> None:
    for found in seen:
        for axis, size in found.items():
            sizes[axis] = max(size, sizes.get(axis, 0))


def _filled(factor: Factor, name: str, sizes: Mapping[str, int], impossible: float) -> Factor:
    """A run's factor of site `name`, filled up to the sizes that other runs have.

    A site may have fewer values in this run: the missing ones are impossible in its own factor, and of no account in
    others. Nor is there a density where a plate is smaller.
    """
    if name in sizes and name not in factor.axes:
        factor = Factor((name, *factor.axes), factor.tensor.unsqueeze(0))
    for dim, axis in enumerate(factor.axes):
        missing = sizes[axis] - factor.tensor.size(dim)
        if missing:
            shape = [*factor.tensor.shape[:dim], missing, *factor.tensor.shape[dim + 1 :]]
            rest = factor.tensor.new_full(shape, impossible if axis == name else 0.0)
            factor = Factor(factor.axes, torch.cat([factor.tensor, rest], dim))
    return factor


def _occupant(
    cell: Assignment, parts: Sequence[tuple[Assignment, Mapping[str, Factor]]]
) -> tuple[Assignment, Mapping[str, Factor]]:
    """The run that a combination of values belongs to; for one that never occurs, the nearest run, to fill the place."""
    for assignment, factors in parts:
        if all(cell[axis] == index for axis, index in assignment.items()):
            return assignment, factors
    # the one that parts from it latest, so that earlier sites do not seem to depend on later ones
    return max(parts, key=lambda part: [cell[axis] == index for axis, index in part[0].items()])


def _without_constant_axes(factor: Factor, axes: Sequence[str], trusted: bool = False) -> Factor:
    """Without those of some axes along which nothing changes; all of them, without a look, if `trusted`."""
    for axis in axes:
        dim = factor.axes.index(axis)
        first = factor.tensor.narrow(dim, 0, 1)
        if trusted or bool((factor.tensor == first).all()):
            factor = Factor(factor.axes[:dim] + factor.axes[dim + 1 :], first.squeeze(dim))
    return factor
