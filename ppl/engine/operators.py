"""Our own operators in C++, compiled in the background before a program that would have them is recorded."""

from __future__ import annotations

from pathlib import Path

from ppl.engine import cache
from ppl.engine.background import Compilation, CompileError
from ppl.tensors import native

_pending: Compilation | None = None


def are_ready(start: bool, wait: bool) -> bool:
    """Whether a program can be recorded: it has no use for the operators, or they are there.

    Without them a program would have other operations in their place, and many more. So it is not recorded before they are
    there; eager steps go on meanwhile.

    Args: start, whether to compile them if need be, in a process of its own; wait, until that has ended.
    Raises: CompileError where they cannot be compiled.
    """
    global _pending
    if not native.is_wanted() or native.is_loaded():
        return True
    if _pending is None:
        if not (start or wait):
            return False
        key = cache.key_of("operators", native.library().name)
        _pending = Compilation(b"", key, build="ppl.engine.operators:build")
    if wait:
        _pending.wait()
    made = _pending.poll()
    if made is None:
        return False
    _pending = None
    try:
        native.install(made)
    except (native.CannotCompile, OSError) as error:
        raise CompileError(f"our own operators cannot be used: {error}") from error
    return True


def build(job: bytes, target: Path) -> None:
    """Compile the operators."""
    native.compile_library(target)
