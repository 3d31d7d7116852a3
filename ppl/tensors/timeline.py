"""Variables that depend on themselves at earlier times, summed out along a time axis.

In a factor over a time axis, `z` is a variable's value at each time and `z[-1]` its value one step before. The times from
`start` to `stop` lie on the axis; what came before are variables of their own, `z[0]`, `z[1]`, …, and so are the last ones,
by which what comes after the timeline may look at it. All together the factor is a matrix at each time, from the last `history`
values of all variables to the next; the product of these matrices is what remains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppl.tensors.chain import chain_evidence, chain_forward, chain_product, has_values
from ppl.tensors.factor import Axes, Factor, add, take, union
from ppl.tensors.semiring import Reduction, log_sum_exp


def at_step(name: str, step: int) -> str:
    """The name of a variable's value at one time."""
    return f"{name}[{step}]"


def before(name: str, lag: int) -> str:
    """The name of a variable's value some steps before each time on the axis."""
    return f"{name}[-{lag}]" if lag else name


@dataclass(frozen=True, slots=True)
class Timeline:
    """A time axis and the variables along it."""

    start: int  # the first time on the axis
    stop: int  # the first time after it
    history: int  # how many steps a variable reaches back; `stop - start` is a multiple of it
    variables: Axes

    def first(self, name: str) -> Axes:
        """The names of a variable's values before the axis, which its first steps depend on, in time's order."""
        return tuple(at_step(name, t) for t in range(self.start - self.history, self.start))

    def last(self, name: str) -> Axes:
        """The names of a variable's last values."""
        return tuple(at_step(name, t) for t in range(self.stop - self.history, self.stop))

    def names(self, name: str) -> Axes:
        """All names of a variable's values on the axis and at its two ends."""
        return (*self.first(name), *self.moving(name), *self.last(name))

    def moving(self, name: str) -> Axes:
        """The names of a variable's values seen from each time, the latest first."""
        return tuple(before(name, lag) for lag in range(self.history + 1))


def used_variables(timeline: Timeline, factors: Sequence[Factor]) -> dict[str, Axes]:
    """The variables of a timeline that are linked over time, or looked at when it is over; each with its names on the axis."""
    present = frozenset(axis for factor in factors for axis in factor.axes)
    return {
        name: timeline.moving(name)
        for name in timeline.variables
        if not present.isdisjoint((*timeline.moving(name)[1:], *timeline.last(name)))
    }


@dataclass(frozen=True, slots=True)
class SummedTimeline:
    """One step of an elimination: a timeline that was summed out."""

    time: str
    timeline: Timeline
    names: Axes
    sizes: tuple[int, ...]  # of the variables
    factor: Factor  # over outer axes, time in blocks of `history` steps, "from" and "to"
    reduction: Reduction

    @property
    def variables(self) -> Axes:
        """The names of the variables that were summed out here, all but the last values."""
        return tuple(name for variable in self.names for name in self.timeline.moving(variable))

    def choose(self, chosen: Mapping[str, Factor], choose: Callable[[Tensor], Tensor]) -> dict[str, Factor]:
        """The values at all times, given the first and the last ones.

        Args: choose, from log weights (…, K) to indices (…).
        """
        timeline, names = self.timeline, self.names
        ends = [name for variable in names for name in (*timeline.first(variable), *timeline.last(variable))]
        outer = [axis for axis in self.factor.axes if axis not in ("time", "from", "to")]
        free = [Factor((axis,), torch.empty(0)) for axis in outer if axis not in chosen]
        batch = union([*free, *(chosen[axis] for axis in (*outer, *ends) if axis in chosen)])
        here = {axis: chosen[axis] for axis in outer if axis in chosen}
        matrices = take(self.factor, here, batch, ("time", "from", "to"))
        shape = torch.broadcast_shapes(
            matrices.shape[:-3], *(chosen[name].aligned(batch).shape for name in ends if name in chosen)
        )
        matrices = matrices.expand(*shape, *matrices.shape[-3:])
        first, last = (self._state(side, chosen, batch, shape) for side in (timeline.first, timeline.last))
        path = _fill(matrices, first, last, self.reduction, choose)
        return self._values(path, batch)

    def _state(
        self, side: Callable[[str], Axes], chosen: Mapping[str, Factor], batch: Axes, shape: Sequence[int]
    ) -> Tensor:
        """The number of the state that the values at one end make up."""
        state = torch.zeros((), dtype=torch.long, device=self.factor.tensor.device)
        for position in range(self.timeline.history):
            for name, size in zip(self.names, self.sizes, strict=True):
                value = chosen.get(side(name)[position])  # a single value shows in no factor
                state = state * size + (0 if value is None else value.aligned(batch))
        return state.expand(tuple(shape))

    def _values(self, path: Tensor, batch: Axes) -> dict[str, Factor]:
        """The variables' values of a path of states (*batch, blocks + 1)."""
        history, found = self.timeline.history, {}
        digits: dict[tuple[int, str], Tensor] = {}
        for position in reversed(range(history)):
            for name, size in reversed(list(zip(self.names, self.sizes, strict=True))):
                digits[position, name] = path % size
                path = path // size
        for name in self.names:
            times = torch.stack([digits[position, name] for position in range(history)], -1).flatten(-2)
            for lag, moving in enumerate(self.timeline.moving(name)):
                found[moving] = Factor((*batch, self.time), times[..., history - lag : times.shape[-1] - lag])
        return found


def sum_along(
    parts: Sequence[Factor],
    time: str,
    timeline: Timeline,
    names: Axes,
    reduction: Reduction,
    tape: list[Any] | None,
    others: list[Factor],
) -> Factor:
    """Sum linked variables out along their time axis.

    Args:
        parts: the factors over the time axis whose sum is meant.
        names: the variables.
        others: all other factors. Those that the first values alone depend on are taken out of the list and summed as well.
    Returns: a factor over the first and the last values, as far as others look at them, and the other axes.
    """
    moving = {n for name in names for n in timeline.moving(name)}
    sizes = tuple(next(f.size(n) for f in parts for n in timeline.moving(v) if n in f.axes) for v in names)
    outer = tuple(axis for axis in union(parts) if axis != time and axis not in moving)
    plates = tuple(next(f.size(axis) for f in parts if axis in f.axes) for axis in outer)
    matrices, emissions = _matrices(parts, time, timeline, names, sizes, outer)
    kept = tuple(name for position in range(timeline.history) for name in (timeline.first(v)[position] for v in names))
    ends = tuple(name for position in range(timeline.history) for name in (timeline.last(v)[position] for v in names))
    states = sizes * timeline.history
    if tape is None and reduction is log_sum_exp:
        initial = _take_initial(others, outer, kept, states)
        if initial is not None:
            if any(axis in ends for f in others for axis in f.axes):
                found = chain_forward(initial, matrices, emissions)
                return Factor((*outer, *ends), found.expand(*plates, found.shape[-1]).reshape(plates + states))
            found = chain_evidence(initial, matrices, matrices.new_zeros(matrices.shape[-1]), emissions)
            return Factor(outer, _grown(found, plates))
    full = matrices if emissions is None else matrices + emissions[..., None, :]
    full = full.expand(*plates, *full.shape[-3:])
    if tape is not None:
        factor = Factor((*outer, "time", "from", "to"), full)
        tape.append(SummedTimeline(time, timeline, names, sizes, factor, reduction))
    product = chain_product(full, largest=reduction is not log_sum_exp)
    return Factor((*outer, *kept, *ends), product.reshape(product.shape[:-2] + states + states))


def _steps(parts: Sequence[Factor], time: str, timeline: Timeline) -> int:
    return next(f.size(time) for f in parts if time in f.axes) // timeline.history


def _take_initial(others: list[Factor], outer: Axes, first: Axes, states: tuple[int, ...]) -> Tensor | None:
    """The log weights of the states before the axis, (*outer, S), if nothing else depends on them; taken out of `others`."""
    mine = [f for f in others if not set(first).isdisjoint(f.axes)]
    if not mine or not {axis for f in mine for axis in f.axes} <= {*outer, *first}:
        return None
    others[:] = [f for f in others if all(f is not m for m in mine)]
    aligned = add(mine).aligned((*outer, *first))
    shape = aligned.shape[: len(outer)]
    full = _grown(aligned, (*shape, *states))
    return full if len(states) == 1 else full.reshape(*shape, -1)


def _matrices(
    parts: Sequence[Factor], time: str, timeline: Timeline, names: Axes, sizes: tuple[int, ...], outer: Axes
) -> tuple[Tensor, Tensor | None]:
    """The factors as a matrix for each block of `history` steps, from the states of the block before to its own.

    Shapes: (*outer, B or 1, S, S), and what depends on the new state alone as (*outer, B or 1, S); outer dims may have size
    1 where nothing varies.
    """
    history = timeline.history
    earlier = {n for name in names for n in timeline.moving(name)[1:]}
    linked = [f for f in parts if not earlier.isdisjoint(f.axes)]
    apart = [f for f in parts if earlier.isdisjoint(f.axes)]
    if history > 1 or not linked:
        linked, apart = list(parts), []
    moving = [before(name, lag) for lag in range(history, -1, -1) for name in names]
    total = _unrepeated(add([_compact(f) for f in linked]).aligned((*outer, time, *moving)))
    dim = len(outer)
    if history == 1:
        matrices = total
    else:
        total = total.expand(*total.shape[:dim], _steps(parts, time, timeline) * history, *total.shape[dim + 1 :])
        places = [f"{i} {v}" for i in range(2 * history) for v in names]
        pieces = []
        for offset in range(history):
            every = total.movedim(dim, 0)[offset::history].movedim(0, dim)
            at = places[offset * len(names) : (offset + history + 1) * len(names)]
            pieces.append(Factor((*outer, "time", *at), every))
        matrices = add(pieces).aligned((*outer, "time", *places))
    batch = matrices.shape[: dim + 1]
    count = math.prod(sizes) ** history
    matrices = _grown(matrices, (*batch, *(sizes * (2 * history))))
    if len(sizes) * history > 1:
        matrices = matrices.reshape(*batch, count, count)
    steps = _steps(parts, time, timeline)
    if not apart:
        return matrices.expand(*batch[:-1], steps, count, count), None
    emissions = _unrepeated(add([_compact(f) for f in apart]).aligned((*outer, time, *names)))
    batch = emissions.shape[:dim]
    emissions = _grown(emissions, (*batch, emissions.shape[dim] if matrices.shape[-3] > 1 else steps, *sizes))
    return matrices, emissions if len(sizes) == 1 else emissions.reshape(*batch, -1, count)


def _grown(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor expanded to a shape; nothing is done, and nothing to be differentiated, where it has that shape."""
    return tensor if tensor.shape == shape else tensor.expand(shape)


def _unrepeated(tensor: Tensor) -> Tensor:
    """A tensor with size 1 along dims where it only repeats itself without taking memory."""
    if 0 not in tensor.stride():
        return tensor
    repeated = _repeated(tensor)
    if repeated is not None:
        return repeated
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def _repeated(tensor: Tensor) -> Tensor | None:
    """What an expanded tensor repeats, with size 1 along those dims; None where it is not a rearrangement of a whole tensor.

    A slice of the expanded one is the same, but its gradient would take as much memory as if nothing were repeated.
    """
    base = tensor._base if has_values(tensor) else None
    if base is None or base.requires_grad != tensor.requires_grad or base.storage_offset() != tensor.storage_offset():
        return None
    places = {stride: dim for dim, (size, stride) in enumerate(zip(base.shape, base.stride(), strict=True)) if size > 1}
    shape = [size if stride else 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]
    order = [places.get(stride, -1) for size, stride in zip(shape, tensor.stride(), strict=True) if size > 1]
    if sorted(order) != sorted(places.values()) or [base.shape[d] for d in order] != [n for n in shape if n > 1]:
        return None
    order += [dim for dim, size in enumerate(base.shape) if size == 1]
    return base.permute(order).view(shape)


def _compact(factor: Factor) -> Factor:
    return Factor(factor.axes, _unrepeated(factor.tensor))


def _fill(
    matrices: Tensor, first: Tensor, last: Tensor, reduction: Reduction, choose: Callable[[Tensor], Tensor]
) -> Tensor:
    """The states of a timeline between its two ends. Shapes: (*, T, K, K), (*), (*) -> (*, T + 1)."""
    steps, size = matrices.shape[-3], matrices.shape[-1]
    onward = [torch.where(torch.arange(size, device=last.device) == last[..., None], 0.0, -torch.inf).to(matrices)]
    for step in range(steps - 1, 0, -1):
        onward.append(reduction(matrices[..., step, :, :] + onward[-1][..., None, :], (-1,)))
    path = [first]
    for step in range(steps - 1):
        row = matrices[..., step, :, :].gather(-2, path[-1][..., None, None].expand(*first.shape, 1, size)).squeeze(-2)
        path.append(choose(row + onward[steps - 1 - step]))
    return torch.stack([*path, last], -1)
