"""Draws of a model's sites from the prior, from posterior samples and from a guide."""

import math

import models
import pytest
import torch
from models import HEIGHTS

import ppl
import ppl.distributions as dist
from ppl.infer import SVI, Predictive, Trace_ELBO, config_enumerate
from ppl.infer.autoguide import AutoDiagonalNormal, AutoNormal
from ppl.optim import Adam


def model(data=None, size=3):
    mean = ppl.sample("mean", dist.Normal(1.0, 2.0))
    ppl.deterministic("twice", 2 * mean)
    with ppl.plate("data", size):
        local = ppl.sample("local", dist.Normal(mean, 0.5))
        ppl.sample("obs", dist.Normal(local, 1.0), obs=data)
    ppl.sample("vector", dist.Dirichlet(torch.ones(4)))


SHAPES = {"mean": (), "twice": (), "local": (3,), "obs": (3,), "vector": (4,)}


def assert_moments(draws, mean, sd):
    """Mean and variance within 4 standard errors, the latter for normal draws."""
    n = draws.shape[0]
    assert ((draws.mean(0) - mean).abs() <= 4 * sd / math.sqrt(n)).all()
    assert ((draws.var(0) - sd**2).abs() <= 4 * sd**2 * math.sqrt(2 / n)).all()


@pytest.mark.parametrize("parallel", [False, True])
def test_the_prior_predictive_has_the_priors_moments_and_shapes(parallel):
    n = 4000 if parallel else 400
    draws = Predictive(model, num_samples=n, parallel=parallel)()
    assert {name: value.shape for name, value in draws.items()} == {k: (n, *s) for k, s in SHAPES.items()}
    assert_moments(draws["mean"], 1.0, 2.0)
    assert_moments(draws["local"], 1.0, math.sqrt(4 + 0.25))
    assert_moments(draws["obs"], 1.0, math.sqrt(4 + 0.25 + 1))
    assert torch.equal(draws["twice"], 2 * draws["mean"])
    joint = torch.cov(torch.cat([draws["mean"].unsqueeze(-1), draws["local"]], -1).T)
    assert ((joint[0, 1:] - 4.0).abs() < 4 * math.sqrt((4 * 4.25 + 16) / n)).all()


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("batch_size", [None, 7, 1, 1000])
def test_posterior_samples_are_put_into_the_model(parallel, batch_size):
    samples = {"mean": torch.linspace(-100.0, 100.0, 50)}
    draws = Predictive(model, samples, parallel=parallel, batch_size=batch_size)()
    assert set(draws) == {"twice", "local", "obs", "vector"}
    assert torch.equal(draws["twice"], 2 * samples["mean"])
    noise = draws["local"] - samples["mean"].unsqueeze(-1)
    assert noise.shape == (50, 3) and noise.abs().max() < 0.5 * 5
    assert draws["obs"].shape == (50, 3) and (draws["obs"] - draws["local"]).abs().max() < 5
    assert len(noise.unique()) == 150


@pytest.mark.parametrize("parallel", [False, True])
def test_samples_of_sites_in_plates_and_with_events_keep_their_places(parallel):
    samples = {"local": torch.randn(20, 3) * 100, "vector": torch.rand(20, 4).softmax(-1)}
    names = ["local", "obs", "vector", "mean"]
    draws = Predictive(model, samples, parallel=parallel, return_sites=names)()
    assert list(draws) == names
    assert torch.equal(draws["local"], samples["local"]) and torch.equal(draws["vector"], samples["vector"])
    assert (draws["obs"] - samples["local"]).abs().max() < 5
    assert_moments(
        Predictive(model, {"local": samples["local"][:1].expand(2000, 3)}, parallel=True)()["mean"], 1.0, 2.0
    )


def test_batches_do_not_change_the_number_or_the_distribution():
    draws = Predictive(model, num_samples=3001, parallel=True, batch_size=1000)()
    assert draws["local"].shape == (3001, 3)
    assert_moments(draws["local"], 1.0, math.sqrt(4.25))


@pytest.mark.parametrize("parallel", [False, True])
def test_a_fitted_guide_gives_the_posterior_predictive(parallel):
    svi = SVI(
        models.normal_normal_model, models.normal_guide, Adam({"lr": 0.05}), Trace_ELBO(20, vectorize_particles=True)
    )
    svi.setup(HEIGHTS)
    loc, sd = models.normal_normal_posterior()
    svi.params["loc"], svi.params["sd"] = torch.tensor(loc), torch.tensor(sd)
    n = 2000 if parallel else 300
    predictive = Predictive(
        models.normal_normal_model, guide=models.normal_guide, params=svi.params, num_samples=n, parallel=parallel
    )
    draws = predictive(HEIGHTS)
    assert set(draws) == {"mean", "obs"}
    assert_moments(draws["mean"], loc, sd)
    assert draws["obs"].shape == (n, 4) and torch.equal(draws["obs"], HEIGHTS.expand(n, 4))  # data stay data


def test_parameters_may_come_as_a_dict_as_a_store_or_from_the_store_around():
    def guide(data=None, size=3):
        ppl.sample("mean", dist.Normal(ppl.param("m", torch.tensor(0.0)), 1e-6))

    store = ppl.ParamStore()
    with store:
        ppl.param("m", torch.tensor(70.0))
    for params in (store, {"m": torch.tensor(70.0)}):
        draws = Predictive(model, guide=guide, params=params, num_samples=5)()
        assert torch.allclose(draws["mean"], torch.tensor(70.0), atol=1e-3)
        assert torch.allclose(draws["local"], torch.tensor(70.0), atol=4.0)
    with store:
        draws = Predictive(model, guide=guide, num_samples=5)()
    assert torch.allclose(draws["mean"], torch.tensor(70.0), atol=1e-3)


def test_a_guide_whose_parameters_are_not_fitted_is_an_error():
    def guide():
        ppl.sample("mean", dist.Normal(ppl.param("m", torch.tensor(0.0)), 1.0))

    with pytest.raises(ValueError, match=r"(?s)'m'.*params=svi\.params"):
        Predictive(model, guide=guide, num_samples=3)()
    assert "m" not in ppl.get_param_store()


@pytest.mark.parametrize("guide_class", [AutoNormal, AutoDiagonalNormal])
@pytest.mark.parametrize("parallel", [False, True])
def test_an_automatic_guide_predicts_in_parallel_and_one_by_one(guide_class, parallel):
    guide = guide_class(models.eight_schools_model)
    svi = SVI(models.eight_schools_model, guide, Adam({"lr": 0.05}))
    svi.run(3, models.EFFECTS, models.ERRORS, progress_bar=False)
    n = 1500 if parallel else 200
    predictive = Predictive(
        models.eight_schools_model, guide=guide, params=svi.params, num_samples=n, parallel=parallel
    )
    draws = predictive(models.EFFECTS, models.ERRORS)
    assert {name: tuple(value.shape) for name, value in draws.items()} == {
        "mu": (n,),
        "tau": (n,),
        "theta": (n, 8),
        "y": (n, 8),
    }
    median = guide.median()
    sd = 0.1 * 1.2
    assert (draws["theta"].mean(0) - median["theta"]).abs().max() < 4.5 * sd / math.sqrt(n)
    assert (draws["tau"].log().mean() - median["tau"].log()).abs() < 4 * sd / math.sqrt(n)


def test_without_gradients():
    draws = Predictive(model, num_samples=2)()
    assert not any(value.requires_grad for value in draws.values())


def mixture(data):
    locs = ppl.sample("locs", dist.Normal(torch.zeros(2), 10.0).to_event(1))
    with ppl.plate("data", len(data)):
        z = ppl.sample("z", dist.Categorical(torch.tensor([0.25, 0.75])))
        ppl.sample("x", dist.Normal((torch.nn.functional.one_hot(z, 2) * locs).sum(-1), 1.0), obs=data)


@pytest.mark.parametrize("parallel", [False, True])
def test_discrete_sites_come_from_their_posterior_if_asked_for(parallel):
    data = torch.tensor([-1.0, 0.2, 1.5])
    n = 2000 if parallel else 250
    samples = {"locs": torch.tensor([-1.0, 1.0]).expand(n, 2)}
    likelihood = dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).log_prob(data.unsqueeze(-1)).exp()
    posterior = likelihood * torch.tensor([0.25, 0.75])
    posterior = (posterior / posterior.sum(-1, keepdim=True))[:, 1]
    for infer, expected in ((True, posterior), (False, torch.full((3,), 0.75))):
        draws = Predictive(config_enumerate(mixture), samples, infer_discrete=infer, parallel=parallel)(data)
        assert draws["z"].shape == (n, 3) and draws["z"].dtype == torch.long
        se = (expected * (1 - expected) / n).sqrt()
        assert ((draws["z"].double().mean(0) - expected).abs() <= 4 * se).all()


def test_observed_and_nested_sites_have_the_same_shapes_both_ways():
    shapes = []
    for parallel in (False, True):
        draws = Predictive(models.nested_model, num_samples=6, parallel=parallel)(models.MARKS, None)
        shapes.append({name: tuple(value.shape) for name, value in draws.items()})
    assert shapes[0] == shapes[1] == {"top": (6,), "group": (6, 2, 1), "person": (6, 2, 3), "x": (6, 2, 3)}


def test_contradictory_arguments_are_errors():
    with pytest.raises(ValueError, match="num_samples"):
        Predictive(model)
    with pytest.raises(ValueError, match="leave it out"):
        Predictive(model, {"mean": torch.zeros(3)}, num_samples=4)
    with pytest.raises(ValueError, match="not both"):
        Predictive(model, {"mean": torch.zeros(3)}, guide=model)
    with pytest.raises(ValueError, match=r"first dims differ.*'mean': 3.*'local': 4"):
        Predictive(model, {"mean": torch.zeros(3), "local": torch.zeros(4, 3)})
    with pytest.raises(ValueError, match="at least 1"):
        Predictive(model, num_samples=0)
    with pytest.raises(ValueError, match="batch_size"):
        Predictive(model, num_samples=3, parallel=True, batch_size=0)
    with pytest.raises(ValueError, match=r"write \['mean'\]"):
        Predictive(model, num_samples=3, return_sites="mean")
    with pytest.raises(ValueError, match=r"(?s)\['typo'\].*'mean'"):
        Predictive(model, num_samples=3, return_sites=["typo"])()
    with pytest.raises(TypeError, match="must be callable"):
        Predictive(3, num_samples=3)


def test_a_model_that_is_not_vectorised_is_an_error_in_parallel():
    def mixing():
        a = ppl.sample("a", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        ppl.deterministic("b", a[:2])

    with pytest.raises(ValueError, match=r"(?s)'b'.*not vectorised.*parallel=False"):
        Predictive(mixing, num_samples=5, parallel=True)()
