"""Gradients of rejection samplers (Naesseth et al. 2017), put together, against quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from rows_structures import Thinned
from scipy import integrate, stats

import ppl.distributions as dist
from ppl.distributions import transforms


class Accepts:
    """Marsaglia and Tsang's acceptance of x = (a - 1/3) (1 + c z)³ for a gamma draw, at a proposal known by its density."""

    def __init__(self, concentration: torch.Tensor, propose: dist.Distribution, log_scale: torch.Tensor) -> None:
        self.concentration, self.propose, self.log_scale = concentration, propose, log_scale

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        gamma = torch.distributions.Gamma(self.concentration, 1.0, validate_args=False)
        return gamma.log_prob(x) - self.propose.log_prob(x) + self.log_scale


def gamma_by_rejection(concentration: torch.Tensor) -> dist.Rejector:
    third = concentration - 1 / 3
    cubed = transforms.ComposeTransform(
        [transforms.AffineTransform(1.0, (9 * third).rsqrt()), transforms.PowerTransform(torch.tensor(3.0).double())]
    )
    # of normal draws only those with 1 + c z > 0 can be accepted; from a concentration of 3 on, a millionth is not
    propose = dist.TransformedDistribution(
        dist.Normal(torch.zeros((), dtype=torch.float64), 1.0),
        [*cubed.parts, transforms.AffineTransform(0.0, third)],
        validate_args=False,
    )
    # the density ratio's bound, at z = 0
    at_mode = third
    gamma = torch.distributions.Gamma(concentration, 1.0, validate_args=False)
    log_scale = propose.log_prob(at_mode) - gamma.log_prob(at_mode)
    return dist.Rejector(propose, Accepts(concentration, propose, log_scale), log_scale, validate_args=False)


def test_exponential_by_thinning() -> None:
    rate = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    tilt = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    d = dist.Rejector(dist.Exponential(rate), Thinned(tilt), (rate / (rate + tilt)).log())
    blocks = []
    for _ in range(50):
        x = d.rsample((1000,))
        f = x.tanh()
        score = d.score_parts(x.detach().requires_grad_(False)).score_function
        # the score's own gradient runs through the draw, too: of log_prob_accept(x(noise, θ))
        score = d.score_parts(x).score_function
        blocks.append(torch.stack(torch.autograd.grad((f + f.detach() * score).mean(), [rate, tilt])))
    found = torch.stack(blocks)
    total = 2.2

    def mean(r: float) -> float:
        return float(integrate.quad(lambda x: math.tanh(x) * r * math.exp(-r * x), 0, 50)[0])

    slope = (mean(total + 1e-4) - mean(total - 1e-4)) / 2e-4
    error = (found.mean(0) - slope).abs() / (found.std(0) / 50**0.5)
    assert (error < 4).all(), (found.mean(0), slope)


def test_gamma_by_rejection() -> None:
    concentration = torch.tensor(3.7, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    d = gamma_by_rejection(concentration)
    x = d.sample((4000,))
    assert stats.kstest(x.numpy(), stats.gamma(3.7).cdf).pvalue > 1e-3
    np.testing.assert_allclose(d.log_prob(x).detach(), stats.gamma(3.7).logpdf(x), rtol=1e-9)
    blocks = []
    for _ in range(50):
        x = d.rsample((1000,))
        f = x.sqrt()
        parts = d.score_parts(x)
        blocks.append(torch.autograd.grad((f + f.detach() * parts.score_function).mean(), concentration)[0])
    found = torch.stack(blocks)
    # E √x = Γ(a + 1/2) / Γ(a)
    a = concentration.detach()
    truth = (torch.lgamma(a + 0.5) - torch.lgamma(a)).exp() * (torch.digamma(a + 0.5) - torch.digamma(a))
    assert (found.mean() - truth).abs() < 4 * found.std() / 50**0.5


def test_parts_without_a_reparameterised_proposal() -> None:
    d = dist.Rejector(dist.Exponential(torch.tensor(1.0)), Thinned(torch.tensor(0.5)), math.log(2 / 3))
    x = d.sample((5,))
    parts = d.has_rsample_(False).score_parts(x)
    assert torch.equal(parts.score_function, parts.log_prob) and parts.entropy_term == 0.0


def test_expand_keeps_the_parts() -> None:
    d = dist.Rejector(
        dist.Exponential(torch.tensor([1.0, 2.0])), Thinned(torch.tensor(0.5)), torch.tensor([-0.4, -0.2])
    )
    e = d.expand((3, 2))
    assert isinstance(e, dist.Rejector)
    assert isinstance(e.score_parts(e.rsample()).score_function, torch.Tensor)


@pytest.mark.parametrize("sample_shape", [(), (3,)])
def test_a_proposal_that_never_fits(sample_shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppl.distributions.rejector._MAX_ROUNDS", 5)
    d = dist.Rejector(dist.Exponential(torch.tensor(1.0)), lambda x: x * 0 - torch.inf, 0.0)
    with pytest.raises(ValueError, match="still rejected"):
        d.sample(sample_shape)
