"""Our own operators in C++: compiled once for a machine, found in the user's cache by every process after that.

Nothing is compiled unless it is asked for (`build`), because that takes seconds: the engine asks when it compiles a program
anyway. What the cache has is loaded when it is first needed, and used from then on. Without it, or without a compiler,
everything is worked out by torch's operators, more slowly.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("chain.cpp")
#: For the processor at hand, whose instructions are part of the library's name.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared")

_lock = threading.Lock()
_loaded: bool | None = None  # None before anybody has looked
_wanted: ContextVar[bool] = ContextVar("_wanted", default=False)
_enabled: ContextVar[bool] = ContextVar("_enabled", default=True)


class CannotCompile(RuntimeError):
    """There is no C++ compiler, or it refused the source; the message says which, and what it said."""


def is_loaded() -> bool:
    """Whether the operators are there; the first call in a process looks for them in the cache."""
    if _loaded is None:
        load()
    return bool(_loaded) and _enabled.get()


def want() -> bool:
    """`is_loaded`, asked by somebody who has work for the operators, which is remembered."""
    _wanted.set(_enabled.get())
    return is_loaded()


def is_wanted() -> bool:
    """Whether there was work for the operators in this thread or task since `forget`, be they there or not."""
    return _wanted.get()


def forget() -> None:
    """Begin to watch anew whether there is work for the operators."""
    _wanted.set(False)


def load() -> bool:
    """Look for the library in the cache and load it, if it has not been. Returns: whether it is there."""
    global _loaded
    with _lock:
        if not _loaded:
            file = library()
            _loaded = _is_ours(file) and _load(file)
        return _loaded


def build() -> Path:
    """Compile the library, some seconds, where the cache has none; and load it. Returns: the library's file.

    Raises: CannotCompile; OSError for a cache that cannot be written.
    """
    file = library()
    if _is_ours(file):
        return install(file)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / file.name
        compile_library(target)
        return install(target)


def install(made: Path) -> Path:
    """Put the library that was made into its place in the cache, in one move, and load it. Returns: the library's file.

    Raises: CannotCompile where it cannot be loaded; OSError for a cache that cannot be written.
    """
    file = library()
    if made != file:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as beside:
            os.replace(shutil.copy(made, Path(beside) / file.name), file)
    if not load():
        raise CannotCompile(f"{file}: it was compiled, but torch cannot load it; remove it and try again.")
    return file


@functools.cache
def library() -> Path:
    """The file of the library, which need not exist: its name tells what it was compiled from, for what and how."""
    parts = (
        SOURCE.read_text("utf-8"),
        *FLAGS,
        f"{torch.__version__} {torch.version.git_version}",
        *(sys.platform, platform.machine(), *platform.libc_ver()),
        torch.backends.cpu.get_cpu_capability(),
        _processor(),
    )
    name = f"{SOURCE.stem}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}.so"
    chosen = os.environ.get("PPL_CACHE_DIR")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(chosen).expanduser() if chosen else caches / "ppl").absolute() / "native" / name


@contextmanager
def disabled() -> Iterator[None]:
    """Do without the operators, in this thread or task: to compare."""
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


def _is_ours(file: Path) -> bool:
    try:
        found = file.stat()
    except OSError:
        return False
    return not hasattr(os, "getuid") or found.st_uid in (os.getuid(), 0)


def _load(file: Path) -> bool:
    try:
        torch.ops.load_library(str(file))
    except (OSError, RuntimeError):  # broken, or another one is loaded
        return False
    torch.library.register_fake("ppl::chain", _chain_shapes)
    torch.library.register_fake("ppl::chain_backward", _gradient_shapes)
    return True


def compile_library(target: Path) -> None:
    """Compile the library into a file, in one call of the compiler. Raises: CannotCompile."""
    source = SOURCE
    compiler = shutil.which(os.environ.get("CXX") or "g++")
    if compiler is None:
        raise CannotCompile(f"{source.name}: there is no C++ compiler; install g++ or set CXX.")
    torch_folder = Path(torch.__file__).parent
    major, minor = torch.__version__.split(".")[:2]
    version = f"0x{int(major):02x}{int(minor):02x}000000000000ull"
    command = [
        *(compiler, *FLAGS, f"-DTORCH_TARGET_VERSION={version}", "-isystem", str(torch_folder / "include")),
        *(str(source), "-o", str(target), "-L", str(torch_folder / "lib"), "-ltorch_cpu", "-lc10"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise CannotCompile(f"{source.name}: {compiler} failed:\n{done.stderr[-2000:]}")


def _processor() -> str:
    """What Linux tells of the first processor that decides on its instructions."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").split("\n\n")[0].splitlines()
        told = ("vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features")
        return "\n".join(line for line in lines if line.startswith(told))
    return platform.processor()


Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def _chain_shapes(
    initial: torch.Tensor, matrices: torch.Tensor, emissions: torch.Tensor, final: torch.Tensor | None
) -> Tensors:
    """What `ppl::chain` returns, without the numbers."""
    steps, (count, rows, states) = emissions.shape[0], initial.shape
    width = (states + 3) // 4 * 4
    double = torch.float64
    return (
        initial.new_empty((count, rows, states) if final is None else (count, rows)),
        initial.new_empty((steps, count, rows, width), dtype=double),
        initial.new_empty((steps, count, width), dtype=double),
        initial.new_empty((steps, count, rows), dtype=double),
    )


def _gradient_shapes(
    gradient: torch.Tensor,
    result: torch.Tensor,
    initial: torch.Tensor,
    matrices: torch.Tensor,
    emissions: torch.Tensor,
    final: torch.Tensor | None,
    *kept: torch.Tensor,
) -> Tensors:
    """What `ppl::chain_backward` returns, without the numbers."""
    count, rows, states = initial.shape
    return (
        initial.new_empty((count, rows, states)),
        initial.new_empty(matrices.shape),
        initial.new_empty((emissions.shape[0], count, states)),
        initial.new_empty((0 if final is None else count, rows, states)),
    )
