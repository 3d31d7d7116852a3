"""condition turns latent sites into data without changing the density at the same value."""

import pytest
import scipy.stats
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers


def model():
    x = ppl.sample("x", dist.Normal(1.0, 2.0))
    return ppl.sample("y", dist.Normal(x, 0.5))


DATA = {"x": torch.tensor(0.25), "y": torch.tensor(-1.0)}


def test_conditioned_sites_are_observed_at_their_values():
    tr = handlers.trace(handlers.condition(model, data={"x": DATA["x"]})).get_trace()
    assert tr["x"].observed and tr["x"].tensor.item() == 0.25
    assert not tr["y"].observed
    assert list(tr.observation_nodes) == ["x"]


def test_condition_never_changes_the_density_at_the_same_value():
    free = handlers.trace(handlers.substitute(model, data=DATA)).get_trace()
    fixed = handlers.trace(handlers.condition(model, data=DATA)).get_trace()
    expected = scipy.stats.norm(1.0, 2.0).logpdf(0.25) + scipy.stats.norm(0.25, 0.5).logpdf(-1.0)
    assert fixed.log_prob_sum().item() == free.log_prob_sum().item() == pytest.approx(expected, rel=1e-12)


def test_condition_takes_a_trace():
    tr = handlers.trace(model).get_trace()
    other = handlers.trace(handlers.condition(model, data=tr)).get_trace()
    assert {name: site.tensor.item() for name, site in other.observation_nodes.items()} == {
        name: site.tensor.item() for name, site in tr.nodes.items()
    }


def test_condition_takes_a_function_of_the_site():
    tr = handlers.trace(
        handlers.condition(model, condition_fn=lambda site: DATA["y"] if site.name == "y" else None)
    ).get_trace()
    assert list(tr.observation_nodes) == ["y"] and tr.returned.item() == -1.0


def test_condition_on_nothing_is_the_identity():
    ppl.set_rng_seed(3)
    plain = model()
    ppl.set_rng_seed(3)
    assert handlers.condition(model, data={})().item() == plain.item()
    ppl.set_rng_seed(3)
    assert handlers.condition(model, data={"y": None, "absent": DATA["y"]})().item() == plain.item()


def test_the_outer_condition_wins_over_data_in_the_program():
    def observed():
        return ppl.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0))

    assert handlers.condition(observed, data={"x": torch.tensor(2.0)})().item() == 2.0


def test_conditioning_in_two_steps_is_conditioning_at_once():
    once = handlers.trace(handlers.condition(model, data=DATA)).get_trace()
    step = handlers.condition(handlers.condition(model, data={"x": DATA["x"]}), data={"y": DATA["y"]})
    assert handlers.trace(step).get_trace().log_prob_sum().item() == once.log_prob_sum().item()


def test_ppl_condition_is_the_handler():
    assert ppl.condition is handlers.condition and ppl.do is handlers.do


def test_a_value_that_is_no_tensor_is_named():
    with pytest.raises(ValueError, match=r"handlers\.condition: the value for site 'x' must be a torch\.Tensor.*float"):
        handlers.condition(model, data={"x": 1.0})


def test_a_value_that_does_not_fit_is_named():
    def plated():
        with ppl.plate("p", 3):
            ppl.sample("x", dist.Gamma(1.0, 1.0))

    with pytest.raises(ValueError, match=r"site 'x' \(in plates p\[3\]\): obs does not fit.*\(2,\)"):
        handlers.condition(plated, data={"x": torch.ones(2)})()
    with pytest.raises(ValueError, match=r"site 'x' \(in plates p\[3\]\): the obs must lie in the support"):
        handlers.condition(plated, data={"x": torch.tensor([1.0, -1.0, 2.0])})()


@pytest.mark.parametrize("options", [{}, {"data": {}, "condition_fn": lambda site: None}])
def test_condition_wants_exactly_one_way_to_say_what(options):
    with pytest.raises(ValueError, match=r"handlers\.condition: give either data \(values by name\) or condition_fn"):
        handlers.condition(model, **options)
