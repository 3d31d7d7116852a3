"""substitute decides values without observing them."""

import pytest
import scipy.stats
import torch
from torch.distributions import constraints

import ppl
import ppl.distributions as dist
from ppl import handlers


def model():
    scale = ppl.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    x = ppl.sample("x", dist.Normal(0.0, scale))
    return ppl.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(2.0))


def test_params_and_latents_take_the_values_and_stay_what_they_are():
    data = {"scale": torch.tensor(3.0), "x": torch.tensor(0.5)}
    tr = handlers.trace(handlers.substitute(model, data=data)).get_trace()
    assert tr["scale"].tensor.item() == 3.0 and tr["scale"].kind == "param"
    assert tr["x"].tensor.item() == 0.5 and not tr["x"].observed
    expected = scipy.stats.norm(0.0, 3.0).logpdf(0.5) + scipy.stats.norm(0.5, 1.0).logpdf(2.0)
    assert tr.log_prob_sum().item() == pytest.approx(expected, rel=1e-12)


def test_a_substituted_param_does_not_enter_the_store():
    handlers.substitute(model, data={"scale": torch.tensor(3.0)})()
    assert "scale" not in ppl.get_param_store()


def test_data_are_not_substituted():
    tr = handlers.trace(handlers.substitute(model, data={"y": torch.tensor(9.0)})).get_trace()
    assert tr["y"].tensor.item() == 2.0


def test_a_function_of_the_site_may_decide():
    run = handlers.substitute(model, substitute_fn=lambda site: torch.tensor(4.0) if site.kind == "param" else None)
    assert handlers.trace(run).get_trace()["x"].fn.scale.item() == 4.0


def test_gradients_flow_through_substituted_values():
    x = torch.tensor(0.5, requires_grad=True)
    tr = handlers.trace(handlers.substitute(model, data={"x": x})).get_trace()
    (gradient,) = torch.autograd.grad(tr.log_prob_sum(), x)
    assert gradient.item() == pytest.approx(-0.5 + (2.0 - 0.5))


def test_a_value_outside_constraint_or_support_is_named():
    with pytest.raises(ValueError, match=r"param 'scale': the value given must satisfy positive.*-1"):
        handlers.substitute(model, data={"scale": torch.tensor(-1.0)})()
    with pytest.raises(ValueError, match=r"site 'x': the value must lie in the support"):
        handlers.substitute(lambda: ppl.sample("x", dist.Gamma(1.0, 1.0)), data={"x": torch.tensor(-1.0)})()


def test_substitute_says_what_it_wants():
    with pytest.raises(
        ValueError, match=r"handlers\.substitute: the value for site 'x' must be a torch\.Tensor.*float"
    ):
        handlers.substitute(model, data={"x": 1.0})()
    with pytest.raises(ValueError, match=r"handlers\.substitute: give either data \(values by name\) or substitute_fn"):
        handlers.substitute(model)
