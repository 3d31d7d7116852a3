"""LKJ laws: marginals of their draws, edge sizes, concentrations from nearly 0 to huge."""

from __future__ import annotations

import math

import pytest
import scipy.stats as st
import torch

import ppl.distributions as dist


@pytest.mark.parametrize("method", ["onion", "cvine"])
@pytest.mark.parametrize(("dim", "concentration"), [(2, 0.5), (3, 1.0), (5, 2.5)])
def test_entries_are_scaled_betas(method: str, dim: int, concentration: float) -> None:
    torch.manual_seed(0)
    x = dist.LKJ(dim, torch.tensor(concentration, dtype=torch.float64), sample_method=method).sample((5000,))
    b = concentration - 1 + dim / 2
    for i in range(dim):  # 28 tests
        for j in range(i):
            assert st.kstest(x[:, i, j].numpy(), st.beta(b, b, -1, 2).cdf).pvalue > 1e-4
    assert torch.equal(x.diagonal(dim1=-2, dim2=-1), torch.ones(5000, dim, dtype=torch.float64))
    torch.testing.assert_close(x, x.mT)


@pytest.mark.parametrize("method", ["onion", "cvine"])
def test_determinants_are_products_of_betas(method: str) -> None:
    """The whole joint law: rows of the factor are independent, with squared diagonals that are betas."""
    torch.manual_seed(0)
    dim, concentration = 4, 1.7
    factor = dist.LKJCholesky(dim, torch.tensor(concentration, dtype=torch.float64), method).sample((5000,))
    for i in range(1, dim):  # five tests
        law = st.beta(concentration + (dim - 1 - i) / 2, i / 2)
        assert st.kstest(factor[:, i, i].square().numpy(), law.cdf).pvalue > 1e-3
        if i > 1:  # one entry of a uniform direction
            entry = factor[:, i, 0] / (1 - factor[:, i, i] ** 2).sqrt()
            assert st.kstest(entry.numpy(), st.beta((i - 1) / 2, (i - 1) / 2, -1, 2).cdf).pvalue > 1e-3
    rows = factor.diagonal(dim1=-2, dim2=-1)[:, 1:]
    assert (torch.corrcoef(rows.mT) - torch.eye(3)).abs().max() < 4.5 / 5000**0.5


@pytest.mark.parametrize("cls", [dist.LKJ, dist.LKJCholesky])
def test_moments(cls: type) -> None:
    torch.manual_seed(0)
    d = cls(4, torch.tensor([0.8, 3.0], dtype=torch.float64))
    x = d.sample((20_000,))
    spread = x.std(0) / 20_000**0.5
    assert ((x.mean(0) - d.mean).abs() <= 4.5 * spread + 1e-12).all()
    fourth = (x - d.mean).square()
    assert ((fourth.mean(0) - d.variance).abs() <= 4.5 * fourth.std(0) / 20_000**0.5 + 1e-12).all()
    log_prob = d.log_prob(x)
    assert ((d.entropy() + log_prob.mean(0)).abs() <= 4.5 * log_prob.std(0) / 20_000**0.5).all()


@pytest.mark.parametrize("cls", [dist.LKJ, dist.LKJCholesky])
@pytest.mark.parametrize("method", ["onion", "cvine"])
def test_size_one(cls: type, method: str) -> None:
    d = cls(1, torch.tensor([0.5, 2.0]), sample_method=method)
    assert d.sample((3,)).tolist() == [[[[1.0]]] * 2] * 3
    assert d.log_prob(torch.ones(1, 1)).tolist() == [0.0, 0.0]
    assert d.entropy().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("concentration", [0.01, 1e6])
@pytest.mark.parametrize("method", ["onion", "cvine"])
def test_extreme_concentrations_have_finite_densities(dtype: torch.dtype, concentration: float, method: str) -> None:
    torch.manual_seed(0)
    d = dist.LKJCholesky(4, torch.tensor(concentration, dtype=dtype), method)
    x = d.sample((500,))
    assert bool((x.diagonal(dim1=-2, dim2=-1) > 0).all()) and bool(d.log_prob(x).isfinite().all())
    if concentration > 1:
        torch.testing.assert_close(x.tril(-1).var(0), d.variance.tril(-1), rtol=0.3, atol=1e-9)


def test_uniform_volume_of_correlation_matrices() -> None:
    """At concentration 1 the normaliser is the volume of the set: 2 for one correlation, π²/2 for three."""
    one = torch.tensor(1.0, dtype=torch.float64)
    for dim, volume in ((2, 2.0), (3, math.pi**2 / 2)):
        got = dist.LKJ(dim, one).log_prob(torch.eye(dim, dtype=torch.float64))
        assert float(got) == pytest.approx(-math.log(volume), rel=1e-12)


def test_outside_the_support() -> None:
    bad = torch.tensor([[1.0, 1.2], [1.2, 1.0]])
    scaled = torch.tensor([[2.0, 0.3], [0.3, 2.0]])
    with dist.validation_enabled(False):
        assert dist.LKJ(2, 2.0).log_prob(torch.stack([bad, scaled])).tolist() == [-torch.inf] * 2
        assert dist.LKJCholesky(2, 2.0).log_prob(torch.stack([bad, scaled])).tolist() == [-torch.inf] * 2


def test_names_and_errors() -> None:
    assert dist.LKJ(dimension=3, concentration=2.0).dim == dist.LKJCholesky(3).dimension == 3
    assert dist.LKJ.infer_shapes(dimension=3, concentration=(2,)) == ((2,), (3, 3))
    for arguments in ({}, {"dim": 0}, {"dim": 2, "dimension": 2}, {"dim": 2.0}):
        with pytest.raises(ValueError, match="'dim'"):
            dist.LKJ(**arguments)
    with pytest.raises(ValueError, match="'sample_method' must be 'onion' or 'cvine'"):
        dist.LKJCholesky(2, 1.0, "vine")
    with pytest.raises(ValueError, match=r"write infer_shapes\(dim=3"):
        dist.LKJ.infer_shapes(concentration=())
    with pytest.raises(ValueError, match="LKJ: argument 'concentration' must satisfy positive"):
        dist.LKJ(2, -1.0)
