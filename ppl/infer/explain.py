"""What an enumeration will cost, before it is run in earnest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ppl.infer.elbo.enumerated import Enumerated, check_limit, enumerate_program
from ppl.infer.elbo.terms import plate_axis
from ppl.tensors.chunks import Chunks, Shape, need, plan
from ppl.tensors.elimination import Summed, Tape
from ppl.tensors.factor import Factor
from ppl.tensors.live_bytes import LiveBytes
from ppl.tensors.runs import Run
from ppl.tensors.semiring import log_sum_exp
from ppl.tensors.timeline import SummedTimeline


@dataclass(frozen=True)
class EnumeratedSite:
    """One enumerated site of a program."""

    name: str
    size: int  # the number of its values
    plates: tuple[tuple[str, int], ...]  # the plates around it, with their sizes
    largest: tuple[str, ...]  # the axes of the factor that it is summed out of
    entries: int  # of that factor


@dataclass(frozen=True)
class Slices:
    """A plate that is worked off a few elements at a time."""

    plate: str
    elements: int  # of a slice; the last one may have fewer
    count: int  # of slices
    within: tuple[str, ...]  # plates of whose slices each is cut up itself

    def __str__(self) -> str:
        inside = "".join(f" within each slice of '{plate}'" for plate in self.within[-1:])
        return f"plate '{self.plate}' in {self.count:,} slices of {self.elements:,}{inside}"


@dataclass(frozen=True)
class Explanation:
    """What summing out a program's enumerated sites takes; `print` it."""

    sites: tuple[EnumeratedSite, ...]
    num_factors: int  # densities that depend on enumerated sites
    operations: int  # entries of all factors that something is summed out of; each takes about five floating point ones
    largest: int  # entries of the largest one
    program: int  # bytes alive after a run with all values enumerated: values, densities, and what their gradients need
    memory: int  # the peak of bytes for one value: the run, and then the elimination
    gradients: int  # bytes that the backward pass through the elimination adds to it
    memory_limit: int | None  # bytes that the elimination may hold
    slices: tuple[Slices, ...]  # the plates that are worked off in slices to keep it

    def __str__(self) -> str:
        if not self.sites:
            return "No site is enumerated: mark sites with infer={'enumerate': 'parallel'}, or use config_enumerate."
        names = [site.name for site in self.sites]
        width = max(len("site"), *map(len, names))
        lines = [f"{'site':{width}}  values  plates                 summed out of"]
        for site in self.sites:
            plates = ", ".join(f"{name}[{size}]" for name, size in site.plates) or "-"
            axes = " × ".join(axis.removeprefix("plate ") for axis in site.largest)
            lines.append(f"{site.name:{width}}  {site.size:>6}  {plates:21}  {axes or '-'} ({site.entries:,} entries)")
        lines += [
            f"{self.num_factors} densities; {self.operations:,} operations; the largest factor has {self.largest:,} entries;",
            f"{_megabytes(self.program)} MB after the program's run; at most about {_megabytes(self.memory)} MB for one "
            f"value, and {_megabytes(self.gradients)} MB more with gradients.",
        ]
        if self.memory_limit is not None:
            how = "; ".join(map(str, self.slices)) or "everything at once"
            lines.append(f"Within {_megabytes(self.memory_limit)} MB besides the densities: {how}.")
        return "\n".join(lines)


def explain_enumeration(
    model: Callable[..., Any],
    *args: Any,
    first_available_dim: int | None = None,
    memory_limit: int | None = None,
    **kwargs: Any,
) -> Explanation:
    """Print, by site and plate, what it takes to sum out a model's enumerated sites; and return it.

    The model is run once and its bytes counted; the elimination is only rehearsed, on tensors without data.

    Args: memory_limit, also tell which plates `TraceEnum_ELBO(memory_limit=…)` will work off in slices.
    Raises: ValueError for a structure that cannot be summed out, or not within the limit, naming its plates and sites.
    """
    check_limit(memory_limit, "explain_enumeration")
    with LiveBytes() as counted:
        found = enumerate_program(model, args, kwargs, first_available_dim)
        program = counted.now
    shapes = {name: Factor(f.axes, f.tensor.detach().to("meta")) for name, f in found.factors.items()}
    tape: Tape = []
    planned = Enumerated(shapes, found.names, found.sizes, found.traces, found.drawn, found.values)
    planned.eliminate(log_sum_exp, tape)
    query = found.query(log_sum_exp)
    learned = tuple(replace(Shape.of(f), learned=f.tensor.is_floating_point()) for f in found.factors.values())
    takes = need(learned, query)
    with found.named_errors():
        chunks = None if memory_limit is None else plan(learned, query, memory_limit)
    forward = takes.forward if memory_limit is None else min(takes.forward, memory_limit)
    both = takes.both if chunks is None or memory_limit is None else memory_limit
    both += max((s.bytes for s in learned), default=0)  # gradients by densities are passed on one by one
    memory = max(counted.peak, program + forward)
    gradients = max(0, program + both - memory)
    told = _explain(found, tape)
    explanation = replace(
        told, program=program, memory=memory, gradients=gradients, memory_limit=memory_limit, slices=_slices(chunks)
    )
    print(explanation)
    return explanation


def _explain(found: Enumerated, tape: Tape) -> Explanation:
    of = {variable: factor for step in tape for variable, factor in _factors(step).items()}
    sizes = {axis: f.size(axis) for f in found.factors.values() for axis in f.axes}
    sites = []
    for name, site in found.names.items():
        plates = tuple((f.name, f.subsample_size) for f in site.plates if f.dim is not None)
        factor = of.get(name)
        own = tuple(plate_axis(plate) for plate, _ in plates)
        axes = own if factor is None else factor.axes
        entries = 1 if factor is None else factor.tensor.numel()
        sites.append(EnumeratedSite(name, sizes.get(name, 1), plates, axes, entries))
    dependent = [f for f in found.factors.values() if any(axis in found.names for axis in f.axes)]
    numels = [step.factor.tensor.numel() for step in tape]
    steps = [step.num_steps if isinstance(step, Run) else 1 for step in tape]
    operations = sum(math.prod(both) for both in zip(numels, steps, strict=True))
    return Explanation(tuple(sites), len(dependent), operations, max(numels, default=0), 0, 0, 0, None, ())


def _slices(chunks: Chunks | None, within: tuple[str, ...] = ()) -> tuple[Slices, ...]:
    """All slices of a plan, in the order in which they are worked off."""
    if chunks is None:
        return ()
    plate = chunks.plate.removeprefix("plate ")
    own = Slices(plate, chunks.size, chunks.count, within)
    return (own, *_slices(chunks.inner, (*within, plate)), *_slices(chunks.rest, within))


def _megabytes(count: int) -> str:
    return f"{count / 2**20:,.1f}" if count >= 2**20 else f"{count / 2**20:.2g}"


def _factors(step: Summed | SummedTimeline | Run) -> dict[str, Factor]:
    """What each variable is summed out of; in a run, a factor with the variable next to it."""
    factor = step.factor
    if not isinstance(step, Run):
        return dict.fromkeys(step.variables, factor)
    nexts = dict(zip(step.path, (*step.path[1:], step.path[-2]), strict=True))
    return {v: Factor((*step.batch, v, nexts[v]), factor.tensor) for v in step.variables}
