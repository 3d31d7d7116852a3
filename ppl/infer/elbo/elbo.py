"""The evidence lower bound: run a guide and a model, and turn their traces into a loss."""

from __future__ import annotations

from collections.abc import Callable
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
from ppl.infer.elbo.terms import Names, Terms, check_dims, guide_terms, model_terms, plate_axis
from ppl.site import Site
from ppl.trace import Trace

Program = Callable[..., Any]
PARTICLES = "num_particles_vectorized"


class ELBO:
    """What the two objectives share. Use `Trace_ELBO` or `TraceEnum_ELBO`.

    Args:
        num_particles: how many draws of the guide an estimate averages.
        max_plate_nesting: how many dims, counted from the right, plates may use; found by a first run if not given.
        vectorize_particles: draw all particles in one run, on a dim left of all plates.
    """

    enumerates = False  # whether sites marked for enumeration are summed rather than drawn

    def __init__(
        self, num_particles: int = 1, max_plate_nesting: int | None = None, vectorize_particles: bool = False
    ) -> None:
        if num_particles < 1:
            raise ValueError(f"{type(self).__name__}: num_particles must be at least 1, got {num_particles}.")
        self.num_particles, self.vectorize_particles = num_particles, vectorize_particles
        self.max_plate_nesting = max_plate_nesting
        self.baselines = Baselines()
        self.last_traces: tuple[Trace, Trace] | None = None  # of the latest estimate: model's and guide's
        self._found_nesting: int | None = None
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
        return self._assemble(terms, {}, guide_trace)

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
            chosen, (guide_trace, axes) = guided.chosen, guided.result
            summed = enumerated_sites(guide_trace)
            _check_dims_of_guide(guide_trace, summed)
            enumerated = frozenset(summed).union(chosen)
            guide_axes |= enumerated
            left = min((axis.dim for axis in axes), default=first_dim + 1) - 1

            def run_model(guide_trace: Trace = guide_trace, left: int = left, axes: tuple[Axis, ...] = axes) -> Any:
                return _run_enumerated(replay(model, guide_trace), args, kwargs, left, axes)

            if self._matched is None and is_validation_enabled():
                check_reductions(replay(model, guide_trace), args, kwargs, left, axes)
            for ran in sequential.runs(run_model, provenance):
                model_trace, _ = ran.result
                names = enumerated.union(ran.chosen, enumerated_sites(model_trace))
                self._check(model_trace, guide_trace, names)
                if not names:  # there are no other runs
                    return self._of_draws(model_trace, guide_trace)
                models.append(({**chosen, **ran.chosen}, model_terms(model_trace, Terms(), names - enumerated)))
                _grow(sizes, {**guided.sizes, **ran.sizes})
                _join(sources, ran.sources)
                home.update({n: _plates_of((guide_trace if n in guide_trace else model_trace)[n]) for n in names})
            guides.append((chosen, guide_terms(guide_trace, enumerated, Terms())))
            _grow(sizes_of_guide, guided.sizes)
            _join(sources_of_guide, guided.sources)
        terms = _stack(models, sizes, sources, ("model", "scaled"))
        terms.take_guide(_stack(guides, sizes_of_guide, sources_of_guide, ("guide", "scores", "weights")))
        return self._assemble(terms, home, guide_trace, guide_axes)

    def _assemble(
        self, terms: Terms, home: dict[str, Names], guide_trace: Trace, guide_axes: Names = frozenset()
    ) -> Tensor:
        for name, factor in terms.guide.items():
            check_home(name, factor, home)
        costs = sum_out_model(terms, home, guide_axes) + list(terms.guide.values())
        if not costs:
            return torch.zeros(())
        expectation = Expectation(terms.weights, home)
        return -estimate(costs, terms.scores, expectation, guide_trace.nodes, self.baselines)

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
        self.baselines.means = {name: mean.clone() for name, mean in state["baselines"].items()}


def _run_enumerated(
    program: Program, args: tuple[Any, ...], kwargs: dict[str, Any], first_dim: int, axes: tuple[Axis, ...] = ()
) -> tuple[Trace, tuple[Axis, ...]]:
    with enum(first_available_dim=first_dim, axes=axes) as handler:
        record = run(program, args, kwargs)
    return record, tuple(handler.axes)


def _check_dims_of_guide(guide: Trace, enumerated: list[str]) -> None:
    """A guide's enumerated sites must keep their dims, which the model's sites are to share."""
    owners: dict[int, str] = {}
    for name in enumerated:
        (dim,) = (dim for dim, axis in guide[name].enum_dims if axis == name)
        if dim in owners:
            raise ValueError(
                f"sites '{owners[dim]}' and '{name}' of the guide are enumerated on one dim in turn, because they stand in "
                "a markov loop. Loop over a plain range in the guide, where each site keeps its own dim."
            )
        owners[dim] = name


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


def _plates_of(site: Site) -> Names:
    return frozenset(plate_axis(frame.name) for frame in site.plates if frame.dim is not None)


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
    for kind in kinds:
        factors = [(chosen, getattr(terms, kind)) for chosen, terms in parts]
        impossible = -torch.inf if kind in ("model", "weights") else 0.0
        setattr(result, kind, sequential.stack(factors, sizes, sources, impossible))
    return result
