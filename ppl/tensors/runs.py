"""Variables that form a chain among log factors, such as the steps of a loop over time, summed out all together.

A run is a path v_0 … v_T of variables of one size, in which every variable between the ends shares factors with its two
neighbours and with no other variable. What its factors say about two neighbours is a matrix, what they say about one is an
emission, and the product of the matrices is worked out at once (`chain.py`): time and memory grow linearly with T, and no order
of contraction needs to be found. A tensor that many steps share is used once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppl.tensors.chain import chain_evidence, chain_filter, chain_forward, chain_product
from ppl.tensors.chain_paths import chain_choose
from ppl.tensors.factor import Axes, Factor, take, union
from ppl.tensors.semiring import Reduction, log_sum_exp, maximum

#: A run has at least so many steps; shorter ones are summed out one by one.
SHORTEST = 4

FROM, TO, TIME = "from", "to", "time"


@dataclass(frozen=True, slots=True)
class Run:
    """One step of an elimination: a run that was summed out."""

    path: Axes
    starts: bool  # whether the first variable was summed out too
    stops: bool  # and the last one
    batch: Axes  # all other axes
    sizes: tuple[int, ...]  # of those
    initial: Factor | None  # over some of them and "to"
    matrices: Factor  # over some of them, "time" where the steps differ, "from" and "to"
    emissions: Factor | None  # over some of them, "time" where the steps differ, and "to"
    largest: bool

    @property
    def variables(self) -> Axes:
        """What was summed out."""
        return self.path[not self.starts : len(self.path) - (not self.stops)]

    @property
    def num_steps(self) -> int:
        """How many matrices are multiplied."""
        return len(self.path) - 1

    @property
    def factor(self) -> Factor:
        """What one step sums over, with all other axes."""
        f = self.matrices
        if TIME in f.axes:
            f = Factor(tuple(a for a in f.axes if a != TIME), f.tensor.select(f.axes.index(TIME), 0))
        k = f.size(TO)
        return Factor((*self.batch, *self.path[:2]), f.aligned((*self.batch, FROM, TO)).expand((*self.sizes, k, k)))

    def value(self) -> Factor:
        """What is left: a factor over the ends that are not summed out, and the other axes."""
        matrices, emissions = self._tensors({}, self.batch)
        if not self.starts:
            product = chain_product(matrices, emissions, self.largest)
            return self._left(product, self.path[0], self.path[-1])
        initial = self._initial({}, self.batch, matrices)
        if self.largest:
            last = chain_filter(initial, matrices, emissions, largest=True)[..., -1, :]
            return self._left(last.amax(-1)) if self.stops else self._left(last, self.path[-1])
        if self.stops:
            final = matrices.new_zeros(()).expand(matrices.shape[-1])
            return self._left(chain_evidence(initial, matrices, final, emissions))
        return self._left(chain_forward(initial, matrices, emissions), self.path[-1])

    def _left(self, tensor: Tensor, *ends: str) -> Factor:
        return Factor((*self.batch, *ends), tensor.expand((*self.sizes, *tensor.shape[tensor.dim() - len(ends) :])))

    def choose(self, chosen: Mapping[str, Factor], choose: Callable[[Tensor], Tensor]) -> dict[str, Factor]:
        """Values for the variables, given those chosen before.

        Args: choose, from log weights (…, K) to indices (…).
        """
        ends = [v for v, summed in ((self.path[0], self.starts), (self.path[-1], self.stops)) if not summed]
        free = [axis for axis in self.batch if axis not in chosen]
        given = [chosen[axis] for axis in (*self.batch, *ends) if axis in chosen]
        batch = union([Factor(tuple(free), torch.empty(0)), *given])
        known = dict(zip(self.batch, self.sizes, strict=True))
        sizes = [known[axis] if axis in free else 1 for axis in batch]
        shape = torch.broadcast_shapes(sizes, *(index.aligned(batch).shape for index in given))
        with torch.no_grad():
            matrices, emissions = self._tensors(chosen, batch)
            initial = self._initial(chosen, batch, matrices)
            initial = initial.expand((*shape, initial.shape[-1]))
            final = matrices.new_zeros(()).expand(matrices.shape[-1])
            if not self.stops:
                final = _only(chosen[self.path[-1]].aligned(batch), matrices)
            path = chain_choose(initial, matrices, final, emissions, choose, self.largest)
        gone = frozenset(self.variables)
        return {v: Factor(batch, index) for v, index in zip(self.path, path.unbind(-1), strict=True) if v in gone}

    def _tensors(self, chosen: Mapping[str, Factor], batch: Axes) -> tuple[Tensor, Tensor | None]:
        matrices = _at(self.matrices, chosen, batch, (TIME, FROM, TO))
        return matrices, None if self.emissions is None else _at(self.emissions, chosen, batch, (TIME, TO))

    def _initial(self, chosen: Mapping[str, Factor], batch: Axes, like: Tensor) -> Tensor:
        if not self.starts:
            return _only(chosen[self.path[0]].aligned(batch), like)
        if self.initial is None:
            return like.new_zeros(()).expand(like.shape[-1])
        return _at(self.initial, chosen, batch, (TO,))


def sum_runs(
    factors: Iterable[Factor],
    variables: Iterable[str],
    reduction: Reduction = log_sum_exp,
    tape: list[Any] | None = None,
) -> list[Factor]:
    """Sum out all runs of variables.

    Args: reduction, how to sum, which must be `log_sum_exp` or `maximum` for anything to happen; tape, as of `eliminate`.
    Returns: the factors that are left, those of the runs replaced by their products.
    """
    work, gone = list(factors), set(variables)
    if len(work) < SHORTEST or reduction not in (log_sum_exp, maximum):
        return work
    graph = _Graph(work, gone)
    done: set[int] = set()
    products = []
    for path in graph.runs():
        found = graph.run(path, reduction is maximum)
        if found is not None:
            run, members = found
            if tape is not None:
                tape.append(run)
            products.append(run.value())
            done |= members
    return [f for i, f in enumerate(work) if i not in done] + products


class _Graph:
    """The variables of some factors, joined where a factor has two of them."""

    def __init__(self, factors: Sequence[Factor], variables: set[str]) -> None:
        self.single: dict[str, list[int]] = {}
        self.pairs: dict[frozenset[str], list[int]] = {}
        self.neighbours: dict[str, dict[str, None]] = {}
        self.sizes: dict[str, int] = {}
        self.tied: set[str] = set()  # in a factor of more than two
        self.factors, self.variables = factors, variables
        self.narrow: dict[int, tuple[tuple[int, ...], Tensor]] = {}  # by the tensor
        for i, factor in enumerate(factors):
            here = []
            for axis, size in zip(factor.axes, factor.tensor.shape, strict=True):
                if axis in variables:
                    here.append(axis)
                    self.sizes[axis] = size
                    self.neighbours.setdefault(axis, {})
            if len(here) == 1:
                self.single.setdefault(here[0], []).append(i)
            elif len(here) == 2:
                self.pairs.setdefault(frozenset(here), []).append(i)
                a, b = here
                self.neighbours[a][b] = self.neighbours[b][a] = None
            elif here:
                self.tied.update(here)

    def runs(self) -> Iterator[list[str]]:
        """All paths that are long enough, from one variable that has not two neighbours to the next."""
        inner = {v for v, others in self.neighbours.items() if len(others) == 2 and v not in self.tied}
        seen: set[str] = set()
        for start, others in self.neighbours.items():
            if start in inner:
                continue
            for onward in others:
                path = [start]
                while onward in inner and onward not in seen:
                    seen.add(onward)
                    path.append(onward)
                    (onward,) = (v for v in self.neighbours[onward] if v != path[-2])
                path.append(onward)
                if len(path) > 2 and path[-1] not in path[:-1]:
                    yield from self._of_one_size(path)

    def _of_one_size(self, path: list[str]) -> Iterator[list[str]]:
        start = 0
        for end in range(1, len(path) + 1):
            if end == len(path) or self.sizes[path[end]] != self.sizes[path[start]]:
                if end - start > SHORTEST:
                    yield path[start:end]
                start = end

    def _is_end(self, variable: str) -> bool:
        return len(self.neighbours[variable]) == 1 and variable not in self.tied

    def run(self, path: list[str], largest: bool) -> tuple[Run, set[int]] | None:
        """A path as a run, with the positions of its factors; None where the steps differ too much in their axes."""
        if not self._is_end(path[0]):
            path = path[::-1]
        starts, stops = self._is_end(path[0]), self._is_end(path[-1])
        pairs = [self.pairs[frozenset(two)] for two in itertools.pairwise(path)]
        singles = [self.single.get(v, []) for v in path]
        if not starts:
            singles[0] = []
        if not stops:
            singles[-1] = []
        known = set(path)
        steps = [self._outer([*pair, *single], known) for pair, single in zip(pairs, singles[1:], strict=True)]
        first = self._outer(singles[0], known)
        batch = tuple(dict.fromkeys(axis for axes in (first, *steps) for axis in axes))
        if not any(set(batch) == set(axes) for axes in steps):
            return None
        matrices = self._stacked(
            [[(i, {a: FROM, b: TO}) for i in pair] for pair, a, b in zip(pairs, path, path[1:], strict=False)],
            (FROM, TO),
        )
        emissions = self._stacked(
            [[(i, {v: TO}) for i in single] for v, single in zip(path[1:], singles[1:], strict=True)], (TO,)
        )
        initial = self._stacked([[(i, {path[0]: TO}) for i in singles[0]]], (TO,))
        assert matrices is not None
        if initial is not None:
            initial = Factor(
                tuple(a for a in initial.axes if a != TIME), initial.tensor.select(initial.axes.index(TIME), 0)
            )
        members = {i for group in (*pairs, *singles) for i in group}
        sizes: dict[str, int] = {}
        for i in members:
            sizes.update(zip(self.factors[i].axes, self.factors[i].tensor.shape, strict=True))
        outer = tuple(sizes[axis] for axis in batch)
        return Run(tuple(path), starts, stops, batch, outer, initial, matrices, emissions, largest), members

    def _narrowed(self, i: int) -> tuple[Axes, Tensor]:
        """A factor's axes and tensor without those along which it was only expanded, the variables apart."""
        factor = self.factors[i]
        tensor = factor.tensor
        strides = tensor.stride()
        if 0 not in strides:
            return factor.axes, tensor
        kept = tuple(
            d for d, axis in enumerate(factor.axes) if strides[d] or axis in self.variables or tensor.shape[d] == 1
        )
        known = self.narrow.get(id(tensor))
        if known is None or known[0] != kept:
            index = tuple(slice(None) if d in kept else 0 for d in range(len(strides)))
            known = self.narrow[id(tensor)] = kept, tensor[index]
        return tuple(factor.axes[d] for d in kept), known[1]

    def _outer(self, members: Iterable[int], known: set[str]) -> Axes:
        return tuple(dict.fromkeys([axis for i in members for axis in self.factors[i].axes if axis not in known]))

    def _stacked(self, steps: list[list[tuple[int, dict[str, str]]]], states: Axes) -> Factor | None:
        """The factors of each step added up, and the steps stacked on the axis "time"; of size 1 where all are one.

        Args: steps, for each the positions of its factors, with new names for the variables.
        """
        kinds: dict[tuple[tuple[Axes, int], ...], int] = {}
        different: list[list[Factor]] = []
        which = []
        for step in steps:
            named = []
            for i, names in step:
                axes, tensor = self._narrowed(i)
                named.append((tuple([names.get(axis, axis) for axis in axes]), tensor))
            kind = kinds.setdefault(tuple([(axes, id(tensor)) for axes, tensor in named]), len(kinds))
            if kind == len(different):
                different.append([Factor(*pair) for pair in named])
            which.append(kind)
        if not any(different):
            return None
        axes, stacked = _stack(different, states)
        if 1 < len(kinds) < len(steps):
            index = torch.tensor(which, device=stacked.device)
            stacked = stacked.index_select(0, index)
        return Factor((TIME, *axes), stacked)


def _stack(steps: list[list[Factor]], states: Axes) -> tuple[Axes, Tensor]:
    """Shapes: -> (len(steps), *axes)."""
    first = steps[0]
    if all(
        len(step) == 1 and step[0].axes == first[0].axes and step[0].tensor.shape == first[0].tensor.shape
        for step in steps
    ):
        return first[0].axes, torch.stack([step[0].tensor for step in steps])
    every = [f for step in steps for f in step]
    axes = (*(axis for axis in union(every) if axis not in states), *states)
    sizes = {axis: f.size(axis) for f in every for axis in f.axes}
    shape = [sizes[axis] for axis in axes]
    totals = []
    for step in steps:
        total = every[0].tensor.new_zeros(())
        for i, factor in enumerate(step):
            total = total + factor.aligned(axes) if i else factor.aligned(axes)
        totals.append(total.expand(shape))
    return axes, torch.stack(totals)


def _at(factor: Factor, chosen: Mapping[str, Factor], batch: Axes, rest: Axes) -> Tensor:
    """The entries of a factor at the chosen indices; size 1 where it has no axis. Shapes: (*batch, *rest)."""
    if any(axis in chosen for axis in factor.axes):
        return take(factor, {a: chosen[a] for a in factor.axes if a in chosen}, batch, rest)
    return factor.aligned((*batch, *rest))


def _only(index: Tensor, like: Tensor) -> Tensor:
    """Log weights of one state alone. Shapes: (*) -> (*, K)."""
    states = torch.arange(like.shape[-1], device=like.device)
    return torch.where(states == index[..., None], 0.0, -torch.inf).to(like.dtype)
