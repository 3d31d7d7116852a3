"""KL divergences against Monte Carlo and against torch, their dispatch and their errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import ppl.distributions as dist
from ppl.distributions import kl, transforms


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def t(*values: Any) -> torch.Tensor:
    return torch.tensor(values)


COVARIANCE = torch.tensor([[1.3, 0.4], [0.4, 0.9]])
EXP = transforms.ExpTransform()
PAIRS: dict[str, Any] = {
    "LogNormal": (dist.LogNormal(t(0.5, -1.0), t(0.7, 1.2)), dist.LogNormal(t(0.0, 0.3), 1.1)),
    "HalfCauchy": (dist.HalfCauchy(t(0.7, 1.2)), dist.HalfCauchy(1.5)),
    "HalfNormal": (dist.HalfNormal(t(0.7, 1.2)), dist.HalfNormal(1.5)),
    "InverseGamma": (dist.InverseGamma(t(3.0, 4.0), 2.0), dist.InverseGamma(2.5, t(1.0, 3.0))),
    "Weibull": (dist.Weibull(t(1.0, 2.0), t(1.5, 0.9)), dist.Weibull(1.3, 1.1)),
    "VonMises": (dist.VonMises(t(0.5, -1.0), t(2.0, 0.4)), dist.VonMises(0.0, 1.0)),
    "Bernoulli": (dist.Bernoulli(t(0.2, 0.7)), dist.Bernoulli(t(0.5, 0.4))),
    "Categorical": (dist.Categorical(t([0.2, 0.8, 0.0], [0.3, 0.3, 0.4])), dist.Categorical(t(0.5, 0.3, 0.2))),
    "OneHotCategorical": (dist.OneHotCategorical(t([0.2, 0.8], [0.5, 0.5])), dist.OneHotCategorical(t(0.5, 0.5))),
    "Dirichlet": (dist.Dirichlet(t([0.7, 1.5], [2.0, 3.0])), dist.Dirichlet(t(1.0, 1.5))),
    "Wishart": (dist.Wishart(t(4.0), COVARIANCE), dist.Wishart(t(5.5), torch.eye(2))),
    "Pareto": (dist.Pareto(t(2.0, 1.5), 3.0), dist.Pareto(1.5, 2.0)),
    "Gumbel": (dist.Gumbel(t(0.5, -1.0), 1.5), dist.Gumbel(0.0, 1.0)),
    "Independent": (dist.Normal(torch.zeros(2, 3), 1.0).to_event(1), dist.Normal(0.5, 2.0).expand((3,)).to_event(1)),
    "IndependentDeep": (
        dist.Normal(torch.zeros(4, 2, 3), 1.0).to_event(2),
        dist.Normal(0.5, 2.0).expand((2, 3)).to_event(1).to_event(1),
    ),
    "Diagonal": (
        dist.Normal(t(0.5, -1.0), t(0.7, 1.2)).to_event(1),
        dist.MultivariateNormal(torch.zeros(2), COVARIANCE),
    ),
    "ToDiagonal": (
        dist.MultivariateNormal(torch.zeros(2), COVARIANCE),
        dist.Normal(t(0.5, -1.0), t(0.7, 1.2)).to_event(1),
    ),
    "LowRank": (
        dist.LowRankMultivariateNormal(torch.zeros(2), t([0.5], [1.0]), t(1.0, 0.5)),
        dist.MultivariateNormal(t(0.3, 0.1), COVARIANCE),
    ),
    "Expanded": (
        dist.ExpandedDistribution(dist.Normal(t(0.5, -1.0), 1.2), (3, 2)),
        dist.ExpandedDistribution(dist.Normal(0.0, 1.0), (2,)),
    ),
    "ExpandedLeft": (dist.ExpandedDistribution(dist.Normal(0.5, 1.2), (2,)), dist.Normal(0.0, t(1.0, 2.0))),
    "ExpandedRight": (dist.Normal(0.0, t(1.0, 2.0)), dist.ExpandedDistribution(dist.Normal(0.5, 1.2), (3, 1))),
    "Transformed": (
        dist.TransformedDistribution(dist.Normal(t(0.5, -1.0), 1.2), [EXP]),
        dist.TransformedDistribution(dist.Normal(0.0, 1.0), [EXP]),
    ),
    "Gamma": (dist.Gamma(t(2.0, 0.7), 1.5), dist.Gamma(1.0, t(1.0, 2.0))),
    "Chi2": (dist.Chi2(t(2.0, 3.0)), dist.Gamma(1.0, 1.0)),
    "Beta": (dist.Beta(t(2.0, 0.7), 1.5), dist.Beta(1.0, 2.0)),
    "Laplace": (dist.Laplace(t(0.5, -1.0), 1.2), dist.Laplace(0.0, 1.0)),
    "Cauchy": (dist.Cauchy(t(0.5, -1.0), 1.2), dist.Cauchy(0.0, 1.0)),
    "Poisson": (dist.Poisson(t(0.5, 4.0)), dist.Poisson(1.0)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_agrees_with_monte_carlo(name: str) -> None:
    """Thirty tests within four and a half standard errors, at a fixed seed."""
    torch.manual_seed(0)
    p, q = PAIRS[name]
    batch = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    x = p.expand(batch).sample((40_000,))
    ratio = p.log_prob(x) - q.log_prob(x)
    found = dist.kl_divergence(p, q)
    assert found.shape == batch
    error = (ratio.mean(0) - found).abs()
    assert bool((error <= 4.5 * ratio.std(0) / 200 + 1e-12).all()), (ratio.mean(0), found)
    assert bool((found >= 0).all())
    same = dist.kl_divergence(p, p)
    torch.testing.assert_close(same, torch.zeros_like(same), rtol=0.0, atol=1e-12)


def test_masked_counts_where_both_do() -> None:
    p, q = dist.Normal(torch.zeros(3), 1.0), dist.Normal(torch.ones(3), 1.0)
    assert dist.kl_divergence(p.mask(torch.tensor([True, False, True])), q).tolist() == [0.5, 0.0, 0.5]
    assert dist.kl_divergence(p, q.mask(torch.tensor([True, True, False]))).tolist() == [0.5, 0.5, 0.0]
    both = dist.kl_divergence(p.mask(torch.tensor([True, False, True])), q.mask(torch.tensor([True, True, False])))
    assert both.tolist() == [0.5, 0.0, 0.0]
    assert dist.kl_divergence(p.mask(False), q).tolist() == [0.0, 0.0, 0.0]


def test_delta() -> None:
    q = dist.Normal(t(0.0, 1.0), 2.0)
    torch.testing.assert_close(dist.kl_divergence(dist.Delta(t(0.5, 0.7)), q), -q.log_prob(t(0.5, 0.7)))
    vector = dist.kl_divergence(dist.Delta(t(0.5, 0.7), event_dim=1), q.to_event(1))
    torch.testing.assert_close(vector, -q.log_prob(t(0.5, 0.7)).sum())
    assert dist.kl_divergence(dist.Delta(t(0.5, 0.7)), q.mask(torch.tensor([False, True])))[0] == 0.0


def test_probabilities_of_zero() -> None:
    p = t(0.0, 1.0, 0.3, 0.0, 1.0).requires_grad_()
    found = dist.kl_divergence(dist.Bernoulli(p), dist.Bernoulli(t(0.0, 1.0, 0.0, 0.5, 0.0)))
    torch.testing.assert_close(
        found, t(0.0, 0.0, torch.inf, 0.5, torch.inf).where(t(1, 1, 1, 0, 1).bool(), t(2.0).log())
    )
    impossible = dist.kl_divergence(dist.Categorical(t(0.5, 0.5, 0.0)), dist.Categorical(t(1.0, 0.0, 0.0)))
    assert impossible == torch.inf
    fine = dist.kl_divergence(dist.Categorical(t(1.0, 0.0, 0.0)), dist.Categorical(t(0.5, 0.0, 0.5)))
    torch.testing.assert_close(fine, t(2.0).log()[0])


def test_the_most_specific_pair_wins() -> None:
    class Mine(dist.Normal):
        """Nothing new."""

    p, q = Mine(0.0, 1.0), dist.Normal(1.0, 1.0)
    assert dist.kl_divergence(p, q) == 0.5  # torch's own pair serves subclasses
    before = dict(torch.distributions.kl._KL_REGISTRY)
    try:
        dist.register_kl(Mine, dist.Normal)(lambda p, q: torch.tensor(7.0))
        assert dist.kl_divergence(p, q) == 7.0 and dist.kl_divergence(q, q) == 0.0
        assert torch.distributions.kl_divergence(p, q) == 0.5 and before == torch.distributions.kl._KL_REGISTRY
    finally:
        del kl._registry[Mine, dist.Normal]


def test_errors() -> None:
    normal = dist.Normal(0.0, 1.0)
    with pytest.raises(NotImplementedError, match=r"KL\(StudentT \|\| Normal\) has no closed form(.|\n)*register_kl"):
        dist.kl_divergence(dist.StudentT(3.0), normal)
    mixture = dist.MixtureSameFamily(dist.Categorical(t(0.5, 0.5)), dist.Normal(t(0.0, 1.0), 1.0))
    for pair in ((mixture, normal), (normal, mixture), (mixture, mixture), (mixture.mask(True), normal)):
        with pytest.raises(NotImplementedError, match=r"MixtureSameFamily(.|\n)*p.sample\(\(1000,\)\)"):
            dist.kl_divergence(*pair)
    square = transforms.AffineTransform(0.0, 2.0)
    with pytest.raises(NotImplementedError, match="equal, bijective transforms"):
        dist.kl_divergence(dist.TransformedDistribution(normal, [EXP]), dist.TransformedDistribution(normal, [square]))
    with pytest.raises(ValueError, match="expected two classes of distributions"):
        dist.register_kl(normal, dist.Normal)  # type: ignore[arg-type]
