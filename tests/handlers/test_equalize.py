"""equalize gives several sites one value."""

import pytest
import scipy.stats
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers


def model():
    a = ppl.sample("x_a", dist.Normal(0.0, 1.0))
    b = ppl.sample("x_b", dist.Normal(1.0, 2.0))
    c = ppl.sample("xx", dist.Normal(0.0, 1.0))
    return a, b, c


def test_matching_sites_share_the_first_value_and_others_do_not():
    a, b, c = handlers.equalize(model, sites="x_.*")()
    assert a.item() == b.item() != c.item()


def test_the_whole_name_must_match():
    a, b, c = handlers.equalize(model, sites="x")()
    assert len({a.item(), b.item(), c.item()}) == 3


def test_later_sites_become_deterministic_and_their_densities_do_not_count():
    tr = handlers.trace(handlers.equalize(model, sites=["x_a", "x_b"])).get_trace()
    assert tr["x_b"].kind == "deterministic" and list(tr.stochastic_nodes) == ["x_a", "xx"]
    value = tr["x_a"].tensor.item()
    assert tr.log_prob_sum(lambda name, _: name != "xx").item() == pytest.approx(scipy.stats.norm.logpdf(value))


def test_keep_dist_counts_them_as_conditioned_on_equality():
    tr = handlers.trace(handlers.equalize(model, sites="x_.*", keep_dist=True)).get_trace()
    value = tr["x_a"].tensor.item()
    assert tr["x_b"].observed and tr["x_b"].tensor.item() == value
    expected = scipy.stats.norm.logpdf(value) + scipy.stats.norm(1.0, 2.0).logpdf(value)
    assert tr.log_prob_sum(lambda name, _: name != "xx").item() == pytest.approx(expected)


def test_params_can_be_equalized():
    def program():
        return ppl.param("w_1", torch.tensor(1.0)), ppl.param("w_2", torch.tensor(2.0))

    first, second = handlers.equalize(program, sites="w_.*", type="param")()
    assert first is second and first.item() == 1.0


def test_each_run_draws_anew():
    wrapped = handlers.equalize(model, sites="x_.*")
    assert wrapped()[0].item() != wrapped()[0].item()
    h = handlers.equalize(sites="x_.*")
    with h:
        first = model()[0].item()
    with h:
        assert model()[0].item() != first


def test_equalize_wants_sites():
    with pytest.raises(ValueError, match=r"handlers\.equalize: give sites"):
        handlers.equalize(model)
