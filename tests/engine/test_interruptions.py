"""Runs that are interrupted by Ctrl-C, and processes that end while a run is compiled."""

import functools
import os
import random
import signal
import subprocess
import sys
import threading
import time

import models
import pytest
import torch
from rough_runs import ARGS, X, close, eager_losses, fresh, is_gone, no_guide, run, schools, wait_for

import ppl
import ppl.distributions as dist
from ppl.engine import background
from ppl.engine.background import Compilation
from ppl.infer import compiled

pytestmark = pytest.mark.usefixtures("alone")

# -- Ctrl-C


@pytest.fixture
def python_hears_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("taken_by", ["eager", "recorded", "recording"])
def test_ctrl_c_at_any_moment_leaves_whole_steps(taken_by, quick, python_hears_ctrl_c, monkeypatch):
    if taken_by == "recording":  # the step is recorded over and over
        monkeypatch.setattr(compiled.Stepper, "_begin", lambda self, way, step, left: setattr(way, "first", None))
    svi, chance = schools(), random.Random(0)
    svi.setup(*ARGS)
    losses = []
    for _ in range(15):

        def shoot(delay):
            before = svi.num_steps
            while svi.num_steps == before:
                time.sleep(0.001)
            time.sleep(delay)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=shoot, args=(chance.uniform(0, 0.03),))
        thread.start()
        result = svi.run(10**6, *ARGS, compile="never" if taken_by == "eager" else "auto", progress_bar=False)
        thread.join()
        assert result.interrupted
        losses += result.losses.tolist()
        assert len(losses) == svi.num_steps
        assert {int(state["step"]) for state in svi.optimizer.state.values()} == {len(losses)}
        assert list(ppl.stack.active()) == []
    losses += run(svi, 20, *ARGS).tolist()
    ppl.set_rng_seed(0)
    other = schools()
    close(torch.tensor(losses), run(other, len(losses), *ARGS, compile="never"))
    for name, value in other.params.items():
        close(svi.params[name], value)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(background.compiler() is None, reason="no process would be started")
def test_ctrl_c_ends_waiting_for_the_compiler(tmp_path, monkeypatch, python_hears_ctrl_c):
    told = tmp_path / "told"
    monkeypatch.setenv("PPL_TESTS_TOLD", str(told))
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled, "Compilation", functools.partial(Compilation, build="stub_builds:linger"))

    def shoot():
        wait_for(told.exists, 60)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=shoot)
    thread.start()
    svi = schools()
    result = svi.run(1000, *ARGS, compile="always", progress_bar=False)
    thread.join()
    assert result.interrupted
    assert len(result.losses) == svi.num_steps < 10
    worker, child, _ = told.read_text().split()
    wait_for(lambda: is_gone(worker) and is_gone(child), 2)
    close(torch.cat((result.losses, run(svi, 30, *ARGS, compile="never"))), eager_losses(svi.num_steps))


def test_ctrl_c_in_a_loader_and_in_a_callback_is_heard_at_once(python_hears_ctrl_c):
    def batches():
        yield X
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    svi = fresh()
    result = svi.fit(batches(), 1, plate="data", size=20, progress_bar=False)
    assert result.interrupted
    assert len(result.losses) == svi.num_steps == 1

    def callback(step, loss):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)

    result = svi.run(10, X, callback=callback, progress_bar=False)
    assert result.interrupted
    assert len(result.losses) == 4


def test_a_second_ctrl_c_ends_a_step_that_does_not_end(python_hears_ctrl_c):
    def model():
        ppl.sample("x", dist.Normal(ppl.param("loc", torch.tensor(0.0)), 1.0), obs=torch.tensor(1.0))
        if svi.num_steps == 3:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)

    svi = fresh(model, no_guide)
    result = svi.run(10, progress_bar=False)
    assert result.interrupted
    assert len(result.losses) == svi.num_steps == 3


# -- the end of a process

LEAVING = """
import atexit, os, sys, time, functools
atexit.register(lambda: print(time.time(), flush=True))  # the last one to be called
sys.path[:0] = {path!r}
import rough_runs
from ppl.engine.background import Compilation
from ppl.infer import compiled
told, end = sys.argv[1:]
compiled.LONG = compiled.VERY_LONG = 0.0
compiled.APART = 1
compiled.Compilation = functools.partial(Compilation, build="stub_builds:linger")
svi = rough_runs.schools()

def callback(step, loss):
    if not os.path.exists(told):
        return
    print(time.time(), flush=True)
    if end == "exit":
        sys.exit(0)
    if end == "error":
        raise RuntimeError("mine")
    if end == "normal":
        raise KeyboardInterrupt
    time.sleep(60)

svi.run(10**9, *rough_runs.ARGS, compile="auto", callback=callback, progress_bar=False)
"""


@pytest.mark.skipif(background.compiler() is None, reason="no process would be started")
def test_a_process_ends_while_a_run_is_compiled_in_the_background(tmp_path):
    path = [os.path.dirname(__file__), os.path.dirname(models.__file__), *sys.path]
    ends = {}
    for end in ("normal", "exit", "error", "kill"):
        environment = os.environ | {
            "PPL_COMPILE": "auto",
            "PPL_TESTS_TOLD": str(tmp_path / end),
            "PPL_CACHE_DIR": str(tmp_path / "cache" / end),
        }
        command = [sys.executable, "-c", LEAVING.format(path=path), str(tmp_path / end), end]
        ends[end] = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    for end, process in ends.items():
        with process:
            left = process.stdout.readline()
            assert left, process.stderr.read()
            worker, child, work = (tmp_path / end).read_text().split()
            if end == "kill":
                process.kill()
            process.wait(20)
            if end != "kill":
                assert float(process.stdout.readline()) - float(left) < 2  # the worker would go on for a minute
            wait_for(lambda: is_gone(worker) and is_gone(child) and not os.path.exists(work), 2)  # noqa: B023
            assert process.returncode == {"normal": 0, "exit": 0, "error": 1, "kill": -9}[end]
