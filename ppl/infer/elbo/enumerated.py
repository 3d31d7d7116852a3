"""All runs of a program with its marked sites enumerated, as one factor graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppl.handlers.enum import enum, enumerated_sites
from ppl.handlers.trace import trace
from ppl.infer.elbo import sequential
from ppl.infer.elbo.estimator import check_home, explain_intractable
from ppl.infer.elbo.nesting import find_plate_nesting
from ppl.infer.elbo.terms import Terms, model_terms, to_factor
from ppl.infer.elbo.timelines import find_timelines, homes
from ppl.site import Site
from ppl.stack import unrecorded
from ppl.tensors.elimination import Intractable, Tape, eliminate
from ppl.tensors.factor import Factor
from ppl.tensors.semiring import Reduction
from ppl.trace import Trace

Program = Callable[..., Any]
Names = frozenset[str]


@dataclass(slots=True)
class Enumerated:
    """All runs of a program with its marked sites enumerated: their joint density as named factors, and their supports."""

    factors: dict[str, Factor]  # log densities of all sites but those drawn
    names: dict[str, Site]  # the enumerated sites
    sizes: dict[str, int]  # of those that were run value by value
    traces: list[tuple[dict[str, int], Trace]]
    drawn: dict[str, Site]  # latent sites that were neither enumerated nor given
    values: dict[str, Factor]  # and what was drawn, for each choice that they were drawn for

    @property
    def home(self) -> dict[str, Names]:
        """The plates of each variable, as axes."""
        return {name: plates for site in self.names.values() for name, plates in homes(site).items()}

    def eliminate(self, reduction: Reduction, tape: Tape | None = None) -> list[Factor]:
        """Sum out all enumerated sites.

        Raises: ValueError naming sites and plates for a structure that cannot be summed out.
        """
        home = self.home
        for name, factor in self.factors.items():
            check_home(name, factor, home)
        plates = frozenset(axis for f in self.factors.values() for axis in f.axes if axis not in home)
        try:
            timelines = find_timelines(self.names, self.names)
            return eliminate(self.factors.values(), home, plates, reduction=reduction, tape=tape, timelines=timelines)
        except Intractable as error:
            raise ValueError(explain_intractable(error, self.factors)) from error


def enumerate_program(
    program: Program, args: tuple[Any, ...], kwargs: dict[str, Any], first_dim: int | None
) -> Enumerated:
    """Run a program for all values of its marked sites."""
    first = -1 - find_plate_nesting(program, _nothing, args, kwargs) if first_dim is None else first_dim

    def run() -> Trace:
        with enum(first_available_dim=first), trace() as record:
            program(*args, **kwargs)
        return record

    densities: list[tuple[dict[str, int], dict[str, Factor]]] = []
    values: list[tuple[dict[str, int], dict[str, Factor]]] = []
    traces: list[tuple[dict[str, int], Trace]] = []
    sizes: dict[str, int] = {}
    names: dict[str, Site] = {}
    drawn: dict[str, Site] = {}
    sources: dict[str, Names] = {}
    with unrecorded():
        found_runs = list(sequential.runs(run, sequential.watch()))
    for found in found_runs:
        record = found.result
        marked = {*enumerated_sites(record), *found.chosen}
        choices = [name for name in record.nodes if name in marked]  # in the order of the program
        here = {n: s for n, s in record.nodes.items() if s.kind == "sample" and s.drawn and n not in choices}
        # a draw from its own distribution says nothing about the choice that it was made for
        densities.append((found.chosen, {n: f for n, f in model_terms(record, Terms()).model.items() if n not in here}))
        values.append((found.chosen, {n: to_factor(s.tensor, s, len(s.fn.event_shape)) for n, s in here.items()}))
        traces.append((found.chosen, record))
        for name, size in found.sizes.items():
            sizes[name] = max(size, sizes.get(name, 0))
        for name, seen in found.sources.items():
            sources[name] = seen | sources.get(name, frozenset())
        names.update({name: record[name] for name in choices})
        drawn.update(here)
    factors = sequential.stack(densities, sizes, sources, -torch.inf)
    return Enumerated(factors, names, sizes, traces, drawn, sequential.stack(values, sizes, sources, 0.0))


def _nothing(*args: Any, **kwargs: Any) -> None:
    """The guide of a program without latent sites."""


def support_of(found: Enumerated, site: Site) -> Tensor:
    """The values that an enumerated site's index stands for, (K, *event)."""
    name, event = site.name, site.fn.event_shape
    if name in found.sizes:
        rows: dict[int, Tensor] = {}
        for chosen, record in found.traces:
            if name in chosen:
                rows.setdefault(chosen[name], record[name].tensor.reshape((-1, *event))[0])
        return torch.stack([rows.get(index, rows[0]) for index in range(found.sizes[name])])
    value = site.tensor[(0,) * len(site.spans)]
    batch_dims = value.dim() - len(event)
    (own,) = (batch_dims + dim for dim, axis in site.enum_dims if axis == name)
    for position in range(batch_dims):
        value = value if position == own else value.narrow(position, 0, 1)
    return value.reshape((-1, *event))
