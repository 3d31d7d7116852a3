"""lift turns parameters into random variables."""

import pytest
import scipy.stats
import torch
from torch.distributions import constraints

import ppl
import ppl.distributions as dist
from ppl import handlers


def model():
    loc = ppl.param("loc", torch.tensor(0.0))
    scale = ppl.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    return ppl.sample("x", dist.Normal(loc, scale), obs=torch.tensor(0.5))


PRIORS = {"loc": dist.Normal(3.0, 2.0), "scale": dist.Gamma(2.0, 2.0)}


def test_params_become_sample_sites_with_the_priors_density():
    tr = handlers.trace(handlers.lift(model, prior=PRIORS)).get_trace()
    assert list(tr.stochastic_nodes) == ["loc", "scale"] and tr.param_nodes == {}
    loc, scale = tr["loc"].tensor.item(), tr["scale"].tensor.item()
    expected = (
        scipy.stats.norm(3.0, 2.0).logpdf(loc)
        + scipy.stats.gamma(2.0, scale=0.5).logpdf(scale)
        + scipy.stats.norm(loc, scale).logpdf(0.5)
    )
    assert tr.log_prob_sum().item() == pytest.approx(expected, rel=1e-10)
    assert len(ppl.get_param_store()) == 0


def test_what_has_no_prior_stays_a_parameter():
    tr = handlers.trace(handlers.lift(model, prior={"loc": PRIORS["loc"]})).get_trace()
    assert list(tr.stochastic_nodes) == ["loc"] and list(tr.param_nodes) == ["scale"]


def test_one_prior_serves_all_and_a_function_chooses():
    tr = handlers.trace(handlers.lift(model, prior=torch.distributions.Gamma(2.0, 2.0))).get_trace()
    assert list(tr.stochastic_nodes) == ["loc", "scale"]
    chosen = handlers.lift(model, prior=lambda site: None if site.constraint is None else PRIORS["scale"])
    assert list(handlers.trace(chosen).get_trace().stochastic_nodes) == ["scale"]


def test_lifting_and_fixing_the_values_is_substituting_them():
    values = {"loc": torch.tensor(0.1), "scale": torch.tensor(2.0)}
    lifted = handlers.trace(handlers.condition(handlers.lift(model, prior=PRIORS), data=values)).get_trace()
    plain = handlers.trace(handlers.substitute(model, data=values)).get_trace()
    assert lifted.log_prob("x").item() == plain.log_prob("x").item()


def test_a_lifted_param_of_a_subsampled_plate_is_drawn_whole_and_seen_in_part():
    index = torch.tensor([3, 1])

    def local():
        with ppl.plate("data", 4, subsample=index):
            return ppl.param("w", torch.zeros(4), event_dim=0)

    tr = handlers.trace(handlers.lift(local, prior={"w": dist.Normal(torch.arange(4.0), 0.1)})).get_trace()
    assert tr["w"].tensor.shape == (4,)
    assert torch.equal(tr.returned, tr["w"].tensor[index])
    expected = scipy.stats.norm([0.0, 1.0, 2.0, 3.0], 0.1).logpdf(tr["w"].tensor.numpy()).sum()
    assert tr.log_prob("w").sum().item() == pytest.approx(expected, rel=1e-10)


def test_scale_and_mask_around_a_param_hold_for_its_prior():
    def weighed():
        with handlers.scale(scale=3.0):
            ppl.param("a", torch.tensor(0.0))
        with handlers.mask(mask=False):
            ppl.param("b", torch.tensor(0.0))

    tr = handlers.trace(handlers.lift(weighed, prior=dist.Normal(0.0, 1.0))).get_trace()
    expected = 3 * scipy.stats.norm.logpdf(tr["a"].tensor.item())
    assert tr.log_prob("a").item() == pytest.approx(expected, rel=1e-12)
    assert tr.log_prob("b").item() == 0.0


def test_lift_says_what_it_wants():
    with pytest.raises(ValueError, match=r"handlers\.lift: give a prior"):
        handlers.lift(model)
    with pytest.raises(ValueError, match="site 'loc': the prior must be a distribution, but got float"):
        handlers.lift(model, prior={"loc": 1.0})()
