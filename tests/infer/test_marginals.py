"""Marginals of enumerated sites and posterior draws through an objective, against Bayes' rule and forward-backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.infer import TraceEnum_ELBO, compute_marginals, config_enumerate

LOCS = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
DATA = torch.tensor([-0.7, 0.1, 1.8, 0.9], dtype=torch.float64)


@config_enumerate
def mixture(data: torch.Tensor) -> torch.Tensor:
    shift = ppl.sample("shift", dist.Normal(0.0, 1.0))
    with ppl.plate("data", len(data)):
        z = ppl.sample("z", dist.Categorical(WEIGHTS))
        ppl.sample("x", dist.Normal(LOCS[z] + shift, 0.8), obs=data)
    return z


def guide(data: torch.Tensor) -> None:
    ppl.sample("shift", dist.Delta(torch.tensor(0.3)))


def responsibilities() -> torch.Tensor:
    return (WEIGHTS.log() + dist.Normal(LOCS + 0.3, 0.8).log_prob(DATA[:, None])).softmax(-1)


def test_marginals_of_a_mixture_are_responsibilities() -> None:
    marginals = TraceEnum_ELBO().compute_marginals(mixture, guide, DATA)
    assert set(marginals) == {"z"} and isinstance(marginals["z"], dist.Categorical)
    torch.testing.assert_close(marginals["z"].probs, responsibilities(), rtol=0, atol=1e-12)


def test_posterior_draws_are_what_the_model_returns() -> None:
    torch.manual_seed(0)
    draws = torch.stack([TraceEnum_ELBO().sample_posterior(mixture, guide, DATA) for _ in range(300)])
    p = responsibilities()
    frequency = torch.nn.functional.one_hot(draws, 3).double().mean(0)
    assert ((frequency - p).abs() <= 4 * (p * (1 - p) / 300).sqrt() + 1e-3).all()


def test_a_coin_gets_a_bernoulli_and_other_supports_an_empirical() -> None:
    @config_enumerate
    def model() -> None:
        coin = ppl.sample("coin", dist.Bernoulli(0.3))
        with ppl.plate("two", 2):
            count = ppl.sample("count", dist.Binomial(3, torch.tensor([0.2, 0.6])))
            ppl.sample("x", dist.Normal(coin + count, 1.0), obs=torch.tensor([0.5, 3.0]))

    marginals = compute_marginals(model)
    coin, count = marginals["coin"], marginals["count"]
    assert isinstance(coin, dist.Bernoulli) and isinstance(count, dist.Empirical)
    values = torch.arange(4.0)
    prior = dist.Binomial(3, torch.tensor([[0.2], [0.6]])).log_prob(values)
    joint = prior + dist.Normal(values + torch.arange(2.0)[:, None, None], 1.0).log_prob(torch.tensor([[0.5], [3.0]]))
    evidence = joint.logsumexp(-1).sum(-1) + torch.tensor([0.7, 0.3]).log()
    torch.testing.assert_close(coin.probs, evidence.softmax(0)[1], rtol=0, atol=1e-12)
    expected = (joint.softmax(-1) * evidence.softmax(0)[:, None, None]).sum(0)
    torch.testing.assert_close(count.log_prob(values[:, None]).exp().T, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("history", [1, 2])
def test_a_chain_is_smoothed_as_by_forward_and_backward_sums(history: int) -> None:
    rng = np.random.default_rng(0)
    initial, transition = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3)
    emission, seen = rng.dirichlet(np.ones(4), 3), rng.integers(4, size=12)
    forward, backward = np.empty((12, 3)), np.ones((12, 3))
    forward[0] = initial * emission[:, seen[0]]
    for t in range(1, 12):
        forward[t] = forward[t - 1] @ transition * emission[:, seen[t]]
    for t in reversed(range(11)):
        backward[t] = transition @ (emission[:, seen[t + 1]] * backward[t + 1])
    smoothed = forward * backward / (forward * backward).sum(-1, keepdims=True)

    @config_enumerate
    def chain() -> None:
        z = None
        for t in ppl.markov(range(12), history=history):
            probs = torch.tensor(initial) if z is None else torch.tensor(transition)[z]
            z = ppl.sample(f"z_{t}", dist.Categorical(probs))
            ppl.sample(f"x_{t}", dist.Categorical(torch.tensor(emission)[z]), obs=torch.tensor(seen[t]))

    marginals = compute_marginals(chain)
    for t in range(12):
        np.testing.assert_allclose(marginals[f"z_{t}"].probs, smoothed[t], rtol=0, atol=1e-12)
