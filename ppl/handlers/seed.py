"""Repeatable draws."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy
import torch

from ppl.stack import Handler
from ppl.statements import set_rng_seed


class seed(Handler):
    """Seed all random generators on entry and put them back on exit.

    The generators are the process's own: threads that draw at the same time share them.
    """

    def __init__(self, fn: Callable[..., Any] | None = None, rng_seed: int | None = None) -> None:
        super().__init__(fn)
        if not isinstance(rng_seed, int):
            raise ValueError(f"handlers.seed: rng_seed must be an int, got {rng_seed!r}.")
        self.rng_seed = rng_seed
        self._saved: list[tuple[Any, ...]] = []

    def __enter__(self) -> Any:
        devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self._saved.append((torch.get_rng_state(), devices, random.getstate(), numpy.random.get_state()))
        set_rng_seed(self.rng_seed)
        return super().__enter__()

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)
        state, devices, python, array = self._saved.pop()
        torch.set_rng_state(state)
        if devices:
            torch.cuda.set_rng_state_all(devices)
        random.setstate(python)
        numpy.random.set_state(array)
