"""What a program refers to of which changes, or effects, would go unnoticed."""

from __future__ import annotations

import dis
import sys
from collections.abc import Collection, Iterable
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from ppl.engine.user_code import is_users, nested

#: Packages that compute, or whose effects are noticed. All others may write logs, ask the clock or hold what changes.
# fmt: off
KNOWN = frozenset([
    "abc", "argparse", "bisect", "builtins", "cmath", "collections", "contextlib", "copy", "copyreg",
    "dataclasses", "decimal", "einops", "enum", "fractions", "functools", "heapq", "inspect", "itertools",
    "jaxtyping", "keyword", "logging", "math", "mpmath", "networkx", "numbers", "numpy", "operator",
    "opt_einsum", "pathlib", "ppl", "random", "re", "scipy", "statistics", "string", "torch", "types", "typing",
    "typing_extensions", "warnings", "weakref",
])
# fmt: on
#: Those whose objects do not change, or are looked at where they do.
_OF_OBJECTS = frozenset(
    ["argparse", "builtins", "collections", "enum", "functools", "numpy", "ppl", "torch", "types", "typing"]
)
#: Parts of these packages that have effects of their own.
_EXCEPT = ("torch.utils.tensorboard", "torch.utils.data", "torch.distributed", "torch.multiprocessing")


def blind_spots(things: Iterable[Any], codes: Iterable[CodeType], large: int) -> list[str]:
    """Among some things, and the user's functions, what comes from other packages, and what is too large to be compared.

    Returns: descriptions; none where all is in sight.
    """
    found = [f"'{name}'" for name in _imported(codes) if not _is_known(name)]
    numpy: Any = sys.modules.get("numpy")
    for thing in things:
        is_code = isinstance(thing, (ModuleType, FunctionType, BuiltinFunctionType, type))
        module = _module_of(thing)
        if not _is_known(module, KNOWN if is_code else _OF_OBJECTS):
            found.append(f"{_name_of(thing)} of '{module}'")
        elif numpy is not None and isinstance(thing, numpy.ndarray):
            if thing.size > large or thing.dtype == object:
                found.append(f"an array of {thing.size} entries")
        elif isinstance(thing, (list, dict, set)) and len(thing) > large:
            found.append(f"a {type(thing).__name__} of {len(thing)} entries")
    return found


def _module_of(thing: Any) -> str:
    if isinstance(thing, ModuleType):
        return thing.__name__
    if isinstance(thing, (FunctionType, BuiltinFunctionType, type)):
        return thing.__module__ or "builtins"
    return type(thing).__module__


def _name_of(thing: Any) -> str:
    return getattr(thing, "__name__", "") or f"a {type(thing).__name__}"


def _is_known(name: str, packages: Collection[str] = KNOWN) -> bool:
    if name.startswith(_EXCEPT):
        return False
    if name.partition(".")[0].lstrip("_") in packages or name == "__main__":
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and is_users(file)


def _imported(codes: Iterable[CodeType]) -> Collection[str]:
    """The modules that functions import when they run."""
    inner = [part for code in codes for part in nested(code)]
    lines = (line for code in inner for line in dis.get_instructions(code))
    return dict.fromkeys(line.argval for line in lines if line.opname == "IMPORT_NAME")
