"""Mixtures, censoring and gates where the table does not look: other spellings, chosen branches, limits, errors."""

from __future__ import annotations

import pytest
import torch

import ppl.distributions as dist


def test_spellings_of_mixtures() -> None:
    weights, parts = dist.Categorical(torch.tensor([0.3, 0.7])), dist.Normal(torch.tensor([0.0, 2.0]), 1.0)
    x = torch.tensor([0.5, -1.0])
    a = dist.MixtureSameFamily(weights, parts)
    b = dist.MixtureSameFamily(mixing_distribution=weights, component_distribution=parts)
    c = dist.Mixture(weights, parts)
    d = dist.Mixture(weights, [dist.Normal(0.0, 1.0), dist.Normal(2.0, 1.0)])
    assert isinstance(c, dist.MixtureSameFamily) and isinstance(d, dist.MixtureGeneral)
    for other in (b, c, d):
        torch.testing.assert_close(other.log_prob(x), a.log_prob(x))
        torch.testing.assert_close(other.component_log_probs(x).logsumexp(-1), a.log_prob(x))
        torch.testing.assert_close(other.mean, a.mean)
    assert a.mixture_distribution is a.mixing_distribution
    assert a.support is dist.constraints.real


def test_components_of_different_supports() -> None:
    weights = dist.Categorical(torch.tensor([0.5, 0.5]))
    uniforms = dist.MixtureSameFamily(weights, dist.Uniform(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 3.0])))
    torch.testing.assert_close(uniforms.log_prob(torch.tensor([0.5, 2.5])).exp(), torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="must lie in the support"):
        uniforms.log_prob(torch.tensor(1.5))
    with pytest.raises(ValueError, match="supports differ"):
        dist.MixtureGeneral(weights, [dist.Normal(0.0, 1.0), dist.LogNormal(0.0, 1.0)])
    mixed = dist.MixtureGeneral(
        weights, [dist.Normal(0.0, 1.0), dist.LogNormal(0.0, 1.0)], support=dist.constraints.real
    )
    x = torch.tensor([-1.0, 1.0], requires_grad=True)
    log_prob = mixed.log_prob(x)
    torch.testing.assert_close(log_prob[0], dist.Normal(0.0, 1.0).log_prob(x[0]) - torch.tensor(2.0).log())
    assert torch.autograd.grad(log_prob.sum(), [x])[0].isfinite().all()


def test_a_weight_of_zero() -> None:
    d = dist.MixtureSameFamily(dist.Categorical(torch.tensor([1.0, 0.0])), dist.Normal(torch.tensor([0.0, 50.0]), 1.0))
    x = torch.tensor(50.0)
    torch.testing.assert_close(d.log_prob(x), dist.Normal(0.0, 1.0).log_prob(x))


def test_errors_of_mixtures() -> None:
    weights, parts = dist.Categorical(torch.ones(3)), dist.Normal(torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match="must equal the mixing distribution's number of categories, 3"):
        dist.MixtureSameFamily(weights, parts)
    with pytest.raises(ValueError, match="must be a Categorical, but got Normal"):
        dist.MixtureSameFamily(dist.Normal(0.0, 1.0), parts)
    with pytest.raises(ValueError, match="2 component_distributions, but the mixing distribution has 3"):
        dist.MixtureGeneral(weights, [dist.Normal(0.0, 1.0)] * 2)
    with pytest.raises(ValueError, match=r"dtype torch.bool, but got torch.int64; write mask.bool\(\)"):
        dist.MaskedMixture(torch.ones(2, dtype=torch.int64), parts, parts)
    with pytest.raises(NotImplementedError, match="no reparameterised draws"):
        dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Poisson(torch.ones(2))).rsample()


def test_interval_censoring_has_four_cases() -> None:
    base = dist.Normal(torch.zeros(5, dtype=torch.float64, requires_grad=True), 1.0)
    left = torch.tensor([False, True, False, True, False])
    right = torch.tensor([False, False, True, True, False])
    d = dist.IntervalCensoredDistribution(base, left, right)
    nan = torch.nan
    value = torch.tensor([[38.0, 39.0], [nan, -20.0], [20.0, nan], [nan, nan], [0.5, 0.5]], dtype=torch.float64)
    found = d.log_prob(value)
    expected = [
        dist.TruncatedNormal(0.0, torch.ones((), dtype=torch.float64), low=38.0, high=39.0)._tails().log_mass,
        base.log_cdf(torch.tensor(-20.0).double())[0],
        base.log_survival(torch.tensor(20.0).double())[0],
        torch.zeros((), dtype=torch.float64),
        base.log_prob(torch.tensor(0.5).double())[0],
    ]
    torch.testing.assert_close(found, torch.stack(expected))
    assert torch.autograd.grad(found.sum(), [base.loc])[0].isfinite().all()
    value[0] = value[0].flip(-1)
    with pytest.raises(ValueError, match="lower is above upper in 1 of 5"):
        d.log_prob(value)


def test_the_unused_branch_gives_no_nan() -> None:
    scale = torch.tensor(1.5, requires_grad=True)
    censored = torch.tensor([True, False])
    for cls in (dist.LeftCensoredDistribution, dist.RightCensoredDistribution):
        d = cls(dist.LogNormal(0.0, scale), censored)
        log_prob = d.log_prob(torch.tensor([1e-30, 1e30]))
        assert log_prob.isfinite().all()
        assert torch.autograd.grad(log_prob.sum(), [scale])[0].isfinite()


@pytest.mark.parametrize("gate", [0.0, 1e-12, 0.3, 1.0 - 1e-12, 1.0])
@pytest.mark.parametrize("rate", [1e-6, 2.0, 900.0])
def test_gates_at_their_ends_have_gradients(gate: float, rate: float) -> None:
    g = torch.tensor(gate, dtype=torch.float64, requires_grad=True)
    d = dist.ZeroInflatedPoisson(torch.tensor(rate, dtype=torch.float64), g)
    log_prob = d.log_prob(torch.tensor(0.0, dtype=torch.float64))
    p = torch.tensor(-rate, dtype=torch.float64).exp()
    (slope,) = torch.autograd.grad(log_prob, [g])
    assert not log_prob.isnan() and not slope.isnan()
    if gate > 0 or rate < 100:
        torch.testing.assert_close(slope, (1 - p) / (gate + (1 - gate) * p), rtol=1e-6, atol=0.0)


def test_errors_of_gates() -> None:
    with pytest.raises(ValueError, match=r"either gate .* or gate_logits"):
        dist.ZeroInflatedPoisson(1.0)
    with pytest.raises(ValueError, match="write HurdleDistribution"):
        dist.ZeroInflatedDistribution(dist.Normal(0.0, 1.0), 0.5)
    with pytest.raises(ValueError, match="must be positive, but Normal"):
        dist.HurdleDistribution(dist.Normal(0.0, 1.0), 0.5)
    with pytest.raises(ValueError, match="argument 'gate' must satisfy unit_interval"):
        dist.HurdlePoisson(gate=1.5, rate=1.0)
