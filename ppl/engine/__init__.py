"""A program as a graph: recorded once, compiled, run many steps at a time."""

from ppl.engine.bundle import Bundle
from ppl.engine.cache import clear_cache, set_cache_size
from ppl.engine.capture import Captured, capture
from ppl.engine.recorder import CannotCapture

__all__ = ["Bundle", "CannotCapture", "Captured", "capture", "clear_cache", "set_cache_size"]
