"""Small C++ libraries of the engine: compiled once for a torch and a machine, then loaded from the cache."""

import ctypes
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from ppl.engine import cache

__all__ = ["CannotCompile", "Folder", "Store", "compile_library", "library", "library_key"]

SOURCES = Path(__file__).parent
TORCH = Path(torch.__file__).parent
# No -march and no fused multiplication and addition: the numbers must be those of torch's own binaries.
FLAGS = ("-std=c++20", "-O2", "-ffp-contract=off", "-fPIC", "-shared")

_loaded: dict[str, ctypes.CDLL] = {}
_loading = threading.Lock()


class CannotCompile(RuntimeError):
    """There is no C++ compiler, or it refused the source; the message says which and what it said."""


class Store(Protocol):
    """Where compiled files are kept; a module with these two functions will do."""

    def find(self, key: str) -> Path | None:
        """The file kept under this key, if there is one."""

    def keep(self, key: str, file: Path) -> Path:
        """Keeps a file under a key, in one atomic move, and says where it now is."""


@dataclass(frozen=True)
class Folder:
    """A folder with one file a key, which processes may share."""

    path: Path

    def find(self, key: str) -> Path | None:
        file = self.path / key
        return file if file.is_file() else None

    def keep(self, key: str, file: Path) -> Path:
        self.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.path) as beside:
            os.replace(shutil.copy(file, beside), self.path / key)
        return self.path / key


def compiler() -> str | None:
    """The path of the C++ compiler: `$CXX`, or `g++`; None where there is none."""
    return shutil.which(os.environ.get("CXX") or "g++")


def compile_library(source: Path, target: Path) -> None:
    """Compiles one C++ file against the installed torch into a shared library, in one call of the compiler.

    Raises: CannotCompile without a compiler, or with the end of what it said.
    """
    found = compiler()
    if found is None:
        raise CannotCompile(f"{source.name}: there is no C++ compiler; install g++ or set CXX")
    command = [
        *(found, *FLAGS, f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"),
        *("-isystem", str(TORCH / "include"), str(source), "-o", str(target)),
        *("-L", str(TORCH / "lib"), "-ltorch_cpu", "-lc10"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise CannotCompile(f"{source.name}: {found} failed:\n{done.stderr[-2000:]}")


def library_key(source: Path) -> str:
    """64 hexadecimal digits for what compiling this source here would give: they change with it, torch and the machine."""
    parts = [source.read_text("utf-8"), torch.__version__, str(torch.version.git_version), platform.system(), *FLAGS]
    content = json.dumps([*parts, platform.machine(), *platform.libc_ver()])
    return hashlib.sha256(content.encode()).hexdigest()


def library(name: str, build: bool = False, store: Store | None = None) -> ctypes.CDLL | None:
    """The library of `ppl/engine/<name>.cpp`, loaded once a process; None if it has not been compiled yet.

    Calls of its functions release the GIL. A kept file that cannot be loaded counts as none.

    Args:
        name: the source's name, without `.cpp`.
        build: whether to compile it now, some seconds, if it is not there.
        store: where compiled files are kept; the engine's cache if None.
    Raises: with `build`, CannotCompile, and OSError for a store that cannot be written.
    """
    with _loading:
        if name not in _loaded:
            loaded = _load(SOURCES / f"{name}.cpp", build, store or cache)
            if loaded is None:
                return None
            _loaded[name] = loaded
        return _loaded[name]


def _load(source: Path, build: bool, store: Store) -> ctypes.CDLL | None:
    key = library_key(source)
    file = store.find(key)
    if file is not None:
        with suppress(OSError):  # removed meanwhile, or broken
            return ctypes.CDLL(str(file))
    if not build:
        return None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        target = Path(folder) / f"{source.stem}.so"
        compile_library(source, target)
        return ctypes.CDLL(str(store.keep(key, target)))
