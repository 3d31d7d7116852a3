"""MaskedDistribution: no density and no gradient where the mask is false, whatever the value is there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import CASES, Case

import ppl.distributions as dist


@pytest.mark.parametrize("impossible", [float("nan"), float("inf"), -1e30])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_impossible_values_give_no_nan(case: Case, impossible: float) -> None:
    if 0 in case.event or (case.cls in {dist.Delta, dist.Empirical} and case.integers):
        pytest.skip("no room for a NaN")
    tensors = {k: v.requires_grad_(v.is_floating_point()) for k, v in case.tensors().items()}
    with dist.validation_enabled(False):
        d = case.of(**tensors)
    torch.manual_seed(0)
    x = d.sample((2,)).double().clone()
    kept = d.log_prob(x)[1]
    x[0] = impossible
    if case.cls is dist.Categorical or case.event == (2, 2) or case.note == "categorical":
        x[0] = 1000.0
    value = x.clone().requires_grad_()
    mask = torch.tensor([False, True]).reshape(2, *(1 for _ in case.batch))
    m = d.mask(mask)
    log_prob = m.log_prob(value)
    assert log_prob[0].eq(0).all() and torch.allclose(log_prob[1], kept)
    parts = m.score_parts(value)
    for part in parts:
        if isinstance(part, torch.Tensor):
            assert part[0].eq(0).all()
    if log_prob.requires_grad:
        wanted = [t for t in (*tensors.values(), value) if t.requires_grad]
        for gradient in torch.autograd.grad(log_prob.sum(), wanted, allow_unused=True):
            assert gradient is None or not gradient.isnan().any()


def test_gradient_is_that_of_the_kept_entries() -> None:
    loc = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([1.0, float("nan"), 3.0, float("inf")], dtype=torch.float64)
    mask = torch.tensor([True, False, True, False])
    log_prob = dist.Normal(loc, 2.0).mask(mask).log_prob(x)
    (gradient,) = torch.autograd.grad(log_prob.sum(), loc)
    assert gradient.tolist() == [0.25, 0.0, 0.75, 0.0]


def test_masks_multiply() -> None:
    a, b = torch.tensor([True, True, False]), torch.tensor([[True], [False]])
    d = dist.Normal(torch.zeros(3), 1.0).mask(a).mask(b)
    assert d.batch_shape == (2, 3)
    x = d.sample()
    assert torch.equal(d.log_prob(x) != 0, a & b)


@pytest.mark.parametrize("mask", [True, False])
def test_a_bool_masks_everything_or_nothing(mask: bool) -> None:
    d = dist.Normal(torch.zeros(3), 1.0)
    m = d.mask(mask)
    x = m.sample((2,))
    assert torch.equal(m.log_prob(x), d.log_prob(x) * mask)
    assert m.score_parts(x).log_prob.shape == (2, 3)
    assert m.expand((4, 3)).log_prob(x[:, None]).shape == (2, 4, 3)


def test_enumeration_and_moments_are_the_base_s() -> None:
    base = dist.Categorical(torch.tensor([[0.2, 0.3, 0.5]] * 2))
    m = base.mask(torch.tensor([True, False]))
    assert m.has_enumerate_support and torch.equal(m.enumerate_support(), base.enumerate_support())
    n = dist.Normal(torch.tensor([1.0, 2.0]), 3.0).mask(False)
    assert n.mean.tolist() == [1.0, 2.0] and n.variance.tolist() == [9.0, 9.0]


def test_a_foreign_base() -> None:
    m = dist.MaskedDistribution(torch.distributions.Normal(torch.zeros(2), 1.0), torch.tensor([True, False]))
    x = m.rsample()
    assert m.score_parts(x).entropy_term[1] == 0 and m.has_rsample_(False).has_rsample is False


def test_a_foreign_base_without_support() -> None:
    class Flat(torch.distributions.Distribution):
        arg_constraints = {}

        def log_prob(self, value: torch.Tensor) -> torch.Tensor:
            return value * 0

    m = dist.lift(Flat(torch.Size((2,)), validate_args=False)).mask(torch.tensor([True, False]))
    assert m.log_prob(torch.tensor([1.0, float("nan")])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (torch.ones(3), r"expected a bool or a tensor of dtype torch.bool.*mask.bool\(\)"),
        (torch.ones(2, dtype=torch.bool), r"mask's shape \(2,\) does not broadcast with batch shape \(3,\)"),
        (1, "expected a bool or a boolean tensor, got int"),
    ],
)
def test_a_bad_mask_is_named(mask: Any, match: str) -> None:
    with pytest.raises(ValueError, match=f"Normal.mask: .*{match}"):
        dist.Normal(torch.zeros(3), 1.0).mask(mask)
