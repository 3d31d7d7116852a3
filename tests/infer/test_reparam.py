"""Rewriting a site must not change the density of anything that depends on it."""

import math

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.distributions import constraints
from ppl.handlers import condition, mask, reparam, scale, trace
from ppl.infer import SVI, Trace_ELBO
from ppl.infer.autoguide import AutoNormal
from ppl.infer.reparam import LocScaleReparam, TransformReparam
from ppl.optim import Adam

LOC = torch.tensor([0.5, -1.0, 2.0])
SCALE = torch.tensor([0.3, 2.0, 1.5])


def plated(d=None):
    with ppl.plate("p", 3):
        return ppl.sample("x", dist.Normal(LOC, SCALE) if d is None else d)


def event():
    return ppl.sample("x", dist.Normal(LOC, SCALE).to_event(1))


def mixed():
    with ppl.plate("p", 2):
        return ppl.sample("x", dist.Normal(LOC, SCALE).to_event(1))


def student():
    with ppl.plate("p", 3):
        return ppl.sample("x", dist.StudentT(5.0, LOC, SCALE))


def log_jacobian(centered, like):
    """log |dx / d decentered| an entry: (1 - centered) log scale."""
    degree = 0.5 if centered is None else centered
    return ((1 - degree) * SCALE.log()).expand(like.shape)


@pytest.mark.parametrize("centered", [0.0, 0.5, 1.0, None])
@pytest.mark.parametrize("model", [plated, event, mixed, student])
def test_the_density_is_the_same_after_the_change_of_variables(model, centered):
    shape = ("df",) if model is student else ()
    config = {"x": LocScaleReparam(centered, shape_params=shape)}
    new = trace(reparam(model, config=config)).get_trace()
    assert new["x"].kind == "deterministic"
    x = new["x"].tensor
    old = trace(condition(model, data={"x": x})).get_trace()
    jacobian = log_jacobian(centered, x).sum()
    assert torch.allclose(new.log_prob_sum(), old.log_prob_sum() + jacobian, atol=1e-10)
    assert x.shape == old["x"].tensor.shape
    decentered = new["x_decentered"]
    assert [f.name for f in decentered.plates] == [f.name for f in old["x"].plates]
    assert decentered.fn.event_shape == old["x"].fn.event_shape


@pytest.mark.parametrize("centered", [0.0, 0.5, 1.0])
def test_the_draws_have_the_same_moments(centered):
    def model():
        with ppl.plate("n", 4000, dim=-2), ppl.plate("p", 3, dim=-1):
            return ppl.sample("x", dist.Normal(LOC, SCALE))

    x = reparam(model, config={"x": LocScaleReparam(centered)})()
    assert x.shape == (4000, 3)
    assert ((x.mean(0) - LOC).abs() <= 4 * SCALE / math.sqrt(4000)).all()
    assert ((x.std(0) - SCALE).abs() <= 4 * SCALE / math.sqrt(2 * 4000)).all()


def test_non_centred_noise_does_not_depend_on_the_parameters():
    site = trace(reparam(plated, config={"x": LocScaleReparam(0.0)})).get_trace()["x_decentered"]
    assert torch.equal(site.fn.mean, torch.zeros(3)) and torch.equal(site.fn.stddev, torch.ones(3))
    site = trace(reparam(plated, config={"x": LocScaleReparam(1.0)})).get_trace()["x_decentered"]
    assert torch.equal(site.fn.mean, LOC) and torch.equal(site.fn.stddev, SCALE)


def test_a_learned_degree_is_a_parameter_within_zero_and_one_an_entry_of_the_event():
    reparam(event, config={"x": LocScaleReparam()})()
    store = ppl.get_param_store()
    assert store["x_centered"].shape == (3,) and store.constraint("x_centered") is constraints.unit_interval
    assert torch.allclose(store["x_centered"], torch.tensor(0.5))
    ppl.clear_param_store()
    reparam(plated, config={"x": LocScaleReparam()})()
    assert ppl.get_param_store()["x_centered"].shape == ()


SEEN = torch.tensor([True, False, True])


@pytest.mark.parametrize("rewrite", [LocScaleReparam(0.3), TransformReparam()])
def test_plates_scale_and_mask_are_handed_on(rewrite):
    def model():
        with scale(scale=2.0), mask(mask=SEEN), ppl.plate("p", 6, subsample=torch.tensor([4, 0, 2])):
            d = dist.LogNormal(LOC, SCALE) if isinstance(rewrite, TransformReparam) else dist.Normal(LOC, SCALE)
            ppl.sample("x", d)

    new = trace(reparam(model, config={"x": rewrite})).get_trace()
    name = "x_base" if isinstance(rewrite, TransformReparam) else "x_decentered"
    site = new[name]
    old = trace(model).get_trace()["x"]
    assert [f.name for f in site.plates] == ["p"] and site.scale == old.scale == 4.0
    assert torch.equal(site.mask, SEEN)
    expected = 4.0 * torch.where(SEEN, site.fn.log_prob(site.tensor), torch.zeros(()))
    assert torch.allclose(new.log_prob(name), expected)


def test_a_transformed_distribution_is_drawn_before_its_transforms():
    d = dist.LogNormal(LOC, SCALE)
    new = trace(reparam(lambda: plated(d), config={"x": TransformReparam()})).get_trace()
    base, x = new["x_base"], new["x"].tensor
    assert torch.allclose(x, base.tensor.exp())
    old = d.log_prob(x)
    assert torch.allclose(new.log_prob("x_base"), old + x.log(), atol=1e-10)  # dx = x d(log x)


def test_several_transforms_with_event_dims_keep_the_density():
    transforms = [dist.transforms.AffineTransform(LOC, SCALE), dist.transforms.StickBreakingTransform()]

    def model():
        with ppl.plate("p", 2):
            return ppl.sample("x", dist.TransformedDistribution(dist.Normal(torch.zeros(3), 1.0), transforms))

    new = trace(reparam(model, config={"x": TransformReparam()})).get_trace()
    x, base = new["x"].tensor, new["x_base"]
    assert x.shape == (2, 4) and torch.allclose(x.sum(-1), torch.ones(2))
    old = trace(condition(model, data={"x": x})).get_trace()
    middle = transforms[0](base.tensor)
    jacobian = SCALE.log().sum().expand(2) + transforms[1].log_abs_det_jacobian(middle, x)
    assert torch.allclose(new.log_prob("x_base"), old.log_prob("x") + jacobian, atol=1e-8)


def test_a_function_may_choose_the_rewriting():
    def model():
        ppl.sample("a", dist.Normal(1.0, 2.0))
        ppl.sample("b", dist.Gamma(1.0, 2.0))
        ppl.sample("c", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0))

    rewrite = LocScaleReparam(0.0)
    chosen = reparam(model, config=lambda site: rewrite if site.name == "a" else None)
    assert list(trace(chosen).get_trace()) == ["a_decentered", "a", "b", "c"]


def test_a_rewritten_model_has_the_same_posterior():
    """Eight-schools-like funnel with known scale: the posterior mean of theta in closed form."""
    data, noise, prior_sd = torch.tensor([1.0, -2.0, 3.0]), 1.5, 0.8

    def model():
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        with ppl.plate("p", 3):
            theta = ppl.sample("theta", dist.Normal(mu, prior_sd))
            ppl.sample("y", dist.Normal(theta, noise), obs=data)

    new = reparam(model, config={"theta": LocScaleReparam(0.0)})
    guide = AutoNormal(new)
    svi = SVI(new, guide, Adam({"lr": 0.05}), Trace_ELBO(20, vectorize_particles=True))
    svi.run(250, progress_bar=False)
    svi.optimizer.param_groups[0]["lr"] = 0.005
    svi.run(150, progress_bar=False)
    # mean-field gives a Gaussian posterior's mean exactly
    precision = torch.zeros(4, 4)
    precision[0, 0] = 1 + 3 / noise**2
    precision[range(1, 4), range(1, 4)] = 1 + (prior_sd / noise) ** 2
    precision[0, 1:] = precision[1:, 0] = prior_sd / noise**2
    mean = torch.linalg.solve(precision, torch.cat([data.sum().reshape(1), prior_sd * data]) / noise**2)
    with svi.params:
        median = guide.median()
    assert median["mu"].item() == pytest.approx(mean[0].item(), abs=0.05)
    assert torch.allclose(median["theta_decentered"], mean[1:], atol=0.05)


def test_what_cannot_be_rewritten_is_an_error_that_names_the_site():
    def run(d, rewrite, obs=None):
        return reparam(lambda: ppl.sample("x", d, obs=obs), config={"x": rewrite})()

    with pytest.raises(ValueError, match=r"'x'.*loc and scale.*Gamma"):
        run(dist.Gamma(1.0, 1.0), LocScaleReparam(0.0))
    with pytest.raises(ValueError, match=r"'x'.*LogNormal"):
        run(dist.LogNormal(0.0, 1.0), LocScaleReparam(0.0))
    with pytest.raises(ValueError, match=r"'x'.*observed"):
        run(dist.Normal(0.0, 1.0), LocScaleReparam(0.0), obs=torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"'x'.*TransformedDistribution.*Normal"):
        run(dist.Normal(0.0, 1.0), TransformReparam())
    with pytest.raises(ValueError, match=r"'x'.*observed"):
        run(dist.LogNormal(0.0, 1.0), TransformReparam(), obs=torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"centered must lie in \[0, 1\]"):
        LocScaleReparam(1.5)
