"""Our operators for chains: against torch's operators in float64, as one node of a graph, and where they are missing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ppl.tensors import native
from ppl.tensors.chain import chain_evidence, chain_forward, chain_product

INF = torch.inf


@pytest.fixture(autouse=True, scope="module")
def built() -> Iterator[None]:
    try:
        native.build()
    except native.CannotCompile as error:
        pytest.skip(str(error))
    yield


def some(k: int, steps: int, n: int, rows: int, varies: tuple[bool, bool], spread: float = 1.0) -> list[Tensor]:
    """initial (n, rows, K), matrices by time and chain if they vary, emissions (n, T, K), final (n, rows, K)."""
    torch.manual_seed(k + 10 * steps + 100 * n)
    by_time, by_chain = varies
    shapes = (n, rows, k), (n if by_chain else 1, 1, steps if by_time else 1, k, k), (n, 1, steps, k), (n, rows, k)
    return [(spread * torch.randn(shape)).requires_grad_() for shape in shapes]


def both(function: Any, inputs: list[Tensor], tolerance: float = 1e-12) -> None:
    """The value and the gradients under weights of both signs are those without our operators."""
    found = []
    for ours in (True, False):
        if ours:
            value = function(*inputs)
        else:
            with native.disabled():
                value = function(*inputs)
        torch.manual_seed(1)
        weights = torch.where(value.isfinite(), torch.randn(value.shape), 0.0)
        found.append((value, *torch.autograd.grad(value, inputs, weights, allow_unused=True)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("varies", [*itertools.product((False, True), repeat=2)])
@pytest.mark.parametrize(
    ("k", "steps", "n", "rows"), [(1, 5, 2, 1), (3, 2, 1, 2), (4, 9, 40, 1), (17, 12, 3, 2), (33, 4, 5, 1)]
)
@pytest.mark.parametrize("kind", ["plain", "far apart", "impossible", "nothing possible"])
def test_same_as_without(k: int, steps: int, n: int, rows: int, varies: tuple[bool, bool], kind: str) -> None:
    inputs = some(k, steps, n, rows, varies, 400.0 if kind == "far apart" else 1.0)
    with torch.no_grad():
        if kind in ("impossible", "nothing possible"):
            for x in inputs[:3]:
                x[torch.rand(x.shape) < 0.3] = -INF
        if kind == "nothing possible":
            inputs[2][0, :, steps // 2] = -INF
    tolerance = 1e-10 if kind == "far apart" else 1e-12  # logs of thousands are rounded to 1e-12 themselves
    both(lambda i, m, e, f: chain_evidence(i, m, f, e), inputs, tolerance)
    both(chain_forward, inputs[:3], tolerance)
    both(lambda m, e: chain_product(m, e), [inputs[1][:, 0], inputs[2][:, 0]], tolerance)


def test_rows_with_logs_beside_others() -> None:
    """One chain that real numbers cannot hold does not change the others."""
    inputs = some(4, 20, 6, 1, (False, False))
    with torch.no_grad():
        inputs[2][3] *= 1000.0
        inputs[2][3, :, ::2, 0] -= 3000.0
    both(lambda i, m, e, f: chain_evidence(i, m, f, e), inputs, 1e-10)


def test_gradients_are_differences() -> None:
    inputs = some(3, 4, 2, 1, (True, False))
    assert torch.autograd.gradcheck(lambda i, m, e, f: chain_evidence(i, m, f, e), inputs)
    assert torch.autograd.gradgradcheck(lambda i, m, e, f: chain_evidence(i, m, f, e), inputs)
    assert torch.autograd.gradcheck(chain_forward, inputs[:3])


def test_single_precision_loses_nothing_inside() -> None:
    exact = some(5, 200, 3, 1, (False, False))
    single = [x.detach().float().requires_grad_() for x in exact]
    again = [x.detach().double().requires_grad_() for x in single]
    got, expected = (chain_evidence(i, m, f, e) for i, m, e, f in (single, again))
    assert torch.equal(got, expected.float())
    for a, b in zip(torch.autograd.grad(got.sum(), single), torch.autograd.grad(expected.sum(), again), strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-6, atol=1e-7)


def test_any_strides() -> None:
    i, m, e, f = some(6, 7, 4, 1, (False, False))
    e = e.detach().permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0).requires_grad_()  # states first
    both(lambda i, m, e, f: chain_evidence(i, m.mT, f, e), [i, m, e, f])
    both(
        lambda i, e: chain_evidence(i, torch.zeros(1, 6, 6), torch.zeros(6), e.expand(4, 1, 7, 6)),
        [i, e[:1].detach().requires_grad_()],
    )


@pytest.mark.parametrize("varies", [*itertools.product((False, True), repeat=2)])
def test_threads_change_nothing(varies: tuple[bool, bool]) -> None:
    inputs = some(16, 40, 70, 1, varies)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            value = chain_evidence(inputs[0], inputs[1], inputs[3], inputs[2])
            found.append((value, *torch.autograd.grad(value.sum(), inputs)))
        finally:
            torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


class Names(TorchDispatchMode):
    """Which operations are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_one_operation_each_way() -> None:
    seen = []
    for steps in (3, 300):
        i, m, e, f = some(4, steps, 2, 1, (False, False))
        with Names() as calls:
            chain_evidence(i, m, f, e).sum().backward()
        seen.append(calls.names)
        assert calls.names.count("ppl.chain.default") == calls.names.count("ppl.chain_backward.default") == 1
    assert seen[0] == seen[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ends", [False, True])
def test_shapes_without_data(dtype: torch.dtype, ends: bool) -> None:
    i, m, e = (torch.zeros(s, dtype=dtype) for s in ((3, 2, 5), (1, 3, 5, 5), (7, 3, 5)))
    f = torch.zeros(3, 2, 5, dtype=dtype) if ends else None
    result, *kept = torch.ops.ppl.chain(i, m, e, f)
    grads = torch.ops.ppl.chain_backward(result, result, i, m, e, f, *kept)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = [None if x is None else mode.from_tensor(x) for x in (i, m, e, f)]
        first, *rest = torch.ops.ppl.chain(*fakes)
        second = torch.ops.ppl.chain_backward(first, first, *fakes, *rest)
    for real, fake in zip((result, *kept, *grads), (first, *rest, *second), strict=True):
        assert (real.shape, real.stride(), real.dtype) == (fake.shape, fake.stride(), fake.dtype)


def test_what_the_cache_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is missing, broken, or cannot be compiled: torch's operators do."""
    file = tmp_path / "deep" / "chain.so"
    monkeypatch.setattr(native, "library", lambda: file)
    monkeypatch.setattr(native, "_loaded", None)
    assert not native.is_loaded()
    monkeypatch.setenv("CXX", str(tmp_path / "nothing"))
    with pytest.raises(native.CannotCompile, match="install g\\+\\+ or set CXX"):
        native.build()
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(native.CannotCompile, match="failed"):
        native.build()
    file.parent.mkdir()
    file.write_bytes(b"no library")
    monkeypatch.setattr(native, "_loaded", None)
    assert not native.is_loaded()
    with pytest.raises(native.CannotCompile, match="remove it"):
        native.build()
    i, m, e, f = some(4, 6, 2, 1, (False, False))
    assert chain_evidence(i, m, f, e).isfinite().all()
    assert native.is_wanted()
