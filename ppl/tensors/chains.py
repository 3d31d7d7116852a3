"""Variables that depend on themselves at earlier times, summed out along a time axis.

In a factor over a time axis, `z` is a variable's value at each time and `z[-1]` its value one step before. The times from
`start` to `stop` lie on the axis; what came before are variables of their own, `z[0]`, `z[1]`, …, and so are the last ones,
by which what comes after the chain may look at it. All together the factor is a matrix at each time, from the last `history`
values of all variables to the next; the product of these matrices is what remains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppl.tensors.factor import Axes, Factor, add, take, union
from ppl.tensors.log_matrix import log_matmul
from ppl.tensors.scan import associative_reduce
from ppl.tensors.semiring import Reduction, log_sum_exp


def at_step(name: str, step: int) -> str:
    """The name of a variable's value at one time."""
    return f"{name}[{step}]"


def before(name: str, lag: int) -> str:
    """The name of a variable's value some steps before each time on the axis."""
    return f"{name}[-{lag}]" if lag else name


@dataclass(frozen=True, slots=True)
class Chain:
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


def used_variables(chain: Chain, factors: Sequence[Factor]) -> dict[str, Axes]:
    """The variables of a chain that are linked over time, or looked at when it is over; each with its names on the axis."""
    present = frozenset(axis for factor in factors for axis in factor.axes)
    return {
        name: chain.moving(name)
        for name in chain.variables
        if not present.isdisjoint((*chain.moving(name)[1:], *chain.last(name)))
    }


@dataclass(frozen=True, slots=True)
class Chained:
    """One step of an elimination: a chain that was summed out."""

    time: str
    chain: Chain
    names: Axes
    sizes: tuple[int, ...]  # of the variables
    factor: Factor  # over outer axes, time in blocks of `history` steps, "from" and "to"
    reduction: Reduction

    @property
    def variables(self) -> Axes:
        """The names of the variables that were summed out here, all but the last values."""
        return tuple(name for variable in self.names for name in self.chain.moving(variable))

    def choose(self, chosen: Mapping[str, Factor], choose: Callable[[Tensor], Tensor]) -> dict[str, Factor]:
        """The values at all times, given the first and the last ones.

        Args: choose, from log weights (…, K) to indices (…).
        """
        chain, names = self.chain, self.names
        ends = [name for variable in names for name in (*chain.first(variable), *chain.last(variable))]
        outer = [axis for axis in self.factor.axes if axis not in ("time", "from", "to")]
        free = [Factor((axis,), torch.empty(0)) for axis in outer if axis not in chosen]
        batch = union([*free, *(chosen[axis] for axis in (*outer, *ends) if axis in chosen)])
        here = {axis: chosen[axis] for axis in outer if axis in chosen}
        matrices = take(self.factor, here, batch, ("time", "from", "to"))
        shape = torch.broadcast_shapes(
            matrices.shape[:-3], *(chosen[name].aligned(batch).shape for name in ends if name in chosen)
        )
        matrices = matrices.expand(*shape, *matrices.shape[-3:])
        first, last = (self._state(side, chosen, batch, shape) for side in (chain.first, chain.last))
        path = _fill(matrices, first, last, self.reduction, choose)
        return self._values(path, batch)

    def _state(
        self, side: Callable[[str], Axes], chosen: Mapping[str, Factor], batch: Axes, shape: Sequence[int]
    ) -> Tensor:
        """The number of the state that the values at one end make up."""
        state = torch.zeros((), dtype=torch.long, device=self.factor.tensor.device)
        for position in range(self.chain.history):
            for name, size in zip(self.names, self.sizes, strict=True):
                value = chosen.get(side(name)[position])  # a single value shows in no factor
                state = state * size + (0 if value is None else value.aligned(batch))
        return state.expand(tuple(shape))

    def _values(self, path: Tensor, batch: Axes) -> dict[str, Factor]:
        """The variables' values of a path of states (*batch, blocks + 1)."""
        history, found = self.chain.history, {}
        digits: dict[tuple[int, str], Tensor] = {}
        for position in reversed(range(history)):
            for name, size in reversed(list(zip(self.names, self.sizes, strict=True))):
                digits[position, name] = path % size
                path = path // size
        for name in self.names:
            times = torch.stack([digits[position, name] for position in range(history)], -1).flatten(-2)
            for lag, moving in enumerate(self.chain.moving(name)):
                found[moving] = Factor((*batch, self.time), times[..., history - lag : times.shape[-1] - lag])
        return found


def sum_along(
    factor: Factor,
    time: str,
    chain: Chain,
    names: Axes,
    reduction: Reduction,
    tape: list[Any] | None,
    others: Iterable[Factor],
) -> Factor:
    """Sum a factor's linked variables out along its time axis.

    Args: names, the variables; others, the factors that may look at their last values.
    Returns: a factor over the first and the last values, and the other axes.
    """
    sizes = tuple(max(factor.size(n) for n in chain.moving(name) if n in factor.axes) for name in names)
    matrices = _matrices(factor, time, chain, names, sizes)
    outer = matrices.axes[:-3]
    if tape is not None:
        tape.append(Chained(time, chain, names, sizes, matrices, reduction))
    product = log_product(matrices.tensor, reduction)
    kept = [name for position in range(chain.history) for name in (chain.first(v)[position] for v in names)]
    ends = [name for position in range(chain.history) for name in (chain.last(v)[position] for v in names)]
    states = sizes * chain.history
    return Factor((*outer, *kept, *ends), product.reshape(product.shape[:-2] + states + states))


def _matrices(factor: Factor, time: str, chain: Chain, names: Axes, sizes: tuple[int, ...]) -> Factor:
    """The factor as a matrix for each block of `history` steps, from the states of the block before to its own."""
    history = chain.history
    moving = {n for name in names for n in chain.moving(name)}
    outer = tuple(axis for axis in factor.axes if axis != time and axis not in moving)
    order = (*outer, time, *(before(name, lag) for lag in range(history, -1, -1) for name in names))
    tensor = factor.aligned(order)
    if history == 1:
        parts = [Factor((*outer, "time", *(f"0 {v}" for v in names), *(f"1 {v}" for v in names)), tensor)]
    else:
        parts = []
        dim = len(outer)
        for offset in range(history):
            every = tensor.movedim(dim, 0)[offset::history].movedim(0, dim)
            parts.append(
                Factor((*outer, "time", *(f"{offset + i} {v}" for i in range(history + 1) for v in names)), every)
            )
    states = tuple(f"{i} {v}" for i in range(2 * history) for v in names)
    total = add(parts)
    axes = (*outer, "time", *states)
    full = total.aligned(axes)
    shape = full.shape[: len(outer) + 1]
    full = full.expand(*shape, *(sizes * (2 * history)))
    count = 1
    for size in sizes * history:
        count *= size
    return Factor((*outer, "time", "from", "to"), full.reshape(*shape, count, count))


def log_product(matrices: Tensor, reduction: Reduction = log_sum_exp) -> Tensor:
    """The product of log matrices along the third dim from the right. Shapes: (*, T, K, K) -> (*, K, K)."""

    def combine(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if reduction is log_sum_exp:
            return (log_matmul(left[0], right[0]),)
        return (reduction(left[0][..., :, None, :] + right[0].mT[..., None, :, :], (-1,)),)

    (product,) = associative_reduce(combine, (matrices,), -3)
    return product.squeeze(-3)


def _fill(
    matrices: Tensor, first: Tensor, last: Tensor, reduction: Reduction, choose: Callable[[Tensor], Tensor]
) -> Tensor:
    """The states of a chain between its two ends. Shapes: (*, T, K, K), (*), (*) -> (*, T + 1)."""
    steps, size = matrices.shape[-3], matrices.shape[-1]
    onward = [torch.where(torch.arange(size, device=last.device) == last[..., None], 0.0, -torch.inf).to(matrices)]
    for step in range(steps - 1, 0, -1):
        onward.append(reduction(matrices[..., step, :, :] + onward[-1][..., None, :], (-1,)))
    path = [first]
    for step in range(steps - 1):
        row = matrices[..., step, :, :].gather(-2, path[-1][..., None, None].expand(*first.shape, 1, size)).squeeze(-2)
        path.append(choose(row + onward[steps - 1 - step]))
    return torch.stack([*path, last], -1)
