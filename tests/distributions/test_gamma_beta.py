"""What the table of distributions does not see of the gamma and beta families: edges, conjugacy, divergences, limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributions import kl_divergence

import ppl.distributions as dist

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


@DTYPES
def test_densities_at_the_edges(dtype: torch.dtype) -> None:
    zero, a = torch.zeros(3, dtype=dtype), torch.tensor([0.5, 1.0, 2.0], dtype=dtype)
    assert dist.Gamma(a, torch.ones_like(a)).log_prob(zero).tolist() == [torch.inf, 0.0, -torch.inf]
    assert dist.Beta(a, torch.ones_like(a)).log_prob(zero).tolist()[::2] == [torch.inf, -torch.inf]
    assert dist.Beta(torch.ones_like(a), a).log_prob(zero + 1).tolist()[::2] == [torch.inf, -torch.inf]
    torch.testing.assert_close(dist.Beta(a[1], a).log_prob(zero), a.log())


@DTYPES
def test_gradients_at_the_edges_are_finite_where_the_density_is(dtype: torch.dtype) -> None:
    x = torch.zeros((), dtype=dtype, requires_grad=True)
    rate = torch.tensor(2.0, dtype=dtype, requires_grad=True)
    one = torch.ones((), dtype=dtype)
    d_x, d_rate = torch.autograd.grad(dist.Gamma(one, rate).log_prob(x), [x, rate])
    assert (d_x.item(), d_rate.item()) == (-2.0, 0.5)
    (d_x,) = torch.autograd.grad(dist.Beta(one, 3 * one).log_prob(x), [x])
    assert d_x.item() == pytest.approx(-2.0)
    (d_x,) = torch.autograd.grad(dist.Kumaraswamy(one, 3 * one).log_prob(x), [x])
    assert torch.isfinite(d_x)


def _integral(log_f: Any, low: float, high: float) -> torch.Tensor:
    x = torch.linspace(low, high, 200_001, dtype=torch.float64)[1:-1]
    return log_f(x).exp().sum() * (high - low) / 200_000


def test_beta_conjugate_update() -> None:
    prior, other = dist.Beta(2.0, 3.5), dist.Beta(4.0, 2.0)
    updated, log_normalizer = prior.conjugate_update(other)
    x = torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(
        prior.log_prob(x) + other.log_prob(x), updated.log_prob(x) + log_normalizer, rtol=1e-5, atol=1e-5
    )
    both = _integral(lambda x: prior.log_prob(x) + other.log_prob(x), 0.0, 1.0)
    torch.testing.assert_close(log_normalizer.double(), both.log(), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"Beta.conjugate_update needs a Beta .* got Gamma"):
        prior.conjugate_update(dist.Gamma(1.0, 1.0))


def test_gamma_conjugate_update() -> None:
    prior, other = dist.Gamma(2.0, 3.5), dist.Gamma(4.0, 2.0)
    updated, log_normalizer = prior.conjugate_update(other)
    x = torch.tensor([0.1, 0.5, 5.0])
    torch.testing.assert_close(
        prior.log_prob(x) + other.log_prob(x), updated.log_prob(x) + log_normalizer, rtol=1e-5, atol=1e-5
    )
    both = _integral(lambda x: prior.log_prob(x) + other.log_prob(x), 0.0, 40.0)
    torch.testing.assert_close(log_normalizer.double(), both.log(), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"Gamma.conjugate_update needs a Gamma .* got Beta"):
        prior.conjugate_update(dist.Beta(1.0, 1.0))


def test_conjugate_update_is_the_posterior_of_counts() -> None:
    successes, trials = 7, 10
    posterior, _ = dist.Beta(2.0, 2.0).conjugate_update(dist.Beta(1.0 + successes, 1.0 + trials - successes))
    assert (posterior.concentration1.item(), posterior.concentration0.item()) == (9.0, 5.0)


PAIRS = [
    (dist.Gamma(2.0, 3.0), dist.Gamma(1.5, 2.0)),
    (dist.Gamma(2.0, 3.0), dist.Exponential(2.0)),
    (dist.Exponential(2.0), dist.Gamma(1.5, 2.0)),
    (dist.Exponential(2.0), dist.Exponential(0.7)),
    (dist.Chi2(3.0), dist.Gamma(2.0, 1.0)),
    (dist.Beta(2.0, 3.0), dist.Beta(1.5, 2.5)),
    (dist.Beta(2.0, 3.0), dist.Gamma(1.5, 2.5)),
    (dist.BetaProportion(0.4, 5.0), dist.Beta(1.5, 2.5)),
    (dist.Uniform(0.2, 0.7), dist.Beta(1.5, 2.5)),
    (dist.Uniform(0.2, 0.7), dist.Uniform(0.0, 1.0)),
    (dist.Pareto(1.5, 2.5), dist.Gamma(1.5, 2.0)),
    (dist.ContinuousBernoulli(0.3), dist.ContinuousBernoulli(0.8)),
    (dist.ContinuousBernoulli(0.3), dist.Exponential(2.0)),
    (dist.HalfNormal(1.0), dist.HalfNormal(2.0)),
]


@pytest.mark.parametrize(("p", "q"), PAIRS, ids=lambda d: type(d).__name__)
def test_kl_of_torch_holds(p: Any, q: Any) -> None:
    torch.manual_seed(0)
    x = p.sample((40_000,))
    difference = p.log_prob(x) - q.log_prob(x)
    error = difference.std() / 200 + 1e-6
    assert abs(kl_divergence(p, q) - difference.mean()) < 4 * error


def test_instances_of_torchs_classes() -> None:
    made = {
        "Beta": dist.Beta(1.0, 1.0),
        "Gamma": dist.Gamma(1.0, 1.0),
        "Chi2": dist.Chi2(1.0),
        "InverseGamma": dist.InverseGamma(1.0, 1.0),
        "Exponential": dist.Exponential(1.0),
        "StudentT": dist.StudentT(1.0),
        "FisherSnedecor": dist.FisherSnedecor(1.0, 1.0),
        "Weibull": dist.Weibull(1.0, 1.0),
        "Pareto": dist.Pareto(1.0, 1.0),
        "GeneralizedPareto": dist.GeneralizedPareto(0.0, 1.0, 0.1),
        "Kumaraswamy": dist.Kumaraswamy(1.0, 1.0),
        "ContinuousBernoulli": dist.ContinuousBernoulli(0.5),
        "Uniform": dist.Uniform(0.0, 1.0),
    }
    for name, d in made.items():
        assert isinstance(d, getattr(torch.distributions, name))
    assert isinstance(made["Chi2"], dist.Gamma)


TRANSFORMED = [
    dist.InverseGamma(2.0, 3.0),
    dist.Weibull(2.0, 3.0),
    dist.Pareto(2.0, 3.0),
    dist.Kumaraswamy(2.0, 3.0),
    dist.HalfNormal(2.0),
    dist.HalfCauchy(2.0),
    dist.LogNormal(0.5, 2.0),
]


@pytest.mark.parametrize("d", TRANSFORMED, ids=lambda d: type(d).__name__)
def test_base_and_transforms_draw_the_same_law(d: Any) -> None:
    torch.manual_seed(0)
    x = d.base_dist.sample((5000,))
    for transform in d.transforms:
        x = transform(x)
    u = d.cdf(x).sort().values  # Kolmogorov-Smirnov at p = 1e-6: 2.69 / sqrt(n)
    assert (u - torch.arange(1, 5001) / 5000).abs().max() < 2.69 / 5000**0.5


@DTYPES
@pytest.mark.parametrize("concentration", [1e-3, 1e-2, 1e6])
def test_draws_stay_inside_at_extreme_concentrations(concentration: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    c = torch.tensor(concentration, dtype=dtype)
    made = [dist.Gamma(c, c), dist.Beta(c, c), dist.InverseGamma(c, c), dist.Kumaraswamy(c, c), dist.Chi2(c)]
    for d in made:
        x = d.sample((2000,))
        assert (x > 0).all()
        finite = x[x < torch.inf]
        assert d.log_prob(finite).isfinite().all(), d
        if d.support is torch.distributions.constraints.unit_interval:
            assert (x < 1).all()
    x = dist.Beta(c, c).sample((2000,))
    assert 0.4 < (x < 0.5).double().mean() < 0.6


def test_entropies_at_large_concentrations() -> None:
    c = torch.tensor(1e6)
    normal = 0.5 * torch.log(2 * torch.pi * torch.e * torch.tensor(1.0))
    assert dist.Gamma(c, c).entropy().item() == pytest.approx((normal - 0.5 * c.log()).item(), abs=1e-4)
    assert dist.Beta(c, c).entropy().item() == pytest.approx((normal - 0.5 * (8 * c).log()).item(), abs=1e-4)
    assert dist.StudentT(torch.tensor(1e8)).entropy().item() == pytest.approx(normal.item(), abs=1e-4)


@pytest.mark.parametrize("family", [dist.Uniform, dist.LogUniform])
def test_ends_in_the_wrong_order(family: Any) -> None:
    with pytest.raises(ValueError, match=rf"{family.__name__}: argument 'low' must be less than 'high'"):
        family(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0]))


def test_continuous_bernoulli_takes_one_parametrisation() -> None:
    for kwargs in ({}, {"probs": 0.5, "logits": 0.0}):
        with pytest.raises(ValueError, match="either 'probs' or 'logits'"):
            dist.ContinuousBernoulli(**kwargs)


def test_log_tails_beyond_what_floats_hold() -> None:
    far = torch.tensor(2000.0)
    assert dist.Gamma(2.0, 1.0).log_survival(far).item() == pytest.approx(-2000 + 7.6014, abs=1e-2)
    assert dist.HalfNormal(1.0).log_survival(torch.tensor(100.0)).item() == pytest.approx(-5004.83, abs=0.1)
    assert dist.Exponential(1.0).log_survival(far).item() == -2000.0
    tiny = torch.tensor(1e-30)
    assert dist.Beta(3.0, 2.0).log_cdf(tiny).item() == pytest.approx(-205.85, abs=0.01)
