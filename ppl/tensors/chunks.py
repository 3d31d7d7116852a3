"""An elimination within a limit of memory: the plates that need most are worked off a few elements at a time.

What lies in one element of a plate depends on what lies in another only through variables outside of the plate. So the
factors within a plate can be eliminated slice by slice, with the outer variables carried along; the slices' results are
added up (or put side by side, where the plate is kept), and the rest of the elimination goes on with them. The backward
pass computes each slice again instead of remembering it.

How many elements a slice has follows from shapes alone: the elimination is rehearsed on tensors without data, forwards
and backwards, with their bytes counted.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from ppl.tensors.elimination import Names, Tape, backtrack, eliminate
from ppl.tensors.factor import Axes, Factor
from ppl.tensors.live_bytes import LiveBytes
from ppl.tensors.recomputed import Part, recomputed
from ppl.tensors.semiring import Reduction, log_sum_exp
from ppl.tensors.timeline import Timeline

Homes = tuple[tuple[str, Names], ...]
Choose = Callable[[Tensor], Tensor]


class TooLarge(ValueError):
    """An elimination that does not fit its limit, whatever the plates are cut into."""

    def __init__(self, variables: Axes, plates: Names, needed: int, limit: int) -> None:
        super().__init__(f"summing out {sorted(variables)} takes {needed} bytes at a time, more than {limit}")
        self.variables, self.plates, self.needed, self.limit = variables, plates, needed, limit


@dataclass(frozen=True, slots=True)
class Query:
    """What an elimination is asked; the arguments of `eliminate`, hashable."""

    variables: Homes
    plates: Names
    keep: Names = frozenset()
    carried: Homes = ()
    reduction: Reduction = log_sum_exp
    choose: Choose | None = None  # going back is wanted too, with this choice
    timelines: tuple[tuple[str, Timeline], ...] = ()

    def __call__(self, factors: Sequence[Factor], tape: Tape | None = None) -> list[Factor]:
        variables, carried, timelines = dict(self.variables), dict(self.carried), dict(self.timelines)
        return eliminate(factors, variables, self.plates, self.keep, carried, self.reduction, tape, timelines)

    def within(self, plate: str) -> Query:
        """The part that lies in a plate, with the outer variables carried along."""
        inner = tuple(item for item in self.variables if plate in item[1])
        outer = tuple(item for item in self.variables if plate not in item[1])
        return replace(self, variables=inner, carried=(*self.carried, *outer))

    def around(self, plate: str) -> Query:
        """The part that remains when what lies in a plate is eliminated."""
        return replace(self, variables=tuple(item for item in self.variables if plate not in item[1]))


@dataclass(frozen=True, slots=True)
class Shape:
    """A factor without its data."""

    axes: Axes
    sizes: tuple[int, ...]
    dtype: torch.dtype
    learned: bool  # a gradient by it is wanted

    @staticmethod
    def of(factor: Factor) -> Shape:
        tensor = factor.tensor
        learned = tensor.requires_grad and torch.is_grad_enabled()
        return Shape(factor.axes, tuple(tensor.shape), tensor.dtype, learned)

    @property
    def bytes(self) -> int:
        """What it holds with data."""
        return math.prod(self.sizes) * self.dtype.itemsize

    def cut(self, plate: str, size: int) -> Shape:
        """With fewer elements of a plate."""
        return replace(self, sizes=tuple(size if a == plate else n for a, n in zip(self.axes, self.sizes, strict=True)))

    def empty(self) -> Factor:
        """A factor of this shape on the device `meta`."""
        return Factor(self.axes, torch.empty(self.sizes, dtype=self.dtype, device="meta"))


@dataclass(frozen=True, slots=True)
class Chunks:
    """A plate to be worked off in slices."""

    plate: str
    size: int  # elements of a slice; the last one may have fewer
    count: int  # of slices
    inner: Chunks | None  # how a slice is eliminated, if in slices of another plate
    rest: Chunks | None  # and what is left after this plate


@dataclass(frozen=True, slots=True)
class Need:
    """The bytes that an elimination makes, and the step that makes the most."""

    forward: int
    both: int  # with the backward pass, without the gradients by the factors given
    every: int  # and with these
    largest: Shape | None
    variables: Axes  # of that step
    results: tuple[Shape, ...]


def eliminate_within(limit: int, factors: Sequence[Factor], query: Query) -> list[Factor]:
    """Like `eliminate`, holding at most `limit` bytes besides the factors given and the gradients by them.

    Raises: Intractable; TooLarge, where one element of each plate does not fit.
    """
    return solve(factors, query, plan(tuple(map(Shape.of, factors)), query, limit))


def eliminate_all_within(limit: int, jobs: Sequence[tuple[Sequence[Factor], Query]]) -> list[list[Factor]]:
    """Several eliminations that hold at most `limit` bytes together; the small ones are remembered, the others computed
    again in the backward pass.

    Raises: Intractable; TooLarge.
    """
    shapes = [tuple(map(Shape.of, factors)) for factors, _ in jobs]
    needs = [need(s, query) for s, (_, query) in zip(shapes, jobs, strict=True)]
    learned = any(s.learned for some in shapes for s in some)
    again = set[int]()
    if learned and len(jobs) > 1 and sum(n.both for n in needs) > limit:
        again = set(range(len(jobs)))
    kept = 0
    floor = (
        max((_floor(s, query, limit) for s, (_, query) in zip(shapes, jobs, strict=True)), default=0) if again else 0
    )
    for i in sorted(again, key=lambda i: needs[i].both):
        if kept + needs[i].both <= min(limit // 2, limit - floor):
            kept += needs[i].both
            again.remove(i)
    results = []
    for i, (factors, query) in enumerate(jobs):
        chunks = plan(shapes[i], query, limit - kept) if i in again or not again else None
        results.append(_again(factors, query, chunks) if i in again else solve(factors, query, chunks))
    return results


def _floor(shapes: tuple[Shape, ...], query: Query, limit: int) -> int:
    """The bytes that one job needs, whatever it is cut into, in steps of an eighth of the limit."""
    for eighths in range(1, 8):
        try:
            plan(shapes, query, limit * eighths // 8)
        except TooLarge:
            continue
        return limit * eighths // 8
    return limit


def _again(factors: Sequence[Factor], query: Query, chunks: Chunks | None) -> list[Factor]:
    """Eliminate, remembering nothing for the backward pass but the factors."""
    axes: list[Axes] = []

    def work(*tensors: Tensor) -> tuple[Tensor, ...]:
        found = solve([Factor(f.axes, t) for f, t in zip(factors, tensors, strict=True)], query, chunks)
        axes[:] = [f.axes for f in found]
        return tuple(f.tensor for f in found)

    tensors = [f.tensor for f in factors]
    results = recomputed(work, [Part(0, 1)], (None,) * len(tensors), lambda: (None,) * len(axes), tensors)
    return [Factor(a, t) for a, t in zip(axes, results, strict=True)]


def solve(factors: Sequence[Factor], query: Query, chunks: Chunks | None) -> list[Factor]:
    """Eliminate in the slices of a plan."""
    if chunks is None:
        return query(factors)
    inside = [f for f in factors if chunks.plate in f.axes]
    outside = [f for f in factors if chunks.plate not in f.axes]
    return solve([*outside, *_sliced(inside, query, chunks)], query.around(chunks.plate), chunks.rest)


def choose_within(
    factors: Sequence[Factor], query: Query, chunks: Chunks | None, given: Mapping[str, Factor] | None = None
) -> dict[str, Factor]:
    """Eliminate and go back, slice by slice as in a plan, choosing each variable's value given those chosen before."""
    assert query.choose is not None
    if chunks is None:
        tape: Tape = []
        query(factors, tape)
        return backtrack(tape, query.choose, given)
    plate = chunks.plate
    inside = [f for f in factors if plate in f.axes]
    outside = [f for f in factors if plate not in f.axes]
    messages = _sliced(inside, query, chunks)
    chosen = choose_within([*outside, *messages], query.around(plate), chunks.rest, given)
    parts = []
    for part in _parts(inside, chunks):
        cut, known = (
            [Factor(f.axes, part.of(f.tensor, f.axes.index(plate) if plate in f.axes else None)) for f in some]
            for some in (inside, chosen.values())
        )
        found = choose_within(cut, query.within(plate), chunks.inner, dict(zip(chosen, known, strict=True)))
        parts.append({name: f for name, f in found.items() if name not in chosen})
    for name, first in parts[0].items():
        rows = [part[name].aligned(first.axes) for part in parts]
        chosen[name] = Factor(first.axes, torch.cat(rows, first.axes.index(plate)))
    return chosen


def _parts(inside: Sequence[Factor], chunks: Chunks) -> list[Part]:
    total = inside[0].size(chunks.plate)
    return [Part(start, min(chunks.size, total - start)) for start in range(0, total, chunks.size)]


def _sliced(inside: Sequence[Factor], query: Query, chunks: Chunks) -> list[Factor]:
    """Eliminate what lies in a plate slice by slice."""
    inner = query.within(chunks.plate)
    axes: list[Axes] = []

    def work(*slices: Tensor) -> tuple[Tensor, ...]:
        cut = [Factor(f.axes, s) for f, s in zip(inside, slices, strict=True)]
        found = solve(cut, inner, chunks.inner)
        axes[:] = [f.axes for f in found]
        return tuple(f.tensor for f in found)

    def joins() -> tuple[int | None, ...]:
        return tuple(a.index(chunks.plate) if chunks.plate in a else None for a in axes)

    dims = tuple(f.axes.index(chunks.plate) for f in inside)
    results = recomputed(work, _parts(inside, chunks), dims, joins, [f.tensor for f in inside])
    return [Factor(a, t) for a, t in zip(axes, results, strict=True)]


# -- planning


@functools.lru_cache(maxsize=256)
def plan(shapes: tuple[Shape, ...], query: Query, limit: int, inner: bool = False) -> Chunks | None:
    """The slices that an elimination needs in order to fit a limit; None where it fits as a whole.

    Args: inner, this is a slice itself, and the gradients by its factors count as well.
    Raises: Intractable; TooLarge.
    """
    whole = need(shapes, query)
    if (whole.every if inner else whole.both) <= limit:
        return None
    own = sum(s.bytes for s in shapes if s.learned) if inner else 0
    plates = [p for p in _plates(shapes, query) if whole.largest and p in whole.largest.axes] or _plates(shapes, query)
    if not plates:
        raise TooLarge(whole.variables, frozenset(), whole.every if inner else whole.both, limit)
    tried = [_cut_finely(shapes, query, plate, own) for plate in plates]
    possible = [cut for cut in tried if cut.finest.every + cut.held <= limit]
    if possible:
        sizes = [_most(cut, query, limit - cut.held) for cut in possible]
        counts = [-(-cut.total // size) for cut, size in zip(possible, sizes, strict=True)]
        best = counts.index(min(counts))
        cut, deeper, size = possible[best], None, sizes[best]
    else:
        cut, size = min(tried, key=lambda c: c.finest.every + c.held), 1
        try:
            deeper = plan(cut.of(1), query.within(cut.plate), limit - cut.held, True)
        except TooLarge as error:
            raise TooLarge(error.variables, error.plates | {cut.plate}, error.needed + cut.held, limit) from None
    rest = plan(cut.rest, query.around(cut.plate), limit - cut.held // 2, inner)
    return Chunks(cut.plate, size, -(-cut.total // size), deeper, rest)


@dataclass(frozen=True, slots=True)
class _Cut:
    """What a plate holds."""

    plate: str
    total: int  # its elements
    inside: tuple[Shape, ...]
    rest: tuple[Shape, ...]  # what is around it, and what comes out of it
    finest: Need  # of one element
    held: int  # bytes all the while: what comes out of it, and its gradient

    def of(self, size: int) -> tuple[Shape, ...]:
        """The factors of a slice."""
        return tuple(s.cut(self.plate, size) for s in self.inside)


def _cut_finely(shapes: Sequence[Shape], query: Query, plate: str, own: int) -> _Cut:
    inside = tuple(s for s in shapes if plate in s.axes)
    total = inside[0].sizes[inside[0].axes.index(plate)]
    finest = need(tuple(s.cut(plate, 1) for s in inside), query.within(plate))
    results = [s.cut(plate, total) for s in finest.results]
    rest = (*(s for s in shapes if plate not in s.axes), *results)
    return _Cut(plate, total, inside, rest, finest, own + 2 * sum(s.bytes for s in results))


def _most(cut: _Cut, query: Query, budget: int) -> int:
    """The most elements of a plate that fit together; one is known to fit."""
    low, high = 1, cut.total
    while low < high:
        middle = (low + high + 1) // 2
        if need(cut.of(middle), query.within(cut.plate)).every <= budget:
            low = middle
        else:
            high = middle - 1
    return low


def _plates(shapes: Sequence[Shape], query: Query) -> list[str]:
    """The plates of more than one element that there are."""
    independent = query.plates.difference(axis for axis, _ in query.timelines)
    return sorted({a for s in shapes for a, n in zip(s.axes, s.sizes, strict=True) if a in independent and n > 1})


def _any(variable: str, home: Names, sizes: Mapping[str, int]) -> Factor:
    """Some values of a variable, without data."""
    axes = tuple(sorted(home.intersection(sizes)))
    return Factor(axes, torch.empty([sizes[a] for a in axes], dtype=torch.long, device="meta"))


@functools.lru_cache(maxsize=1024)
def need(shapes: tuple[Shape, ...], query: Query, chunks: Chunks | None = None) -> Need:
    """Rehearse an elimination on tensors without data.

    Raises: Intractable.
    """
    with _disable_current_modes():
        factors = [shape.empty() for shape in shapes]
        largest: Tape = []
        if chunks is None:
            with torch.no_grad():
                query(factors, largest)
        step = max(largest, key=lambda s: s.factor.tensor.numel(), default=None)
        learned = [i for i, s in enumerate(shapes) if s.learned]
        results: list[Factor] = []

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            given = dict(zip(learned, tensors, strict=True))
            full = [Factor(f.axes, given.get(i, f.tensor)) for i, f in enumerate(factors)]
            results[:] = solve(full, query, chunks)
            return tuple(f.tensor for f in results)

        counted = LiveBytes()
        with counted, torch.no_grad():
            run(*(factors[i].tensor for i in learned))
            if query.choose is not None:
                sizes = {a: n for s in shapes for a, n in zip(s.axes, s.sizes, strict=True)}
                choose_within(factors, query, chunks, {v: _any(v, home, sizes) for v, home in query.carried})
            found = [Shape(f.axes, tuple(f.tensor.shape), f.tensor.dtype, bool(learned)) for f in results]
            results.clear()
        forward = both = every = counted.peak
        if learned:
            counted = LiveBytes()
            with counted:
                pull = torch.func.vjp(run, *(factors[i].tensor for i in learned))[1]
                slopes = tuple(torch.ones(f.tensor.shape, dtype=f.tensor.dtype, device="meta") for f in results)
                results.clear()
                with torch.no_grad():
                    gradients = pull(slopes)
            both = max(both, counted.peak_without(gradients))
            every = max(both, counted.peak)
    axes = None if step is None else Shape.of(step.factor)
    return Need(forward, both, every, axes, () if step is None else step.variables, tuple(found))
