"""Where to start."""

import math

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.handlers import substitute, trace
from ppl.infer import init_to_feasible, init_to_mean, init_to_median, init_to_sample, init_to_uniform, init_to_value
from ppl.infer.autoguide import AutoDelta, AutoNormal

STRATEGIES = [init_to_feasible, init_to_mean, init_to_median, init_to_sample, init_to_uniform, init_to_value]


def model(data=None):
    ppl.sample("real", dist.Normal(3.0, 1.0))
    ppl.sample("positive", dist.Gamma(4.0, 2.0))
    ppl.sample("unit", dist.Beta(2.0, 6.0))
    ppl.sample("interval", dist.Uniform(-3.0, 5.0))
    ppl.sample("simplex", dist.Dirichlet(torch.tensor([1.0, 2.0, 5.0])))
    ppl.sample("cholesky", dist.LKJCholesky(3, 2.0))
    ppl.sample("heavy", dist.Cauchy(1.0, 2.0))
    ppl.sample("discrete", dist.Categorical(torch.ones(3)))
    with ppl.plate("p", 4):
        ppl.sample("local", dist.HalfNormal(2.0))
    ppl.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(9.0))


def start(strategy):
    return {
        n: s.tensor
        for n, s in trace(substitute(model, substitute_fn=strategy)).get_trace().nodes.items()
        if s.kind == "sample"
    }


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_first_value_lies_in_its_support_and_has_its_shape(strategy):
    plain = trace(model).get_trace()
    for values in (start(strategy), start(strategy())):
        assert set(values) == set(plain.stochastic_nodes) | {"x"}
        for name, value in values.items():
            site = plain[name]
            assert value.shape == site.tensor.shape, name
            assert site.fn.support.check(value).all(), name
        assert values["x"] == 9.0


def test_the_middle_is_where_the_unconstrained_value_is_zero():
    values = start(init_to_feasible)
    assert values["real"] == 0 and values["positive"] == 1 and values["unit"] == 0.5 and values["interval"] == 1.0
    assert torch.allclose(values["simplex"], torch.tensor(1 / 3)) and torch.equal(values["local"], torch.ones(4))
    assert torch.allclose(values["cholesky"], torch.eye(3))


def test_the_mean_is_the_priors_or_a_median_where_there_is_none():
    values = start(init_to_mean)
    assert values["real"] == 3.0 and values["positive"] == 2.0 and values["unit"] == 0.25
    assert torch.allclose(values["simplex"], torch.tensor([1.0, 2.0, 5.0]) / 8)
    assert torch.allclose(values["local"], torch.tensor(2 * math.sqrt(2 / math.pi)))
    assert values["heavy"].isfinite()


def test_the_median_of_many_draws_is_near_the_priors():
    values = start(init_to_median(num_samples=4001))
    assert abs(values["real"] - 3.0) < 4 * 1.2533 / math.sqrt(4001)
    assert abs(values["heavy"] - 1.0) < 4 * (math.pi / 2) * 2 / math.sqrt(4001)
    assert abs(values["interval"] - 1.0) < 4 * (8 / 2) / math.sqrt(4001)


def test_uniform_values_lie_within_the_radius_in_unconstrained_space():
    draws = torch.stack([start(init_to_uniform(radius=0.5))["positive"].log() for _ in range(200)])
    assert draws.abs().max() <= 0.5 and draws.min() < -0.4 and draws.max() > 0.4


def test_samples_come_from_the_prior():
    draws = torch.stack([start(init_to_sample)["real"] for _ in range(200)])
    assert abs(draws.mean() - 3.0) < 4 / math.sqrt(200)


def test_given_values_are_taken_and_the_rest_falls_back():
    given = {"real": torch.tensor(-7.0), "local": torch.arange(1.0, 5.0)}
    values = start(init_to_value(values=given, fallback=init_to_feasible))
    assert values["real"] == -7.0 and torch.equal(values["local"], given["local"]) and values["unit"] == 0.5


@pytest.mark.parametrize("guide_class", [AutoNormal, AutoDelta])
def test_a_guide_starts_where_it_is_told(guide_class):
    def continuous():
        ppl.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with ppl.plate("p", 3):
            ppl.sample("b", dist.Gamma(1.0, 1.0))

    given = {"a": torch.tensor([1.5, -2.0]), "b": torch.tensor([0.1, 7.0, 2.0])}
    guide = guide_class(continuous, init_loc_fn=init_to_value(values=given))
    guide.setup()
    for name, value in guide.median().items():
        assert torch.allclose(value, given[name], atol=1e-12)


def test_values_outside_the_support_are_an_error():
    guide = AutoNormal(
        lambda: ppl.sample("a", dist.Gamma(1.0, 1.0)), init_loc_fn=init_to_value(values={"a": torch.tensor(-1.0)})
    )
    with pytest.raises(ValueError, match=r"'a'.*support"):
        guide.setup()
