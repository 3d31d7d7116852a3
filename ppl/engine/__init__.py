"""A program as a graph: recorded once, compiled, run many steps at a time."""

from ppl.engine.cache import clear_cache, set_cache_size
from ppl.engine.explanation import Explanation, explain

__all__ = ["Explanation", "clear_cache", "explain", "set_cache_size"]
