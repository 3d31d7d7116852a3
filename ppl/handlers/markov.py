"""Declare how far back a sequence of statements looks."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from ppl.site import Site, Step
from ppl.stack import Handler, active, perform

_count = itertools.count()


class markov(Handler):
    """Mark the steps of a loop, or the calls of a recursive function, each depending on `history` earlier ones only.

        for t in markov(range(100)): ...

    Enumeration may then use a dim again `history` steps later. As a context manager, each entry is a step; as a
    decorator, each call within a call is.

    Raises: ValueError for a negative history.
    """

    def __init__(self, fn: Callable[..., Any] | Iterable[Any] | None = None, history: int = 1) -> None:
        self._items: Iterable[Any] | None = None
        if fn is not None and not callable(fn):
            if not isinstance(fn, Iterable):
                raise TypeError(f"markov wraps a function or an iterable, but got {type(fn).__name__}: {fn!r}.")
            self._items, fn = fn, None
        super().__init__(fn)
        if not isinstance(history, int) or history < 0:
            raise ValueError(f"markov: history must be a non-negative int, got {history!r}.")
        self.history = history
        self._loop, self._step = next(_count), -1
        self._steps: tuple[Step, ...] = ()  # the current one, while it is entered

    def fresh(self) -> Self:
        """A call of the decorated function: a step further than the call that it stands in, or a loop of its own."""
        new = copy.copy(self)
        around = (h for h in active() if isinstance(h, markov) and h.fn is self.fn)
        outer = next(around, None)
        new._loop, new._step = (next(_count), -1) if outer is None else (outer._loop, outer._step)
        return new

    def __iter__(self) -> Iterator[Any]:
        if self._items is None:
            raise TypeError("markov: nothing to iterate over; write `for t in markov(range(T)):`.")
        loop = copy.copy(self)
        loop._loop, loop._step = next(_count), -1
        for item in self._items:
            with loop:
                yield item

    def __enter__(self) -> Any:
        self._step += 1
        self._steps = (Step(self._loop, self._step, self.history),)  # one object for all sites of a step
        return super().__enter__()

    def handle(self, site: Site) -> Site:
        if not site.steps:
            return perform(site.replace(steps=self._steps))
        if any(step.loop == self._loop for step in site.steps):  # nested calls: the innermost has marked it
            return perform(site)
        return perform(site.replace(steps=self._steps + site.steps))
