"""Search over the discrete choices of a program, one partial run after another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from ppl.site import Site, expand_to_plates
from ppl.stack import Handler, perform
from ppl.trace import Trace

Extend = Callable[[Trace, Site], Iterable[Trace]]


class TraceQueue(Protocol):
    """Where partial traces wait: a `queue.Queue` (breadth first), `LifoQueue` (depth first), or one with priorities."""

    def get(self) -> Any:
        """Take a trace out."""
        ...

    def put(self, item: Any, /) -> Any:
        """Put a trace in."""
        ...

    def empty(self) -> bool:
        """Whether no trace waits."""
        ...


def queue(
    fn: Callable[..., Any],
    queue: TraceQueue,
    max_tries: int = 1_000_000,
    extend_fn: Extend | None = None,
    escape_fn: Callable[[Trace, Site], bool] | None = None,
) -> Callable[..., Any]:
    """Search for a complete run of a program whose discrete choices are decided one by one.

        traces = queue.Queue()
        traces.put(handlers.Trace())
        search = handlers.queue(handlers.trace(model).get_trace, traces)
        while not traces.empty():
            completion = search()

    A call takes a partial trace from the queue and runs the program with its values. At the first site that is to be
    chosen and has no value there, it leaves the program, puts back one longer partial trace for each choice, and tries
    the next; the first run that comes to its end is returned. Repeated calls enumerate all completions.

    Args:
        queue: with `put`, `get` and `empty`, holding a partial trace at least; an empty one stands for all runs.
        max_tries: how many partial traces one call may take.
        extend_fn: the longer traces, from a trace and the site where it ended; all values of the site's support without
            it, in every combination over its batch.
        escape_fn: whether to choose a site, from the trace and the site; latent discrete sites that the trace does not
            have without it.
    Raises: ValueError when the queue is empty, when max_tries is passed, or for a choice without finite support.
    """
    if not callable(fn):
        raise TypeError(f"handlers.queue wraps a callable, but got {type(fn).__name__}: {fn!r}.")
    if not isinstance(max_tries, int) or max_tries < 1:
        raise ValueError(f"handlers.queue: max_tries must be a positive int, got {max_tries!r}.")
    extend, chosen = extend_fn or _all_values, escape_fn or _is_choice

    def search(*args: Any, **kwargs: Any) -> Any:
        for _ in range(max_tries):
            if queue.empty():
                raise ValueError(
                    "handlers.queue: the queue is empty: all runs have been returned, or it was never given one; "
                    "before the first call, write queue.put(handlers.Trace())."
                )
            explorer = _explore(queue.get(), chosen)
            try:
                with explorer:
                    return fn(*args, **kwargs)
            except _Choice as choice:
                if choice.explorer is not explorer:
                    raise
                for longer in extend(explorer.seen, choice.site):
                    queue.put(longer)
        raise ValueError(
            f"handlers.queue: no complete run after max_tries={max_tries} partial ones; give a larger max_tries, or a "
            "LifoQueue, which completes one run before it begins the next."
        )

    return search


class _Choice(Exception):
    def __init__(self, explorer: _explore, site: Site) -> None:
        super().__init__(f"left the program at site '{site.name}'")
        self.explorer, self.site = explorer, site


class _explore(Handler):
    """Gives sites the values of a partial trace, records the run, and leaves it at the next choice."""

    def __init__(self, partial: Trace, chosen: Callable[[Trace, Site], bool]) -> None:
        super().__init__()
        self.partial, self.chosen = partial, chosen
        self.seen = Trace()

    def handle(self, site: Site) -> Site:
        if site.kind in ("sample", "plate") and site.name in self.partial and site.value is None:
            site = site.replace(value=self.partial[site.name].value)
        elif site.kind == "sample" and self.chosen(self.partial, site):
            raise _Choice(self, site)
        recorded = site.recorded and site.kind in ("sample", "plate")
        site = perform(site)
        if recorded:
            self.seen.add(site)
        return site


def _is_choice(trace: Trace, site: Site) -> bool:
    return not site.observed and site.value is None and site.name not in trace and site.fn.is_discrete


def _all_values(trace: Trace, site: Site) -> Iterator[Trace]:
    d = expand_to_plates(site, site.fn)
    if not d.has_enumerate_support:
        raise ValueError(
            f"{site}: {type(d).__name__} has no finite support, so its values cannot be tried one by one. Give extend_fn, "
            "which says which to try, or an escape_fn that leaves it to be drawn."
        )
    support = d.enumerate_support(expand=False).reshape(-1, *d.event_shape)
    for choices in itertools.product(range(len(support)), repeat=d.batch_shape.numel()):
        longer = trace.copy()
        longer.add(site.replace(value=support[list(choices)].reshape(d.shape())))
        yield longer
