"""A program as a graph: recorded once, compiled, run many steps at a time."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ppl.engine.cache import clear_cache, set_cache_size

if TYPE_CHECKING:
    from ppl.engine.bundle import Bundle
    from ppl.engine.captured import Captured, capture
    from ppl.engine.explanation import Explanation, explain
    from ppl.engine.recorder import CannotCapture

__all__ = [
    "Bundle",
    "CannotCapture",
    "Captured",
    "Explanation",
    "capture",
    "clear_cache",
    "explain",
    "set_cache_size",
]

_HOMES = {
    "Bundle": "bundle",
    "CannotCapture": "recorder",
    "Captured": "captured",
    "Explanation": "explanation",
    "capture": "captured",
    "explain": "explanation",
}


def __getattr__(name: str) -> Any:
    """What needs the whole language is imported when it is asked for: the cache is also used without."""
    if name in _HOMES:
        return getattr(import_module(f"ppl.engine.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
