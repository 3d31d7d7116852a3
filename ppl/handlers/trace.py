"""Record a run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Self

from ppl.distributions.validation import validation_enabled
from ppl.site import Site, Step
from ppl.stack import Handler, perform
from ppl.tensors.provenance import Provenance
from ppl.trace import Trace


class trace(Handler):
    """Record every site that passes, as it comes back: with its value and all that the outer handlers gave it.

        tr = trace(model).get_trace(data)

    Args: param_only, record parameters only.
    """

    def __init__(self, fn: Callable[..., Any] | None = None, param_only: bool = False) -> None:
        super().__init__(fn)
        self.param_only = param_only
        self.trace = Trace()
        self._loops: dict[int, int] = {}  # the markov loops in the order in which this run met them
        self._last: tuple[tuple[Step, ...], tuple[Step, ...]] = (), ()  # the steps of the site before, and numbered

    def fresh(self) -> Self:
        self.trace, self._loops, self._last = Trace(), {}, ((), ())
        return self

    def __enter__(self) -> Trace:
        super().__enter__()
        return self.trace

    def handle(self, site: Site) -> Site:
        recorded = site.recorded and site.kind != "subsample" and (site.kind == "param" or not self.param_only)
        moments = site.moments if site.kind in ("sample", "deterministic") else ()
        site = perform(site)
        if recorded:
            seen = self._numbered(site) if site.steps else site
            if moments:
                moments[-1].keep(self.trace.add, seen)
            else:
                self.trace.add(seen)
        return site

    def _numbered(self, site: Site) -> Site:
        """The site with its markov loops counted within this run, so that two runs of a program have equal steps."""
        given, steps = self._last
        if given is not site.steps:
            given, loops = site.steps, self._loops
            steps = tuple(Step(loops.setdefault(s.loop, len(loops)), s.step, s.history) for s in given)
            self._last = given, steps
        return site.replace(steps=steps)

    def get_trace(self, *args: Any, **kwargs: Any) -> Trace:
        """Run the wrapped function and return the record of the run; safe to call from many threads at once."""
        if self.fn is None:
            raise TypeError("handlers.trace: get_trace needs a wrapped function; write trace(model).get_trace(…).")
        recorder = type(self)(param_only=self.param_only)
        with recorder:
            returned = self.fn(*args, **kwargs)
        recorder.trace.returned = returned
        recorder.trace._rerun = functools.partial(_sources, self.fn, args, kwargs)
        return recorder.trace


class _follow(Handler):
    """Gives every site its recorded value, and notes where its distribution came from."""

    def __init__(self, nodes: dict[str, Site], provenance: Provenance) -> None:
        super().__init__()
        self.nodes, self.provenance = nodes, provenance
        self.sources: dict[str, frozenset[str]] = {}

    def handle(self, site: Site) -> Site:
        if site.kind in ("plate", "subsample"):
            recorded = self.nodes.get(site.name)
            return perform(site if recorded is None else site.replace(value=recorded.value))
        made_of = site.value if site.kind == "deterministic" else site.distribution
        sources = self.provenance.of(made_of) | self.provenance.control
        if site.kind == "sample" and site.value is None:
            site = site.replace(value=self.nodes[site.name].value)
        site = perform(site)
        self.sources[site.name] = sources - {site.name}
        return site.replace(value=self.provenance.name(site.tensor, site.name))


def _sources(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], nodes: dict[str, Site]
) -> dict[str, frozenset[str]]:
    with validation_enabled(False), Provenance() as provenance, _follow(nodes, provenance) as follow:
        fn(*args, **kwargs)
    found: dict[str, frozenset[str]] = follow.sources
    return found
