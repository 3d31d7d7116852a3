"""The whole library in five seconds: if this fails, look here first."""

import torch

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO, config_enumerate, infer_discrete
from ppl.infer.autoguide import AutoDelta, AutoNormal
from ppl.infer.reparam import LocScaleReparam


def coin(flips: torch.Tensor) -> None:
    fairness = ppl.sample("fairness", dist.Beta(10.0, 10.0))
    with ppl.plate("flips", len(flips)):
        ppl.sample("heads", dist.Bernoulli(fairness), obs=flips)


def groups(y: torch.Tensor) -> None:
    mean = ppl.sample("mean", dist.Normal(0.0, 10.0))
    with ppl.plate("groups", y.shape[-1]):
        effect = ppl.sample("effect", dist.Normal(mean, 2.0))
        with ppl.plate("rows", y.shape[0]):
            ppl.sample("y", dist.Normal(effect, 1.0), obs=y)


@config_enumerate
def mixture(x: torch.Tensor) -> None:
    locs = torch.tensor([-2.0, 2.0])
    with ppl.plate("points", len(x)):
        z = ppl.sample("z", dist.Categorical(torch.tensor([0.3, 0.7])))
        ppl.sample("x", dist.Normal(locs[z], 1.0), obs=x)


def test_a_trace_has_the_density_of_its_factors() -> None:
    trace = handlers.trace(handlers.condition(coin, {"fairness": torch.tensor(0.6)})).get_trace(torch.ones(3))
    expected = dist.Beta(10.0, 10.0).log_prob(torch.tensor(0.6)) + 3 * torch.tensor(0.6).log()
    torch.testing.assert_close(trace.log_prob_sum(), expected)


def test_svi_finds_the_posterior_of_a_coin() -> None:
    flips = torch.tensor([1.0, 1, 0, 1, 1, 1, 0, 1, 1, 1])
    guide = AutoNormal(coin)
    svi = SVI(coin, guide, ppl.optim.Adam({"lr": 0.02}), Trace_ELBO(num_particles=8, vectorize_particles=True))
    result = svi.run(300, flips, progress_bar=False)
    assert result.losses.shape == (300,)
    draws = Predictive(coin, guide=guide, num_samples=2000, parallel=True)(flips)["fairness"]
    exact = torch.distributions.Beta(18.0, 12.0)
    assert abs(draws.mean() - exact.mean) < 0.02
    assert abs(draws.std() - exact.stddev) < 0.02


def test_the_maximum_a_posteriori_is_exact() -> None:
    y = torch.randn(5, 3) + torch.tensor([0.0, 3.0, 6.0])
    guide = AutoDelta(handlers.reparam(groups, config={"effect": LocScaleReparam(0.0)}))
    svi = SVI(guide.model, guide, ppl.optim.Adam({"lr": 0.1}))
    svi.run(400, y, progress_bar=False)
    precision = torch.tensor(
        [
            [1 / 100 + 3 / 4, *[-1 / 4] * 3],
            *[[-1 / 4 if j == 0 else (5 + 1 / 4) * (i == j) for j in range(4)] for i in range(1, 4)],
        ]
    )
    exact = torch.linalg.solve(precision, torch.cat([torch.zeros(1), y.sum(0)]))
    mode = Predictive(guide.model, guide=guide, num_samples=1)(y)
    torch.testing.assert_close(torch.cat([mode["mean"], mode["effect"][0]]), exact, atol=0.02, rtol=0)


def test_discrete_sites_are_summed_exactly_and_assigned() -> None:
    x = torch.tensor([-2.5, -1.0, 0.1, 3.0])
    joint = torch.tensor([0.3, 0.7]).log() + dist.Normal(torch.tensor([-2.0, 2.0]), 1.0).log_prob(x[:, None])
    loss = TraceEnum_ELBO().loss(mixture, lambda x: None, x)
    assert abs(loss + joint.logsumexp(-1).sum().item()) < 1e-5
    best = handlers.trace(infer_discrete(mixture, temperature=0)).get_trace(x)["z"].value
    assert best is not None
    assert best.tolist() == joint.argmax(-1).tolist()
