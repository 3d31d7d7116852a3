"""Wishart kin: marginals and moments of draws, one law by its two names, the relation between the four families."""

from __future__ import annotations

from typing import Any

import pytest
import scipy.stats as st
import torch
from case import COV

import ppl.distributions as dist

SCALE = torch.tensor(COV, dtype=torch.float64)
DF = torch.tensor(4.5, dtype=torch.float64)
FOUR = [dist.Wishart, dist.WishartCholesky, dist.InverseWishart, dist.InverseWishartCholesky]


def squares(d: Any, count: int) -> torch.Tensor:
    torch.manual_seed(0)
    x = d.sample((count,))
    return x @ x.mT if "Cholesky" in type(d).__name__ else x


@pytest.mark.parametrize("cls", [dist.Wishart, dist.WishartCholesky])
def test_quadratic_forms_are_chi_squared(cls: type) -> None:
    x = squares(cls(DF, SCALE), 5000)
    for v in torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, -2, 0.5]], dtype=torch.float64):  # eight tests
        ratio = (x @ v @ v) / (SCALE @ v @ v)
        assert st.kstest(ratio.numpy(), st.chi2(4.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize("cls", [dist.InverseWishart, dist.InverseWishartCholesky])
def test_quadratic_forms_of_the_inverse_are_chi_squared(cls: type) -> None:
    x = torch.linalg.inv(squares(cls(DF, SCALE), 5000))
    rate = torch.linalg.inv(SCALE)
    for v in torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, -2, 0.5]], dtype=torch.float64):  # eight tests
        assert st.kstest(((x @ v @ v) / (rate @ v @ v)).numpy(), st.chi2(4.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize("cls", FOUR)
def test_moments_and_entropy(cls: type) -> None:
    torch.manual_seed(0)
    d = cls(torch.tensor(12.5, dtype=torch.float64), SCALE)
    x = d.sample((20_000,))
    assert ((x.mean(0) - d.mean).abs() <= 4.5 * x.std(0) / 20_000**0.5 + 1e-12).all()
    if cls is not dist.InverseWishartCholesky:
        fourth = (x - d.mean).square()
        assert ((fourth.mean(0) - d.variance).abs() <= 4.5 * fourth.std(0) / 20_000**0.5 + 1e-12).all()
    log_prob = d.log_prob(x)
    assert (d.entropy() + log_prob.mean(0)).abs() <= 4.5 * log_prob.std(0) / 20_000**0.5


@pytest.mark.parametrize("cls", FOUR)
def test_parametrisations_agree(cls: type) -> None:
    names = ("covariance_matrix", "precision_matrix") if cls is dist.Wishart else ("scale_matrix", "rate_matrix")
    rate = torch.linalg.inv(SCALE)
    first = cls(DF, SCALE)
    by = [first, cls(DF, **{names[1]: (rate + rate.mT) / 2}), cls(DF, scale_tril=torch.linalg.cholesky(SCALE))]
    x = first.sample((4,))
    for d in by:
        e = d.expand((2,))
        torch.testing.assert_close(getattr(e, names[0]), SCALE.expand(2, 3, 3))
        torch.testing.assert_close(getattr(e, names[1]), rate.expand(2, 3, 3))
        torch.testing.assert_close(d.log_prob(x), first.log_prob(x))


def test_wishart_by_both_names() -> None:
    ours, theirs = dist.Wishart(4.5, SCALE), dist.Wishart(concentration=4.5, scale_matrix=SCALE)
    torch.testing.assert_close(ours.log_prob(SCALE), theirs.log_prob(SCALE))
    assert theirs.concentration is theirs.df and theirs.scale_matrix is theirs.covariance_matrix
    with pytest.raises(ValueError, match="'df' was given by both of its names"):
        dist.Wishart(4.5, SCALE, concentration=4.5)
    with pytest.raises(ValueError, match=r"'df' .* is missing"):
        dist.Wishart(covariance_matrix=SCALE)
    torch.testing.assert_close(
        dist.kl_divergence(ours, theirs), torch.zeros((), dtype=torch.float64), rtol=0.0, atol=1e-12
    )


@pytest.mark.parametrize("cls", FOUR)
def test_errors(cls: type) -> None:
    with pytest.raises(ValueError, match="give exactly one of"):
        cls(DF)
    with pytest.raises(ValueError, match="must be square"):
        cls(DF, SCALE[:2])
    with pytest.raises(ValueError, match=f"{cls.__name__}: argument '(df|concentration)' must satisfy"):
        cls(2.0, SCALE)
    bad = torch.stack([SCALE, -SCALE])
    with pytest.raises(ValueError, match=r"at index \(1,\)"):
        cls(DF, bad)


@pytest.mark.parametrize("cls", FOUR)
def test_outside_the_support(cls: type) -> None:
    with dist.validation_enabled(False):
        d = cls(DF, SCALE)
        outside = torch.stack([-SCALE, SCALE + torch.eye(3, dtype=torch.float64).roll(1, 0)])
        assert d.log_prob(outside).tolist() == [-torch.inf] * 2
        value = (-SCALE).requires_grad_()
        (gradient,) = torch.autograd.grad(d.log_prob(value), [value], allow_unused=True)
        assert gradient is None or not gradient.isnan().any()


def test_barely_enough_degrees_of_freedom() -> None:
    torch.manual_seed(0)
    for dtype in (torch.float64, torch.float32):
        x = dist.WishartCholesky(torch.tensor(2.001, dtype=dtype), scale_tril=torch.eye(3, dtype=dtype)).sample((200,))
        assert bool((x.diagonal(dim1=-2, dim2=-1) > 0).all())
