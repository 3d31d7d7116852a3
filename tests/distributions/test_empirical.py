"""Empirical: weighted samples."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats as st
import torch

import ppl.distributions as dist

WEIGHTS = np.array([0.1, 0.2, 0.3, 0.4])


@pytest.fixture
def log_weights() -> torch.Tensor:
    return torch.tensor(WEIGHTS).log() + 7.0  # not normalised


def test_goodness_of_fit(log_weights: torch.Tensor) -> None:
    torch.manual_seed(0)
    d = dist.Empirical(torch.tensor([[3, 1, 4, 2], [2, 3, 4, 1]]), log_weights.expand(2, 4))
    x = d.sample((5000,))
    for row, order in enumerate(([1, 3, 0, 2], [3, 0, 1, 2])):
        counts = np.bincount(x[:, row].numpy(), minlength=5)[1:]
        assert st.chisquare(counts, 5000 * WEIGHTS[order]).pvalue > 1e-3


def test_rows_of_a_batch_are_drawn_independently() -> None:
    torch.manual_seed(0)
    d = dist.Empirical(torch.tensor([-1.0, 1.0]).double(), torch.zeros(2).double()).expand((3,))
    assert np.abs(np.corrcoef(d.sample((4000,)).numpy().T) - np.eye(3)).max() < 5 / np.sqrt(4000)


def test_whole_draws_stay_together(log_weights: torch.Tensor) -> None:
    samples = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    d = dist.Empirical(samples, log_weights.expand(2, 4))
    assert (d.batch_shape, d.event_shape, d.sample_size) == ((2,), (3, 2), 4)
    x = d.sample((50,))
    assert (x[:, :, None] == samples).flatten(-2).all(-1).any(-1).all()
    assert torch.allclose(d.log_prob(samples[:, 2]), torch.tensor(0.3, dtype=torch.float64).log())
    assert d.log_prob(samples[:, 2] + 1).eq(-torch.inf).all()


def test_moments(log_weights: torch.Tensor) -> None:
    samples = torch.randn(4, 2, dtype=torch.float64)
    d = dist.Empirical(samples, log_weights)
    mean = WEIGHTS @ samples.numpy()
    np.testing.assert_allclose(d.mean, mean)
    np.testing.assert_allclose(d.variance, WEIGHTS @ (samples.numpy() - mean) ** 2)
    torch.testing.assert_close(d.log_weights, log_weights)


def test_repeated_samples_add_up(log_weights: torch.Tensor) -> None:
    d = dist.Empirical(torch.tensor([5.0, 6.0, 5.0, 7.0]), log_weights)
    assert torch.allclose(d.log_prob(torch.tensor([5.0, 6.0, 7.0])).exp(), torch.tensor([0.4, 0.2, 0.4]).double())
    values = d.enumerate_support()
    assert values.tolist() == [5.0, 6.0, 7.0]  # each once, so that the probabilities sum to 1
    assert d.log_prob(values).exp().sum().item() == pytest.approx(1.0)


def test_a_batch_with_repeated_samples_is_not_enumerated(log_weights: torch.Tensor) -> None:
    d = dist.Empirical(torch.tensor([[5, 6, 5, 7], [1, 2, 3, 4]]), log_weights.expand(2, 4))
    with pytest.raises(ValueError, match="differ along its batch, and some are equal"):
        d.enumerate_support()


def test_gradient_of_the_weights(log_weights: torch.Tensor) -> None:
    d = lambda w: dist.Empirical(torch.tensor([5.0, 6.0, 5.0, 7.0]).double(), w)  # noqa: E731
    x = torch.tensor([5.0, 7.0]).double()
    assert torch.autograd.gradcheck(lambda w: d(w).log_prob(x), log_weights.requires_grad_())


def test_errors() -> None:
    for samples, weights in ((torch.zeros(3), torch.zeros(4)), (torch.zeros(()), torch.zeros(()))):
        with pytest.raises(
            ValueError, match=r"Empirical: log_weights of shape .* must equal the first dims of samples"
        ):
            dist.Empirical(samples, weights)
    with pytest.raises(ValueError, match="Empirical: argument 'log_weights' must satisfy"):
        dist.Empirical(torch.zeros(2), torch.tensor([0.0, torch.nan]))
    with pytest.raises(ValueError, match="no reparameterised sampler"):
        dist.Empirical(torch.zeros(2), torch.zeros(2)).has_rsample_(True)
