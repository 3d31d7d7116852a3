"""Every gradient estimator against the exact gradient, within 4 standard errors."""

import dataclasses
import math

import models
import pytest
import torch
from models import CASES, Case

import ppl
import ppl.distributions as dist
from ppl.handlers import infer_config
from ppl.infer import Trace_ELBO, TraceEnum_ELBO

LIMIT = 4.0  # standard errors


def exact_gradients(case: Case, store: ppl.ParamStore) -> torch.Tensor:
    leaves = [leaf for _, leaf in store.named_unconstrained()]
    grads = torch.autograd.grad(-case.elbo(store), leaves)
    return torch.cat([g.flatten() for g in grads])


def draws_of_gradient(case, elbo, store, num_draws):
    """Losses (draws,) and gradients (draws, D) with respect to the unconstrained parameters."""
    leaves = [leaf for _, leaf in store.named_unconstrained()]
    losses, rows = [], []
    for _ in range(num_draws):
        with store:
            loss = elbo(case.model, case.guide, *case.args)
        grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    torch.zeros_like(x).flatten() if g is None else g.flatten()
                    for g, x in zip(grads, leaves, strict=True)
                ]
            )
        )
        losses.append(loss.detach())
    return torch.stack(losses), torch.stack(rows)


def check(case, elbo, num_draws, resolution, again=0):
    """Loss and gradient are unbiased, and the standard error is small enough for that to say something.

    Args: again, how many times as many fresh draws decide where the first ones are too far off. Of some 150 comparisons
        at 4 standard errors, one in a hundred suites has one that fails by chance; a bias stands out the more.
    """
    store = ppl.ParamStore()
    with store, torch.no_grad():
        case.guide(*case.args)
        case.model(*case.args)
    exact = exact_gradients(case, store)
    losses, rows = draws_of_gradient(case, elbo, store, num_draws)
    se = rows.std(0) / math.sqrt(num_draws)
    off = (rows.mean(0) - exact).abs()
    if again and not (off <= LIMIT * se + 1e-9).all():
        check(case, elbo, again * num_draws, resolution)
        return
    assert (off <= LIMIT * se + 1e-9).all(), f"{case}: off by {(off / (se + 1e-12)).max():.1f} standard errors"
    assert se.norm() <= resolution * exact.norm(), f"{case}: standard error {se.norm()} against {exact.norm()}"
    se_of_loss = losses.std() / math.sqrt(num_draws)
    assert (losses.mean() + case.elbo(store).detach()).abs() <= LIMIT * se_of_loss + 1e-9


def particles(elbo, count, vectorised):
    return elbo(num_particles=count, vectorize_particles=vectorised)


DRAWN = [case.name for case in models.DRAWN]
ENUMERATED = [case.name for case in models.ENUMERATED]


@pytest.mark.parametrize("name", DRAWN)
def test_the_gradient_of_vectorised_particles_is_unbiased(name):
    check(CASES[name], particles(Trace_ELBO, 40, True), 80, 0.4)


@pytest.mark.parametrize(
    "name",
    [
        "normal-normal, pathwise",
        "normal-normal, score function",
        "hierarchical regression",
        "logistic regression, subsampled",
        "discrete above continuous, both drawn",
        "masked and scaled, score function",
        "nested plates, all drawn",
    ],
)
def test_the_gradient_of_single_draws_is_unbiased(name):
    check(CASES[name], Trace_ELBO(), 250, 1.0)


@pytest.mark.parametrize("name", ["normal-normal, score function", "mixture, all drawn", "local discrete, subsampled"])
def test_the_gradient_of_looped_particles_is_unbiased(name):
    check(CASES[name], particles(Trace_ELBO, 3, False), 100, 1.0)


@pytest.mark.parametrize("name", ENUMERATED)
@pytest.mark.parametrize("vectorised", [True, False])
def test_the_gradient_of_an_enumerated_objective_is_unbiased(name, vectorised):
    elbo = particles(TraceEnum_ELBO, 20, True) if vectorised else TraceEnum_ELBO()
    check(CASES[name], elbo, 40, 0.5 if vectorised else 1.0)


@pytest.mark.parametrize("name", ["normal-normal, pathwise", "mixture, all drawn", "nested plates, all drawn"])
def test_the_enumerating_objective_draws_what_is_not_marked(name):
    check(CASES[name], particles(TraceEnum_ELBO, 40, True), 60, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("vectorised", [True, False])
def test_the_gradient_is_unbiased_over_many_draws(name, vectorised):
    case = CASES[name]
    elbo = TraceEnum_ELBO if case.enumerates else Trace_ELBO
    check(case, particles(elbo, 100 if vectorised else 2, vectorised), 1500 if vectorised else 3000, 0.3, again=4)


BASELINES = {
    "none": {"use_decaying_avg_baseline": False},
    "fast": {"baseline_beta": 0.2},
    "given": {"baseline_value": torch.tensor(-6.0), "use_decaying_avg_baseline": False},
    "both": {"baseline": {"beta": 0.5, "value": torch.tensor(-3.0)}},
}


def with_baseline(case: Case, options) -> Case:
    guide = infer_config(case.guide, lambda site: options)
    return dataclasses.replace(case, guide=guide)


@pytest.mark.parametrize("name", ["normal-normal, score function", "local discrete, subsampled"])
@pytest.mark.parametrize("baseline", list(BASELINES))
def test_no_baseline_brings_a_bias(name, baseline):
    check(with_baseline(CASES[name], BASELINES[baseline]), particles(Trace_ELBO, 40, True), 80, 0.6)


def test_a_baseline_of_the_sites_own_batch_shape_is_subtracted_place_by_place():
    """With each place's expected cost given, the gradient's variance falls."""
    offsets = torch.tensor([[-50.0], [0.0], [80.0]])

    def model():
        with ppl.plate("p", 3, dim=-2):
            z = ppl.sample("z", dist.Bernoulli(0.3))
            ppl.sample("x", dist.Normal(z, 1.0), obs=torch.ones(3, 1))
            ppl.factor("offset", offsets)

    def guide(value=None):
        q = ppl.param("q", torch.full((3, 1), 0.4))
        with ppl.plate("p", 3, dim=-2):
            infer = {"use_decaying_avg_baseline": False, "baseline_value": value}
            ppl.sample("z", dist.Bernoulli(q), infer=infer)

    spread = []
    for value in (None, offsets):
        rows = []
        for _ in range(40):
            loss = Trace_ELBO()(model, lambda value=value: guide(value))
            rows.append(torch.autograd.grad(loss, ppl.get_param_store().unconstrained("q"))[0])
        spread.append(torch.stack(rows).std(0).squeeze())
    assert (spread[1][[0, 2]] < spread[0][[0, 2]] / 10).all()


def test_the_running_mean_lowers_the_variance_of_a_score_function_gradient():
    """Costs around -100: without a baseline, the gradient is the noise of the score times 100."""

    def model():
        z = ppl.sample("z", dist.Bernoulli(0.3))
        ppl.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))
        ppl.factor("offset", torch.tensor(-100.0))

    def guide():
        ppl.sample("z", dist.Bernoulli(ppl.param("q", torch.tensor(0.4))))

    spread = {}
    for decaying in (True, False):
        elbo = Trace_ELBO()
        marked = infer_config(guide, lambda site, decaying=decaying: {"use_decaying_avg_baseline": decaying})
        rows = []
        for _ in range(60):
            loss = elbo(model, marked)
            rows.append(torch.autograd.grad(loss, ppl.get_param_store().unconstrained("q"))[0])
        spread[decaying] = torch.stack(rows[10:]).std()
    assert spread[True] < spread[False] / 20
    assert elbo.baselines.means == {}


def test_a_running_mean_is_the_decaying_average_of_the_signals():
    def model(offset):
        ppl.sample("z", dist.Bernoulli(0.5))
        ppl.factor("offset", offset)

    def guide(offset):
        ppl.sample("z", dist.Bernoulli(ppl.param("q", torch.tensor(0.5))), infer={"baseline_beta": 0.9})

    elbo = Trace_ELBO()
    for offset in (3.0, 5.0, -2.0):
        elbo(model, guide, torch.tensor(offset))
    assert torch.allclose(elbo.baselines.means["z"], torch.tensor(0.9 * (0.9 * 3.0 + 0.1 * 5.0) + 0.1 * -2.0))
    elbo.loss(model, guide, torch.tensor(1000.0))  # looking at the loss teaches nothing
    assert elbo.baselines.means["z"] < 3.2


def test_a_signal_that_is_not_finite_leaves_the_running_mean_alone():
    def model(offset):
        ppl.sample("z", dist.Bernoulli(0.5))
        ppl.factor("offset", offset)

    def guide(offset):
        ppl.sample("z", dist.Bernoulli(ppl.param("q", torch.tensor(0.5))))

    elbo = Trace_ELBO()
    elbo(model, guide, torch.tensor(-torch.inf))
    assert elbo.baselines.means["z"].isfinite()
    elbo(model, guide, torch.tensor(2.0))
    before = elbo.baselines.means["z"].clone()
    elbo(model, guide, torch.tensor(-torch.inf))
    assert torch.equal(elbo.baselines.means["z"], before)


@pytest.mark.parametrize("has_rsample", [True, False])
def test_a_factor_of_the_guide_is_differentiated_as_asked(has_rsample):
    """Pathwise, -log q's own gradient; by the score, the factor's gradient times the whole signal."""

    def guide():
        ppl.factor("f", 2.0 * ppl.param("t", torch.tensor(0.5)), has_rsample=has_rsample)

    def model():
        ppl.factor("cost", 3.0 * ppl.param("t", torch.tensor(0.5)))

    loss = Trace_ELBO()(
        model, infer_config(guide, lambda s: {"is_auxiliary": True, "use_decaying_avg_baseline": False})
    )
    (grad,) = torch.autograd.grad(loss, ppl.get_param_store().unconstrained("t"))
    assert loss.item() == pytest.approx(-(1.5 - 1.0))
    expected = -(3.0 - 2.0) if has_rsample else -(3.0 + 2.0 * (1.5 - 1.0))
    assert grad.item() == pytest.approx(expected)
