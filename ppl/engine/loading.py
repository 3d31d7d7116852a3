"""Compiled programs in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch._C import _aoti

_loaded: dict[Path, Any] = {}


def loaded(package: Path) -> Any:
    """A compiled program, which is loaded once a process. Raises: RuntimeError for a file that is none."""
    if package not in _loaded:
        _loaded[package] = _aoti.AOTIModelPackageLoader(str(package), "model", False, 1, -1)
    return _loaded[package]
