"""Delta and Unit: no randomness."""

from __future__ import annotations

import pytest
import torch

import ppl.distributions as dist


def test_delta_is_at_its_point() -> None:
    v = torch.tensor([1.0, 2.0, 3.0])
    d = dist.Delta(v, log_density=torch.tensor([0.5, 0.0, -1.0]))
    assert torch.equal(d.sample((4,)), v.expand(4, 3))
    assert torch.equal(d.mean, v) and d.variance.tolist() == [0.0] * 3
    assert d.log_prob(v).tolist() == [0.5, 0.0, -1.0]
    assert d.log_prob(torch.tensor([1.0, 2.5, 3.0])).tolist() == [0.5, -torch.inf, -1.0]


def test_delta_event() -> None:
    v = torch.arange(6.0).reshape(3, 2)
    d = dist.Delta(v, event_dim=1)
    assert (d.batch_shape, d.event_shape) == ((3,), (2,))
    other = v.clone()
    other[1, 0] += 1  # one entry off is the whole draw off
    assert d.log_prob(other).tolist() == [0.0, -torch.inf, 0.0]
    assert dist.Delta(v, event_dim=2).log_prob(v).item() == 0.0
    assert dist.Delta.infer_shapes(v=(3, 2), event_dim=1) == ((3,), (2,))


def test_delta_gradients_pass_through_draw_and_density() -> None:
    v, log_density = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    d = dist.Delta(v, log_density)
    x = d()
    (x.sum() * 3 + d.log_prob(x).sum()).backward()
    assert v.grad is not None and v.grad.tolist() == [3.0, 3.0]
    assert log_density.grad is not None and log_density.grad.tolist() == [1.0, 1.0]
    assert not d.sample().requires_grad


def test_delta_of_numbers_and_integers() -> None:
    assert dist.Delta(2.5).sample().item() == 2.5
    d = dist.Delta(torch.tensor([2, 5]))
    assert d.is_discrete and d.sample().dtype == torch.int64
    assert d.log_prob(torch.tensor([2, 4])).tolist() == [0.0, -torch.inf]
    assert not dist.Delta(torch.tensor([2.0])).is_discrete


def test_delta_errors() -> None:
    with pytest.raises(ValueError, match="event_dim 2 is more than v's 1 dims"):
        dist.Delta(torch.zeros(3), event_dim=2)
    with pytest.raises(ValueError, match=r"Delta: argument 'log_density' must satisfy real.*index \(1,\).*NaN"):
        dist.Delta(torch.zeros(2), log_density=torch.tensor([0.0, torch.nan]))


def test_unit_is_a_bare_factor() -> None:
    factor = torch.tensor([0.5, -1.0], requires_grad=True)
    d = dist.Unit(factor)
    x = d.sample((3,))
    assert x.shape == (3, 2, 0) and x.numel() == 0
    log_prob = d.log_prob(x)
    assert log_prob.shape == (3, 2)
    log_prob.sum().backward()
    assert factor.grad is not None and factor.grad.tolist() == [3.0, 3.0]


@pytest.mark.parametrize("has_rsample", [None, False, True])
def test_unit_says_how_it_is_differentiated(has_rsample: bool | None) -> None:
    d = dist.Unit(torch.tensor([0.5, -1.0]), has_rsample=has_rsample)
    for u in (d, d.expand((3, 2))):
        assert u.has_rsample is bool(has_rsample)
        parts = u.score_parts(u.sample())
        assert torch.equal(parts.log_prob, u.log_factor)
        score, entropy = (0.0, parts.log_prob) if has_rsample else (parts.log_prob, 0.0)
        assert torch.equal(torch.as_tensor(parts.score_function), torch.as_tensor(score))
        assert torch.equal(torch.as_tensor(parts.entropy_term), torch.as_tensor(entropy))
    assert d.has_rsample_(True).has_rsample is True
    assert d.has_rsample_(False).has_rsample is False


def test_unit_of_nan() -> None:
    with pytest.raises(ValueError, match="Unit: argument 'log_factor' must satisfy real"):
        dist.Unit(torch.tensor(torch.nan))
