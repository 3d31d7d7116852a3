"""The bound's value and gradient draw by draw, and how programs are run to get them."""

import models
import pytest
import torch
from models import CASES, HEIGHTS

import ppl
import ppl.distributions as dist
from ppl.handlers import replay, trace
from ppl.infer import ELBO, Trace_ELBO, TraceEnum_ELBO
from ppl.infer.elbo.nesting import find_plate_nesting

PATHWISE = [
    "normal-normal, pathwise",
    "gamma-poisson, pathwise",
    "eight schools, pathwise",
    "hierarchical regression",
    "logistic regression",
    "masked and scaled, pathwise",
]


def by_hand(case):
    """log p - log q of one draw, from traces."""
    guide_trace = trace(case.guide).get_trace(*case.args)
    model_trace = trace(replay(case.model, guide_trace)).get_trace(*case.args)
    return model_trace.log_prob_sum() - guide_trace.log_prob_sum()


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceEnum_ELBO])
@pytest.mark.parametrize("name", PATHWISE)
def test_one_draws_loss_and_pathwise_gradient_are_those_of_the_traces(name, objective):
    case = CASES[name]
    case.guide(*case.args)
    store = ppl.get_param_store()
    leaves = [leaf for _, leaf in store.named_unconstrained()]
    ppl.set_rng_seed(3)
    elbo = by_hand(case)
    expected = torch.autograd.grad(elbo, leaves)
    ppl.set_rng_seed(3)
    loss = objective()(case.model, case.guide, *case.args)
    found = torch.autograd.grad(-loss, leaves)
    assert torch.allclose(-loss, elbo, atol=1e-10)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", [case.name for case in models.DRAWN])
def test_one_draws_loss_is_that_of_the_traces_also_where_it_is_not_reparameterised(name):
    case = CASES[name]
    ppl.set_rng_seed(3)
    elbo = by_hand(case)
    ppl.set_rng_seed(3)
    assert torch.allclose(-Trace_ELBO()(case.model, case.guide, *case.args), elbo, atol=1e-10)


def test_looped_particles_are_averaged():
    case = CASES["hierarchical regression"]
    ppl.set_rng_seed(3)
    single = [Trace_ELBO().loss(case.model, case.guide, *case.args) for _ in range(4)]
    ppl.set_rng_seed(3)
    assert Trace_ELBO(num_particles=4).loss(case.model, case.guide, *case.args) == pytest.approx(sum(single) / 4)


def test_vectorised_particles_run_the_programs_once():
    calls = []

    def model(data):
        calls.append("model")
        models.normal_normal_model(data)

    elbo = Trace_ELBO(num_particles=50, vectorize_particles=True, max_plate_nesting=1)
    elbo.loss(model, models.normal_guide, HEIGHTS)
    assert calls == ["model"]
    latent = elbo.last_traces[1]["mean"]
    assert latent.tensor.shape == (50, 1) and len(latent.tensor.unique()) == 50


def test_the_score_function_surrogate_is_the_score_times_the_signal():
    """One draw by hand: ∇ log q(z) · (log p - log q)."""
    case = CASES["normal-normal, score function"]
    case.guide(HEIGHTS)
    store = ppl.get_param_store()
    leaves = [leaf for _, leaf in store.named_unconstrained()]
    ppl.set_rng_seed(5)
    guide_trace = trace(case.guide).get_trace(HEIGHTS)
    signal = (
        trace(replay(case.model, guide_trace)).get_trace(HEIGHTS).log_prob_sum() - guide_trace.log_prob_sum()
    ).detach()
    expected = torch.autograd.grad(guide_trace.log_prob_sum() * signal, leaves)
    ppl.set_rng_seed(5)
    loss = Trace_ELBO()(case.model, case.guide, HEIGHTS)  # the first step has no running mean yet
    found = torch.autograd.grad(-loss, leaves)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found, expected, strict=True))


def test_a_signal_holds_only_the_costs_of_its_own_place_in_the_plates():
    """Rao-Blackwellised: an enormous cost at one place leaves the gradients of the others alone."""

    def gradients(offset):
        def model():
            with ppl.plate("n", 3):
                z = ppl.sample("z", dist.Bernoulli(0.3))
                ppl.sample("x", dist.Normal(z, 1.0), obs=torch.ones(3))
                ppl.factor("big", torch.tensor([0.0, 0.0, offset]))

        def guide():
            q = ppl.param("q", torch.tensor([0.3, 0.4, 0.5]))
            with ppl.plate("n", 3):
                ppl.sample("z", dist.Bernoulli(q), infer={"use_decaying_avg_baseline": False})

        ppl.set_rng_seed(2)
        loss = Trace_ELBO()(model, guide)
        return torch.autograd.grad(loss, ppl.get_param_store().unconstrained("q"))[0]

    small, large = gradients(0.0), gradients(1e6)
    assert torch.allclose(small[:2], large[:2]) and abs(large[2]) > 1e5


def test_differentiable_loss_is_the_loss():
    case = CASES["normal-normal, pathwise"]
    elbo = Trace_ELBO()
    ppl.set_rng_seed(1)
    a = elbo.differentiable_loss(case.model, case.guide, *case.args)
    ppl.set_rng_seed(1)
    assert elbo.loss(case.model, case.guide, *case.args) == a.item()
    ppl.set_rng_seed(1)
    assert elbo(case.model, case.guide, *case.args).item() == a.item() and a.requires_grad
    assert isinstance(elbo, ELBO)


def test_programs_without_sites_have_no_loss():
    for objective in (Trace_ELBO, TraceEnum_ELBO):
        assert objective().loss(lambda: None, lambda: None) == 0.0


# -- plates


def test_the_nesting_of_plates_is_found_without_touching_the_random_generator():
    state = torch.get_rng_state()
    count = find_plate_nesting(
        models.regression_model, models.regression_guide, (models.COVARIATE, models.RESPONSE), {}
    )
    assert count == 2 and torch.equal(torch.get_rng_state(), state)
    assert find_plate_nesting(models.switch_model, models.switch_guide, (), {}) == 0

    def far():
        with ppl.plate("far", 2, dim=-4):
            ppl.sample("x", dist.Normal(0.0, 1.0))

    assert find_plate_nesting(far, far, (), {}) == 4


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceEnum_ELBO])
def test_one_objective_serves_programs_of_different_nesting(objective):
    elbo = objective(num_particles=3, vectorize_particles=True)

    def program(depth):
        with ppl.plate_stack("p", [2] * depth):
            ppl.sample("x", dist.Normal(0.0, 1.0))
            ppl.sample("z", dist.Bernoulli(0.4), infer={"enumerate": "parallel"})

    for depth in (1, 3, 2):
        assert elbo.loss(program, program, depth) == pytest.approx(0.0, abs=1e-9)


def test_model_and_guide_see_one_subsample():
    elbo = Trace_ELBO()
    case = CASES["local discrete, subsampled"]
    for _ in range(5):
        elbo.loss(case.model, case.guide, *case.args)
        of_model, of_guide = (t["data"].tensor for t in elbo.last_traces)
        assert torch.equal(of_model, of_guide)


def test_two_subsamples_of_one_plate_must_be_of_one_size():
    def program(size):
        with ppl.plate("data", 10, subsample_size=size):
            ppl.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="plate 'data' has 3 elements in this run, but 2 in the replayed trace"):
        Trace_ELBO().loss(lambda: program(3), lambda: program(2))


# -- the exact value at the optimum


def test_the_loss_of_the_exact_posterior_is_the_negative_evidence_in_every_draw():
    loc, sd = models.normal_normal_posterior()

    def guide(data):
        ppl.sample("mean", dist.Normal(loc, sd))

    covariance = 4.0 * torch.ones(4, 4) + 0.49 * torch.eye(4)
    evidence = torch.distributions.MultivariateNormal(torch.full((4,), 0.5), covariance).log_prob(HEIGHTS)
    for elbo in (Trace_ELBO(), Trace_ELBO(5), Trace_ELBO(5, vectorize_particles=True), TraceEnum_ELBO()):
        assert elbo.loss(models.normal_normal_model, guide, HEIGHTS) == pytest.approx(-evidence.item(), abs=1e-9)


def test_the_state_holds_the_running_means():
    case = CASES["normal-normal, score function"]
    elbo = Trace_ELBO()
    elbo(case.model, case.guide, *case.args)
    saved = elbo.state_dict()
    fresh = Trace_ELBO()
    fresh.load_state_dict(saved)
    assert torch.equal(fresh.baselines.means["mean"], elbo.baselines.means["mean"])
    elbo(case.model, case.guide, *case.args)
    assert torch.equal(saved["baselines"]["mean"], fresh.baselines.means["mean"])
