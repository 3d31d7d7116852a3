"""Every row of the table as part of a graph, of a batch made by vmap, and on the meta device."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from cases import CASES, Case
from torch.fx.experimental.proxy_tensor import make_fx

import ppl.distributions as dist


def named(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def draw(case: Case) -> torch.Tensor:
    torch.manual_seed(0)
    return case.build().sample((3,))


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=1e-12, atol=1e-12, equal_nan=True)


def captured(program: Any, *inputs: Any) -> Any:
    with dist.validation_enabled(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns about constants
        return make_fx(program)(*inputs)


@named(CASES)
def test_log_prob_becomes_a_graph(case: Case) -> None:
    params, x = case.tensors(), draw(case)

    def program(params: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return case.of(**params).log_prob(x)

    graph = captured(program, params, x)
    with dist.validation_enabled(False):
        assert same(graph(params, x), program(params, x))
        again = case.build().sample((3,))  # and at values other than those it was made with
        assert same(graph(params, again), program(params, again))


@named(CASES)
def test_sample_becomes_a_graph(case: Case) -> None:
    params = case.tensors()

    def program(params: dict[str, torch.Tensor]) -> torch.Tensor:
        return case.of(**params).sample((2,))

    graph = captured(program, params)
    torch.manual_seed(1)
    got = graph(params)
    torch.manual_seed(1)
    with dist.validation_enabled(False):
        assert same(got, program(params))


@named(CASES)
def test_gradients_become_a_graph(case: Case) -> None:
    free = [k for k, v in case.tensors().items() if v.is_floating_point() and k not in case.no_gradient]
    if not free:
        pytest.skip("log_prob is not differentiated by any parameter")
    params, x = case.tensors(), draw(case)

    def program(params: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
        leaves = {k: v.detach().requires_grad_(k in free) for k, v in params.items()}
        log_prob = case.of(**leaves).log_prob(x).sum()
        return list(torch.autograd.grad(log_prob, [leaves[k] for k in free]))

    graph = captured(program, params, x)
    with dist.validation_enabled(False):
        for a, b in zip(graph(params, x), program(params, x), strict=True):
            assert same(a, b)


@named([case for case in CASES if not case.batch])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles(case: Case, backend: str) -> None:
    params, x = case.tensors(), draw(case)

    def program(params: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return case.of(**params).log_prob(x)

    torch._dynamo.reset()
    with dist.validation_enabled(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dynamo's own
        got = torch.compile(program, backend=backend)(params, x)
        assert same(got, program(params, x))


@named([case for case in CASES if not case.batch])
def test_maps_over_parameters(case: Case) -> None:
    x = draw(case)
    params = {k: torch.stack([v, v]) for k, v in case.tensors().items()}

    def log_prob(params: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return case.of(**params).log_prob(x)

    with dist.validation_enabled(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a missing batching rule is slow, not wrong
        got = torch.vmap(log_prob)(params, torch.stack([x, x.flip(0)]))
        expected = case.build().log_prob(x)
    assert same(got, torch.stack([expected, expected.flip(0)]))


@named(CASES)
class TestMetaDevice:
    def test_log_prob_has_its_shape(self, case: Case) -> None:
        with dist.validation_enabled(False):
            d = case.build(device="meta")
            assert (d.batch_shape, d.event_shape) == (case.batch, case.event)
            value = torch.empty((3, *case.batch, *case.event), dtype=torch.float64, device="meta")
            log_prob = d.log_prob(value)
        assert log_prob.device.type == "meta" and log_prob.shape == (3, *case.batch)

    def test_sample_has_its_shape(self, case: Case) -> None:
        with dist.validation_enabled(False):
            x = case.build(device="meta").sample((3,))
        assert x.device.type == "meta" and x.shape == (3, *case.batch, *case.event)
