"""ExpandedDistribution: each repetition is a draw of its own, in its own place."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats as st
import torch

import ppl.distributions as dist


def test_draws_are_independent_across_expanded_dims() -> None:
    torch.manual_seed(0)
    d = dist.ExpandedDistribution(dist.Normal(torch.zeros(2, 1, dtype=torch.float64), 1.0), (3, 2, 4))
    for x in (d.sample((4000,)), d.rsample((4000,))):
        correlations = np.corrcoef(x.reshape(4000, 24).numpy().T) - np.eye(24)
        assert np.abs(correlations).max() < 5 / np.sqrt(4000)  # five standard errors, 276 pairs


@pytest.mark.parametrize("base_shape", [(), (1,), (3,), (2, 1), (1, 3), (2, 3), (1, 1)])
@pytest.mark.parametrize("sample_shape", [(), (5,), (2, 3)])
def test_every_draw_comes_from_its_own_parameters(base_shape: tuple[int, ...], sample_shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    loc = torch.arange(torch.Size(base_shape).numel(), dtype=torch.float64).reshape(base_shape) * 100
    base = dist.MultivariateNormal(torch.stack([loc, -loc, loc + 50], -1), torch.eye(3, dtype=torch.float64))
    target = torch.broadcast_shapes(base_shape, (4, 2, 3))
    d = dist.ExpandedDistribution(base, target)
    for x in (d.sample(sample_shape), d.rsample(sample_shape)):
        assert x.shape == sample_shape + target + (3,)
        assert (x - base.loc).abs().max() < 8
        assert len(x.unique()) == x.numel()  # nothing is repeated


def test_goodness_of_fit() -> None:
    torch.manual_seed(0)
    rate = torch.tensor([[0.5], [3.0]], dtype=torch.float64)
    d = dist.ExpandedDistribution(dist.Exponential(rate), (2, 3))
    x = d.sample((5000,)).numpy()
    for i, j in itertools.product(range(2), range(3)):
        assert st.kstest(x[:, i, j], st.expon(scale=1 / rate[i].item()).cdf).pvalue > 1e-3


def test_moments_and_entropy() -> None:
    d = dist.ExpandedDistribution(dist.Gamma(torch.tensor([2.0, 3.0]), 4.0), (3, 2))
    assert torch.allclose(d.mean, torch.tensor([0.5, 0.75]).expand(3, 2))
    assert torch.allclose(d.variance, torch.tensor([0.125, 0.1875]).expand(3, 2))
    assert torch.allclose(d.entropy().double(), torch.tensor(st.gamma([2, 3], scale=0.25).entropy()).expand(3, 2))


def test_expanding_again_starts_from_the_base() -> None:
    d = dist.ExpandedDistribution(dist.Normal(torch.zeros(1), 1.0), (3,)).expand((2, 3))
    assert isinstance(d.base_dist, dist.Normal)
    assert d.sample().shape == (2, 3)


def test_gradients_reach_the_base() -> None:
    loc = torch.zeros(2, 1, requires_grad=True)
    dist.ExpandedDistribution(dist.Normal(loc, 1.0), (2, 4)).rsample((3,)).sum().backward()
    assert loc.grad is not None and loc.grad.flatten().tolist() == [12.0, 12.0]


def test_enumeration_of_a_batch_of_samples() -> None:
    samples = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    d = dist.ExpandedDistribution(dist.Empirical(samples, torch.zeros(2, 3)), (4, 2))
    values = d.enumerate_support()
    assert values.shape == (3, 4, 2)
    assert torch.equal(values[:, 3], samples.T)


@pytest.mark.parametrize("shape", [(), (2,), (3, 1), (2, 2)])
def test_shapes_that_do_not_fit_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Normal: batch shape \(3,\) does not expand to"):
        dist.ExpandedDistribution(dist.Normal(torch.zeros(3), 1.0), shape)


def test_score_parts_of_a_partly_reparameterised_base_survive():
    class Partly(dist.Normal):
        """Draws with a score part of its own, and an __init__ that torch's expand cannot call."""

        def __init__(self, loc, extra):
            super().__init__(loc, 1.0)
            self.extra = extra

        def score_parts(self, x):
            log_prob = self.log_prob(x)
            return dist.ScoreParts(log_prob, 0.3 * log_prob, 0.7 * log_prob)

    d = dist.ExpandedDistribution(Partly(torch.zeros(2), None), (3, 2))
    x = d.rsample()
    parts = d.score_parts(x)
    assert all(part.shape == (3, 2) for part in parts)
    assert torch.allclose(parts.score_function, 0.3 * d.log_prob(x))
    assert torch.allclose(parts.entropy_term, 0.7 * d.log_prob(x))


def test_products_without_a_closed_form_say_so():
    with pytest.raises(NotImplementedError, match=r"Normal has no closed form for its product with Gamma"):
        dist.Normal(0.0, 1.0).conjugate_update(dist.Gamma(1.0, 1.0))
