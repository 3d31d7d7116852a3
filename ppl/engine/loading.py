"""Compiled programs in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch._C import _aoti

_loaded: dict[Path, Any] = {}


def loaded(package: Path) -> Any:
    """A compiled program, which is loaded once a process. Raises: RuntimeError for a file that is none."""
    if package not in _loaded:
        _keep_memory()
        _loaded[package] = _aoti.AOTIModelPackageLoader(str(package), "model", False, 1, -1)
    return _loaded[package]


def _keep_memory() -> None:
    """Have memory that a loop frees in each turn kept for its next turn, up to 64 MB.

    glibc hands a freed block back to the system unless larger ones were freed before, and the system fills it with zeros
    before it gives it out anew: for a network of a million weights a twentieth of each training step. Nothing is touched
    here, and other C libraries take no notice. Source: mallopt(3), "dynamic mmap threshold".
    """
    torch.empty((32 << 20) - (1 << 16), dtype=torch.uint8, device="cpu")  # freed at once
