"""Run programs as compiled graphs, which are kept on disk."""

from ppl.engine.cache import clear_cache, set_cache_size

__all__ = ["clear_cache", "set_cache_size"]
