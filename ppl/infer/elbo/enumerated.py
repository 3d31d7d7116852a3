"""All runs of a program with its marked sites enumerated, as one factor graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ppl.handlers.enum import enum, enumerated_sites
from ppl.handlers.trace import trace
from ppl.infer.elbo import sequential
from ppl.infer.elbo.estimator import check_home, explain_intractable, explain_too_large
from ppl.infer.elbo.nesting import find_plate_nesting
from ppl.infer.elbo.terms import Terms, model_terms, to_factor
from ppl.infer.elbo.timelines import find_timelines, homes
from ppl.site import Site
from ppl.stack import unrecorded
from ppl.tensors.chunks import Choose, Query, Shape, TooLarge, choose_within, eliminate_within, plan
from ppl.tensors.elimination import Intractable, Tape, backtrack
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
    sources: dict[str, Names] = field(default_factory=dict)  # the sites run value by value that each site depends on

    @property
    def home(self) -> dict[str, Names]:
        """The plates of each variable, as axes."""
        return {name: plates for site in self.names.values() for name, plates in homes(site).items()}

    def query(self, reduction: Reduction, choose: Choose | None = None) -> Query:
        """What there is to be eliminated: all enumerated sites."""
        home = self.home
        for name, factor in self.factors.items():
            check_home(name, factor, home)
        plates = frozenset(axis for f in self.factors.values() for axis in f.axes if axis not in home)
        timelines = tuple(find_timelines(self.names, self.names).items())
        return Query(tuple(home.items()), plates, reduction=reduction, choose=choose, timelines=timelines)

    def eliminate(
        self, reduction: Reduction, tape: Tape | None = None, memory_limit: int | None = None
    ) -> list[Factor]:
        """Sum out all enumerated sites.

        Raises: ValueError naming sites and plates for a structure that cannot be summed out, or not within the limit.
        """
        query, factors = self.query(reduction), list(self.factors.values())
        with self.named_errors():
            return query(factors, tape) if memory_limit is None else eliminate_within(memory_limit, factors, query)

    def choose(self, reduction: Reduction, choose: Choose, memory_limit: int | None = None) -> dict[str, Factor]:
        """Sum out all enumerated sites, and go back choosing their values: indices into their supports.

        Raises: ValueError like `eliminate`.
        """
        query = self.query(reduction, choose)
        factors = [Factor(f.axes, f.tensor.detach()) for f in self.factors.values()]
        with self.named_errors():
            if memory_limit is not None:
                return choose_within(factors, query, plan(tuple(map(Shape.of, factors)), query, memory_limit))
            tape: Tape = []
            query(factors, tape)
            return backtrack(tape, choose)

    @contextlib.contextmanager
    def named_errors(self) -> Iterator[None]:
        """Errors of an elimination in the words of the program."""
        try:
            yield
        except Intractable as error:
            raise ValueError(explain_intractable(error, self.factors)) from error
        except TooLarge as error:
            raise ValueError(explain_too_large(error)) from error


def enumerate_program(
    program: Program,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    first_dim: int | None,
    maximised: bool = False,
) -> Enumerated:
    """Run a program for all values of its marked sites, which are to be summed out or `maximised` over."""
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
        terms = model_terms(record, Terms(), frozenset(choices), maximised)
        densities.append((found.chosen, {n: f for n, f in terms.model.items() if n not in here}))
        values.append((found.chosen, {n: to_factor(s.tensor, s, len(s.fn.event_shape)) for n, s in here.items()}))
        traces.append((found.chosen, record))
        for name, size in found.sizes.items():
            sizes[name] = max(size, sizes.get(name, 0))
        for name, seen in found.sources.items():
            sources[name] = seen | sources.get(name, frozenset())
        names.update({name: record[name] for name in choices})
        drawn.update(here)
    factors = sequential.stack(densities, sizes, sources, -torch.inf)
    return Enumerated(factors, names, sizes, traces, drawn, sequential.stack(values, sizes, sources, 0.0), sources)


def check_limit(memory_limit: int | None, name: str) -> None:
    """A limit must be a positive number of bytes.

    Raises: ValueError naming what it was given to.
    """
    if memory_limit is not None and (not isinstance(memory_limit, int) or memory_limit < 1):
        raise ValueError(f"{name}: memory_limit must be a positive whole number of bytes, got {memory_limit!r}.")


def _nothing(*args: Any, **kwargs: Any) -> None:
    """The guide of a program without latent sites."""


def has_one_support(found: Enumerated, site: Site) -> bool:
    """Whether an index of an enumerated site stands for one value, in all places and whatever was chosen before."""
    values: dict[int, Tensor] = {}
    for chosen, seen in _runs_of(found, site):
        for index, value in _values_in(seen, chosen):
            first = values.setdefault(index, value.reshape((-1, *site.fn.event_shape))[0])
            if not bool((value == first).all()):
                return False
    return True


def support_of(found: Enumerated, site: Site) -> Tensor:
    """The values that an enumerated site's index stands for, (K, *event).

    Raises: ValueError where they differ along the plates, or with choices made value by value.
    """
    if not has_one_support(found, site):
        raise ValueError(
            f"{site} has no one list of values: which they are depends on the place in its plates, or on a site that is "
            "enumerated sequentially. Mark that one 'parallel'."
        )
    rows: dict[int, Tensor] = {}
    for chosen, seen in _runs_of(found, site):
        for index, value in _values_in(seen, chosen):
            rows.setdefault(index, value.reshape((-1, *site.fn.event_shape))[0])
    return torch.stack([rows[index] for index in sorted(rows)])


def supports(found: Enumerated, site: Site) -> Factor:
    """The values of an enumerated site over its own axis, its plates, the choices that they depend on and its event."""
    event = len(site.fn.event_shape)
    parts = [
        (chosen, {site.name: to_factor(record[site.name].tensor, record[site.name], event)})
        for chosen, record in found.traces
        if site.name in record
    ]
    return sequential.stack(parts, found.sizes, found.sources, 0)[site.name]


def _runs_of(found: Enumerated, site: Site) -> list[tuple[dict[str, int], Site]]:
    """A site in all runs that have it, with the choices of the run."""
    if not found.sizes:
        return [({}, site)]
    return [(chosen, record[site.name]) for chosen, record in found.traces if site.name in record] or [({}, site)]


def _values_in(site: Site, chosen: dict[str, int]) -> list[tuple[int, Tensor]]:
    """The values of an enumerated site in one run with their indices, each (*batch, *event)."""
    if site.name in chosen:
        return [(chosen[site.name], site.tensor)]
    tensor = site.tensor[(0,) * len(site.spans)]  # alike at all steps of a scan
    batch_dims = tensor.dim() - len(site.fn.event_shape)
    (own,) = (batch_dims + dim for dim, axis in site.enum_dims if axis == site.name)
    return list(enumerate(tensor.unbind(own)))
