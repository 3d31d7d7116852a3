"""Distributions over categories look their tables up in short ways; each is compared with the long one, entry by entry."""

from __future__ import annotations

import copy
import itertools
import pickle
import sys
import threading

import pytest
import torch
from torch import Tensor

import ppl
import ppl.distributions as dist
from ppl.distributions.steps import take_apart
from ppl.distributions.validation import trusted, validation_enabled
from ppl.handlers import enum, trace


@pytest.fixture(autouse=True)
def double() -> None:
    torch.set_default_dtype(torch.float64)


def by_entry(probs: Tensor, value: Tensor) -> Tensor:
    """The log probabilities of values, one after the other."""
    batch = torch.broadcast_shapes(probs.shape[:-1], value.shape)
    probs, value = probs.expand(*batch, probs.shape[-1]), value.expand(batch)
    rows = [(probs[i][value[i]] / probs[i].sum()).log() for i in itertools.product(*map(range, batch))]
    return torch.stack(rows).reshape(batch)


SHAPES = [((), (5,)), ((4,), ()), ((4, 1), (5,)), ((4, 1, 3), (5, 1)), ((4, 1), (2, 1, 5)), ((1,), (5,)), ((4,), (4,))]
SHAPES += [((4, 1), (4, 5)), ((2, 1, 3), (4, 1)), ((3,), (2, 5, 1)), ((1, 1), (1,)), ((4, 1), (1, 5)), ((2,), (7, 2))]


@pytest.mark.parametrize("own, index", SHAPES)
@pytest.mark.parametrize("validated", [True, False])
def test_tables_are_looked_up_along_any_dims(own: tuple[int, ...], index: tuple[int, ...], validated: bool) -> None:
    torch.manual_seed(0)
    probs, value = torch.rand(*own, 3).requires_grad_(), torch.randint(3, index)
    expected = by_entry(probs, value)
    with validation_enabled(validated):
        found = dist.Categorical(probs).log_prob(value)
    assert found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-12)
    weights = torch.randn(expected.shape)
    (ours,), (known,) = (torch.autograd.grad((x * weights).sum(), probs, retain_graph=True) for x in (found, expected))
    assert torch.allclose(ours, known, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("own, index", SHAPES[:7])
def test_within_vmap_and_twice_differentiated(own: tuple[int, ...], index: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    probs, values = torch.rand(*own, 3), torch.randint(3, (6, *index))
    found = torch.vmap(lambda v: dist.Categorical(probs, validate_args=False).log_prob(v))(values)
    assert torch.allclose(found, torch.stack([by_entry(probs, v) for v in values]))
    many = torch.rand(6, *own, 3)
    found = torch.vmap(lambda p, v: dist.Categorical(p, validate_args=False).log_prob(v))(many, values)
    assert torch.allclose(found, torch.stack([by_entry(p, v) for p, v in zip(many, values, strict=True)]))
    assert torch.autograd.gradgradcheck(
        lambda p: dist.Categorical(p).log_prob(values[0]).sum(), probs.clone().requires_grad_()
    )


@pytest.mark.parametrize("outside", [-1, 3, 9])
def test_values_outside_are_impossible_where_nothing_is_checked(outside: int) -> None:
    value = torch.tensor([0, outside, 2])
    for probs in (torch.rand(3), torch.rand(2, 1, 3), torch.rand(3, 3)):
        for given in (value, value.double()):
            found = dist.Categorical(probs, validate_args=False).log_prob(given)
            assert (found[..., 1] == -torch.inf).all() and found[..., 0].isfinite().all()
    found = dist.Categorical(torch.rand(2, 1, 3), validate_args=False).log_prob(torch.tensor([0.5, 1.0]))
    assert (found[..., 0] == -torch.inf).all() and found[..., 1].isfinite().all()
    with trusted("later"):  # anything, but no error
        assert dist.Categorical(torch.rand(2, 1, 3), validate_args=False).log_prob(value).shape == (2, 3)


def test_zeros_have_no_gradient_of_their_own_whatever_is_known() -> None:
    weights = torch.tensor([0.0, 1.0, 3.0]).requires_grad_()
    for validated in (True, False):
        found = dist.Categorical(weights, validate_args=validated).log_prob(torch.tensor([1, 2]))
        (slope,) = torch.autograd.grad(found.sum(), weights)
        assert torch.allclose(found, torch.tensor([0.25, 0.75]).log()) and torch.allclose(
            slope, torch.tensor([-0.5, 0.5, 1 / 3 - 0.5])
        )


def test_weights_that_change_after_the_check_are_no_longer_known_to_be_positive() -> None:
    weights = torch.tensor([1.0, 1.0, 2.0])
    d = dist.Categorical(weights)
    weights[0] = 0.0
    logits = d.logits
    assert logits[0] == -torch.inf and torch.allclose(logits[1:].exp(), torch.tensor([1 / 3, 2 / 3]))
    leaf = torch.tensor([1.0, 1.0]).requires_grad_()
    d = dist.Categorical(leaf)
    with torch.no_grad():
        leaf[0] = 0.0
    (slope,) = torch.autograd.grad(d.log_prob(torch.tensor(1)), leaf)
    assert slope.isfinite().all()


def test_another_object_s_weights_are_not_taken_for_those_that_were_looked_at() -> None:
    d = dist.Categorical(torch.ones(3))
    _, rebuild = take_apart(d)
    other = rebuild(iter([torch.tensor([0.0, 1.0, 1.0])]))
    assert other.logits[0] == -torch.inf and torch.allclose(d.logits, torch.full((3,), 1 / 3).log())


def test_fields_worked_out_are_no_parts() -> None:
    d = dist.Categorical(torch.tensor([1.0, 3.0]))
    before = len(take_apart(d)[0])
    assert d.probs.shape == d.logits.shape == (2,)
    tensors, rebuild = take_apart(d)
    assert len(tensors) == before == 1
    assert torch.allclose(rebuild(iter([torch.tensor([1.0, 1.0])])).probs, torch.tensor([0.5, 0.5]))


class TestSupport:
    """The density at the whole support is the table itself, if the support is the tensor that was listed."""

    def listed(self, d: dist.Categorical, dim: int) -> Tensor:
        values = d.enumerate_support(expand=False).reshape((-1, *(1,) * (-1 - dim)))
        d.note_support(values, dim)
        return values

    @pytest.mark.parametrize(
        "batch, dim", [((), -1), ((), -3), ((5,), -2), ((4, 1, 5), -2), ((4, 1, 5), -5), ((2,), -3)]
    )
    def test_it_is_the_same_as_for_any_value(self, batch: tuple[int, ...], dim: int) -> None:
        probs = torch.rand(*batch, 3)
        d = dist.Categorical(probs)
        values = self.listed(d, dim)
        found = d.log_prob(values)
        assert found.shape == torch.broadcast_shapes(values.shape, batch)
        assert torch.allclose(found, by_entry(probs, values)) and torch.allclose(found, d.log_prob(values.clone()))
        wide = d.expand((6, *(1,) * (5 - len(batch)), *batch))
        assert torch.allclose(wide.log_prob(values), by_entry(wide.probs, values))

    def test_a_support_that_was_written_into_is_a_value_like_others(self) -> None:
        d = dist.Categorical(torch.tensor([1.0, 2.0, 5.0]))
        values = self.listed(d, -1)
        values.copy_(torch.tensor([2, 2, 0]))
        assert torch.allclose(d.log_prob(values), by_entry(d.probs, torch.tensor([2, 2, 0])))

    def test_the_latest_list_counts_and_none_after_a_file(self) -> None:
        d = dist.Categorical(torch.tensor([1.0, 2.0, 5.0]))
        first, second = self.listed(d, -1), self.listed(d, -3)
        expected = by_entry(d.probs, torch.arange(3))
        for one in (d, pickle.loads(pickle.dumps(d)), copy.deepcopy(d)):
            assert torch.allclose(one.log_prob(first), expected)
            assert torch.allclose(one.log_prob(second), expected.reshape(3, 1, 1))

    def test_a_batch_that_varies_along_the_dim(self) -> None:
        d = dist.Categorical(torch.rand(3, 3))
        values = self.listed(d, -1)
        assert torch.allclose(d.log_prob(values), by_entry(d.probs, values))

    def test_one_distribution_at_several_sites_and_in_several_threads(self) -> None:
        d = dist.Categorical(torch.tensor([1.0, 2.0, 5.0]))
        expected = by_entry(d.probs, torch.arange(3))
        wrong: list[object] = []

        def model() -> None:
            for name in "abc":
                ppl.sample(name, d, infer={"enumerate": "parallel"})

        def run() -> None:
            for _ in range(300):
                with enum(first_available_dim=-1):
                    record = trace(model).get_trace()
                for number, name in enumerate("abc"):
                    found = record.log_prob(name)
                    if found.shape != (3, *(1,) * number) or not torch.allclose(found.flatten(), expected):
                        wrong.append(found)

        threads = [threading.Thread(target=run) for _ in range(4)]
        usual = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)  # so that they meet everywhere
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(usual)
        assert not wrong
