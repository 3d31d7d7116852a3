"""scale weighs densities."""

import pytest
import scipy.stats
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers


def model():
    ppl.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.5))
    ppl.factor("f", torch.tensor(2.0))


def test_all_densities_inside_are_multiplied():
    tr = handlers.trace(handlers.scale(model, scale=0.25)).get_trace()
    assert tr.log_prob("x").item() == pytest.approx(0.25 * scipy.stats.norm.logpdf(0.5))
    assert tr.log_prob("f").item() == 0.5
    assert tr.unscaled_log_prob("f").item() == 2.0


def test_scales_multiply():
    tr = handlers.trace(handlers.scale(handlers.scale(model, scale=3.0), scale=0.5)).get_trace()
    assert tr["x"].scale == 1.5


def test_a_tensor_weighs_each_entry():
    weights = torch.tensor([1.0, 0.0, 2.0])

    def plated():
        with ppl.plate("data", 3), handlers.scale(scale=weights):
            ppl.sample("x", dist.Normal(0.0, 1.0), obs=torch.ones(3))

    expected = scipy.stats.norm.logpdf(1.0) * weights
    torch.testing.assert_close(handlers.trace(plated).get_trace().log_prob("x"), expected)


def test_values_are_not_scaled():
    ppl.set_rng_seed(1)
    plain = ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.set_rng_seed(1)
    with handlers.scale(scale=10.0):
        assert ppl.sample("x", dist.Normal(0.0, 1.0)).item() == plain.item()


@pytest.mark.parametrize("bad", [0.0, -1, float("nan"), "2", None])
def test_a_scale_that_is_no_positive_number_is_refused(bad):
    with pytest.raises(ValueError, match=r"handlers\.scale: expected a positive number or a tensor, got"):
        handlers.scale(scale=bad)
