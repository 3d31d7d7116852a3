"""Which code is the user's, and which line of it is running."""

from __future__ import annotations

import dis
import functools
import linecache
import sys
import sysconfig
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch

_OURS = str(Path(__file__).parent.parent) + "/"
_INSTALLED = tuple(
    {str(Path(torch.__file__).parent) + "/"}
    | {path + "/" for name in ("stdlib", "platstdlib", "purelib", "platlib") if (path := sysconfig.get_path(name))}
)
_FOLDERS = ("site-packages", "dist-packages")


@functools.lru_cache(maxsize=4096)
def is_users(file: str) -> bool:
    """Whether code from this file belongs neither to this library nor to Python and what is installed there."""
    if file.startswith("<"):  # made from text: typed by the user, unless it says otherwise
        return not file.startswith(("<frozen", "<__array_function__", "<recorded program"))
    return not file.startswith((_OURS, *_INSTALLED)) and not any(name in file for name in _FOLDERS)


def in_words(code: CodeType, line: int | None = None) -> str:
    """A line of code as errors name it; its function's first one by default."""
    number = code.co_firstlineno if line is None else line
    text = linecache.getline(code.co_filename, number).strip()
    return f"line {number} of {code.co_filename}" + (f', "{text}"' if text else "")


def user_frame(until: FrameType | None = None) -> FrameType | None:
    """The innermost frame of the user's code, or None if there is none inside the frame `until`."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame is not until:
        made = frame.f_code.co_filename == "<string>" and frame.f_globals.get("__name__") != "__main__"  # by dataclass
        if not made and is_users(frame.f_code.co_filename):
            found: FrameType = frame
            return found
        frame = frame.f_back
    return None


def user_line(until: FrameType | None = None) -> str:
    """The innermost line of the user's code in words; empty if there is none inside the frame `until`."""
    frame = user_frame(until)
    return "" if frame is None else in_words(frame.f_code, frame.f_lineno)


def nested(code: CodeType) -> list[CodeType]:
    """A function's code and that of the functions inside it."""
    return [code, *(c for part in code.co_consts if isinstance(part, CodeType) for c in nested(part))]


@functools.lru_cache(maxsize=1024)
def names_in(code: CodeType) -> frozenset[str]:
    """The names of globals and attributes in a function and those inside it."""
    return frozenset(name for part in nested(code) for name in part.co_names)


def line_that_changes(name: str, codes: Iterable[CodeType]) -> str:
    """The line that changes what a name refers to, or else the first that mentions it, in words; empty without one."""
    best: tuple[int, str] = (0, "")
    for code in (inner for outer in codes for inner in nested(outer)):
        by_line: dict[int, list[dis.Instruction]] = {}
        for instruction in dis.get_instructions(code):
            line = instruction.positions.lineno if instruction.positions else None
            by_line.setdefault(line or code.co_firstlineno, []).append(instruction)
        for line, instructions in by_line.items():
            if any(i.argval == name for i in instructions):
                weight = 1 + max(_weight(i, name) for i in instructions)
                if weight > best[0]:
                    best = weight, in_words(code, line)
    return best[1]


_MUTATORS = {*dir(list), *dir(dict), *dir(set), *dir(deque)} - {*dir(tuple), "get", "keys", "values", "items", "copy"}


def _weight(instruction: dis.Instruction, name: str) -> int:
    """How much an instruction looks like a change of what a name refers to."""
    kind = instruction.opname
    if instruction.argval == name and kind.startswith(("STORE_GLOBAL", "STORE_DEREF", "STORE_ATTR", "DELETE_")):
        return 2
    is_method = kind.startswith(("LOAD_METHOD", "LOAD_ATTR")) and instruction.argval in _MUTATORS
    return int(kind == "STORE_SUBSCR" or is_method)
