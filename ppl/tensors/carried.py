"""Tensors that a computation replaces from one run to the next, such as running means: who keeps them says so."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

State = MutableMapping[str, Tensor]
_noted: ContextVar[list[tuple[State, dict[str, Tensor]]] | None] = ContextVar("ppl_carried", default=None)


def carry(state: State) -> None:
    """Say, before they are read, that a mapping's tensors are replaced from run to run."""
    noted = _noted.get()
    if noted is not None and all(known is not state for known, _ in noted):
        noted.append((state, dict(state)))


@contextmanager
def carried() -> Iterator[list[tuple[State, dict[str, Tensor]]]]:
    """Notes the mappings that runs in this block carry, with what they held before, and gives them that back in the end."""
    noted: list[tuple[State, dict[str, Tensor]]] = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)
        for state, before in noted:
            state.clear()
            state.update(before)
