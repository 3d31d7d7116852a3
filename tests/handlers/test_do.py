"""do sets sites to values and cuts them from their parents."""

import pytest
import scipy.stats
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers


def model():
    z = ppl.sample("z", dist.Normal(0.0, 1.0))
    x = ppl.sample("x", dist.Normal(z, 1.0))
    return ppl.sample("y", dist.Normal(x, 0.1))


SET = {"x": torch.tensor(5.0)}


def test_later_sites_see_the_intervention():
    tr = handlers.trace(handlers.do(model, data=SET)).get_trace()
    assert tr["y"].fn.loc.item() == 5.0
    assert handlers.do(lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), data=SET)().item() == 5.0


def test_parents_and_the_sites_own_density_are_untouched():
    ppl.set_rng_seed(4)
    plain = handlers.trace(model).get_trace()
    ppl.set_rng_seed(4)
    tr = handlers.trace(handlers.do(model, data=SET)).get_trace()
    assert tr["z"].tensor.item() == plain["z"].tensor.item()
    assert tr["x"].tensor.item() == plain["x"].tensor.item()  # its natural value, as if nobody had intervened
    assert not tr["x"].observed
    for name in ("z", "x"):
        assert tr.log_prob(name).item() == plain.log_prob(name).item()
    y = tr["y"].tensor.item()
    assert tr.log_prob("y").item() == pytest.approx(scipy.stats.norm(5.0, 0.1).logpdf(y), rel=1e-10)


def test_the_graph_loses_the_edges_from_the_site_and_keeps_those_into_it():
    assert set(handlers.trace(model).get_trace().graph().edges) == {("z", "x"), ("x", "y")}
    assert set(handlers.trace(handlers.do(model, data=SET)).get_trace().graph().edges) == {("z", "x")}


def test_an_intervention_differs_from_an_observation():
    """In z -> x, doing x says nothing about z; observing it does."""
    done = handlers.trace(handlers.substitute(handlers.do(model, data=SET), data={"z": torch.tensor(0.0)}))
    low = done.get_trace()
    high = handlers.trace(handlers.substitute(handlers.do(model, data=SET), data={"z": torch.tensor(5.0)})).get_trace()
    assert low["y"].fn.loc.item() == high["y"].fn.loc.item() == 5.0
    seen = {
        z: handlers.trace(handlers.condition(model, data={"z": torch.tensor(z), **SET}))
        .get_trace()
        .log_prob("x")
        .item()
        for z in (0.0, 5.0)
    }
    assert seen[5.0] - seen[0.0] == pytest.approx(12.5)


def test_a_counterfactual_conditions_on_the_natural_value_and_sets_another():
    both = handlers.condition(handlers.do(model, data=SET), data={"x": torch.tensor(-1.0)})
    tr = handlers.trace(both).get_trace()
    assert tr["x"].tensor.item() == -1.0 and tr["x"].observed
    assert tr["y"].fn.loc.item() == 5.0


def test_an_inner_trace_marks_the_intervention():
    with handlers.do(data=SET), handlers.trace() as tr:
        model()
    assert tr["x"].intervened and tr["x"].tensor.item() == 5.0
    assert not tr["z"].intervened


def test_do_takes_a_trace_and_ignores_none():
    tr = handlers.trace(handlers.substitute(lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), data=SET)).get_trace()
    assert handlers.trace(handlers.do(model, data=tr)).get_trace()["y"].fn.loc.item() == 5.0
    with handlers.do(data={"x": None}), handlers.trace() as inner:
        model()
    assert not inner["x"].intervened


def test_do_says_what_it_wants():
    with pytest.raises(ValueError, match=r"handlers\.do: give data"):
        handlers.do(model)
    with pytest.raises(
        ValueError, match=r"handlers\.do: the value for site 'x' must be a torch\.Tensor, but got float"
    ):
        handlers.do(model, data={"x": 5.0})()
