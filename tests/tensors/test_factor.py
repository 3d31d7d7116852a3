"""Named axes."""

import pytest
import torch

from ppl.tensors.factor import Factor, add, union, weigh


@pytest.fixture
def ab():
    return Factor(("a", "b"), torch.arange(6.0).reshape(2, 3))


def test_aligning_permutes_and_adds_dims_of_size_one(ab):
    assert ab.aligned(("a", "b")) is ab.tensor
    assert torch.equal(ab.aligned(("b", "c", "a")), ab.tensor.T.unsqueeze(1))


def test_sizes_are_found_by_name(ab):
    assert (ab.size("a"), ab.size("b")) == (2, 3)


def test_summing_removes_the_axes_named_and_ignores_others(ab):
    assert ab.sum(["z"]) is ab
    result = ab.sum(["b", "z"])
    assert result.axes == ("a",)
    assert torch.equal(result.tensor, torch.tensor([3.0, 12.0]))
    assert torch.equal(ab.sum(["a", "b"]).tensor, torch.tensor(15.0))


def test_addition_broadcasts_by_name_and_not_by_position(ab):
    other = Factor(("b",), torch.tensor([10.0, 20.0, 30.0]))
    third = Factor(("c",), torch.tensor([100.0, 200.0]))
    total = add([other, ab, third])
    assert total.axes == ("b", "a", "c") == union([other, ab, third])
    for i in range(2):
        for j in range(3):
            for k in range(2):
                assert total.tensor[j, i, k] == other.tensor[j] + ab.tensor[i, j] + third.tensor[k]


def test_a_weight_of_zero_wins_over_an_infinite_value_also_in_the_gradient():
    log_weight = torch.tensor([0.5, 0.5, 0.0]).log().requires_grad_()
    value = torch.tensor([1.0, 2.0, -torch.inf], requires_grad=True)
    result = weigh(Factor(("k",), log_weight), Factor(("k",), value)).sum(["k"]).tensor
    result.backward()
    assert result.item() == 1.5
    assert torch.equal(value.grad, torch.tensor([0.5, 0.5, 0.0]))
    assert torch.equal(log_weight.grad[:2], torch.tensor([0.5, 1.0]))
    assert log_weight.grad.isfinite().all()


def test_weights_broadcast_by_name():
    log_weight = Factor(("i", "k"), torch.rand(2, 3).log())
    value = Factor(("k", "j"), torch.rand(3, 4))
    result = weigh(log_weight, value).sum(["k"])
    assert result.axes == ("i", "j")
    assert torch.allclose(result.tensor, log_weight.tensor.exp() @ value.tensor)
