"""A program as a graph: recorded once, compiled, run many steps at a time."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ppl.engine.cache import clear_cache, set_cache_size

if TYPE_CHECKING:
    from ppl.engine.explanation import Explanation, explain

__all__ = ["Explanation", "clear_cache", "explain", "set_cache_size"]


def __getattr__(name: str) -> Any:
    """What needs the whole language is imported when it is asked for: the cache is also used without."""
    if name in ("Explanation", "explain"):
        return getattr(import_module("ppl.engine.explanation"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
