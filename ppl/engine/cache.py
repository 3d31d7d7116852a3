"""Finished programs on disk, shared by all processes of a user.

A program is one file, `<key>-<SHA-256 of its content>.pt2`: it is put in its place by one rename, and is a program only as
long as name and content agree. So there is nothing to lock, and nothing to repair after a crash.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import math
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path

import torch

from ppl.engine.worker import DIGITS, place

PROGRAM = re.compile(rf"[0-9a-f]{{64}}-[0-9a-f]{{{DIGITS}}}(\.\w+)?")
REMAINS = re.compile(r"[0-9a-f]{64}\.(lock|\w+\.partial)")  # of a process that was killed
DAY = 86400.0  # seconds after which they are swept up
DEFAULT_SIZE = 2000.0  # megabytes

_size: float | None = None  # what set_cache_size was told
_refuge: Path | None = None  # this process's own folder, once the cache's could not be written
_warned: set[str] = set()


def folder() -> Path:
    """The folder of the cache, which need not exist: $PPL_CACHE_DIR, or `ppl` in the user's folder for caches."""
    if chosen := os.environ.get("PPL_CACHE_DIR"):
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        caches = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    elif sys.platform == "darwin":
        caches = os.path.join(home, "Library", "Caches")
    else:
        caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    return Path(os.path.abspath(caches)) / "ppl"


def set_cache_size(megabytes: float) -> None:
    """Limit what the cache may hold, for this process, instead of $PPL_CACHE_SIZE or 2000.

    Whenever a program is added, those that were not used for longest are removed until the rest is within the limit; the
    new one stays in any case. Raises: ValueError unless 0 <= megabytes.
    """
    global _size
    if not megabytes >= 0:
        raise ValueError(f"engine.set_cache_size: expected megabytes, 0 or more, got {megabytes!r}.")
    _size = float(megabytes)


def cache_size() -> float:
    """The limit in megabytes. Warns, once, if $PPL_CACHE_SIZE is no such number."""
    if _size is not None:
        return _size
    text = os.environ.get("PPL_CACHE_SIZE", "")
    try:
        size = float(text or DEFAULT_SIZE)
    except ValueError:
        size = math.nan
    if size >= 0:
        return size
    _warn_once("size", f"PPL_CACHE_SIZE: expected megabytes, such as 2000, got {text!r}; {DEFAULT_SIZE:g} is used.")
    return DEFAULT_SIZE


def _warn_once(subject: str, text: str) -> None:
    if subject not in _warned:
        _warned.add(subject)
        warnings.warn(text, stacklevel=3)


# -- keys


def key_of(*content: bytes | str) -> str:
    """The key of a program: 64 hexadecimal digits that change with all that its machine code may depend on.

    That is: the content, and where one part ends; torch; Python; ppl and the engine's own sources; processor and libc.
    """
    digest = hashlib.sha256()
    torch_is = f"{torch.__version__} {torch.version.git_version} {torch.version.cuda}"
    for part in (torch_is, _surroundings(), *content):
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


@functools.cache
def _surroundings() -> bytes:
    """A digest of what does not change while this process lives, besides torch."""
    parts = [
        sys.version,
        sys.platform,
        platform.machine(),
        *platform.libc_ver(),
        torch.backends.cpu.get_cpu_capability(),
    ]
    parts += [platform.processor(), _processor(), str(vars(sys.modules["ppl"])["__version__"])]
    sources = Path(__file__).parent
    files = sorted(file for kind in ("*.py", "*.h") for file in sources.rglob(kind))
    parts += [f"{file.relative_to(sources)}\n{file.read_text('utf-8')}" for file in files]
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _processor() -> str:
    """What Linux tells of the first processor: its model, and which instructions it knows."""
    try:
        first = Path("/proc/cpuinfo").read_text("utf-8", "replace").split("\n\n")[0]
    except OSError:
        return ""
    told = ("vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features")
    return "\n".join(line for line in first.splitlines() if line.startswith(told))


# -- programs


def find(key: str) -> Path | None:
    """The program with this key, or None. It counts as used now.

    A file whose content does not agree with its name is removed, and one that belongs to another user is passed over.
    Another process may remove the file at any time: who finds it gone when loading it has found none.
    """
    for room in (folder(), _refuge):
        for file in _files(room, f"{key}-*"):
            if _is_whole(file):
                with suppress(OSError):  # a read-only cache
                    os.utime(file)
                return file
    return None


def keep(key: str, file: Path) -> Path:
    """Put a copy of a program into the cache and return where it lies.

    If the cache's folder cannot be written, warns once and takes a folder that this process removes when it ends; if
    there is none of those either, returns `file`.
    """
    global _refuge
    try:
        kept = place(file, key, prepared())
    except OSError as error:
        _warn_unwritable(error)
        try:
            if _refuge is None:
                _refuge = Path(tempfile.mkdtemp(prefix="ppl-programs-"))
                atexit.register(_remove_refuge, _refuge, os.getpid())
            return place(file, key, _refuge)
        except OSError:
            return file
    evict(spare=kept)
    return kept


def prepared() -> Path:
    """The folder of the cache, made if there was none. Raises: OSError."""
    room = folder()
    room.mkdir(mode=0o700, parents=True, exist_ok=True)
    return room


def _warn_unwritable(error: OSError) -> None:
    _warn_once(
        "unwritable",
        f"compiled programs cannot be kept in {folder()}: {error.strerror or error}. They are compiled again in every "
        "process; set the environment variable PPL_CACHE_DIR to a folder that can be written to.",
    )


def _remove_refuge(room: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a process that was forked
        shutil.rmtree(room, ignore_errors=True)


def _files(room: Path | None, pattern: str) -> list[Path]:
    """The programs among a folder's files, the latest used first; [] for a folder that cannot be read."""
    if room is None:
        return []
    used = []
    with suppress(OSError):
        for file in room.glob(pattern):
            if PROGRAM.fullmatch(file.name):
                with suppress(OSError):  # gone
                    used.append((-file.stat().st_mtime_ns, file))
    return [file for _, file in sorted(used)]


def _is_whole(file: Path) -> bool:
    """Whether a file is a program that may be loaded; if its content is not what its name says, it is removed."""
    try:
        with file.open("rb") as content:
            if sys.platform != "win32" and os.fstat(content.fileno()).st_uid not in (os.geteuid(), 0):
                return False
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return False
    if file.stem.endswith(f"-{digest[:DIGITS]}"):
        return True
    with suppress(OSError):
        file.unlink()
    return False


def evict(spare: Path | None = None) -> None:
    """Remove what was not used for longest until the cache is within its limit, and what killed processes left there."""
    left = cache_size() * 1e6
    for file in _files(folder(), "*"):
        with suppress(OSError):
            left -= file.stat().st_size
            if left < 0 and file != spare:
                file.unlink()
    _sweep(older_than=DAY)


def _sweep(older_than: float) -> None:
    with suppress(OSError):
        for file in folder().iterdir():
            if REMAINS.fullmatch(file.name):
                with suppress(OSError):
                    if time.time() - file.stat().st_mtime > older_than:
                        file.unlink()


def clear_cache() -> None:
    """Remove all compiled programs from the cache, as `engine.clear_cache()`; those that are loaded go on working.

    Files in its folder that are no programs stay, and so does the folder.
    """
    for room in (folder(), _refuge):
        for file in _files(room, "*"):
            with suppress(OSError):
                file.unlink()
    _sweep(older_than=3600.0)  # a younger one may be somebody's who is at work
