"""Finite hidden Markov models against sums over all paths of states, and against a forward algorithm in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special as sp
import torch
from rows_sequences import paths

import ppl
import ppl.distributions as dist

K = 3


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def vector(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def model(length: int, varies: bool) -> Any:
    """A model of unbatched sequences, and the parameters as arrays over time."""
    time = length if varies else 1
    initial, transition, loc = vector(K), vector(time, K, K), 2 * vector(time, K)
    d = dist.DiscreteHMM(initial, transition, dist.Normal(loc, 1.0), duration=length)
    return d, initial.numpy(), transition.expand(length, K, K).numpy(), loc.expand(length, K)


def enumerated(length: int, varies: bool) -> Any:
    """A model, a value, all paths and their probabilities given the value, and the log density of the value."""
    d, initial, transition, loc = model(length, varies)
    x = d.sample()
    likelihood = dist.Normal(loc, 1.0).log_prob(x[:, None]).numpy()
    normal = transition - sp.logsumexp(transition, -1, keepdims=True)
    start = initial - sp.logsumexp(initial)
    logs = {
        z: start[z[0]] + sum(normal[t, z[t], z[t + 1]] + likelihood[t, z[t + 1]] for t in range(length))
        for z in paths(initial, transition[0], likelihood)
    }
    total = sp.logsumexp(list(logs.values()))
    return d, x, np.array(list(logs)), np.exp(np.array(list(logs.values())) - total), total


@pytest.mark.parametrize("varies", [False, True], ids=["homogeneous", "varying"])
@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_against_all_paths(length: int, varies: bool) -> None:
    d, x, z, weights, total = enumerated(length, varies)
    assert d.log_prob(x).item() == pytest.approx(total, rel=1e-12)
    marginals = np.array([[weights[z[:, t + 1] == k].sum() for k in range(K)] for t in range(length)])
    np.testing.assert_allclose(d.smooth(x).probs, marginals, atol=1e-12)
    np.testing.assert_allclose(d.filter(x).probs, marginals[-1], atol=1e-12)


@pytest.mark.parametrize("length", [1, 3])
def test_draws_of_states_have_the_probabilities_of_their_paths(length: int) -> None:
    d, x, z, weights, _ = enumerated(length, True)
    count = 20_000
    drawn = d.sample_posterior(x, (count,)).numpy()
    assert drawn.shape == (count, length)
    for path in {tuple(p[1:]) for p in z}:
        expected = weights[(z[:, 1:] == path).all(1)].sum()
        found = (drawn == path).all(1).mean()
        assert abs(found - expected) < 4.5 * (expected * (1 - expected) / count) ** 0.5 + 1e-9  # standard errors


def test_draws_have_the_moments_of_the_chain() -> None:
    d, initial, transition, loc = model(4, True)
    x = d.sample((40_000,))
    at = sp.softmax(initial)
    for t in range(4):
        at = at @ sp.softmax(transition[t], -1)
        mean = (at * loc[t].numpy()).sum()
        assert abs(x[:, t].mean() - mean) < 4 * x[:, t].std() / 200
    # neighbours are dependent as the chain says
    first = sp.softmax(initial) @ sp.softmax(transition[0], -1)
    product = first @ (loc[0].numpy()[:, None] * sp.softmax(transition[1], -1) * loc[1].numpy()).sum(-1)
    found = x[:, 0] * x[:, 1]
    assert abs(found.mean() - product) < 4 * found.std() / 200


def forward(initial: Any, transition: Any, likelihood: Any) -> float:
    state = initial - sp.logsumexp(initial)
    logs = transition - sp.logsumexp(transition, -1, keepdims=True)
    for row in likelihood:
        state = sp.logsumexp(state[:, None] + logs, 0) + row
    return float(sp.logsumexp(state))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("length", [64, 2000])
def test_long_sequences_against_a_forward_algorithm(length: int, dtype: torch.dtype) -> None:
    initial, transition, loc = vector(K).to(dtype), 3 * vector(K, K).to(dtype), 3 * vector(K).to(dtype)
    d = dist.DiscreteHMM(initial, transition, dist.Normal(loc, 1.0), duration=length)
    x = d.sample()
    likelihood = dist.Normal(loc.double(), 1.0).log_prob(x.double()[:, None])
    expected = forward(initial.double().numpy(), transition.double().numpy(), likelihood.numpy())
    assert d.log_prob(x).item() == pytest.approx(expected, rel=1e-12 if dtype == torch.float64 else 1e-6)


def test_steps_that_cannot_be_taken() -> None:
    inf = torch.inf  # from left to right only; the observations insist on the last state early on
    transition = torch.tensor([[0.0, 0.0, -inf], [-inf, 0.0, 0.0], [-inf, -inf, 0.0]], dtype=torch.float64)
    loc = torch.tensor([0.0, 50.0, 100.0], dtype=torch.float64, requires_grad=True)
    initial = torch.tensor([0.0, -inf, -inf], dtype=torch.float64)
    d = dist.DiscreteHMM(initial, transition, dist.Normal(loc, 1.0), duration=6)
    x = torch.full((6,), 100.0, dtype=torch.float64)
    log_prob = d.log_prob(x)
    likelihood = dist.Normal(loc.detach(), 1.0).log_prob(x[:, None]).numpy()
    with np.errstate(divide="ignore"):
        assert log_prob.item() == pytest.approx(forward(initial.numpy(), transition.numpy(), likelihood), rel=1e-12)
    (gradient,) = torch.autograd.grad(log_prob, [loc])
    assert gradient.isfinite().all()


def test_observations_that_are_missing() -> None:
    d, initial, transition, loc = model(5, True)
    x = d.sample()
    seen = torch.tensor([True, False, True, True, False])
    masked = dist.DiscreteHMM(
        torch.tensor(initial), torch.tensor(transition), dist.Normal(loc, 1.0).mask(seen[:, None])
    )
    likelihood = torch.where(seen[:, None], dist.Normal(loc, 1.0).log_prob(x[:, None]), torch.zeros(())).numpy()
    state = initial - sp.logsumexp(initial)
    for logs, row in zip(transition - sp.logsumexp(transition, -1, keepdims=True), likelihood, strict=True):
        state = sp.logsumexp(state[:, None] + logs, 0) + row
    holes = torch.where(seen, x, torch.nan)
    assert masked.log_prob(holes).item() == pytest.approx(sp.logsumexp(state), rel=1e-12)
    assert masked.sample((3,)).shape == (3, 5)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_many_states_are_walked_one_step_after_the_other(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    d, *_ = model(length, True)
    x = d.sample((2,))
    log_prob, smooth, last = d.log_prob(x), d.smooth(x).probs, d.filter(x).probs
    monkeypatch.setattr("ppl.distributions.discrete_hmm.PARALLEL_STATES", 2)
    torch.testing.assert_close(d.log_prob(x), log_prob)
    torch.testing.assert_close(d.smooth(x).probs, smooth)
    torch.testing.assert_close(d.filter(x).probs, last)
    assert d.sample_posterior(x).shape == (2, length)


def test_without_a_duration() -> None:
    d = dist.DiscreteHMM(vector(K), vector(K, K), dist.Normal(vector(K), 1.0))
    assert d.duration is None and d.event_shape == (1,)
    x = vector(4)
    longer = dist.DiscreteHMM(d.initial_logits, d.transition_logits, d.observation_dist, duration=4)
    torch.testing.assert_close(d.log_prob(x), longer.log_prob(x))
    with pytest.raises(ValueError, match="pass duration="):
        d.sample()
    with ppl.handlers.trace() as trace:
        ppl.sample("x", d, obs=x)
    torch.testing.assert_close(trace.log_prob_sum(), d.log_prob(x))


def test_no_steps() -> None:
    d = dist.DiscreteHMM(vector(2, K), vector(K, K), dist.Normal(vector(K), 1.0), duration=0)
    x = d.sample((5,))
    assert x.shape == (5, 2, 0)
    torch.testing.assert_close(d.log_prob(x), torch.zeros(5, 2, dtype=torch.float64))
    torch.testing.assert_close(d.filter(x[0]).logits, d.initial_logits)
    assert d.sample_posterior(x[0]).shape == (2, 0)


def test_batches_of_vectors() -> None:
    emission = dist.Normal(vector(2, 5, K, 4), 1.0).to_event(1)
    d = dist.DiscreteHMM(vector(K), vector(7, 1, 1, K, K), emission)
    assert (d.batch_shape, d.event_shape) == ((7, 2), (5, 4))
    x = d.sample((3,))
    assert x.shape == (3, 7, 2, 5, 4) and d.log_prob(x).shape == (3, 7, 2)
    assert d.sample_posterior(x, (6,)).shape == (6, 3, 7, 2, 5)
    with pytest.raises(ValueError, match="event shape"):
        d.log_prob(x[..., :4, :])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (lambda: (vector(K), vector(K, 2), dist.Normal(vector(K), 1.0)), "transition_logits"),
        (lambda: (vector(K), vector(K, K), dist.Normal(vector(4), 1.0)), "rightmost batch dim"),
        (lambda: (vector(K), vector(5, K, K), dist.Normal(vector(4, K), 1.0)), "do not broadcast"),
        (lambda: (vector(K), vector(K), dist.Normal(vector(K), 1.0)), "must be a matrix"),
    ],
)
def test_bad_arguments(arguments: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        dist.DiscreteHMM(*arguments())


def test_a_duration_that_contradicts_the_parameters() -> None:
    with pytest.raises(ValueError, match="duration=5, but the parameters have 4"):
        dist.DiscreteHMM(vector(K), vector(4, K, K), dist.Normal(vector(K), 1.0), duration=5)
