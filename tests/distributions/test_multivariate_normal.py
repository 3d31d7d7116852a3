"""Normal vectors: conditioning, validation, missing entries, kept parameters."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.stats as st
import torch
from case import COV, LOC3, TRIL

import ppl.distributions as dist

LOC = torch.tensor(LOC3, dtype=torch.float64)
COVARIANCE = torch.tensor(COV, dtype=torch.float64)


def exact(x: Any, covariance: Any) -> float:
    """The log density of a centred normal vector, at 60 digits."""
    with mpmath.workdps(60):
        c = mpmath.matrix(covariance.tolist())
        d = mpmath.matrix(x.tolist())
        whole = (d.T * mpmath.lu_solve(c, d))[0] + mpmath.log(mpmath.det(c)) + len(x) * mpmath.log(2 * mpmath.pi)
        return float(-whole / 2)


def test_ill_conditioned_covariances() -> None:
    """At condition c the relative error is below c times the unit roundoff, times a small factor."""
    torch.manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    for condition in (1e4, 1e10):
        scales = torch.tensor([1.0, condition**-0.3, condition**-0.7, 1 / condition], dtype=torch.float64)
        covariance = (q * scales) @ q.mT
        covariance = (covariance + covariance.mT) / 2
        x = dist.MultivariateNormal(0.0, covariance).sample()
        expected = exact(x, covariance)
        got = float(dist.MultivariateNormal(0.0, covariance).log_prob(x))
        assert abs(got - expected) <= 10 * condition * 2.2e-16 * max(1.0, abs(expected))
        factor = torch.linalg.cholesky(covariance)
        by_factor = float(dist.MultivariateNormal(0.0, scale_tril=factor).log_prob(x))
        assert by_factor == pytest.approx(got, rel=1e-12)


def test_low_rank_factor_much_larger_than_the_diagonal() -> None:
    torch.manual_seed(0)
    factor = 1e6 * torch.randn(5, 2, dtype=torch.float64)
    diagonal = torch.tensor([1e-3, 1.0, 0.5, 2.0, 1e-2], dtype=torch.float64)
    d = dist.LowRankMultivariateNormal(torch.zeros(5, dtype=torch.float64), factor, diagonal)
    with mpmath.workdps(60):
        w = mpmath.matrix(factor.tolist())
        covariance = w * w.T + mpmath.diag([mpmath.mpf(v) for v in diagonal.tolist()])
    for x in d.sample((3,)):
        with mpmath.workdps(60):
            v = mpmath.matrix(x.tolist())
            whole = (v.T * mpmath.lu_solve(covariance, v))[0] + mpmath.log(mpmath.det(covariance))
            expected = float(-(whole + 5 * mpmath.log(2 * mpmath.pi)) / 2)
        # x itself is rounded at 1e6 * 1e-16, seen through a standard deviation of 0.03: that is not ours
        assert float(d.log_prob(x)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["covariance_matrix", "precision_matrix", "scale_tril"])
def test_a_bad_matrix_is_named_with_its_index(name: str) -> None:
    matrix = torch.eye(2, dtype=torch.float64).repeat(3, 1, 1)
    matrix[1, 1, 1] = -1.0
    with pytest.raises(ValueError, match=rf"MultivariateNormal: argument '{name}' must satisfy .*at index \(1,\)"):
        dist.MultivariateNormal(0.0, **{name: matrix})


def test_a_bad_matrix_without_validation_is_nan() -> None:
    matrix = torch.tensor([[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])
    with dist.validation_enabled(False):
        found = dist.MultivariateNormal(0.0, matrix).log_prob(torch.zeros(2))
    assert found[0].isnan() and found[1].isfinite()


def test_parameters_that_do_not_fit() -> None:
    for arguments in (
        {},
        {"covariance_matrix": COVARIANCE, "scale_tril": COVARIANCE},
        {"covariance_matrix": torch.ones(3)},
        {"loc": torch.zeros(2), "covariance_matrix": COVARIANCE},
    ):
        with pytest.raises(ValueError, match=r"^MultivariateNormal: "):
            dist.MultivariateNormal(**arguments)


def test_parametrisations_agree() -> None:
    tril = torch.linalg.cholesky(COVARIANCE)
    precision = torch.linalg.inv(COVARIANCE)
    by = [
        dist.MultivariateNormal(LOC, COVARIANCE),
        dist.MultivariateNormal(LOC, precision_matrix=(precision + precision.mT) / 2),
        dist.MultivariateNormal(LOC, scale_tril=tril),
    ]
    x = by[0].sample((5,))
    for d in by:
        for e in (d, d.expand((4,)), d.expand((4,)).expand((2, 4))):
            torch.testing.assert_close(e.covariance_matrix, COVARIANCE.expand(*e.batch_shape, 3, 3))
            torch.testing.assert_close(e.precision_matrix, precision.expand(*e.batch_shape, 3, 3))
            torch.testing.assert_close(e.scale_tril, tril.expand(*e.batch_shape, 3, 3))
            torch.testing.assert_close(e.variance, COVARIANCE.diagonal().expand(*e.batch_shape, 3))
            torch.testing.assert_close(e.entropy(), by[0].entropy().expand(e.batch_shape))
        torch.testing.assert_close(d.log_prob(x), by[0].log_prob(x))
        torch.testing.assert_close(dist.kl_divergence(d, by[0]), torch.zeros((), dtype=torch.float64))
        z = torch.linalg.solve_triangular(tril, (d.sample((4000,)) - LOC).mT, upper=False)
        for row in z:
            assert st.kstest(row.numpy(), "norm").pvalue > 1e-3  # nine tests


def test_gradients_are_symmetric() -> None:
    for name in ("covariance_matrix", "precision_matrix"):
        matrix = COVARIANCE.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(dist.MultivariateNormal(LOC, **{name: matrix}).log_prob(LOC + 1.0), [matrix])
        torch.testing.assert_close(gradient, gradient.mT)


def test_many_samples_share_one_factor() -> None:
    """The factor is not copied for each sample: a batch of (2, 1) against samples and a batch of locations."""
    tril = torch.tensor(TRIL, dtype=torch.float64)
    d = dist.MultivariateNormal(LOC.expand(2, 4, 3), scale_tril=torch.stack([tril, 2 * tril]).unsqueeze(1))
    x = d.sample((7, 5))
    assert d.batch_shape == (2, 4) and x.shape == (7, 5, 2, 4, 3)
    for i in range(2):
        expected = st.multivariate_normal(LOC3, ((i + 1) ** 2 * tril @ tril.mT).numpy()).logpdf(x[:, :, i].numpy())
        np.testing.assert_allclose(d.log_prob(x)[:, :, i], expected, rtol=1e-9)


class TestNanMasked:
    def test_missing_entries_are_integrated_out(self) -> None:
        d = dist.NanMaskedMultivariateNormal(LOC, COVARIANCE)
        x = torch.tensor([0.3, 0.7, -0.2], dtype=torch.float64)
        for kept in ([0], [1, 2], [0, 2], [0, 1, 2]):
            value = torch.full((3,), float("nan"), dtype=torch.float64)
            value[kept] = x[kept]
            expected = st.multivariate_normal(LOC.numpy()[kept], COVARIANCE.numpy()[np.ix_(kept, kept)]).logpdf(
                x[kept].numpy()
            )
            assert float(d.log_prob(value)) == pytest.approx(float(expected), rel=1e-12)
        assert float(d.log_prob(torch.full((3,), float("nan"), dtype=torch.float64))) == 0.0

    def test_gradients_are_never_nan(self) -> None:
        value = torch.tensor([[0.3, float("nan"), 1.0], [float("nan")] * 3], dtype=torch.float64)
        loc, covariance = LOC.clone().requires_grad_(), COVARIANCE.clone().requires_grad_()
        found = dist.NanMaskedMultivariateNormal(loc, covariance).log_prob(value)
        for gradient in torch.autograd.grad(found.sum(), [loc, covariance]):
            assert gradient.isfinite().all()
        scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
        single = dist.NanMaskedNormal(loc, scale).log_prob(value)
        assert torch.equal(single == 0, value.isnan())
        for gradient in torch.autograd.grad(single.sum(), [loc, scale]):
            assert gradient.isfinite().all()


def test_student_marginals() -> None:
    torch.manual_seed(0)
    tril = torch.tensor(TRIL, dtype=torch.float64)
    d = dist.MultivariateStudentT(3.5, LOC, tril)
    x = (d.sample((5000,)) - LOC) / tril.square().sum(-1).sqrt()
    for i in range(3):
        assert st.kstest(x[:, i].numpy(), st.t(3.5).cdf).pvalue > 1e-3  # three tests
    torch.testing.assert_close(d.covariance_matrix, 3.5 / 1.5 * tril @ tril.mT)
    few = dist.MultivariateStudentT(torch.tensor([0.5, 1.5]), 0.0, torch.eye(2))
    assert few.mean.isnan().tolist() == [[True, True], [False, False]]
    assert few.variance.isnan().all(-1).tolist() == [True, False] and few.variance[1].isinf().all()


def test_matrix_normal_is_a_kronecker_product() -> None:
    torch.manual_seed(0)
    row = torch.tensor([[1.0, 0.0], [0.4, 0.6]], dtype=torch.float64)
    column = torch.tensor(TRIL, dtype=torch.float64)
    d = dist.MatrixNormal(torch.zeros(2, 3, dtype=torch.float64), row, column)
    x = d.sample((20_000,)).flatten(1)
    expected = torch.kron(row @ row.mT, column @ column.mT)
    spread = (expected.square() + expected.diagonal()[:, None] * expected.diagonal()).sqrt() / 20_000**0.5
    assert ((x.mT @ x / 20_000 - expected).abs() < 4.5 * spread).all()
    flat = dist.MultivariateNormal(0.0, expected)
    torch.testing.assert_close(d.log_prob(x[:5].unflatten(1, (2, 3))), flat.log_prob(x[:5]))
    torch.testing.assert_close(d.entropy(), flat.entropy())
