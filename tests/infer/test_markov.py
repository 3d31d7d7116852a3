"""Chains whose dims are used again: exact all the same."""

from __future__ import annotations

import itertools

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.infer import TraceEnum_ELBO, infer_discrete

START = torch.tensor([0.6, 0.4])
MOVE = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
MOVE2 = torch.tensor([[[0.9, 0.1], [0.5, 0.5]], [[0.3, 0.7], [0.2, 0.8]]])
PARALLEL = {"enumerate": "parallel"}


def nothing(*args):
    pass


def chain(x):
    z = None
    for t in ppl.markov(range(len(x))):
        z = ppl.sample(f"z_{t}", dist.Categorical(START if z is None else MOVE[z]), infer=PARALLEL)
        ppl.sample(f"x_{t}", dist.Normal(2.0 * z, 1.0), obs=x[t])


def long_memory(x):
    before, z = None, None
    for t in ppl.markov(range(len(x)), history=2):
        probs = START if z is None else MOVE[z] if before is None else MOVE2[before, z]
        before, z = z, ppl.sample(f"z_{t}", dist.Categorical(probs), infer=PARALLEL)
        ppl.sample(f"x_{t}", dist.Normal(2.0 * z, 1.0), obs=x[t])


def joint(x, history):
    """The log density of every path: brute force."""
    paths = {}
    for path in itertools.product((0, 1), repeat=len(x)):
        total = START[path[0]].log()
        for t in range(1, len(x)):
            two = history == 2 and t > 1
            total = total + (MOVE2[path[t - 2], path[t - 1]] if two else MOVE[path[t - 1]])[path[t]].log()
        paths[path] = total + dist.Normal(2.0 * torch.tensor(path), 1.0).log_prob(x).sum()
    return paths


@pytest.mark.parametrize(("model", "history"), [(chain, 1), (long_memory, 2)])
def test_the_evidence_of_a_chain_is_that_of_all_its_paths(model, history):
    x = torch.randn(7) + 1
    exact = torch.stack(list(joint(x, history).values())).logsumexp(0)
    assert TraceEnum_ELBO().loss(model, nothing, x) == pytest.approx(-exact.item(), abs=1e-10)


@pytest.mark.parametrize(("model", "history"), [(chain, 1), (long_memory, 2)])
def test_the_best_path_and_the_posterior_of_paths_are_exact(model, history):
    x = torch.randn(5) + 1
    paths = joint(x, history)
    names = [f"z_{t}" for t in range(5)]

    def draw(temperature):
        trace = handlers.trace(infer_discrete(model, temperature=temperature)).get_trace(x)
        return tuple(int(trace[name].tensor) for name in names)

    assert draw(0) == max(paths, key=lambda path: paths[path])
    count = 400
    drawn = [draw(1) for _ in range(count)]
    probs = torch.stack(list(paths.values())).softmax(0)
    for path, p in zip(paths, probs.tolist(), strict=True):
        assert abs(drawn.count(path) / count - p) < 4 * (p * (1 - p) / count) ** 0.5 + 1 / count


def test_a_chain_may_be_longer_than_a_tensor_has_dims():
    """Independent steps: the evidence is a sum."""
    x = torch.randn(100)

    def model():
        for t in ppl.markov(range(100)):
            z = ppl.sample(f"z_{t}", dist.Categorical(START), infer=PARALLEL)
            ppl.sample(f"x_{t}", dist.Normal(2.0 * z, 1.0), obs=x[t])

    log_probs = START.log() + dist.Normal(torch.tensor([0.0, 2.0]), 1.0).log_prob(x[:, None])
    assert TraceEnum_ELBO().loss(model, nothing) == pytest.approx(-log_probs.logsumexp(-1).sum().item(), abs=1e-10)


def test_a_guide_that_uses_a_dim_again_is_refused_with_the_way_out():
    x = torch.randn(4)

    def guide(x):
        for t in ppl.markov(range(len(x))):
            ppl.sample(f"z_{t}", dist.Categorical(START), infer=PARALLEL)

    with pytest.raises(ValueError, match=r"sites 'z_0' and 'z_\d' of the guide are enumerated on one dim.*plain range"):
        TraceEnum_ELBO().loss(chain, guide, x)
