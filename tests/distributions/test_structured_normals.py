"""Normals over graphs, circles and zero sums: what their rows do not show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg as sl
import scipy.stats as st
import torch

import ppl.distributions as dist

RING = torch.tensor([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]]).double()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def fits(x: torch.Tensor, covariance: Any) -> None:
    """Zero means, and covariances, within 4.5 standard errors."""
    covariance = np.asarray(covariance)
    variance = covariance.diagonal()
    assert (x.mean(0).abs().numpy() < 4.5 * np.sqrt(variance / len(x))).all()
    error = np.sqrt((covariance**2 + np.outer(variance, variance)) / len(x))
    assert (abs(np.cov(x.numpy().T) - covariance) < 4.5 * error + 1e-12).all()


class TestCAR:
    def build(self, **more: Any) -> dist.CAR:
        return dist.CAR(torch.zeros(4).double(), 0.8, 1.5, more.pop("adj_matrix", RING), **more)

    def test_against_the_dense_normal(self) -> None:
        d = self.build()
        precision = 1.5 * (torch.diag(RING.sum(-1)) - 0.8 * RING)
        covariance = torch.linalg.inv(precision)
        torch.testing.assert_close(d.precision_matrix, precision)
        torch.testing.assert_close(d.covariance_matrix, covariance)
        torch.testing.assert_close(d.variance, covariance.diagonal())
        whole = st.multivariate_normal(np.zeros(4), covariance.numpy())
        assert d.entropy().item() == pytest.approx(whole.entropy(), rel=1e-12)
        fits(d.sample((20_000,)), covariance)

    def test_each_node_is_normal_around_its_neighbours(self) -> None:
        d = self.build()
        x = d.sample()
        moved = x.clone()
        moved[0] += 0.7
        mean = 0.8 * (RING[0] @ x) / 2
        conditional = dist.Normal(mean, (1.5 * 2) ** -0.5)
        torch.testing.assert_close(
            d.log_prob(moved) - d.log_prob(x), conditional.log_prob(moved[0]) - conditional.log_prob(x[0])
        )

    @pytest.mark.filterwarnings("ignore:Sparse")  # torch's, that its checks are off and its CSR is in beta
    @pytest.mark.parametrize("layout", ["coo", "csr"])
    def test_a_sparse_graph(self, layout: str) -> None:
        sparse = RING.to_sparse() if layout == "coo" else _csr()
        d, dense = self.build(adj_matrix=sparse, is_sparse=True), self.build()
        x = dense.sample((3, 2))
        torch.testing.assert_close(d.log_prob(x), dense.log_prob(x))
        x.requires_grad_()
        torch.testing.assert_close(
            torch.autograd.grad(d.log_prob(x).sum(), x), torch.autograd.grad(dense.log_prob(x).sum(), x)
        )
        assert d.expand((3, 2)).log_prob(x).shape == (3, 2)

    def test_near_the_ends_of_the_correlation(self) -> None:
        for correlation in (1 - 1e-9, -1 + 1e-9, 0.0):
            d = dist.CAR(0.0, torch.tensor(correlation).double(), 1.0, RING)
            # the ring's eigenvalues are 1, 0, 0, -1, its degrees 2
            expected = 0.5 * (4 * np.log(2) + np.log1p(-correlation) + np.log1p(correlation) - 4 * np.log(2 * np.pi))
            assert d.log_prob(torch.zeros(4).double()).item() == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize(
        ("graph", "match"),
        [
            (RING.triu(), "symmetric"),
            (-RING, "symmetric and nonnegative"),
            (torch.zeros(4, 4).double(), "without neighbours"),
            (RING[:3], "square matrix"),
            (torch.ones(3, 3).double(), "'loc' must have 3 entries"),
        ],
    )
    def test_bad_graphs(self, graph: torch.Tensor, match: str) -> None:
        with pytest.raises(ValueError, match=match):
            self.build(adj_matrix=graph)


def _csr() -> torch.Tensor:
    rows = [0, 2, 4, 6, 8]
    columns = [1, 3, 0, 2, 1, 3, 0, 2]
    return torch.sparse_csr_tensor(rows, columns, torch.ones(8, dtype=torch.float64), (4, 4))


class TestCirculant:
    @pytest.mark.parametrize(
        "row", [[2.0], [2.0, 0.5], [2.0, 0.5, 0.5], [2.0, 0.7, 0.2, 0.7], [2.0, 0.6, 0.1, 0.1, 0.6]]
    )
    def test_against_the_dense_normal(self, row: list[float]) -> None:
        covariance = sl.circulant(row)
        d = dist.CirculantNormal(torch.zeros(len(row)).double(), torch.tensor(row).double())
        whole = st.multivariate_normal(np.zeros(len(row)), covariance)
        x = d.sample((5,))
        np.testing.assert_allclose(d.log_prob(x), whole.logpdf(x.numpy()), rtol=1e-12)
        np.testing.assert_allclose(d.covariance_matrix, covariance, atol=1e-12)
        np.testing.assert_allclose(d.variance, covariance.diagonal())
        assert d.entropy().item() == pytest.approx(whole.entropy(), rel=1e-12)
        fits(d.sample((20_000,)), covariance)
        again = dist.CirculantNormal(d.loc, covariance_rfft=d.covariance_rfft)
        torch.testing.assert_close(again.log_prob(x), d.log_prob(x))
        torch.testing.assert_close(again.covariance_row, d.covariance_row)

    def test_bad_arguments(self) -> None:
        loc = torch.zeros(4)
        with pytest.raises(ValueError, match="exactly one"):
            dist.CirculantNormal(loc)
        with pytest.raises(ValueError, match="does not fit"):
            dist.CirculantNormal(loc, covariance_rfft=torch.ones(4))
        with pytest.raises(ValueError, match="'covariance_row'"):
            dist.CirculantNormal(loc, torch.tensor([1.0, 0.9, 0.1, 0.0]))


class TestZeroSum:
    @pytest.mark.parametrize("shape", [(2,), (4,), (2, 3), (3, 2, 2)])
    def test_against_the_normal_on_the_subspace(self, shape: tuple[int, ...]) -> None:
        d = dist.ZeroSumNormal(torch.tensor(1.3).double(), shape)
        projection = np.ones((1, 1))
        for n in shape:
            projection = np.kron(projection, np.eye(n) - 1 / n)
        x = d.sample((20_000,))
        assert d.support.check(x).all()
        fits(x.flatten(1), 1.69 * projection)
        whole = st.multivariate_normal(np.zeros(len(projection)), 1.69 * projection, allow_singular=True)
        np.testing.assert_allclose(d.log_prob(x[:5]), whole.logpdf(x[:5].flatten(1).numpy()), rtol=1e-9)
        np.testing.assert_allclose(d.variance.flatten(), 1.69 * projection.diagonal(), rtol=1e-12)
        assert d.entropy().item() == pytest.approx(-whole.logpdf(x.flatten(1).numpy()).mean(), abs=0.05)

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="at least one dim"):
            dist.ZeroSumNormal(1.0, ())
        with pytest.raises(ValueError, match="must lie in the support zero_sum"):
            dist.ZeroSumNormal(1.0, (3,)).log_prob(torch.ones(3))
