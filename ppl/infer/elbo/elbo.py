"""The evidence lower bound: run a guide and a model, and turn their traces into a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ppl.distributions.validation import is_validation_enabled
from ppl.handlers.enum import Axis, PlateTooDeepError, enum, enumerated_sites
from ppl.handlers.plate import plate
from ppl.handlers.replay import replay
from ppl.infer.elbo import sequential
from ppl.infer.elbo.estimator import Baselines, Expectation, check_home, estimate, sum_all, sum_out_model
from ppl.infer.elbo.matching import check_match
from ppl.infer.elbo.nesting import find_plate_nesting, run
from ppl.infer.elbo.reductions import check_reductions
from ppl.infer.elbo.terms import Names, Terms, check_dims, guide_terms, model_terms
from ppl.infer.elbo.timelines import find_timelines, homes
from ppl.site import Site
from ppl.tensors.factor import Factor
from ppl.tensors.rewind import random_state, rewind
from ppl.tensors.sharing import Sharing, can_share
from ppl.trace import Trace

Program = Callable[..., Any]
PARTICLES = "num_particles_vectorized"


class ELBO:
    """What the objectives share. Use `Trace_ELBO`, `TraceEnum_ELBO` or `TraceTMC_ELBO`.

    Args:
        num_particles: how many draws of the guide an estimate averages.
        max_plate_nesting: how many dims, counted from the right, plates may use; found by a first run if not given.
        vectorize_particles: draw all particles in one run, on a dim left of all plates.
    """

    enumerates = False  # whether sites marked for enumeration are summed rather than drawn
    sums_guide = False  # whether those of the guide are summed inside the logarithm too, rather than averaged outside

    def __init__(
        self, num_particles: int = 1, max_plate_nesting: int | None = None, vectorize_particles: bool = False
    ) -> None:
        if num_particles < 1:
            raise ValueError(f"{type(self).__name__}: num_particles must be at least 1, got {num_particles}.")
        self.num_particles, self.vectorize_particles = num_particles, vectorize_particles
        self.max_plate_nesting = max_plate_nesting
        self.memory_limit: int | None = None  # bytes that summing out may hold
        self.baselines = Baselines()
        self.last_traces: tuple[Trace, Trace] | None = None  # of the latest estimate: model's and guide's
        self._found_nesting: int | None = None
        self._shares: bool | None = None  # whether a run shares computations; None while no loop over time was met
        self._matched: tuple[Any, ...] | None = None  # the sites last found to fit, and which of them are data

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, -ELBO: a scalar whose gradient is the estimator's gradient."""
        loops = 1 if self.vectorize_particles else self.num_particles
        losses = [self._one(model, guide, args, kwargs) for _ in range(loops)]
        total = losses[0] if loops == 1 else torch.stack(losses).sum()
        return total if self.num_particles == 1 else total / self.num_particles

    differentiable_loss = __call__

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The loss as a number, without gradients."""
        with torch.no_grad():
            return float(self(model, guide, *args, **kwargs))

    # -- the runs

    def nesting(self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """How many dims the plates of model and guide use: given, or found by a run that leaves no trace in the RNG."""
        if self.max_plate_nesting is not None:
            return self.max_plate_nesting
        if self._found_nesting is None:
            self._found_nesting = find_plate_nesting(model, guide, args, kwargs)
        return self._found_nesting

    def _one(self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        try:
            return self._estimate(model, guide, args, kwargs)
        except ValueError as error:
            given = self.max_plate_nesting
            used = self._found_nesting if given is None else given
            if used is None or (given is not None and isinstance(error, PlateTooDeepError)):
                raise
            needed = self._nesting_of_broken(model, guide, args, kwargs)
            if needed <= used:
                raise
            if given is not None:
                raise ValueError(f"{error} Leave out max_plate_nesting, or give at least {needed}.") from error
            self._found_nesting = needed  # the one known was found for another program or other data
            return self._estimate(model, guide, args, kwargs)

    def _nesting_of_broken(self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """How many dims the plates of programs use that may not even run; if they do not, their first error is raised."""
        try:
            return find_plate_nesting(model, guide, args, kwargs)
        except Exception:  # whatever a user's program raises: the caller goes on to raise the error it already has
            return 0

    def _estimate(self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        if not self.vectorize_particles and not self.enumerates:
            return self._sampled(model, guide, args, kwargs)
        nesting = self.nesting(model, guide, args, kwargs)
        if self.vectorize_particles and self.num_particles > 1:
            nesting += 1
            model, guide = (_repeat(program, self.num_particles, -nesting) for program in (model, guide))
        if not self.enumerates:
            return self._sampled(model, guide, args, kwargs)
        return self._enumerated(model, guide, args, kwargs, -1 - nesting)

    def _sampled(self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Every latent site is drawn."""
        guide_trace = run(guide, args, kwargs)
        model_trace = run(replay(model, guide_trace), args, kwargs)
        self._check(model_trace, guide_trace, frozenset())
        return self._of_draws(model_trace, guide_trace)

    def _of_draws(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        """The loss of two runs in which nothing is enumerated."""
        drawn = guide_trace.nonreparam_stochastic_nodes
        if not drawn and not any(
            _is_factor(site) for site in guide_trace.nodes.values()
        ):  # pathwise alone is a plain sum
            m, q = model_trace, guide_trace
            log_p = [_checked(m.log_prob(name), s) for name, s in m.nodes.items() if s.kind == "sample"]
            log_q = [_checked(q.log_prob_of_draw(name), s) for name, s in q.nodes.items() if s.kind == "sample"]
            if not log_p or not log_q:
                return -sum_all(log_p) if log_p else torch.zeros(())
            return sum_all(log_q) - sum_all(log_p)
        terms = model_terms(model_trace, Terms())
        guide_terms(guide_trace, frozenset(), terms)
        return self._assemble(terms, {}, guide_trace.nodes)

    def _enumerated(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any], first_dim: int
    ) -> Tensor:
        """Marked sites carry their whole support."""
        guides: list[tuple[dict[str, int], Terms]] = []
        models: list[tuple[dict[str, int], Terms]] = []
        sizes_of_guide: dict[str, int] = {}
        sizes: dict[str, int] = {}
        home: dict[str, Names] = {}
        sources_of_guide: dict[str, Names] = {}
        sources: dict[str, Names] = {}
        guide_axes: Names = frozenset()
        if self._matched is None and is_validation_enabled():
            check_reductions(guide, args, kwargs, first_dim)
        provenance = sequential.watch()
        for guided in sequential.runs(lambda: _run_enumerated(guide, args, kwargs, first_dim), provenance):
            chosen, (guide_trace, left) = guided.chosen, guided.result
            summed = enumerated_sites(guide_trace)
            _check_guide(guide_trace, summed)
            enumerated = frozenset(summed).union(chosen)
            guide_axes |= enumerated
            outside = self._outside(guide_trace, enumerated)
            # of what the model draws, each of the guide's draws has a set of its own where these are averaged
            axes = tuple(
                Axis(name, dim, (), guide_trace[name].infer.num_samples if self.sums_guide else None)
                for name in summed
                for dim, owner in guide_trace[name].enum_dims
                if owner == name
            )

            def run_model(guide_trace: Trace = guide_trace, left: int = left, axes: tuple[Axis, ...] = axes) -> Any:
                return self._run_shared(replay(model, guide_trace), args, kwargs, left - 1, axes)

            if self._matched is None and is_validation_enabled():
                check_reductions(replay(model, guide_trace), args, kwargs, left - 1, axes)
            for ran in sequential.runs(run_model, provenance):
                model_trace, _ = ran.result
                names = enumerated.union(ran.chosen, enumerated_sites(model_trace))
                self._check(model_trace, guide_trace, names)
                if not names and not _draws_sets(model_trace, guide_trace):  # there are no other runs
                    return self._of_draws(model_trace, guide_trace)
                terms = model_terms(model_trace, Terms(), names - outside)
                terms.timelines = find_timelines(model_trace, names - outside)
                models.append(({**chosen, **ran.chosen}, terms))
                _grow(sizes, {**guided.sizes, **ran.sizes})
                _join(sources, ran.sources)
                for name in names:
                    home.update(homes((guide_trace if name in guide_trace else model_trace)[name]))
            guides.append((chosen, self._guide_terms(guide_trace, enumerated)))
            _grow(sizes_of_guide, guided.sizes)
            _join(sources_of_guide, guided.sources)
        terms = _stack(models, sizes, sources, ("model", "scaled", "scores"))
        proposed = _stack(guides, sizes_of_guide, sources_of_guide, ("guide", "scores", "weights", "scaled"))
        averaged = frozenset[str]() if self.sums_guide else guide_axes
        _check_coupled({**terms.scores, **proposed.scores}, {**sources_of_guide, **sources}, averaged)
        terms.scores = {name: score.sum(home.keys() - guide_axes) for name, score in terms.scores.items()}
        return self._combine(terms, proposed, home, {**model_trace.nodes, **guide_trace.nodes}, guide_axes)

    def _guide_terms(self, guide: Trace, enumerated: Names) -> Terms:
        """The guide's part of a bound."""
        return guide_terms(guide, enumerated, Terms())

    def _outside(self, guide: Trace, enumerated: Names) -> Names:
        """Which of the guide's enumerated sites the model does not sum out."""
        return enumerated

    def _combine(
        self, terms: Terms, proposed: Terms, home: dict[str, Names], sites: Mapping[str, Site], guide_axes: Names
    ) -> Tensor:
        """The loss, of the model's and the guide's terms."""
        terms.take_guide(proposed)
        return self._assemble(terms, home, sites, guide_axes)

    def _run_shared(
        self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any], first_dim: int, axes: tuple[Axis, ...]
    ) -> tuple[Trace, int]:
        """A run in which the steps of `markov` loops share what they compute alike, if the run before had such loops."""
        if not self._shares or not can_share():
            record, found = _run_enumerated(program, args, kwargs, first_dim, axes)
            if self._shares is None and any(site.steps for site in record.nodes.values()):
                self._shares = True
            return record, found
        start = random_state()
        sharing = Sharing()
        try:
            with sharing:
                record, found = _run_enumerated(program, args, kwargs, first_dim, axes)
        except Exception:
            if sharing.is_intact():
                raise
        else:
            if sharing.is_intact():
                return record, found
        self._shares = False  # the program writes into tensors in place
        rewind(start)
        return _run_enumerated(program, args, kwargs, first_dim, axes)

    def _assemble(
        self, terms: Terms, home: dict[str, Names], sites: Mapping[str, Site], guide_axes: Names = frozenset()
    ) -> Tensor:
        for name, factor in terms.guide.items():
            check_home(name, factor, home)
        costs = sum_out_model(terms, home, guide_axes, self.memory_limit) + list(terms.guide.values())
        if not costs:
            return torch.zeros(())
        expectation = Expectation(terms.weights, home)
        return -estimate(costs, terms.scores, expectation, sites, self.baselines)

    def _check(self, model_trace: Trace, guide_trace: Trace, enumerated: Names) -> None:
        self.last_traces = model_trace, guide_trace
        data = [name for name, site in model_trace.nodes.items() if site.observed]
        sites = data, (*model_trace.nodes,), (*guide_trace.nodes,)
        if sites != self._matched and is_validation_enabled():
            check_match(model_trace, guide_trace, enumerated, self.enumerates)
            self._matched = sites

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """The baselines' running means."""
        return {"baselines": {name: mean.clone() for name, mean in self.baselines.means.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the means of a `state_dict`."""
        self.baselines.means.clear()  # in place: captured functions hold on to the mapping
        self.baselines.means.update({name: mean.clone() for name, mean in state["baselines"].items()})


def _run_enumerated(
    program: Program, args: tuple[Any, ...], kwargs: dict[str, Any], first_dim: int, axes: tuple[Axis, ...] = ()
) -> tuple[Trace, int]:
    """The record of an enumerated run, and the leftmost dim that it used."""
    with enum(first_available_dim=first_dim, axes=axes) as handler:
        record = run(program, args, kwargs)
    return record, handler.left


def _draws_sets(*traces: Trace) -> bool:
    """Whether some sites are marked for draws in place of their supports."""
    return any(site.infer.num_samples is not None for trace in traces for site in trace.nodes.values())


def _check_guide(guide: Trace, enumerated: list[str]) -> None:
    """Scans are the model's alone."""
    for name in enumerated:
        if guide[name].step_of or guide[name].spans:
            raise ValueError(
                f"site '{guide[name].step_of or name}' of the guide is enumerated in a scan, which only models can do. Leave it "
                "out of the guide, so that the model's is summed out, or write the guide's chain with ppl.markov."
            )


def _repeat(program: Program, count: int, dim: int) -> Program:
    def particles(*args: Any, **kwargs: Any) -> Any:
        with plate(PARTICLES, count, dim=dim):
            return program(*args, **kwargs)

    return particles


def _checked(log_prob: Tensor, site: Site) -> Tensor:
    if log_prob.dim() and is_validation_enabled():
        check_dims(log_prob.shape, site)
    return log_prob


def _is_factor(site: Site) -> bool:
    return site.kind == "sample" and site.observed


def _check_coupled(scores: Mapping[str, Factor], sources: Mapping[str, Names], averaged: Names) -> None:
    """The runs of a program for a sequential site's values draw with the same random numbers, which scores know nothing of.

    That is no matter where the values are averaged over, but inside a logarithm.
    """
    for name in scores:
        inside = sources.get(name, averaged) - averaged - {name}
        if inside:
            raise ValueError(
                f"site '{name}' is drawn without reparameterisation and depends on the sequential sites {sorted(inside)}. "
                f"Enumerate these in parallel, or '{name}' over its whole support."
            )


def _grow(sizes: dict[str, int], seen: dict[str, int]) -> None:
    for name, size in seen.items():
        sizes[name] = max(size, sizes.get(name, 0))


def _join(sources: dict[str, Names], seen: dict[str, Names]) -> None:
    for name, names in seen.items():
        sources[name] = names | sources.get(name, frozenset())


def _stack(
    parts: list[tuple[dict[str, int], Terms]],
    sizes: dict[str, int],
    sources: dict[str, Names],
    kinds: tuple[str, ...],
) -> Terms:
    """The terms of all sequential runs as one."""
    result = Terms(scales={name: scale for _, terms in parts for name, scale in terms.scales.items()})
    result.timelines = {axis: chain for _, terms in parts for axis, chain in terms.timelines.items()}
    for kind in kinds:
        factors = [(chosen, getattr(terms, kind)) for chosen, terms in parts]
        impossible = -torch.inf if kind in ("model", "weights") else 0.0
        setattr(result, kind, sequential.stack(factors, sizes, sources, impossible))
    return result
