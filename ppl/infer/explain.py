"""What an enumeration will cost, before it is run in earnest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ppl.infer.elbo.enumerated import Enumerated, enumerate_program
from ppl.infer.elbo.terms import plate_axis
from ppl.tensors.elimination import Summed, Tape
from ppl.tensors.factor import Factor
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
class Explanation:
    """What summing out a program's enumerated sites takes; `print` it."""

    sites: tuple[EnumeratedSite, ...]
    num_factors: int  # densities that depend on enumerated sites
    operations: int  # entries of all factors that something is summed out of
    largest: int  # entries of the largest one
    memory: int  # bytes of all densities and the largest factor together

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
            f"about {self.memory / 2**20:,.1f} MB for one value, and twice as much with gradients.",
        ]
        return "\n".join(lines)


def explain_enumeration(
    model: Callable[..., Any], *args: Any, first_available_dim: int | None = None, **kwargs: Any
) -> Explanation:
    """Print, by site and plate, what it takes to sum out a model's enumerated sites; and return it.

    The model is run once; the elimination is only gone through, on tensors without data.
    Raises: ValueError for a structure that cannot be summed out, naming its plates and sites.
    """
    found = enumerate_program(model, args, kwargs, first_available_dim)
    shapes = {name: Factor(f.axes, f.tensor.detach().to("meta")) for name, f in found.factors.items()}
    tape: Tape = []
    planned = Enumerated(shapes, found.names, found.sizes, found.traces, found.drawn, found.values)
    planned.eliminate(log_sum_exp, tape)
    explanation = _explain(found, tape)
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
    itemsize = torch.get_default_dtype().itemsize
    total = sum(f.tensor.numel() * f.tensor.element_size() for f in found.factors.values())
    largest = max(numels, default=0)
    operations = sum(math.prod(both) for both in zip(numels, steps, strict=True))
    return Explanation(tuple(sites), len(dependent), operations, largest, total + largest * itemsize)


def _factors(step: Summed | SummedTimeline | Run) -> dict[str, Factor]:
    """What each variable is summed out of; in a run, a factor with the variable next to it."""
    factor = step.factor
    if not isinstance(step, Run):
        return dict.fromkeys(step.variables, factor)
    nexts = dict(zip(step.path, (*step.path[1:], step.path[-2]), strict=True))
    return {v: Factor((*step.batch, v, nexts[v]), factor.tensor) for v in step.variables}
