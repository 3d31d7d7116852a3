"""Truncated distributions where the table does not look: infinite bounds, draws far out, errors, gradients of draws."""

from __future__ import annotations

from typing import Any

import pytest
import scipy.stats as st
import torch

import ppl.distributions as dist


@pytest.mark.parametrize(("low", "high"), [(-40.0, -38.0), (38.0, 40.0), (10.0, None), (None, -20.0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_draws_far_out_fit(low: float | None, high: float | None, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    d = dist.TruncatedNormal(torch.zeros((), dtype=dtype), 1.0, low=low, high=high)
    x = d.sample((5000,))
    assert x.dtype == dtype and bool(d.support.check(x).all())
    assert bool(d.log_prob(x).isfinite().all())
    p = d.cdf(x).double().numpy()
    assert st.kstest(p, st.uniform.cdf).pvalue > 1e-3
    error = (x.double().mean() - d.mean.double()).abs() / (d.variance.double() / 5000) ** 0.5
    assert error < 4  # standard errors


def test_a_bound_may_be_infinite_in_some_entries() -> None:
    low, high = torch.tensor([0.0, 1.0, -torch.inf]), torch.tensor([torch.inf, 2.0, 0.5])
    loc, scale = torch.tensor([-0.7, 2.5, 0.0], requires_grad=True), torch.tensor(1.3, requires_grad=True)
    for family in (dist.Normal, dist.Cauchy, dist.Laplace):
        d = dist.TruncatedDistribution(family(loc, scale), low, high)
        one_sided = dist.LeftTruncatedDistribution(family(loc[0], scale), 0.0)
        x = d.rsample((10,))
        torch.testing.assert_close(d.log_prob(x)[:, 0], one_sided.log_prob(x[:, 0]))
        for result in (d.log_prob(x.detach()), x, d.cdf(x.detach())):
            assert all(g.isfinite().all() for g in torch.autograd.grad(result.sum(), [loc, scale], retain_graph=True))


def test_no_bound_is_the_base() -> None:
    d, x = dist.TruncatedNormal(0.5, 2.0), torch.tensor([-1.0, 3.0])
    torch.testing.assert_close(d.log_prob(x), dist.Normal(0.5, 2.0).log_prob(x))
    torch.testing.assert_close(d.mean, torch.tensor(0.5))
    assert d.sample((3,)).shape == (3,)


@pytest.mark.parametrize("family", [dist.Normal, dist.Cauchy, dist.Laplace, dist.LogNormal])
@pytest.mark.parametrize(("low", "high"), [(0.5, 2.0), (0.5, None), (None, 1.0), (6.0, 9.0)])
def test_quantiles_have_gradients_in_all_arguments(family: Any, low: float | None, high: float | None) -> None:
    bounds = {k: torch.tensor(v).double() for k, v in (("low", low), ("high", high)) if v is not None}
    u = torch.tensor([0.1, 0.5, 0.93], dtype=torch.float64)
    arguments = [torch.tensor(v, dtype=torch.float64) for v in (0.3, 0.8)] + list(bounds.values())

    def quantile(loc: torch.Tensor, scale: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        with dist.validation_enabled(False):
            base = family(loc, scale)
            return dist.TruncatedDistribution(base, **dict(zip(bounds, values, strict=True))).icdf(u)

    assert torch.autograd.gradcheck(quantile, [a.requires_grad_() for a in arguments])


def test_a_sliver_is_uniform() -> None:
    low = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    d = dist.TruncatedNormal(0.0, torch.tensor(1.0, dtype=torch.float64), low=low, high=low + 1e-12)
    x = d.rsample((100,))
    width = float((d.high - d.low).detach())
    torch.testing.assert_close(d.log_prob(x).exp() * width, torch.ones(100, dtype=torch.float64), rtol=1e-6, atol=0)
    (slope,) = torch.autograd.grad(x.sum(), [low])
    torch.testing.assert_close(slope, torch.tensor(100.0, dtype=torch.float64))  # the sliver moves as a whole


def test_truncation_of_truncation() -> None:
    d = dist.TruncatedDistribution(dist.TruncatedNormal(0.0, 1.0, low=-1.0), high=2.0)
    whole = dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.0)
    x = torch.linspace(-0.99, 1.99, 9)
    torch.testing.assert_close(d.log_prob(x), whole.log_prob(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(d.icdf(torch.tensor(0.3)), whole.icdf(torch.tensor(0.3)))


def test_a_foreign_base() -> None:
    d = dist.TruncatedDistribution(torch.distributions.Gumbel(0.5, 1.5), 0.0, 2.0)
    x = d.sample((1000,))
    assert bool(((x >= 0) & (x <= 2)).all())
    assert float(d.log_prob(torch.linspace(0.001, 1.999, 1000)).exp().mean() * 2) == pytest.approx(1, abs=1e-3)


def test_errors() -> None:
    with pytest.raises(ValueError, match="TruncatedNormal: low must be below high, but low is 2 and high 1"):
        dist.TruncatedNormal(0.0, 1.0, low=2.0, high=1.0)
    with pytest.raises(ValueError, match="continuous and univariate, but got Poisson that is discrete"):
        dist.TruncatedDistribution(dist.Poisson(1.0), high=3.0)
    with pytest.raises(ValueError, match="do not broadcast"):
        dist.TruncatedDistribution(dist.Normal(torch.zeros(3), 1.0), torch.zeros(2))
    with pytest.raises(ValueError, match="must be a Gamma, but got Normal"):
        dist.LeftTruncatedGamma(dist.Normal(0.0, 1.0), 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="argument 'scale' must satisfy positive"):
        dist.TruncatedNormal(0.0, -1.0, low=0.0)
