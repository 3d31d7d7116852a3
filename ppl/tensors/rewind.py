"""Recorders of operations: whether one is at work, and how it notices that the random generator is set back."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Watcher(Protocol):
    """Who writes random draws down, and must know which of them are made again."""

    def draws(self) -> int:
        """How many draws there have been since the start."""
        ...

    def go_back(self, draws: int) -> None:
        """The draws from here on are those that followed the first `draws`, once more."""
        ...


class RandomState(NamedTuple):
    """A moment to go back to."""

    state: Tensor
    draws: int


watcher: ContextVar[Watcher | None] = ContextVar("ppl_draws", default=None)


def is_recorded() -> bool:
    """Whether somebody writes operations down: they will be done again at other values, so none may be looked at."""
    return watcher.get() is not None


def random_state() -> RandomState:
    """The state of torch's generator now."""
    watching = watcher.get()
    return RandomState(torch.get_rng_state(), 0 if watching is None else watching.draws())


def rewind(to: RandomState) -> None:
    """Set torch's generator back: the same draws come once more."""
    torch.set_rng_state(to.state)
    watching = watcher.get()
    if watching is not None:
        watching.go_back(to.draws)
