"""uncondition draws observed sites anew."""

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers


def model():
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.sample("y", dist.Normal(x, 1e-6), obs=torch.tensor(50.0))
    ppl.factor("f", torch.tensor(-2.0))


def test_data_become_latent_draws_and_factors_stay():
    tr = handlers.trace(handlers.uncondition(model)).get_trace()
    assert list(tr.stochastic_nodes) == ["x", "y"]
    assert tr["y"].tensor.item() == pytest.approx(tr["x"].tensor.item(), abs=1e-4)
    assert list(tr.observation_nodes) == ["f"] and tr.log_prob("f").item() == -2.0


def test_uncondition_undoes_condition():
    def latent():
        return ppl.sample("x", dist.Normal(0.0, 1.0))

    conditioned = handlers.condition(latent, data={"x": torch.tensor(9.0)})
    ppl.set_rng_seed(2)
    plain = latent()
    ppl.set_rng_seed(2)
    tr = handlers.trace(handlers.uncondition(conditioned)).get_trace()
    assert tr["x"].tensor.item() == plain.item() and not tr["x"].observed


def test_conditioning_outside_of_uncondition_observes_again():
    again = handlers.condition(handlers.uncondition(model), data={"y": torch.tensor(1.0)})
    tr = handlers.trace(again).get_trace()
    assert tr["y"].observed and tr["y"].tensor.item() == 1.0
