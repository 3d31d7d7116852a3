"""Independent: batch dims read as event dims."""

from __future__ import annotations

import pytest
import torch

import ppl.distributions as dist


@pytest.fixture
def normal() -> dist.Normal:
    return dist.Normal(torch.zeros(4, 3, 2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))


def test_nested_to_event_is_flat(normal: dist.Normal) -> None:
    d = normal.to_event(1).to_event(1)
    assert isinstance(d, dist.Independent) and d.base_dist is normal
    assert (d.batch_shape, d.event_shape) == ((4,), (3, 2))
    x = d.sample((5,))
    assert torch.allclose(d.log_prob(x), normal.log_prob(x).sum((-1, -2)))
    assert d.to_event(0) is d
    assert d.to_event().event_shape == (4, 3, 2)


def test_it_is_an_independent_of_torch(normal: dist.Normal) -> None:
    assert isinstance(normal.to_event(1), torch.distributions.Independent)
    p, q = normal.to_event(2), dist.Normal(torch.ones(4, 3, 2, dtype=torch.float64), 1.0).to_event(2)
    assert torch.allclose(dist.kl_divergence(p, q), torch.full((4,), 3.0, dtype=torch.float64))  # 6 dims · ½


def test_a_base_of_torch(normal: dist.Normal) -> None:
    d = dist.Independent(torch.distributions.Normal(torch.zeros(3, 2), 1.0), 1)
    assert d.has_rsample
    x = d.rsample((5,))
    assert torch.allclose(d.score_parts(x).entropy_term, d.log_prob(x))
    assert d.has_rsample_(False).has_rsample is False
    assert d.expand((4, 3)).sample().shape == (4, 3, 2)


def test_forcing_the_estimator_leaves_the_base_alone(normal: dist.Normal) -> None:
    nested = normal.to_event(1).mask(True).to_event(1)
    assert nested.has_rsample_(False).has_rsample is False
    assert normal.has_rsample is True
    assert not nested().requires_grad


def test_score_parts_sum_over_event_dims(normal: dist.Normal) -> None:
    mask = torch.tensor([[True, False]] * 3)
    d = normal.has_rsample_(False).mask(mask).to_event(2)
    x = d.sample()
    expected = (dist.Normal(normal.loc, normal.scale).log_prob(x) * mask).sum((-1, -2))
    parts = d.score_parts(x)
    assert torch.allclose(parts.log_prob, expected)
    assert torch.allclose(torch.as_tensor(parts.score_function), expected)
    assert parts.entropy_term == 0.0


def test_enumeration_is_refused_with_a_way_out() -> None:
    d = dist.Bernoulli(torch.tensor([0.1, 0.2])).to_event(1)
    assert not d.has_enumerate_support
    with pytest.raises(ValueError, match=r"Bernoulli.to_event\(1\) cannot be enumerated.*plate"):
        d.enumerate_support()


def test_an_empty_event_has_density_one() -> None:
    d = dist.Normal(torch.zeros(3, 0), 1.0).to_event(1)
    assert d.log_prob(d.sample((2,))).tolist() == [[0.0] * 3] * 2


def test_a_base_without_expand() -> None:
    class Fixed(dist.Distribution):
        arg_constraints = {}
        support = dist.constraints.real

        def sample(self, sample_shape: tuple[int, ...] = ()) -> torch.Tensor:
            return torch.zeros(self.shape(sample_shape))

        def log_prob(self, value: torch.Tensor) -> torch.Tensor:
            return -value.abs()

    d = Fixed((2,)).to_event(1).expand((4,))
    assert (d.batch_shape, d.event_shape) == ((4,), (2,))
    assert d.log_prob(d.sample((3,))).shape == (3, 4)


def test_too_many_dims() -> None:
    with pytest.raises(ValueError):
        dist.Normal(0.0, 1.0).to_event(1)
