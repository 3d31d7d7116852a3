"""Variable elimination in log space, with plates.

Factors are log densities over named axes. Some axes are variables, to be summed out; some are plates, over which
factors are multiplied (their logs added); all others are carried along. Deepest plates go first: their variables are
summed out component by component, and what remains is multiplied over the plate into the next one. Along a time axis, which is
a plate to all but the variables of its timeline, these are summed out by a product of matrices.

Source: Obermeyer et al. 2019, Tensor Variable Elimination for Plated Factor Graphs, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl.tensors.factor import Axes, Factor, add, take, union
from ppl.tensors.order import contraction
from ppl.tensors.runs import Run, sum_runs
from ppl.tensors.semiring import Reduction, log_sum_exp
from ppl.tensors.timeline import SummedTimeline, Timeline, sum_along, used_variables

Names = frozenset[str]


@dataclass(frozen=True, slots=True)
class Summed:
    """One step of an elimination: the variables summed out, and the log factor that they were summed out of."""

    variables: Axes
    factor: Factor


Tape = list[Summed | SummedTimeline | Run]


class Intractable(ValueError):
    """An elimination that would need more than polynomial time; `variables` and `plates` say where."""

    def __init__(self, variables: Names, plates: Names) -> None:
        super().__init__(f"variables {sorted(variables)} cannot be eliminated within plates {sorted(plates)}")
        self.variables, self.plates = variables, plates


def eliminate(
    factors: Iterable[Factor],
    variables: Mapping[str, Names],
    plates: Names,
    keep: Names = frozenset(),
    carried: Mapping[str, Names] | None = None,
    reduction: Reduction = log_sum_exp,
    tape: Tape | None = None,
    timelines: Mapping[str, Timeline] | None = None,
) -> list[Factor]:
    """Sum out the variables and multiply over the plates.

    Args:
        variables: each with the plates it lives in.
        plates: the axes that are plates.
        keep: plates not to multiply over.
        carried: axes that are neither, with the plates they live in, which then cannot be multiplied over.
        reduction: how to sum.
        tape: a list to which every step is added, for going back.
        timelines: the plates that are times, with the variables that depend on themselves at earlier ones.
    Returns: factors without variables, over carried axes and plates, whose sum is the answer.
    Raises: Intractable.
    """
    home = {**(carried or {}), **variables}
    remaining = list(factors)
    results = []
    linked = {axis: used_variables(timeline, remaining) for axis, timeline in (timelines or {}).items()}
    while remaining:
        leaf = max(
            (plates.intersection(f.axes) for f in remaining), key=lambda p: (len(p), p.isdisjoint(linked), sorted(p))
        )
        here = [f for f in remaining if plates.intersection(f.axes) == leaf]
        remaining = [f for f in remaining if plates.intersection(f.axes) != leaf]
        local = {v for v, plates_of in variables.items() if plates_of == leaf}
        time = next((axis for axis in leaf if axis in linked), None)
        alias = (
            {name: v for v, names in linked[time].items() if v in local for name in names} if time is not None else {}
        )
        for component in components(here, local, alias):
            moving = tuple(dict.fromkeys(alias[axis] for axis in union(component) if axis in alias))
            if time is not None and timelines is not None and moving:
                inside = local.difference(alias)
                parts = [contract(part, inside, reduction, tape) for part in components(component, inside)]
                stuck = frozenset(axis for axis in union(parts) if axis not in alias and time in home.get(axis, ()))
                if stuck:
                    raise Intractable(stuck.union(moving), leaf)
                remaining.append(sum_along(parts, time, timelines[time], moving, reduction, tape, remaining))
                continue
            factor = contract(component, local, reduction, tape)
            left = [axis for axis in factor.axes if axis in home]
            target = leaf & keep.union(*(home[axis] for axis in left))
            if target == leaf:
                stuck = frozenset(variables).intersection(left)
                if stuck:
                    raise Intractable(stuck, leaf)
                results.append(factor)
            else:
                remaining.append(factor.sum(leaf - target))
    return results


def components(
    factors: Sequence[Factor], links: Iterable[str], alias: Mapping[str, str] | None = None
) -> list[list[Factor]]:
    """Factors grouped so that those which share one of the given axes are together.

    Args: alias, axes that count as others.
    """
    linking, known = set(links), alias or {}
    leader = list(range(len(factors)))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    first: dict[str, int] = {}
    for i, factor in enumerate(factors):
        for axis in linking.intersection(factor.axes):
            leader[find(i)] = find(first.setdefault(known.get(axis, axis), i))
    groups: dict[int, list[Factor]] = {}
    for i, factor in enumerate(factors):
        groups.setdefault(find(i), []).append(factor)
    return list(groups.values())


def contract(
    factors: Sequence[Factor],
    variables: Iterable[str],
    reduction: Reduction = log_sum_exp,
    tape: Tape | None = None,
) -> Factor:
    """Multiply factors and sum out variables, pairwise, in a good order."""
    gone = frozenset(variables)
    work: list[Factor | None] = [*sum_runs(factors, gone, reduction, tape)]
    structure = tuple(f.axes for f in work if f), tuple(tuple(f.tensor.shape) for f in work if f)
    for step in contraction(*structure, gone):
        product = add([member for i in step.members if (member := work[i])])
        for i in step.members:
            work[i] = None  # its memory is free once nothing else needs it
        if step.done:
            if tape is not None:
                tape.append(Summed(step.done, product))
            product = Factor(step.left, reduction(product.tensor, step.dims))
        work.append(product)
    return product


def backtrack(
    tape: Sequence[Summed | SummedTimeline | Run],
    choose: Callable[[Tensor], Tensor],
    given: Mapping[str, Factor] | None = None,
) -> dict[str, Factor]:
    """Go back through an elimination, choosing each variable's value given those chosen before.

    Args:
        choose: from log weights (…, K) to indices (…), such as a draw or an argmax.
        given: carried axes whose values were chosen elsewhere; they are among what is returned.
    Returns: for each variable, an integer factor over the plates (and carried axes) it was summed in.
    """
    chosen: dict[str, Factor] = dict(given or {})
    for step in reversed(tape):
        if not isinstance(step, Summed):
            chosen.update(step.choose(chosen, choose))
            continue
        axes = step.factor.axes
        outer = [axis for axis in axes if axis not in step.variables and axis not in chosen]
        batch = union([Factor(tuple(outer), torch.empty(0)), *(chosen[a] for a in axes if a in chosen)])
        weights = take(step.factor, {a: chosen[a] for a in axes if a in chosen}, batch, step.variables)
        sizes = [step.factor.size(v) for v in step.variables]
        index = choose(weights.flatten(weights.dim() - len(sizes)))
        for variable, size in reversed(list(zip(step.variables, sizes, strict=True))):
            chosen[variable] = Factor(batch, index % size)
            index = index // size
    return chosen
