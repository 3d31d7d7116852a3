"""Random generators other than torch's: what state they are in, and how to set them back."""

from __future__ import annotations

import functools
import pickle
import random
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Generator(NamedTuple):
    """A generator of Python's or numpy's."""

    kind: str  # "random" or "numpy"
    get: Callable[[], Any]
    put: Callable[[Any], None]

    def state(self) -> bytes:
        """What it will draw, as bytes that can be compared."""
        return pickle.dumps(self.get())

    def set_back(self, state: bytes) -> None:
        """Draw again what came after `state`."""
        self.put(pickle.loads(state))


def generator_of(thing: Any) -> Generator | None:
    """How to handle an object that is a random generator; None for others."""
    if isinstance(thing, random.Random):
        return Generator("random", thing.getstate, thing.setstate)
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None and isinstance(thing, numpy_random.RandomState):
        return Generator("numpy", functools.partial(thing.get_state, legacy=False), thing.set_state)
    if numpy_random is not None and isinstance(thing, numpy_random.Generator):
        bits = thing.bit_generator
        return Generator("numpy", lambda: bits.state, lambda state: setattr(bits, "state", state))
    return None


def global_generators() -> dict[str, Any]:
    """The generators that the functions of `random` and `numpy.random` use, if these modules are in use."""
    found: dict[str, Any] = {"random": random.random}
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        found["numpy"] = numpy.random.rand  # the part `random` comes up when it is asked for
    return {kind: method.__self__ for kind, method in found.items()}
