"""Predictive on models with sites marked for enumeration: from their priors, or jointly from their exact posterior."""

from __future__ import annotations

import itertools

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.infer import Predictive

PARALLEL = {"enumerate": "parallel"}
START = torch.tensor([0.6, 0.4])
MOVE = torch.tensor([[0.7, 0.3], [0.2, 0.8]])


def chain(x, mark="parallel"):
    """Two rows of three steps, and a location that is common to all."""
    loc = ppl.sample("loc", dist.Normal(0.0, 2.0))
    with ppl.plate("rows", len(x)):
        z = None
        for t in ppl.markov(range(3)):
            probs = START if z is None else MOVE[z]
            z = ppl.sample(f"z_{t}", dist.Categorical(probs), infer={"enumerate": mark})
            ppl.sample(f"x_{t}", dist.Normal(loc + 2.0 * z, 1.0), obs=x[:, t])


X = torch.tensor([[0.3, 1.4, -0.2], [2.2, 0.9, 1.5]])


def posterior(row, loc):
    """Of the path of one row, brute force."""
    paths = torch.tensor(list(itertools.product((0, 1), repeat=3)))
    log = START[paths[:, 0]].log() + MOVE[paths[:, 0], paths[:, 1]].log() + MOVE[paths[:, 1], paths[:, 2]].log()
    return (log + dist.Normal(loc + 2.0 * paths, 1.0).log_prob(row).sum(-1)).softmax(0)


def frequencies(draws):
    path = 4 * draws["z_0"] + 2 * draws["z_1"] + draws["z_2"]
    return torch.stack([(path == i).double() for i in range(8)], -1)


def assert_frequencies(found, p, count):
    """Within four standard errors (and half a draw)."""
    assert ((found - p).abs() <= 4 * (p * (1 - p) / count).sqrt() + 0.5 / count).all(), (found, p)


def given(x):
    ppl.sample("loc", dist.Delta(torch.tensor(0.4)))


WAYS = [
    {"parallel": True},
    {"parallel": True, "batch_size": 900},
    {"parallel": False},
]


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("source", ["samples", "guide"])
def test_paths_come_jointly_from_their_posterior(source, options):
    """The same from posterior samples and from a guide, one by one or all in one run."""
    count = 2000 if options["parallel"] else 150
    if source == "samples":
        predictive = Predictive(chain, {"loc": torch.full((count,), 0.4)}, infer_discrete=True, **options)
    else:
        predictive = Predictive(chain, guide=given, num_samples=count, infer_discrete=True, **options)
    draws = predictive(X)
    assert draws["z_1"].shape == (count, 2) and draws["z_1"].dtype == torch.long
    assert draws["x_1"].shape == (count, 2) and torch.equal(draws["x_1"][-1], X[:, 1])
    found = frequencies(draws).mean(0)
    for row in range(2):
        assert_frequencies(found[row], posterior(X[row], 0.4), count)


def test_each_sample_has_the_posterior_that_belongs_to_it():
    count = 4000
    locs = torch.tensor([-1.0, 1.5]).repeat_interleave(count // 2)
    draws = Predictive(chain, {"loc": locs}, infer_discrete=True, parallel=True)(X)
    found = frequencies(draws)
    for half, loc in enumerate((-1.0, 1.5)):
        part = found[half * count // 2 : (half + 1) * count // 2].mean(0)
        for row in range(2):
            assert_frequencies(part[row], posterior(X[row], loc), count // 2)


@pytest.mark.parametrize("parallel", [True, False])
def test_marks_are_ignored_otherwise_and_sites_come_from_their_priors(parallel):
    count = 2000 if parallel else 200
    draws = Predictive(chain, {"loc": torch.zeros(count)}, parallel=parallel)(X)
    paths = torch.tensor(list(itertools.product((0, 1), repeat=3)))
    prior = START[paths[:, 0]] * MOVE[paths[:, 0], paths[:, 1]] * MOVE[paths[:, 1], paths[:, 2]]
    found = frequencies(draws).mean(0)
    for row in range(2):
        assert_frequencies(found[row], prior, count)


def test_sites_marked_sequential_are_drawn_from_the_same_posterior():
    def short(x):
        loc = ppl.sample("loc", dist.Normal(0.0, 2.0))
        z = ppl.sample("z", dist.Categorical(START), infer={"enumerate": "sequential"})
        w = ppl.sample("w", dist.Binomial(1 + z, 0.5), infer=PARALLEL)
        ppl.sample("x", dist.Normal(loc + w, 1.0), obs=x)

    count, x, loc = 300, torch.tensor(1.2), 0.4
    table = torch.full((2, 3), -torch.inf)
    for z in range(2):
        for w in range(z + 2):
            log = START[z].log() + dist.Binomial(1 + z, 0.5).log_prob(torch.tensor(float(w)))
            table[z, w] = log + dist.Normal(loc + w, 1.0).log_prob(x)
    draws = Predictive(short, {"loc": torch.full((count,), loc)}, infer_discrete=True)(x)
    index = 3 * draws["z"] + draws["w"].long()
    found = torch.stack([(index == i).double().mean() for i in range(6)])
    assert_frequencies(found, table.flatten().softmax(0), count)


@pytest.mark.parametrize("parallel", [True, False])
def test_new_data_come_from_the_posterior_choice(parallel):
    """A site below the choice that has no data is drawn with it: the posterior predictive of a mixture."""

    def model(x):
        loc = ppl.sample("loc", dist.Normal(0.0, 2.0))
        with ppl.plate("rows", 2):
            z = ppl.sample("z", dist.Categorical(START), infer=PARALLEL)
            ppl.sample("x", dist.Normal(loc + 2.0 * z, 1.0), obs=x)
            ppl.sample("new", dist.Delta(loc + 2.0 * z))

    count, x = (2000 if parallel else 200), torch.tensor([0.3, 1.9])
    draws = Predictive(model, {"loc": torch.zeros(count)}, infer_discrete=True, parallel=parallel)(x)
    assert torch.equal(draws["new"], 2.0 * draws["z"])
    p = (START.log() + dist.Normal(torch.tensor([0.0, 2.0]), 1.0).log_prob(x.unsqueeze(-1))).softmax(-1)[:, 1]
    assert_frequencies(draws["z"].double().mean(0), p, count)


def test_a_discrete_site_that_the_guide_draws_keeps_the_guides_value():
    def guide(x):
        given(x)
        with ppl.plate("rows", 2):
            ppl.sample("z_1", dist.Categorical(torch.tensor([0.0, 1.0])))

    draws = Predictive(chain, guide=guide, num_samples=1500, infer_discrete=True, parallel=True)(X)
    assert (draws["z_1"] == 1).all()
    found = frequencies(draws).mean(0)
    for row in range(2):
        p = posterior(X[row], 0.4) * torch.tensor([0, 0, 1, 1] * 2)
        assert_frequencies(found[row], p / p.sum(), 1500)


def test_a_subsample_of_the_guide_is_the_models():
    x = torch.linspace(-2.0, 4.0, 6)

    def guide():
        ppl.sample("loc", dist.Delta(torch.tensor(0.0)))
        with ppl.plate("rows", 6, subsample_size=2):
            pass

    def model():
        loc = ppl.sample("loc", dist.Normal(0.0, 1.0))
        with ppl.plate("rows", 6, subsample_size=2) as i:
            z = ppl.sample("z", dist.Categorical(START), infer=PARALLEL)
            ppl.sample("x", dist.Normal(loc + 9.0 * z, 0.01), obs=torch.where(x[i] > 1, 9.0, 0.0))
            ppl.deterministic("place", x[i])

    draws = Predictive(model, guide=guide, num_samples=20, infer_discrete=True)()
    assert torch.equal(draws["z"] == 1, draws["place"] > 1)
    assert draws["z"].shape == (20, 2)
