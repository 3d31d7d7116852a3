"""Ways to sum out dims."""

import math

import pytest
import torch

from ppl.tensors import semiring
from ppl.tensors.semiring import log_sum_exp, maximum


def test_log_sum_exp_equals_torchs_with_its_gradient():
    x = torch.randn(3, 4, 5, requires_grad=True)
    for dims in ([0], [1, 2], [0, 1, 2]):
        ours, theirs = log_sum_exp(x, dims), x.logsumexp(dims)
        assert torch.allclose(ours, theirs, atol=1e-14)
        weights = torch.randn_like(ours)
        (a,) = torch.autograd.grad((ours * weights).sum(), x)
        (b,) = torch.autograd.grad((theirs * weights).sum(), x)
        assert torch.allclose(a, b, atol=1e-14)


def test_log_sum_exp_does_not_overflow():
    assert torch.allclose(log_sum_exp(torch.tensor([1e4, 1e4]), [0]), torch.tensor(1e4).add(torch.tensor(2.0).log()))
    assert torch.allclose(log_sum_exp(torch.tensor([-1e4, -1e4]), [0]), torch.tensor(-1e4).add(torch.tensor(2.0).log()))


def test_log_sum_exp_of_nothing_but_minus_infinity_has_a_zero_gradient():
    x = torch.tensor([[-torch.inf, -torch.inf], [-torch.inf, 1.0]], requires_grad=True)
    result = log_sum_exp(x, [1])
    assert result.tolist() == [-torch.inf, 1.0]
    result[1].backward()
    assert torch.equal(x.grad, torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    x.grad = None
    log_sum_exp(x, [1])[0].backward()
    assert torch.equal(x.grad, torch.zeros(2, 2))


def test_log_sum_exp_has_a_second_derivative():
    x = torch.randn(4, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda v: log_sum_exp(v, [0]), x)


def test_maximum_over_several_dims_gives_its_gradient_to_one_entry():
    x = torch.tensor([[1.0, 7.0], [7.0, 2.0]], requires_grad=True)
    result = maximum(x, [0, 1])
    result.backward()
    assert result.item() == 7.0
    assert x.grad.sum() == 1.0 and sorted(x.grad.flatten().tolist()) == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [3, 6000])
@pytest.mark.parametrize("recorded", [False, True])
def test_entries_that_count_for_nothing_in_small_and_large_sums(recorded, columns, dtype, monkeypatch):
    monkeypatch.setattr(semiring, "is_recorded", lambda: recorded)
    far = math.log(torch.finfo(dtype).tiny) + 1
    column = torch.tensor([0.5, far, 2 * far, -torch.inf], dtype=dtype)
    x = torch.stack([column, column - 3, torch.full_like(column, -torch.inf)], -1).repeat(1, columns)[:, :columns]
    x.requires_grad_()
    found = log_sum_exp(x, [0])
    assert torch.equal(found.detach(), x.detach().logsumexp(0))
    (slopes,) = torch.autograd.grad(found.sum(), x)
    expected = x.detach().softmax(0).nan_to_num(0.0)
    torch.testing.assert_close(slopes, expected, rtol=0, atol=1e-30)
