"""Ctrl-C between steps, and not within one, where it would leave half of a step behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Interrupts:
    """While active, a first Ctrl-C waits to be asked for; a second one, or one in an open block, is heard at once.

    Signals come to the main thread alone, so that elsewhere there is nothing to hold up. Another handler of the signal
    than Python's own is called as it would have been, only later.
    """

    def __init__(self) -> None:
        self.asked = False  # whether Ctrl-C came
        self._open = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if callable(before):  # else nobody hears it anyway
                self._before = before
                signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._open or self.asked:
            self._before(number, frame)
        self.asked = True

    def check(self) -> None:
        """Raise the KeyboardInterrupt that has waited, or whatever the handler before does."""
        if self.asked:
            self.asked = False
            self._before(signal.SIGINT, None)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """A block in which Ctrl-C is heard at once: others' code, or long waiting."""
        self.check()
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """What is iterated over, whose own code may be interrupted."""
        with self.opened():
            iterator = iter(items)
        while True:
            with self.opened():
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
