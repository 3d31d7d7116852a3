"""Chains in recorded steps: one operation each way, whatever their length, and none recorded before our operators are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.engine import operators
from ppl.engine.background import CompileError
from ppl.handlers import block
from ppl.infer import SVI, TraceEnum_ELBO, config_enumerate
from ppl.infer.autoguide import AutoDelta
from ppl.infer.compiled import Stepper, rehearse
from ppl.optim import Adam
from ppl.tensors import native


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    try:
        native.build()
    except native.CannotCompile as error:
        pytest.skip(str(error))


@config_enumerate
def hmm(data: torch.Tensor) -> None:
    transition = ppl.sample("transition", dist.Dirichlet(torch.ones(3, 3)).to_event(1))
    emission = ppl.sample("emission", dist.Dirichlet(torch.ones(3, 4)).to_event(1))

    def step(z: Any, x: torch.Tensor) -> tuple[Any, None]:
        with ppl.plate("sequences", data.shape[1]):
            z = ppl.sample("z", dist.Categorical(transition[z]))
            ppl.sample("x", dist.Categorical(emission[z]), obs=x)
        return z, None

    ppl.scan(step, 0, data)


def an_svi() -> SVI:
    guide = AutoDelta(block(hmm, expose=["transition", "emission"]))
    return SVI(hmm, guide, Adam({"lr": 0.05}), TraceEnum_ELBO())


def recorded(steps: int) -> list[str]:
    data = torch.arange(2 * steps).reshape(steps, 2) % 4
    svi = an_svi()
    svi.step(data)
    return [op.target for op in rehearse(svi, (data,), {}).step.parts.step.ops]


def test_one_operation_each_way() -> None:
    short, long = recorded(6), recorded(90)
    assert short == long
    assert short.count("ppl.chain.default") == short.count("ppl.chain_backward.default") == 1


def test_blocks_take_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps from a recording, before anything is compiled."""
    monkeypatch.setenv("PPL_COMPILE", "auto")
    monkeypatch.setattr("ppl.infer.compiled.LONG", 0.0)
    monkeypatch.setattr("ppl.infer.compiled.APART", 2)
    monkeypatch.setattr("ppl.infer.compiled.PATIENCE", 1000)
    data = torch.randint(4, (12, 2))
    losses = []
    for compile in ("never", "auto"):
        ppl.set_rng_seed(3)
        svi = an_svi()
        stepper = Stepper(svi, compile)
        found: list[float] = []
        while len(found) < 40:
            found += stepper.advance((data,), {}, 40 - len(found), 40 - len(found))
        assert any(way.num_blocks for way in stepper.ways.values()) == (compile == "auto")
        losses.append(found)
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=1e-10, atol=0.0)


@pytest.fixture
def missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has work for operators which are not there."""
    monkeypatch.setattr(native, "library", lambda: tmp_path / "native" / "chain.so")
    monkeypatch.setattr(native, "_loaded", None)
    monkeypatch.setattr(native, "is_wanted", lambda: True)
    monkeypatch.setattr(operators, "_pending", None)
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path))
    yield
    if operators._pending is not None:
        operators._pending.cancel()


@pytest.mark.usefixtures("missing")
def test_nothing_is_recorded_before_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not operators.are_ready(start=False, wait=False)
    assert operators._pending is None
    monkeypatch.setattr(native, "is_wanted", lambda: False)
    assert operators.are_ready(start=False, wait=False)


@pytest.mark.usefixtures("missing")
def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CompileError):
        operators.are_ready(start=False, wait=True)


def test_compiled_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library of this process is there already; another cache gets one of its own."""
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path))
    native.library.cache_clear()
    monkeypatch.setattr(native, "_loaded", None)
    monkeypatch.setattr(native, "is_wanted", lambda: True)
    monkeypatch.setattr(operators, "_pending", None)
    # a second library cannot be loaded beside the first one
    monkeypatch.setattr(native, "_load", lambda file: file.stat().st_size > 10_000)
    try:
        assert operators.are_ready(start=True, wait=True)
        assert native.library().is_relative_to(tmp_path)
        assert native.library().is_file()
    finally:
        native.library.cache_clear()
