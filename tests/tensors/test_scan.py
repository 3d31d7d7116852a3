"""Scans and reductions against loops, for lengths that are and are no powers of two."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from ppl.tensors.log_matrix import chain_maps, log_matmul
from ppl.tensors.scan import Bundle, associative_reduce, associative_scan

LENGTHS = (1, 2, 3, 4, 5, 7, 8, 13, 64)


def multiply(left: Bundle, right: Bundle) -> Bundle:
    return (left[0] @ right[0],)


def matrices(length: int) -> torch.Tensor:
    torch.manual_seed(length)
    return torch.randn(2, length, 3, 3, dtype=torch.float64) / 3**0.5


def prefixes(x: torch.Tensor) -> torch.Tensor:
    found = [x[:, 0]]
    for t in range(1, x.shape[1]):
        found.append(found[-1] @ x[:, t])
    return torch.stack(found, 1)


@pytest.mark.parametrize("dim", [1, -3])
@pytest.mark.parametrize("length", LENGTHS)
def test_prefixes_suffixes_and_the_whole(length: int, dim: int) -> None:
    x = matrices(length)
    expected = prefixes(x)
    torch.testing.assert_close(associative_scan(multiply, [x], dim)[0], expected)
    torch.testing.assert_close(associative_reduce(multiply, [x], dim)[0][:, 0], expected[:, -1])
    backwards = prefixes(x.flip(1).mT).mT.flip(1)  # (abc)ᵀ = cᵀbᵀaᵀ
    torch.testing.assert_close(associative_scan(multiply, [x], dim, reverse=True)[0], backwards)


@pytest.mark.parametrize("length", [1, 2, 5, 64])
def test_work_is_linear_and_depth_logarithmic(length: int) -> None:
    calls, elements = [], []

    def count(left: Bundle, right: Bundle) -> Bundle:
        calls.append(1)
        elements.append(left[0].shape[1])
        return multiply(left, right)

    associative_scan(count, [matrices(length)], -3)
    assert len(calls) <= 2 * max(length - 1, 0).bit_length() and sum(elements) <= 2 * length


def test_no_elements() -> None:
    x = matrices(3)[:, :0]
    assert associative_scan(multiply, [x], -3)[0].shape == (2, 0, 3, 3)
    with pytest.raises(ValueError, match="nothing to combine"):
        associative_reduce(multiply, [x], -3)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="one size along dim"):
        associative_scan(multiply, [matrices(3), matrices(4)], -3)


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_parts_of_a_bundle_may_differ_in_batch_dims(length: int) -> None:
    def affine(left: Bundle, right: Bundle) -> Bundle:
        return left[0] @ right[0], left[1] @ right[0] + right[1]

    a = matrices(length)[0]
    b = torch.randn(5, length, 1, 3, dtype=torch.float64)
    _, got = associative_scan(affine, [a, b], -3)
    state = torch.zeros(5, 1, 3, dtype=torch.float64)
    for t in range(length):
        state = state @ a[t] + b[:, t]
        torch.testing.assert_close(got[:, t], state)


def test_gradients() -> None:
    x = matrices(5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: associative_scan(multiply, [x], -3)[0], [x])
    assert torch.autograd.gradcheck(lambda x: associative_reduce(multiply, [x], -3)[0], [x])


def test_log_matmul() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(log_matmul(x, y), (x.exp() @ y.exp()).log())
    assert torch.autograd.gradcheck(log_matmul, [x.requires_grad_(), y.requires_grad_()])


def test_log_matmul_where_weights_lie_far_apart() -> None:
    # the only way leads through states that look impossible to either factor alone
    x = torch.tensor([[-4000.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[0.0], [-5000.0]], dtype=torch.float64)
    assert log_matmul(x, y).item() == -4000.0


def test_log_matmul_of_impossible_steps() -> None:
    x = torch.tensor([[-torch.inf, 0.0], [-torch.inf, -torch.inf]], dtype=torch.float64, requires_grad=True)
    product = log_matmul(x, x)
    assert product.tolist() == [[-torch.inf, -torch.inf], [-torch.inf, -torch.inf]]
    (gradient,) = torch.autograd.grad(product.exp().sum(), [x])
    assert not gradient.isnan().any()


def test_maps_compose() -> None:
    first, second = torch.tensor([2, 0, 1]), torch.tensor([1, 1, 0])
    assert chain_maps((first,), (second,))[0].tolist() == [0, 1, 1]


def test_a_large_log_matmul_goes_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 5, 4, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    x[0, 1], y[2] = -torch.inf, -torch.inf
    whole = log_matmul(x, y)
    monkeypatch.setattr("ppl.tensors.log_matrix.LARGE", 0)
    for part in (1, 30, 100):
        monkeypatch.setattr("ppl.tensors.log_matrix.PART", part)
        torch.testing.assert_close(log_matmul(x, y), whole)
        torch.testing.assert_close(torch.vmap(lambda x: log_matmul(x, y))(x), whole)
    x, y = torch.randn(2, 5, 4, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    leaves = [x.requires_grad_(), y.requires_grad_()]
    assert torch.autograd.gradcheck(log_matmul, leaves)
    assert torch.autograd.gradgradcheck(log_matmul, leaves)
    graph = make_fx(lambda x, y: torch.autograd.grad(log_matmul(x, y).sum(), [x, y]))(*leaves)
    for got, expected in zip(graph(*leaves), torch.autograd.grad(log_matmul(x, y).sum(), leaves), strict=True):
        torch.testing.assert_close(got, expected)
    x = torch.full((1, 2, 4), -torch.inf, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(log_matmul(x, leaves[1].detach()).exp().sum(), [x])
    assert not gradient.isnan().any()
