"""Compiled programs in this process."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._C import _aoti


class Loaded:
    """A compiled program in memory. Raises: RuntimeError for a file that is none."""

    def __init__(self, package: Path) -> None:
        self._loader: Any = _aoti.AOTIModelPackageLoader(str(package), "model", False, 1, -1)
        # A second thread's call would wait for the first one's end with Python's own lock, which the first one may need.
        self._lock = threading.Lock()

    def boxed_run(self, inputs: list[Tensor]) -> list[Tensor]:
        """Run it, one thread at a time; the list of inputs is emptied, so that they are freed as early as may be."""
        with self._lock:
            found: list[Tensor] = self._loader.boxed_run(inputs)
        return found


_loaded: dict[Path, Loaded] = {}


def loaded(package: Path) -> Loaded:
    """A compiled program, which is loaded once a process. Raises: RuntimeError for a file that is none."""
    if package not in _loaded:
        _keep_memory()
        _loaded[package] = Loaded(package)
    return _loaded[package]


def _keep_memory() -> None:
    """Have memory that a loop frees in each turn kept for its next turn, up to 64 MB.

    glibc hands a freed block back to the system unless larger ones were freed before, and the system fills it with zeros
    before it gives it out anew: for a network of a million weights a twentieth of each training step. Nothing is touched
    here, and other C libraries take no notice. Source: mallopt(3), "dynamic mmap threshold".
    """
    torch.empty((32 << 20) - (1 << 16), dtype=torch.uint8, device="cpu")  # freed at once
