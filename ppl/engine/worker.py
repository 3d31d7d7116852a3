"""The process that compiles one job for another process, and ends with it.

It is started as a script, not as a module of the package: with the standard library alone it begins to watch its parent
within milliseconds, and waits for another process that compiles the same without having imported torch.
"""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl
    import signal

JOB, TARGET, SCRATCH = "job", "program.pt2", "scratch"  # in the folder of one compilation
DIGITS = 32  # of a file's SHA-256 that stand in its name


def place(file: Path, key: str, folder: Path) -> Path:
    """Copy a file to `folder` under a name that tells its key and its content's SHA-256, and return where it lies.

    It appears whole or not at all, whoever else writes there. Raises: OSError.
    """
    handle, name = tempfile.mkstemp(prefix=f"{key}.", suffix=".partial", dir=folder)
    try:
        digest = hashlib.sha256()
        with open(handle, "wb") as copy, file.open("rb") as original:
            while chunk := original.read(1 << 20):
                digest.update(chunk)
                copy.write(chunk)
        os.chmod(name, 0o644)
        kept = folder / f"{key}-{digest.hexdigest()[:DIGITS]}{file.suffix}"
        os.replace(name, kept)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    return kept


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Wait until no other process is in here with the same file; the system opens the lock of a process that dies.

    Where files cannot be locked, nobody waits, and two processes may do the same work.
    """
    if sys.platform == "win32":
        yield
        return
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        with suppress(OSError):
            file.unlink()  # whoever waits for it finds the program before compiling
    finally:
        os.close(handle)


def end_with_parent(lifeline: int, work: Path) -> None:
    """Watch a pipe that the parent holds open; when it breaks, remove `work` and end this process group.

    A process that the parent forked may hold the pipe open too, so that the parent's number is looked at as well.
    """
    parent = os.getppid()
    if sys.platform == "win32":
        while os.read(lifeline, 1):
            pass
    else:
        while os.getppid() == parent:
            ready, _, _ = select.select([lifeline], [], [], 0.5)
            if ready and not os.read(lifeline, 1):
                break
    for _ in range(2):  # a compiler that is still alive may write where the first round has been
        shutil.rmtree(work, ignore_errors=True)
    if sys.platform != "win32" and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # the C++ compiler too
    os._exit(1)


def take_lifeline() -> int:
    """Take standard input for oneself, so that the C++ compiler has an empty one instead."""
    lifeline = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return lifeline


def build(function: Callable[[bytes, Path], Any], work: Path, key: str, folder: Path | None) -> None:
    """Let `function` build the program; put it into `folder`, or leave it where it is if that fails."""
    target = work / TARGET
    function((work / JOB).read_bytes(), target)
    if not target.is_file():
        raise RuntimeError(f"{function.__module__}.{function.__name__} wrote no file {target}.")
    if folder is not None:
        with suppress(OSError):  # full, or read-only: the parent says so
            place(target, key, folder)
            target.unlink()


def main() -> None:
    """Build the program of a job; called with its folder, its key, the cache's folder or "", and `module:function`."""
    work, key, folder, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    threading.Thread(target=end_with_parent, args=(take_lifeline(), work), daemon=True).start()
    if sys.platform != "win32":
        os.nice(10)
    cache = Path(folder) if folder else None
    with locked(cache / f"{key}.lock") if cache else nullcontext():
        if cache is None or not any(cache.glob(f"{key}-*")):  # else another process was quicker
            module, _, function = name.partition(":")
            build(getattr(import_module(module), function), work, key, cache)
    shutil.rmtree(work / SCRATCH, ignore_errors=True)


if __name__ == "__main__":
    main()
