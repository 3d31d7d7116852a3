"""Compile a job in a process of its own, while this one goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from contextlib import suppress
from pathlib import Path

from ppl.engine import cache, worker

LINES = 20  # of the compiler's last words in an error


class CompileError(RuntimeError):
    """A program could not be compiled; says why, with the last lines of what the compiler wrote."""


def compiler() -> str | None:
    """The path of the C++ compiler that will be used: $CXX, g++ or clang++ (cl on Windows); None if there is none."""
    names = ("cl",) if sys.platform == "win32" else ("g++", "clang++")
    found = (shutil.which(name) for name in (os.environ.get("CXX", ""), *names) if name)
    return next((path for path in found if path is not None), None)


class Compilation:
    """A program that is being compiled in the background, by a process that ends with this one at the latest.

        compilation = Compilation(job, key_of(job))
        while (program := compilation.poll()) is None:
            ...  # something else

    Nothing is raised before `poll` or `wait`. Where the program is in the cache already, no process is started; where
    another process compiles the same, its result is waited for. To be used by one thread at a time.

    Args:
        job: what to build.
        key: the key of the result, of `cache.key_of`.
        build: `module:function`, to be called in the other process as function(job, file) and to write that file. All
            that this process can import can be imported there.
    """

    def __init__(self, job: bytes, key: str, build: str = "ppl.engine.build:build") -> None:
        self.key = key
        self._job, self._build = job, build
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._error: str | None = None
        self._program = cache.find(key)
        if self._program is None:
            self._start()

    def poll(self) -> Path | None:
        """The finished program's file, which lies in the cache; None as long as there is none. Raises: CompileError."""
        if self._program is None and self._error is None:
            assert self._process is not None
            if self._process.poll() is not None:
                self._collect(self._process)
        if self._error is not None:
            raise CompileError(self._error)
        return self._program

    def wait(self, timeout: float | None = None) -> Path:
        """Wait for the finished program's file, at most so many seconds. Raises: CompileError; TimeoutError."""
        end = None if timeout is None else time.monotonic() + timeout
        while (program := self.poll()) is None:
            assert self._process is not None
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"the program was not compiled within {timeout:g} seconds.")
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(left)
        return program

    def cancel(self) -> None:
        """End the other process at once; `poll` raises from then on. Does nothing where the program is finished."""
        if self._program is None and self._error is None:
            self._ended()
            self._error = "the compilation was cancelled."

    def _start(self) -> None:
        """Start the other process, which may only read the cache from the second time on."""
        cxx = compiler()
        if cxx is None:
            self._error = (
                "there is no C++ compiler on this machine ($CXX, g++ and clang++ were looked for). Install one, such as "
                "with `apt install g++`, `conda install gxx` or `xcode-select --install`, or set CXX to the path of yours."
            )
            return
        try:
            work = Path(tempfile.mkdtemp(prefix="ppl-compile-"))
        except OSError as error:
            self._error = f"there is no place for temporary files: {error}"
            return
        try:
            (work / worker.JOB).write_bytes(self._job)
            (work / worker.SCRATCH).mkdir()
            process = self._run(work, cxx)
        except OSError as error:
            shutil.rmtree(work, ignore_errors=True)
            self._error = f"the compiling process could not be started: {error}"
            return
        self._work, self._process = work, process
        self._ended = weakref.finalize(self, _end, process, work, os.getpid())
        self._starts += 1

    def _run(self, work: Path, cxx: str) -> subprocess.Popen[bytes]:
        folder = ""
        if not self._starts:
            with suppress(OSError):
                folder = str(cache.prepared())
        # -P: the worker's own folder is not a place to import from
        command = [sys.executable or "", "-P", worker.__file__, str(work), self.key, folder, self._build]
        with (work / "log").open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # never written to: that it breaks tells the worker of our end
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=work,
                env=_environment(work / worker.SCRATCH, cxx),
                start_new_session=True,  # Ctrl-C is not for it, and it can be ended with all that it started
            )

    def _collect(self, process: subprocess.Popen[bytes]) -> None:
        """Take the result of a process that has ended."""
        target = self._work / worker.TARGET
        if process.returncode:
            self._error = self._last_words(process.returncode)
        else:
            self._program = cache.find(self.key)
            cache.evict(spare=self._program)
            if self._program is None and target.is_file():
                self._program = cache.keep(self.key, target)
        if self._program != target:  # else there was no other place for it: it is removed when this process ends
            self._ended()
        if self._program is None and self._error is None:
            if self._starts > 1:
                self._error = "the compiling process ended without a program."
            else:
                self._start()  # another process's program was there, but is gone or was damaged

    def _last_words(self, status: int) -> str:
        why = f"ended with status {status}"
        if status < 0:
            with suppress(ValueError):
                why = f"was ended by {signal.Signals(-status).name}"
            why += ", perhaps for want of memory" if status == -9 else ""
        log = ""
        with suppress(OSError):
            log = (self._work / "log").read_text("utf-8", "replace").strip()
        return f"the compiling process {why}:\n" + "\n".join(log.splitlines()[-LINES:])


def _environment(scratch: Path, cxx: str) -> dict[str, str]:
    """What the worker finds in its environment: our imports, one thread, and a place for what is not to stay."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    environment.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TORCHINDUCTOR_COMPILE_THREADS="1", CXX=cxx)
    environment.update(TMPDIR=str(scratch), TEMP=str(scratch), TMP=str(scratch))
    environment.setdefault("TORCHINDUCTOR_CACHE_DIR", str(scratch / "inductor"))
    return environment


def _end(process: subprocess.Popen[bytes], work: Path, owner: int) -> None:
    """End a worker with all that it started; called once, by a cancellation, by the end of the object or of this process."""
    if os.getpid() != owner:  # forked: the worker is not ours
        return
    if sys.platform == "win32":
        process.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.stdin is not None
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(2)
    shutil.rmtree(work, ignore_errors=True)
