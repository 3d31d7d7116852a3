"""Automatic guides against posteriors and maxima in closed form, and their densities against quadrature."""

import math

import models
import numpy
import pytest
import torch
from models import HEIGHTS
from torch.distributions import biject_to

import ppl
import ppl.distributions as dist
from ppl.distributions import constraints
from ppl.handlers import block, trace
from ppl.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from ppl.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal, init_to_feasible
from ppl.optim import Adam

NORMAL = [AutoNormal, AutoDiagonalNormal]
ALL = [*NORMAL, AutoDelta]


def fit(model, guide, *args, steps=(250, 200), particles=20):
    svi = SVI(model, guide, Adam({"lr": 0.05}), Trace_ELBO(particles, vectorize_particles=particles > 1))
    svi.run(steps[0], *args, progress_bar=False)
    for lr in (0.01, 0.002):
        svi.optimizer.param_groups[0]["lr"] = lr
        svi.run(steps[1], *args, progress_bar=False)
    return svi


# -- fitted


def exactly_normal():
    """Independent sites whose posteriors are normal in unconstrained space, with known centres and widths."""
    a = ppl.sample("a", dist.Normal(1.0, 2.0))
    ppl.sample("xa", dist.Normal(a, 1.0), obs=torch.tensor(3.0))
    b = ppl.sample("b", dist.LogNormal(0.0, 1.0))
    ppl.sample("xb", dist.Normal(b.log(), 0.5), obs=torch.tensor(1.0))
    with ppl.plate("p", 2):
        c = ppl.sample("c", dist.Normal(torch.tensor([-1.0, 4.0]), 1.0))
        ppl.sample("xc", dist.Normal(c, 1.0), obs=torch.tensor([1.0, 0.0]))


EXACT = {  # centre and width in unconstrained space
    "a": (torch.tensor((1 / 4 + 3) / (1 / 4 + 1)), torch.tensor((1 / 4 + 1) ** -0.5)),
    "b": (torch.tensor(4.0 / 5.0), torch.tensor(5**-0.5)),
    "c": (torch.tensor([0.0, 2.0]), torch.full((2,), 0.5**0.5)),
}


@pytest.mark.parametrize("guide_class", NORMAL)
def test_medians_and_quantiles_of_a_normal_posterior(guide_class):
    """The family holds the posterior: the optimum is exact, and what is left is the step size's noise."""
    guide = guide_class(exactly_normal)
    svi = fit(exactly_normal, guide)
    with svi.params:
        medians = guide.median()
        quantiles = guide.quantiles([0.1, 0.5, 0.9])
    for name, (loc, sd) in EXACT.items():
        back = torch.log if name == "b" else (lambda x: x)
        assert torch.allclose(back(medians[name]), loc, atol=0.04), name
        z = torch.special.ndtri(torch.tensor([0.1, 0.5, 0.9])).reshape((3,) + (1,) * loc.dim())
        assert quantiles[name].shape == (3, *loc.shape)
        assert torch.allclose(back(quantiles[name]), loc + sd * z, atol=0.07), name
    evidence = (
        models.normal_term(3.0, 1.0, 5**0.5)
        + models.normal_term(1.0, 0.0, 1.25**0.5)
        + models.normal_term(torch.tensor([2.0, -4.0]), 0.0, 2**0.5).sum()
    )
    assert svi.evaluate_loss() == pytest.approx(-evidence.item(), abs=0.01)


def test_a_point_estimate_is_the_maximum_in_the_models_own_coordinates():
    """Beta(3, 2) with 4 heads of 5: (3 + 4 - 1) / (3 + 2 + 5 - 2); a gamma's too, whose Jacobian must not count."""

    def model():
        p = ppl.sample("p", dist.Beta(3.0, 2.0))
        rate = ppl.sample("rate", dist.Gamma(3.0, 1.0))
        with ppl.plate("n", 5):
            ppl.sample("x", dist.Bernoulli(p), obs=torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0]))
            ppl.sample("y", dist.Poisson(rate), obs=torch.tensor([2.0, 4.0, 3.0, 1.0, 0.0]))
        weights = ppl.sample("weights", dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0])))
        ppl.sample("w", dist.Multinomial(6, weights), obs=torch.tensor([1.0, 2.0, 3.0]))

    guide = AutoDelta(model)
    svi = fit(model, guide, particles=1)
    with svi.params:
        found = guide.median()
    assert found["p"].item() == pytest.approx(6 / 8, abs=1e-3)
    assert found["rate"].item() == pytest.approx((3 + 10 - 1) / (1 + 5), abs=1e-3)
    assert torch.allclose(found["weights"], torch.tensor([2.0, 4.0, 6.0]) / 12, atol=1e-3)
    assert set(svi.params) == {"p_auto_loc", "rate_auto_loc", "weights_auto_loc"}
    assert torch.allclose(svi.params["p_auto_loc"], found["p"])


@pytest.mark.parametrize("guide_class", NORMAL)
def test_draws_of_a_guide_have_the_fitted_mean(guide_class):
    guide = guide_class(exactly_normal, init_scale=0.5, init_loc_fn=init_to_feasible)
    guide.setup()
    draws = torch.stack([guide()["b"] for _ in range(800)])
    mean, var = math.exp(0.125), (math.exp(0.25) - 1) * math.exp(0.25)
    assert abs(draws.mean() - mean) < 4 * math.sqrt(var / 800)


# -- densities


SUPPORTS = {
    "real": dist.Normal(0.0, 1.0),
    "positive": dist.Gamma(2.0, 1.0),
    "unit interval": dist.Beta(2.0, 2.0),
    "interval": dist.Uniform(-2.0, 5.0),
    "greater than": dist.Pareto(1.5, 3.0),
}


def site_density(guide, name, support, value):
    """The density that a guide gives a site's value, whatever auxiliary sites it has."""
    with torch.no_grad():
        record = trace(guide).get_trace()
    if "_auto_latent" not in record:
        return record[name].fn.log_prob(value)
    latent = biject_to(support).inv(value)
    d = record["_auto_latent"].fn
    rows = [d.log_prob(x.reshape(1)) for x in latent]
    return torch.stack(rows) - biject_to(support).log_abs_det_jacobian(latent, value)


@pytest.mark.parametrize("name", list(SUPPORTS))
@pytest.mark.parametrize("guide_class", NORMAL)
def test_the_guides_density_integrates_to_one(name, guide_class):
    """By the trapezoid rule in unconstrained space, with the spacing of the constrained grid."""
    d = SUPPORTS[name]
    guide = guide_class(lambda: ppl.sample("x", d), init_scale=0.7, init_loc_fn=init_to_feasible)
    guide.setup()
    grid = biject_to(d.support)(torch.linspace(-7.0, 7.0, 6001))
    density = site_density(guide, "x", d.support, grid).exp().detach()
    assert numpy.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", list(SUPPORTS))
@pytest.mark.parametrize("guide_class", NORMAL)
def test_the_density_in_the_trace_is_that_of_the_draw(name, guide_class):
    """All sites together: normal density of the unconstrained draw minus the Jacobian, also through the Delta sites."""
    d = SUPPORTS[name]
    guide = guide_class(lambda: ppl.sample("x", d), init_scale=0.7, init_loc_fn=init_to_feasible)
    guide.setup()
    record = trace(guide).get_trace()
    x = record["x"].tensor
    transform = biject_to(d.support)
    z = transform.inv(x)
    expected = models.normal_term(z, 0.0, 0.7) - transform.log_abs_det_jacobian(z, x)
    assert torch.allclose(record.log_prob_sum(), expected, atol=1e-8)


VECTORS = {
    "simplex": dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0])),
    "lower cholesky": dist.LKJCholesky(3, 1.5),
    "real vector": dist.MultivariateNormal(torch.zeros(2), torch.eye(2)),
    "positive vector": dist.Gamma(torch.tensor([1.0, 2.0]), 1.0).to_event(1),
}


@pytest.mark.parametrize("plated", [False, True])
@pytest.mark.parametrize("name", list(VECTORS))
@pytest.mark.parametrize("guide_class", NORMAL)
def test_the_bound_against_a_vector_site_is_that_of_the_pushed_forward_normal(name, guide_class, plated):
    """log q of a draw equals the normal's density of its unconstrained value minus the Jacobian, event dims and all."""
    d = VECTORS[name]

    def model():
        if plated:
            with ppl.plate("p", 2):
                ppl.sample("x", d)
        else:
            ppl.sample("x", d)

    guide = guide_class(model, init_scale=0.5, init_loc_fn=init_to_feasible)
    guide.setup()
    record = trace(guide).get_trace()
    x = record["x"].tensor
    transform = biject_to(d.support)
    z = transform.inv(x)
    log_det = transform.log_abs_det_jacobian(z, x).sum()
    expected = models.normal_term(z, 0.0, 0.5).sum() - log_det
    assert x.shape == ((2,) if plated else ()) + tuple(d.event_shape)
    assert torch.allclose(record.log_prob_sum(), expected, atol=1e-8)


@pytest.mark.parametrize("guide_class", NORMAL)
def test_the_bound_is_zero_where_model_and_guide_are_equal(guide_class):
    """A log-normal, a logit-normal and a normal are the guide's own family: each draw's loss is zero."""
    logit = [dist.transforms.SigmoidTransform()]

    def model():
        ppl.sample("a", dist.Normal(0.3, 0.7))
        ppl.sample("b", dist.LogNormal(0.2, 0.7))
        with ppl.plate("p", 2):
            ppl.sample("c", dist.TransformedDistribution(dist.Normal(torch.tensor([-0.5, 1.0]), 0.7), logit))

    guide = guide_class(model, init_scale=0.7)
    guide.setup()
    centre = {"a": torch.tensor(0.3), "b": torch.tensor(0.2), "c": torch.tensor([-0.5, 1.0])}
    with torch.no_grad():
        if guide_class is AutoNormal:
            for name, value in centre.items():
                guide.locs[name].copy_(value)
        else:
            guide.loc.copy_(torch.cat([centre[name].flatten() for name in guide.latents]))
    for _ in range(5):
        assert abs(Trace_ELBO().loss(model, guide)) < 1e-8
    assert abs(Trace_ELBO(7, vectorize_particles=True).loss(model, guide)) < 1e-8


# -- plates, particles, discrete sites


def local_model(data, subsample_size=None):
    mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
    with ppl.plate("data", len(data), subsample_size=subsample_size) as i:
        local = ppl.sample("local", dist.Normal(mean, 1.0))
        ppl.sample("x", dist.Normal(local, 1.0), obs=data[i])


@pytest.mark.parametrize("guide_class", [AutoNormal, AutoDelta])
def test_a_subsampled_plate_keeps_a_parameter_for_each_of_its_elements(guide_class):
    guide = guide_class(local_model)
    svi = SVI(local_model, guide, Adam({"lr": 0.05}))
    svi.setup(HEIGHTS, 2)
    assert svi.params["local_auto_loc"].shape == (4,)
    with svi.params:
        svi.loss(local_model, guide, HEIGHTS, 2).backward()
    moved = svi.params.unconstrained("local_auto_loc").grad
    indices = svi.loss.last_traces[0]["data"].tensor
    assert set(moved.nonzero().flatten().tolist()) == set(indices.tolist())
    assert torch.equal(svi.loss.last_traces[1]["data"].tensor, indices)


def test_a_subsampled_guide_finds_the_whole_posterior():
    """Posterior means: precision of local | mean is 2, the prior of mean 1, the marginal likelihood's variance 2."""
    guide = AutoNormal(local_model)
    svi = SVI(local_model, guide, Adam({"lr": 0.05}), Trace_ELBO(20, vectorize_particles=True))
    svi.run(250, HEIGHTS, 2, progress_bar=False)
    for lr in (0.01, 0.002):
        svi.optimizer.param_groups[0]["lr"] = lr
        svi.run(250, HEIGHTS, 2, progress_bar=False)
    mean = (HEIGHTS.sum() / 2) / (1 + 4 / 2)
    with svi.params:
        median = guide.median()
    assert median["mean"].item() == pytest.approx(mean.item(), abs=0.06)
    assert torch.allclose(svi.params["local_auto_loc"], (mean + HEIGHTS) / 2, atol=0.08)


def test_the_vector_guide_says_that_it_cannot_subsample():
    with pytest.raises(ValueError, match=r"(?s)'local'.*'data'.*subsampled.*AutoNormal"):
        AutoDiagonalNormal(local_model).setup(HEIGHTS, 2)


def test_plates_may_be_given_where_the_model_is_told_its_subsample():
    def model(indices):
        with ppl.plate("data", 4, subsample=indices):
            local = ppl.sample("local", dist.Normal(0.0, 1.0))
            ppl.sample("x", dist.Normal(local, 1.0), obs=HEIGHTS[indices])

    guide = AutoNormal(model, create_plates=lambda indices: ppl.plate("data", 4, subsample=indices))
    svi = SVI(model, guide, Adam({"lr": 0.05}))
    indices = torch.tensor([3, 1])
    svi.setup(indices)
    before = svi.params["local_auto_loc"].detach().clone()
    svi.step(indices)
    assert (svi.params["local_auto_loc"] != before).tolist() == [False, True, False, True]


@pytest.mark.parametrize("guide_class", ALL)
def test_particles_may_be_vectorised_in_nested_plates(guide_class):
    """Looped and vectorised estimates of the same loss agree within 4 standard errors."""
    guide = guide_class(models.regression_model)
    args = (models.COVARIATE, models.RESPONSE)
    guide.setup(*args)
    loops = torch.tensor([Trace_ELBO().loss(models.regression_model, guide, *args) for _ in range(200)])
    vectorised = torch.tensor(
        [Trace_ELBO(20, vectorize_particles=True).loss(models.regression_model, guide, *args) for _ in range(20)]
    )
    se = math.sqrt(loops.var() / 200 + vectorised.var() / 20)
    assert abs(loops.mean() - vectorised.mean()) <= 4 * se + 1e-9
    assert guide()["slopes"].shape == (2, 1)


@pytest.mark.parametrize("guide_class", ALL)
def test_parameters_exist_after_setup_and_do_not_move(guide_class):
    guide = guide_class(local_model)
    assert list(guide.parameters()) == []
    guide.setup(HEIGHTS)
    leaves = dict(guide.named_parameters())
    assert sum(p.numel() for p in leaves.values()) == 5 * (1 if guide_class is AutoDelta else 2)
    svi = SVI(local_model, guide, Adam({"lr": 0.05}))
    svi.step(HEIGHTS)
    assert all(a is b for a, b in zip(leaves.values(), guide.parameters(), strict=True))
    assert {id(leaf) for _, leaf in svi.params.named_unconstrained()} == {id(p) for p in leaves.values()}


@pytest.mark.parametrize("guide_class", ALL)
def test_the_guide_is_its_own_and_not_a_part_of_the_model(guide_class):
    guide = guide_class(local_model, prefix="mine")
    svi = SVI(local_model, guide, Adam({"lr": 0.05}))
    svi.setup(HEIGHTS)
    assert all("mine" in name for name in svi.params)


@pytest.mark.parametrize("guide_class", ALL)
def test_discrete_sites_are_left_to_enumeration(guide_class):
    def model(data):
        loc = ppl.sample("loc", dist.Normal(0.0, 1.0))
        with ppl.plate("data", len(data)):
            z = ppl.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            ppl.sample("x", dist.Normal(loc + 3 * z, 1.0), obs=data)

    guide = guide_class(model)
    elbo = TraceEnum_ELBO()
    svi = SVI(model, guide, Adam({"lr": 0.05}), elbo)
    svi.step(HEIGHTS)
    assert list(guide.latents) == ["loc"]
    hidden = guide_class(block(model, hide=["loc"]))
    with pytest.raises(ValueError, match="no continuous latent site"):
        hidden.setup(HEIGHTS)


@pytest.mark.parametrize("guide_class", ALL)
def test_names_with_dots_are_fine(guide_class):
    def model():
        ppl.sample("a.b", dist.Normal(0.0, 1.0))
        ppl.sample("c", dist.Gamma(1.0, 1.0))

    guide = guide_class(model)
    svi = SVI(model, guide, Adam({"lr": 0.05}))
    svi.run(3, progress_bar=False)
    assert set(guide.median()) == {"a.b", "c"}


def test_scales_stay_positive():
    guide = AutoNormal(exactly_normal)
    svi = SVI(exactly_normal, guide, Adam({"lr": 1.0}))
    svi.run(20, progress_bar=False)
    assert all((svi.params[name] > 0).all() for name in svi.params if name.endswith("scale"))
    assert svi.params.constraint("a_auto_scale") is constraints.positive


def test_bad_arguments_are_errors():
    for guide_class in NORMAL:
        with pytest.raises(ValueError, match="init_scale must be positive"):
            guide_class(exactly_normal, init_scale=0.0)
    for guide_class in ALL:
        with pytest.raises(TypeError, match="must be callable"):
            guide_class(3)
        with pytest.raises(ValueError, match=r"call setup\(\*args\)"):
            guide_class(exactly_normal).median()
