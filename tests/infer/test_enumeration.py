"""Marks for enumeration."""

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.handlers import enum, trace
from ppl.infer import config_enumerate


def model(data=None):
    ppl.sample("z", dist.Bernoulli(0.5))
    ppl.sample("own", dist.Categorical(torch.ones(3)), infer={"enumerate": "sequential"})
    ppl.sample("data", dist.Bernoulli(0.5), obs=torch.tensor(1.0))
    ppl.sample("count", dist.Poisson(1.0))
    ppl.sample("real", dist.Normal(0.0, 1.0))


def marks(program):
    return {name: site.infer.enumerate for name, site in trace(program).get_trace().nodes.items()}


@pytest.mark.parametrize("default", ["parallel", "sequential", None])
def test_latent_sites_of_finite_support_are_marked_and_others_stay(default):
    expected = {"z": default, "own": "sequential", "data": None, "count": None, "real": None}
    assert marks(config_enumerate(model, default)) == expected
    assert marks(config_enumerate(default=default)(model)) == expected
    with config_enumerate(default=default):
        assert marks(model) == expected
    assert marks(model)["z"] is None


def test_it_is_a_decorator():
    @config_enumerate
    def small():
        return ppl.sample("z", dist.Bernoulli(0.5))

    assert marks(small) == {"z": "parallel"} and small.__name__ == "small"


def test_another_default_is_an_error():
    with pytest.raises(ValueError, match=r"'parallel', 'sequential' or None.*'both'"):
        config_enumerate(model, "both")


@pytest.mark.parametrize("expand", [False, True])
def test_enumerated_values_are_small_or_of_the_full_batch_shape(expand):
    @config_enumerate(expand=expand)
    def program():
        with ppl.plate("p", 3):
            a = ppl.sample("a", dist.Bernoulli(0.5))
            ppl.sample("b", dist.Categorical(torch.ones(4)))
        return a

    with enum(first_available_dim=-2):
        found = trace(program).get_trace()
    assert found["a"].tensor.shape == ((2, 3) if expand else (2, 1))
    assert found["b"].tensor.shape == ((4, 1, 3) if expand else (4, 1, 1))
    assert found["a"].enum_dims == ((-2, "a"),) and found["b"].enum_dims == ((-2, "a"), (-3, "b"))
    assert torch.equal(found["b"].tensor.flatten().unique(), torch.arange(4))
