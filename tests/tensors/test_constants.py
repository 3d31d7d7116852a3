"""Numbers as tensors, made once."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from ppl.tensors.constants import constant


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_has_the_dtype_asked_for_and_is_made_once(dtype: torch.dtype) -> None:
    like = torch.zeros(3, dtype=dtype)
    made = constant(0.1, like)
    assert made.dtype == dtype and made.shape == ()
    assert made.item() == torch.tensor(0.1, dtype=dtype).item()
    assert constant(0.1, like[0]) is made
    assert constant(0.2, like) is not made


def test_one_made_in_inference_mode_serves_outside() -> None:
    with torch.inference_mode():
        made = constant(17.25, torch.zeros(2))
    assert not made.is_inference()
    x = torch.ones(2, requires_grad=True)
    (slope,) = torch.autograd.grad((constant(17.25, x) * x).sum(), x)
    assert slope.tolist() == [17.25, 17.25]


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_a_graph_makes_its_own(mode: str) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return constant(2.5, x) - x

    fn(torch.zeros(3))
    graph = make_fx(fn, tracing_mode=mode)(torch.zeros(3))
    assert not [node for node in graph.graph.nodes if node.op == "get_attr"]
    assert graph(torch.ones(3)).tolist() == [1.5] * 3


def test_it_goes_through_vmap() -> None:
    x = torch.arange(3.0)
    assert torch.vmap(lambda v: constant(1.0, v) + v)(x).tolist() == [1.0, 2.0, 3.0]
