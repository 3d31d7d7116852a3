"""A program as a graph: recorded once, compiled, run many steps at a time."""

from ppl.engine.cache import clear_cache, set_cache_size

__all__ = ["clear_cache", "set_cache_size"]
