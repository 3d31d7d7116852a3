"""What a program does besides computing tensors, seen while it runs once: printing, drawing from numpy, changing globals."""

from __future__ import annotations

import builtins
import io
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal, Self, cast

import torch

from ppl.engine.plain import Plain
from ppl.engine.random_states import generator_of, global_generators
from ppl.engine.surroundings import Change, Surroundings
from ppl.engine.user_code import is_users, user_line

Kind = Literal["output", "numpy", "random", "file", "change", "iterator"]


@dataclass(frozen=True)
class Effect:
    """Something that compiled steps would not do again."""

    kind: Kind
    what: str  # "it prints 'hello'"
    line: str  # of the user's code, where it is known
    frozen: str  # what compiled steps would do
    instead: str  # what to write

    def __str__(self) -> str:
        at = f" at {self.line}" if self.line else ""
        return f"{self.what}{at}; {self.frozen}. {self.instead}"


class watch:
    """Sees what the programs do in its block besides computing tensors; nothing of it shows afterwards.

    Output is held back, files opened for writing are not touched, and numpy's and Python's random states, globals,
    closures, attributes and containers are as before. Other threads notice nothing.

    Args: roots, the programs with their arguments.
    """

    def __init__(self, *roots: Any) -> None:
        self._roots = roots
        self.effects: list[Effect] = []
        self.plain: list[Plain] = []  # the numbers and tensors that the programs refer to by names
        self.modules: list[torch.nn.Module] = []  # those that the programs refer to
        self.surroundings: Surroundings | None = None
        self._frame: FrameType | None = None

    def look(self) -> list[Effect]:
        """What would be used up by running the programs even once: iterators and open files that they refer to."""
        self.surroundings = Surroundings(*self._roots)
        self.plain, self.modules = self.surroundings.plain(), self.surroundings.modules()
        return [_of_iterator(found) for found in self.surroundings.iterators]

    def __enter__(self) -> Self:
        if self.surroundings is None:
            self.look()
        found = {kind: generator_of(thing) for kind, thing in global_generators().items()}
        self._states = {kind: (one, one.state()) for kind, one in found.items() if one is not None}
        self._frame = sys._getframe(1)
        self._outer = getattr(_active, "watch", None)
        _active.watch = self
        _install()
        return self

    def __exit__(self, *exc: object) -> None:
        _active.watch = self._outer
        _uninstall()
        self._frame = None
        surroundings, self.surroundings = self.surroundings, None
        assert surroundings is not None
        for kind, (generator, state) in self._states.items():
            if generator.state() != state:
                module = sys.modules[kind]
                line = surroundings.line_that_uses(
                    getattr(module, "random", module), module, *global_generators().values()
                )
                name = "numpy's global generator" if kind == "numpy" else "Python's `random`"
                self._add(cast(Kind, kind), f"it draws from {name}", line, *_DRAWN)
                generator.set_back(state)
        self.effects += map(_of_change, surroundings.changes())
        surroundings.restore()

    # -- what is seen in the block

    def sees_output(self, text: str) -> bool:
        """Whether a text written to a standard stream was the user's; it is held back then."""
        line = "" if _in_warning(self._frame) else user_line(self._frame)
        if line and not (self.effects and (self.effects[-1].kind, self.effects[-1].line) == ("output", line)):
            short = text.strip().splitlines()[0][:40] if text.strip() else ""
            self._add("output", f"it prints {short!r}" if short else "it prints", line, *_PRINTED)
        return bool(line)

    def sees_file(self, file: Any, mode: str, original: Callable[[], Any]) -> Any:
        """What the user gets when a file is opened; None if it is not the user who opens it."""
        line = user_line(self._frame)
        if not line:
            return None
        self._add("file", f"it opens the file {str(file)!r}", line, *_OPENED)
        if not set(mode) & set("wax+"):
            return original()
        return io.BytesIO() if "b" in mode else io.StringIO()

    def _add(self, kind: Kind, what: str, line: str, frozen: str, instead: str) -> None:
        self.effects.append(Effect(kind, what, line, frozen, instead))


_PRINTED = "compiled steps print nothing", "Print from SVI.run's callback, or take the print out."
_DRAWN = (
    "the numbers drawn once would be those of all steps",
    "Draw with torch (torch.randn, torch.randperm), at a sample site, or before the run.",
)
_OPENED = (
    "compiled steps open no files, and what was read once would hold for all steps",
    "Read it before the run and pass tensors as arguments; write from SVI.run's callback.",
)


def _of_change(change: Change) -> Effect:
    if change.kind in ("random", "numpy"):
        return Effect(cast(Kind, change.kind), f"it draws from {change.words}", change.line, *_DRAWN)
    if change.kind == "buffer":
        instead = "Write into the tensor, as in self.mean.copy_(value), rather than putting another in its place."
        return Effect("change", f"it replaces {change.words}", change.line, "it would stay as it is", instead)
    return Effect(
        "change",
        f"it changes {change.words}",
        change.line,
        "compiled steps would leave it as it is, and go on with what it was at first",
        "Make it a tensor that is written into, as in count.add_(1), change it in SVI.run's callback, or keep values by "
        "ppl.deterministic.",
    )


def _of_iterator(found: Change) -> Effect:
    return Effect(
        "iterator",
        f"it refers to {found.words or 'an argument'}, an iterator or open file, which even one more run would advance",
        found.line,
        "all steps would see the same element",
        "Pass the batch as an argument, or train with SVI.fit.",
    )


def _in_warning(until: FrameType | None) -> bool:
    frame: Any = sys._getframe(1)
    while frame is not None and frame is not until:
        if frame.f_globals.get("__name__") == "warnings":
            return True
        frame = frame.f_back
    return False


# -- what stands in for streams and `open` while some thread watches

_active = threading.local()
_lock = threading.Lock()
_watching = 0
_originals: dict[str, Any] = {}


class _Stream:
    """A standard stream that holds back what a watched thread's user code writes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        watching: watch | None = getattr(_active, "watch", None)
        if watching is not None and watching.sees_output(text):
            return len(text)
        written: int = self._stream.write(text)
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)


def _open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
    original: Any = _originals["open"]
    watching: watch | None = getattr(_active, "watch", None)
    if watching is not None:
        found = watching.sees_file(file, mode, lambda: original(file, mode, *args, **kwargs))
        if found is not None:
            return found
    return original(file, mode, *args, **kwargs)


def _call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Logging: its handlers hold streams of their own."""
    watching: watch | None = getattr(_active, "watch", None)
    if watching is not None and is_users(record.pathname) and watching.sees_output(record.getMessage()):
        return
    _originals["logging"](logger, record)


def _install() -> None:
    global _watching
    with _lock:
        _watching += 1
        if _watching == 1:
            _originals.update(open=builtins.open, io=io.open, stdout=sys.stdout, stderr=sys.stderr)
            sys.stdout, sys.stderr = _Stream(sys.stdout), _Stream(sys.stderr)
            builtins.open = io.open = _open
            _originals["logging"] = logging.Logger.callHandlers
            type.__setattr__(logging.Logger, "callHandlers", _call_handlers)


def _uninstall() -> None:
    global _watching
    with _lock:
        _watching -= 1
        if _watching:
            return
        if builtins.open is _open:
            builtins.open = _originals["open"]
        if io.open is _open:
            io.open = _originals["io"]
        type.__setattr__(logging.Logger, "callHandlers", _originals["logging"])
        if isinstance(sys.stdout, _Stream):
            sys.stdout = _originals["stdout"]
        if isinstance(sys.stderr, _Stream):
            sys.stderr = _originals["stderr"]
