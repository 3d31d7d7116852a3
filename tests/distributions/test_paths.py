"""Random walks, state space paths and discretised diffusions: what their rows do not show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg as sl
import scipy.stats as st
import torch

import ppl.distributions as dist


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def fits(x: torch.Tensor, mean: Any, covariance: Any) -> None:
    """Means and covariances within 4.5 standard errors."""
    x, covariance = x.flatten(1).numpy(), np.asarray(covariance)
    variance = covariance.diagonal()
    assert (abs(x.mean(0) - mean) < 4.5 * np.sqrt(variance / len(x))).all()
    error = np.sqrt((covariance**2 + np.outer(variance, variance)) / len(x))
    assert (abs(np.cov(x.T) - covariance) < 4.5 * error).all()


class TestStateSpace:
    matrix = torch.tensor([[0.9, 0.3], [-0.2, 0.7]], dtype=torch.float64)
    covariance = torch.tensor([[1.3, 0.4], [0.4, 0.9]], dtype=torch.float64)
    start = torch.tensor([2.0, -1.0], dtype=torch.float64)

    def dense(self, steps: int) -> Any:
        """Solve (I - shifted A) z = (A z_0, 0, …) + noise."""
        a = self.matrix.numpy()
        inverse = np.linalg.inv(np.eye(2 * steps) - np.kron(np.eye(steps, k=-1), a))
        mean = inverse[:, :2] @ a @ self.start.numpy()
        return mean, inverse @ sl.block_diag(*[self.covariance.numpy()] * steps) @ inverse.T

    @pytest.mark.parametrize("form", ["covariance_matrix", "precision_matrix", "scale_tril"])
    @pytest.mark.parametrize("steps", [1, 2, 5, 64])
    def test_against_the_dense_normal(self, steps: int, form: str) -> None:
        given = {
            "covariance_matrix": self.covariance,
            "precision_matrix": torch.linalg.inv(self.covariance),
            "scale_tril": torch.linalg.cholesky(self.covariance),
        }
        d = dist.GaussianStateSpace(steps, self.matrix, initial_value=self.start, **{form: given[form]})
        mean, covariance = self.dense(steps)
        whole = st.multivariate_normal(mean, covariance)
        x = d.sample((3,))
        np.testing.assert_allclose(d.log_prob(x), whole.logpdf(x.flatten(1).numpy()), rtol=1e-10)
        np.testing.assert_allclose(d.mean.flatten(), mean, atol=1e-12)
        np.testing.assert_allclose(d.variance.flatten(), covariance.diagonal(), rtol=1e-10)
        assert d.entropy().item() == pytest.approx(whole.entropy(), rel=1e-10)
        for name, matrix in given.items():
            torch.testing.assert_close(getattr(d, name), matrix)
        if steps <= 5:
            fits(d.sample((20_000,)), mean, covariance)

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="exactly one of"):
            dist.GaussianStateSpace(3, self.matrix)
        with pytest.raises(ValueError, match="exactly one of"):
            dist.GaussianStateSpace(3, self.matrix, self.covariance, scale_tril=self.covariance)
        with pytest.raises(ValueError, match="'initial_value' must have a shape that ends in"):
            dist.GaussianStateSpace(3, self.matrix, self.covariance, initial_value=torch.zeros(3))


class TestWalk:
    def test_draws(self) -> None:
        d = dist.GaussianRandomWalk(torch.tensor(0.7, dtype=torch.float64), 4)
        steps = np.arange(1, 5)
        covariance = 0.49 * np.minimum(steps[:, None], steps)
        fits(d.sample((20_000,)), 0.0, covariance)
        np.testing.assert_allclose(d.variance, covariance.diagonal())
        assert d.entropy().item() == pytest.approx(st.multivariate_normal(np.zeros(4), covariance).entropy())

    def test_no_steps(self) -> None:
        with pytest.raises(ValueError, match="'num_steps' must be at least 1"):
            dist.GaussianRandomWalk(1.0, 0)


class TestDiffusion:
    def test_draws_of_a_linear_one(self) -> None:
        t = torch.tensor([0.0, 0.3, 0.5, 1.2], dtype=torch.float64)
        d = dist.EulerMaruyama(t, lambda x, t: (-0.8 * x, 1.1), dist.Normal(torch.tensor(0.0).double(), 0.5))
        assert d.support is not None and d.has_rsample
        factors, dt = np.ones(1), np.diff(t.numpy())
        inverse = np.eye(4)
        for i, step in enumerate(dt):
            inverse[i + 1, i] = -(1 - 0.8 * step)
        inverse = np.linalg.inv(inverse)
        noise = np.diag(np.concatenate([0.25 * factors, 1.21 * dt]))
        fits(d.sample((20_000,)), 0.0, inverse @ noise @ inverse.T)
        x = d.rsample((3,))
        whole = st.multivariate_normal(np.zeros(4), inverse @ noise @ inverse.T)
        np.testing.assert_allclose(d.log_prob(x), whole.logpdf(x.numpy()), rtol=1e-10)

    def test_coefficients_see_the_time_and_the_batch(self) -> None:
        t = torch.tensor([[0.0, 1.0, 3.0], [0.0, 2.0, 3.0]], dtype=torch.float64)
        speed = torch.tensor([0.1, 0.2], dtype=torch.float64)

        def sde(x: torch.Tensor, t: torch.Tensor) -> Any:
            return speed[:, None] * t * x.flip(-1), 1.0 + t

        d = dist.EulerMaruyama(t, sde, dist.Normal(torch.zeros(2, 2).double(), 1.0).to_event(1))
        assert (d.batch_shape, d.event_shape) == ((2,), (3, 2))
        x = d.sample((5,))
        expected = st.norm.logpdf(x[..., 0, :].numpy()).sum(-1)
        for i in range(2):
            dt = (t[:, i + 1] - t[:, i])[:, None]
            mean = x[..., i, :] + speed[:, None] * t[:, i, None] * x[..., i, :].flip(-1) * dt
            scale = (1 + t[:, i, None]) * dt.sqrt()
            expected += st.norm(mean.numpy(), scale.numpy()).logpdf(x[..., i + 1, :].numpy()).sum(-1)
        np.testing.assert_allclose(d.log_prob(x), expected, rtol=1e-10)
        assert d.expand((4, 2)).sample().shape == (4, 2, 3, 2)

    def test_one_time(self) -> None:
        d = dist.EulerMaruyama(torch.zeros(1), lambda x, t: (x, 1.0), dist.Normal(torch.zeros(()), 1.0))
        x = d.sample((3,))
        assert x.shape == (3, 1)
        torch.testing.assert_close(d.log_prob(x), dist.Normal(0.0, 1.0).log_prob(x[:, 0]))

    def test_bad_times(self) -> None:
        for t in (torch.tensor([0.0, 1.0, 1.0]), torch.tensor([1.0, 0.0])):
            with pytest.raises(ValueError, match="must increase"):
                dist.EulerMaruyama(t, lambda x, t: (x, 1.0), dist.Normal(0.0, 1.0))
        with pytest.raises(ValueError, match="tensor of times"):
            dist.EulerMaruyama(torch.tensor(1.0), lambda x, t: (x, 1.0), dist.Normal(0.0, 1.0))
