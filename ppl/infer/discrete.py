"""The discrete sites of a model given everything else: posterior draws, or the most probable values together."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppl.handlers.enum import enum, enumerated_sites
from ppl.handlers.replay import replay
from ppl.handlers.trace import trace
from ppl.infer.elbo import sequential
from ppl.infer.elbo.elbo import find_plate_nesting
from ppl.infer.elbo.estimator import check_home, explain_intractable
from ppl.infer.elbo.terms import Terms, event_axes, model_terms, plate_axis, to_factor
from ppl.site import Site, plate_shape
from ppl.stack import unrecorded
from ppl.tensors.elimination import Intractable, Summed, backtrack, eliminate, take
from ppl.tensors.factor import Factor
from ppl.tensors.semiring import Reduction, log_sum_exp, maximum
from ppl.trace import Trace

Program = Callable[..., Any]
Names = frozenset[str]


def infer_discrete(fn: Program | None = None, first_available_dim: int | None = None, temperature: int = 1) -> Program:
    """A program like `fn` whose sites marked for enumeration take values from their joint posterior, all else given.

    Condition or replay the other latent sites first: `infer_discrete(replay(model, guide_trace))`. Those left to be drawn
    are drawn from their distributions, and shown with the choices that they were drawn for; this is exact as long as
    nothing observed depends on them.

    Args:
        first_available_dim: a negative dim left of all plates; found by a first run if not given.
        temperature: 1 for an exact draw, 0 for the most probable values (the joint maximum, not the marginals').
    Raises: ValueError for another temperature, and for a structure that cannot be summed out.
    """
    if temperature not in (0, 1):
        raise ValueError(f"infer_discrete: temperature must be 0 (maximum) or 1 (posterior draw), got {temperature!r}.")
    if fn is None:
        return functools.partial(infer_discrete, first_available_dim=first_available_dim, temperature=temperature)
    if not callable(fn):
        raise TypeError(f"infer_discrete wraps a callable, but got {type(fn).__name__}: {fn!r}.")
    program = fn

    @functools.wraps(program)
    def inferred(*args: Any, **kwargs: Any) -> Any:
        record = _posterior(enumerate_program(program, args, kwargs, first_available_dim), temperature)
        return replay(program, record)(*args, **kwargs)

    return inferred


def _nothing(*args: Any, **kwargs: Any) -> None:
    """The guide of a program without latent sites."""


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
        """The plates of each enumerated site, as axes."""
        return {
            name: frozenset(plate_axis(f.name) for f in site.plates if f.dim is not None)
            for name, site in self.names.items()
        }

    def eliminate(self, reduction: Reduction, tape: list[Summed] | None = None) -> list[Factor]:
        """Sum out all enumerated sites.

        Raises: ValueError naming sites and plates for a structure that cannot be summed out.
        """
        home = self.home
        for name, factor in self.factors.items():
            check_home(name, factor, home)
        plates = frozenset(axis for f in self.factors.values() for axis in f.axes if axis not in home)
        try:
            return eliminate(self.factors.values(), home, plates, reduction=reduction, tape=tape)
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
        choices = {*enumerated_sites(record), *found.chosen}
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


def _posterior(found: Enumerated, temperature: int) -> Trace:
    """A trace with values for the enumerated sites."""
    tape: list[Summed] = []
    found.eliminate(log_sum_exp if temperature else maximum, tape)
    chosen = backtrack(tape, _draw if temperature else _best)
    decided = _decide(found.traces, found.names, found.sizes, chosen)
    decided.nodes.update({n: site for n, site in found.traces[0][1].nodes.items() if site.kind == "plate"})
    for name, value in found.values.items():
        decided.nodes[name] = _select(found.drawn[name], value, chosen)
    return decided


def _select(site: Site, value: Factor, chosen: dict[str, Factor]) -> Site:
    """A site that was drawn for every choice, with the value that it has at the choice made."""
    frames = sorted((f for f in site.plates if f.dim is not None), key=lambda f: f.dim or 0)
    batch, event = [plate_axis(f.name) for f in frames], event_axes(len(site.fn.event_shape))
    picked = take(value, {axis: chosen[axis] for axis in value.axes if axis in chosen}, batch, event)
    picked = picked.expand([f.subsample_size for f in frames] + [*site.fn.event_shape])
    return site.replace(value=picked.reshape(plate_shape(frames) + site.fn.event_shape), enum_dims=())


def _draw(log_weights: Tensor) -> Tensor:
    drawn: Tensor = torch.distributions.Categorical(logits=log_weights, validate_args=False).sample()
    return drawn


def _best(log_weights: Tensor) -> Tensor:
    return log_weights.argmax(-1)


def _decide(
    traces: list[tuple[dict[str, int], Trace]],
    names: dict[str, Site],
    sizes: dict[str, int],
    chosen: dict[str, Factor],
) -> Trace:
    """The chosen indices as values of the sites, in a trace to replay."""
    decided = Trace()
    for name, site in names.items():
        frames = [f for f in site.plates if f.dim is not None]
        batch = [plate_axis(f.name) for f in sorted(frames, key=lambda f: f.dim or 0)]
        value = _support(name, site, traces, sizes)
        index = chosen.get(name)
        if index is None:  # a single value, which no factor shows as an axis
            index = Factor((), torch.zeros((), dtype=torch.long, device=value.device))
        size = [frame.subsample_size for frame in sorted(frames, key=lambda f: f.dim or 0)]
        picked = value[index.aligned(batch).expand(size)]
        shape = plate_shape(frames)
        decided.nodes[name] = site.replace(value=picked.reshape(shape + site.fn.event_shape), enum_dims=())
    return decided


def support_of(found: Enumerated, site: Site) -> Tensor:
    """The values of an enumerated site, (K, *event)."""
    return _support(site.name, site, found.traces, found.sizes)


def _support(name: str, site: Site, traces: list[tuple[dict[str, int], Trace]], sizes: dict[str, int]) -> Tensor:
    """The values that a site's index stands for, (K, *event)."""
    event = site.fn.event_shape
    if name in sizes:
        rows: dict[int, Tensor] = {}
        for chosen, record in traces:
            if name in chosen:
                rows.setdefault(chosen[name], record[name].tensor.reshape((-1, *event))[0])
        return torch.stack([rows.get(index, rows[0]) for index in range(sizes[name])])
    value = site.tensor
    batch_dims = value.dim() - len(event)
    (own,) = (batch_dims + dim for dim, axis in site.enum_dims if axis == name)
    for position in range(batch_dims):
        value = value if position == own else value.narrow(position, 0, 1)
    return value.reshape((-1, *event))
