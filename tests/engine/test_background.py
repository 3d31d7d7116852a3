"""Compiling in another process, which ends with this one."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

import ppl
from ppl.engine import background, cache
from ppl.engine.background import Compilation, CompileError, compiler
from ppl.engine.cache import find, keep, key_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="looks at process groups")
KEY = key_of("a program")


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", sys.executable)  # no build here needs a compiler, but one must be there
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(cache, "_refuge", None)
    monkeypatch.setattr(cache, "_warned", set())
    monkeypatch.setattr(cache, "_size", None)


def left_over(tmp_path):
    return os.listdir(tmp_path / "tmp")


def start(job, build, key=KEY):
    return Compilation(job, key, build=f"stub_builds:{build}")


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def is_gone(pid):
    """Whether a process has ended (one that nobody waits for any more may stay as a zombie)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        pass
    if os.path.exists("/proc/self/stat"):
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    return False


def sleepers(told):
    """The numbers of a worker that runs `sleep` and of its child, and its folder."""
    wait_for(told.exists)
    worker, child, work = told.read_text().split()
    assert not is_gone(int(worker))
    assert not is_gone(int(child))
    return int(worker), int(child), Path(work)


def test_a_program_is_built_in_the_background_and_lies_in_the_cache(tmp_path):
    compilation = start(b"graph", "copy")
    assert compilation.poll() is None
    program = compilation.wait(30)
    assert program == compilation.poll() == find(KEY)
    assert program.parent == cache.folder()
    assert program.suffix == ".pt2"
    assert program.read_bytes() == b"graph"
    assert os.listdir(cache.folder()) == [program.name]
    assert left_over(tmp_path) == []
    compilation.cancel()
    assert compilation.poll() == program


def test_nothing_is_started_for_a_program_that_is_in_the_cache(tmp_path, monkeypatch):
    file = tmp_path / "made.pt2"
    file.write_bytes(b"machine code")
    kept = keep(KEY, file)
    monkeypatch.setattr(subprocess, "Popen", None)
    assert start(b"graph", "fail").poll() == kept


def test_the_other_process_is_humble_and_imports_what_this_one_can(monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    told = start(b"", "tell").wait(30).read_text().split("\n")
    nice, leads, has_torch, threads, compile_threads, own_folder, standard_input = told
    assert int(nice) >= min(19, os.nice(0) + 10)
    assert (leads, has_torch, own_folder) == ("True", "False", "True")
    assert (threads, compile_threads) == ("1", "1")
    assert standard_input == ""


def test_a_folder_of_inductor_that_the_user_chose_is_used(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
    environment = background._environment(tmp_path / "scratch", "g++")
    assert environment["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "mine")
    assert environment["CXX"] == "g++"


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        ("stub_builds:fail", r"(?s)status 1:.*fatal error: beyond.h.*RuntimeError: the C\+\+ compiler ended"),
        ("stub_builds:write_nothing", "stub_builds.write_nothing wrote no file"),
        ("stub_builds:crash", "was ended by SIGSEGV"),
        ("stub_builds:missing", "has no attribute 'missing'"),
        ("no_such_module:build", "No module named 'no_such_module'"),
    ],
)
def test_what_went_wrong_is_told_with_the_last_lines(tmp_path, build, expected):
    compilation = Compilation(b"graph", KEY, build=build)
    with pytest.raises(CompileError, match=expected):
        compilation.wait(30)
    with pytest.raises(CompileError, match=expected):  # and again
        compilation.poll()
    assert find(KEY) is None
    assert left_over(tmp_path) == []


def test_without_a_compiler_it_is_said_at_once_and_nothing_is_started(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", None)
    assert compiler() is None
    compilation = start(b"graph", "copy")
    with pytest.raises(CompileError, match=r"no C\+\+ compiler on this machine.*apt install g\+\+.*CXX"):
        compilation.poll()
    compilation.cancel()


def test_the_compiler_is_the_one_that_was_chosen_or_else_the_first_there_is(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("clang++", "g++", "mine"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        monkeypatch.delenv("CXX", raising=False)
        assert compiler() == str(tmp_path / ("clang++" if name == "clang++" else "g++"))
    for chosen, expected in (("mine", "mine"), ("not there", "g++"), ("", "g++")):
        monkeypatch.setenv("CXX", chosen)
        assert compiler() == str(tmp_path / expected)


def test_a_process_that_cannot_be_started_is_an_error_at_the_first_look(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(CompileError, match=r"could not be started.*No such file"):
        start(b"graph", "copy").poll()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(CompileError, match="no place for temporary files"):
        start(b"graph", "copy").poll()


# -- the cache's folder


def test_a_cache_that_cannot_be_written_warns_and_the_program_is_there(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path / "file" / "cache"))
    compilation = start(b"graph", "copy")
    with pytest.warns(UserWarning, match="Not a directory.*PPL_CACHE_DIR"):
        program = compilation.wait(30)
    assert program.read_bytes() == b"graph"
    assert start(b"another", "fail").poll() == program


def test_a_cache_that_fills_up_meanwhile_warns_and_the_program_is_there(tmp_path):
    tally = tmp_path / "tally"
    job = str(tally).encode()
    compilation = start(job, "count")
    wait_for(tally.exists)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("no folder any more")
    with pytest.warns(UserWarning, match="File exists"):
        assert compilation.wait(30).read_bytes() == job
    assert left_over(tmp_path) == [cache._refuge.name]


def test_with_no_place_at_all_the_program_stays_where_it_was_built(monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("PPL_CACHE_DIR", "/dev/null/cache")
    monkeypatch.setattr(cache, "place", refuse)
    compilation = start(b"graph", "copy")
    with pytest.warns(UserWarning, match="No space left|Not a directory"):
        program = compilation.wait(30)
    assert program.read_bytes() == b"graph"
    del compilation
    gc.collect()
    assert not program.exists()


def test_the_limit_holds_for_programs_that_come_from_the_background(tmp_path):
    cache.set_cache_size(0)
    first = start(b"one", "copy", KEY).wait(30)
    second = start(b"two", "copy", key_of("another")).wait(30)
    assert second.exists()
    assert not first.exists()


def test_a_damaged_program_in_the_cache_is_built_anew(tmp_path):
    start(b"graph", "copy").wait(30).write_bytes(b"damaged")
    assert start(b"graph", "copy").wait(30).read_bytes() == b"graph"


def test_a_file_that_only_looks_like_the_program_does_not_stop_the_build(tmp_path):
    told = tmp_path / "told"
    first = start(str(told).encode(), "sleep")
    sleepers(told)
    second = start(b"graph", "copy")
    (cache.folder() / f"{KEY}-{'0' * 32}.pt2").write_bytes(b"damaged")
    first.cancel()  # now the second one looks for what the first may have made
    assert second.wait(30).read_bytes() == b"graph"
    assert second._starts == 2
    assert left_over(tmp_path) == []


# -- two at once


def test_of_two_that_want_the_same_one_builds_it(tmp_path):
    tally = tmp_path / "tally"
    job = str(tally).encode()
    first, second = start(job, "count"), start(job, "count")
    assert first.wait(30) == second.wait(30)
    assert len(tally.read_text().splitlines()) == 1
    assert not list(cache.folder().glob("*.lock"))


def test_who_waits_for_one_that_fails_or_is_ended_builds_it_himself(tmp_path):
    told = tmp_path / "told"
    first = start(str(told).encode(), "sleep")
    sleepers(told)
    second = start(b"graph", "copy")
    time.sleep(0.3)
    assert second.poll() is None
    first.cancel()
    assert second.wait(30).read_bytes() == b"graph"


def test_two_with_other_keys_do_not_wait_for_each_other(tmp_path):
    told = tmp_path / "told"
    first = start(str(told).encode(), "sleep")
    sleepers(told)
    assert start(b"graph", "copy", key_of("another")).wait(30).read_bytes() == b"graph"
    first.cancel()


# -- the end


def test_cancelling_ends_the_process_and_all_that_it_started(tmp_path):
    told = tmp_path / "told"
    compilation = start(str(told).encode(), "sleep")
    worker, child, work = sleepers(told)
    with pytest.raises(TimeoutError, match=r"within 0\.05 seconds"):
        compilation.wait(0.05)
    began = time.monotonic()
    compilation.cancel()
    compilation.cancel()
    assert time.monotonic() - began < 1
    wait_for(lambda: is_gone(worker) and is_gone(child), 2)
    assert not work.exists()
    with pytest.raises(CompileError, match="cancelled"):
        compilation.poll()
    assert left_over(tmp_path) == []


def test_a_compilation_that_nobody_holds_any_more_is_cancelled(tmp_path):
    told = tmp_path / "told"
    compilation = start(str(told).encode(), "sleep")
    worker, child, _ = sleepers(told)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del compilation
        gc.collect()
    wait_for(lambda: is_gone(worker) and is_gone(child), 2)
    assert left_over(tmp_path) == []


def test_a_process_that_was_forked_leaves_the_worker_alone(tmp_path):
    process = subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE, start_new_session=True)
    background._end(process, tmp_path / "work", os.getpid() + 1)
    assert process.poll() is None
    background._end(process, tmp_path / "work", os.getpid())
    assert process.returncode == -signal.SIGKILL


# The engine's part alone: the imports of ppl and torch, six times, would take half a minute.
PARENT = """
import os, signal, sys, time, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.modules["torch"] = types.ModuleType("torch")
sys.modules["ppl"] = ppl = types.ModuleType("ppl")
ppl.__path__ = [sys.argv[3]]
from ppl.engine.background import Compilation
told, end = sys.argv[1], sys.argv[2]
compilation = Compilation(told.encode(), "0" * 64, build="stub_builds:sleep")
if end == "forked":  # a process that holds the pipe open as well
    if os.fork() == 0:
        os.setsid()
        while not os.path.exists(told + ".over"):
            time.sleep(0.05)
        os._exit(0)
while not os.path.exists(told):
    time.sleep(0.01)
try:
    print("ready", flush=True)
    if end == "exit":
        sys.exit(0)
    if end == "error":
        raise ValueError
    time.sleep(60)
except KeyboardInterrupt:
    if end != "ignore":
        raise
    print("interrupted", flush=True)
    time.sleep(60)
"""


def run_parent(told, end):
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, str(told), end, str(Path(ppl.__file__).parent)],
        env=os.environ | {"PYTHONPATH": path, "TMPDIR": str(told.parent / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.parametrize("end", ["kill", "forked", "terminate", "interrupt", "exit", "error"])
def test_the_worker_ends_with_its_parent_however_that_ends(tmp_path, end):
    told = tmp_path / "told"
    signals = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
    with run_parent(told, end) as parent:
        assert parent.stdout.readline() == b"ready\n"
        worker, child, work = map(str, told.read_text().split())
        if end in ("exit", "error"):
            parent.wait(10)  # it does not wait for the minute that its worker would sleep
        else:
            assert not is_gone(worker)
            os.kill(parent.pid, signals.get(end, signal.SIGKILL))
        wait_for(lambda: is_gone(worker) and is_gone(child) and not os.path.exists(work), 2)
        (tmp_path / "told.over").touch()
    assert left_over(tmp_path) == []


def test_ctrl_c_at_the_terminal_does_not_reach_the_worker(tmp_path):
    told = tmp_path / "told"
    with run_parent(told, "ignore") as parent:
        assert parent.stdout.readline() == b"ready\n"
        worker, child, _ = told.read_text().split()
        os.killpg(parent.pid, signal.SIGINT)  # what a terminal does
        assert parent.stdout.readline() == b"interrupted\n"
        time.sleep(0.2)
        assert not is_gone(worker)
        assert not is_gone(child)
        parent.kill()
    wait_for(lambda: is_gone(worker) and is_gone(child), 2)
