"""SVI: what it converges to, what it returns, and that it goes on with the same bits after a stop."""

import io

import models
import pytest
import torch
from models import COINS, HEIGHTS

import ppl
import ppl.distributions as dist
from ppl.distributions import constraints
from ppl.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from ppl.infer.autoguide import AutoDiagonalNormal, AutoNormal
from ppl.optim import Adam


def normal_svi(**options):
    loss = Trace_ELBO(num_particles=30, vectorize_particles=True)
    return SVI(models.normal_normal_model, models.normal_guide, Adam({"lr": 0.05}), loss, **options)


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same_bits(a, b):
    """Whether two nests of dicts, lists and tensors are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_bits(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same_bits, a, b))
    return a == b


# -- what it finds


def test_a_normal_guide_finds_the_exact_posterior():
    """The gradient noise at the optimum is zero for the mean-field optimum of a conjugate model, up to the step size."""
    svi = normal_svi()
    svi.run(300, HEIGHTS, progress_bar=False)
    svi.optimizer.param_groups[0]["lr"] = 0.002
    svi.run(300, HEIGHTS, progress_bar=False)
    loc, sd = models.normal_normal_posterior()
    assert svi.params["loc"].item() == pytest.approx(loc, abs=0.02)
    assert svi.params["sd"].item() == pytest.approx(sd, rel=0.03)
    evidence = torch.distributions.MultivariateNormal(
        torch.full((4,), 0.5), 4.0 * torch.ones(4, 4) + 0.49 * torch.eye(4)
    ).log_prob(HEIGHTS)
    assert svi.evaluate_loss(HEIGHTS) == pytest.approx(-evidence.item(), abs=0.02)


def test_a_beta_guide_finds_the_exact_posterior():
    svi = SVI(
        models.beta_bernoulli_model, models.beta_guide, Adam({"lr": 0.05}), Trace_ELBO(30, vectorize_particles=True)
    )
    svi.run(400, COINS, progress_bar=False)
    svi.optimizer.param_groups[0]["lr"] = 0.003
    svi.run(300, COINS, progress_bar=False)
    assert svi.params["a"].item() == pytest.approx(2 + 4, rel=0.1)
    assert svi.params["b"].item() == pytest.approx(3 + 1, rel=0.1)


def test_enumeration_finds_the_maximum_of_the_evidence_without_noise():
    """No latent site is drawn, so the optimum is reached to the optimiser's precision: the gradient is zero there."""
    svi = SVI(models.fixed_mixture_model, models.empty_guide, Adam({"lr": 0.05}), TraceEnum_ELBO())
    data = torch.tensor([-2.0, -1.5, -1.0, 0.2, 0.5, 2.4, 2.2, 3.0])
    losses = svi.run(600, data, progress_bar=False).losses
    assert (losses[-50:].max() - losses[-50:].min()) < 1e-3
    with svi.params:
        loss = svi.loss(svi.model, svi.guide, data)
    grads = torch.autograd.grad(loss, [leaf for _, leaf in svi.params.named_unconstrained()])
    assert max(g.abs().max() for g in grads) < 0.05
    assert loss < losses[0] - 0.1


def test_parameters_of_the_model_are_learned_by_maximum_likelihood():
    def model():
        loc = ppl.param("loc", torch.tensor(0.0))
        sd = ppl.param("sd", torch.tensor(1.0), constraint=constraints.positive)
        with ppl.plate("n", 4):
            ppl.sample("x", dist.Normal(loc, sd), obs=HEIGHTS)

    svi = SVI(model, lambda: None, Adam({"lr": 0.05}))
    svi.run(800, progress_bar=False)
    assert svi.params["loc"].item() == pytest.approx(HEIGHTS.mean().item(), abs=1e-3)
    assert svi.params["sd"].item() == pytest.approx(HEIGHTS.std(correction=0).item(), abs=1e-3)


# -- what it returns


def test_a_run_returns_its_losses_and_constrained_detached_parameters():
    svi = normal_svi()
    result = svi.run(7, HEIGHTS, progress_bar=False)
    assert result.losses.shape == (7,) and result.losses.isfinite().all() and not result.interrupted
    assert set(result.params) == {"loc", "sd"} and result.params["sd"] > 0
    assert not any(value.requires_grad for value in result.params.values())
    before = result.params["loc"].clone()
    svi.step(HEIGHTS)
    assert torch.equal(result.params["loc"], before) and not torch.equal(svi.params["loc"], before)
    assert svi.num_steps == 8


def test_a_run_and_single_steps_are_the_same():
    ppl.set_rng_seed(3)
    one = normal_svi()
    losses = one.run(5, HEIGHTS, progress_bar=False).losses
    ppl.set_rng_seed(3)
    other = normal_svi()
    assert losses.tolist() == [other.step(HEIGHTS) for _ in range(5)]


def test_the_callback_sees_every_step_and_loss():
    seen = []
    result = normal_svi().run(4, HEIGHTS, progress_bar=False, callback=lambda step, loss: seen.append((step, loss)))
    assert seen == list(enumerate(result.losses.tolist()))


def test_an_interruption_keeps_what_is_done():
    def interrupt(step, loss):
        if step == 3:
            raise KeyboardInterrupt

    ppl.set_rng_seed(1)
    svi = normal_svi()
    result = svi.run(50, HEIGHTS, progress_bar=False, callback=interrupt)
    assert result.interrupted and result.losses.shape == (4,) and svi.num_steps == 4
    ppl.set_rng_seed(1)
    whole = normal_svi()
    assert torch.equal(whole.run(4, HEIGHTS, progress_bar=False).losses, result.losses)
    assert torch.equal(whole.params["loc"], svi.params["loc"])
    state = torch.get_rng_state()
    later = svi.run(3, HEIGHTS, progress_bar=False)
    torch.set_rng_state(state)
    assert torch.equal(later.losses, whole.run(3, HEIGHTS, progress_bar=False).losses)


def test_the_progress_bar_shows_steps_and_loss(capsys):
    normal_svi().run(3, HEIGHTS)
    shown = capsys.readouterr()
    assert "3/3" in shown.err and "loss" in shown.err and not shown.out
    normal_svi().run(3, HEIGHTS, progress_bar=False)
    assert capsys.readouterr().err == ""


def test_evaluating_the_loss_takes_no_step():
    svi = normal_svi()
    svi.step(HEIGHTS)
    before = svi.state_dict()
    value = svi.evaluate_loss(HEIGHTS)
    assert isinstance(value, float)
    after = svi.state_dict()
    del before["rng"], after["rng"]
    assert same_bits(before, after)


def test_setup_makes_parameters_without_touching_the_random_generator():
    svi = normal_svi()
    state = torch.get_rng_state()
    svi.setup(HEIGHTS)
    assert torch.equal(torch.get_rng_state(), state)
    assert svi.params.keys() == ["loc", "sd"] and svi.params["loc"] == 0.2


# -- repeating and going on


def test_the_same_seed_gives_the_same_bits():
    states = []
    for _ in range(2):
        ppl.set_rng_seed(11)
        svi = normal_svi()
        svi.run(20, HEIGHTS, progress_bar=False)
        states.append(svi.state_dict())
    assert same_bits(*states)
    ppl.set_rng_seed(12)
    other = normal_svi()
    other.run(20, HEIGHTS, progress_bar=False)
    assert not torch.equal(other.params["loc"], states[0]["params"]["leaves"]["loc"])


def test_two_svis_never_share_parameters():
    one, two = normal_svi(), normal_svi()
    one.run(10, HEIGHTS, progress_bar=False)
    two.setup(HEIGHTS)
    assert two.params["loc"] == 0.2 and one.params["loc"] != 0.2
    before = one.params["loc"].item()
    two.run(5, -HEIGHTS, progress_bar=False)
    assert one.params["loc"].item() == before
    assert len(ppl.get_param_store()) == 0


def test_a_store_may_be_shared_on_purpose():
    store = ppl.ParamStore()
    normal_svi(params=store).run(3, HEIGHTS, progress_bar=False)
    second = normal_svi(params=store)
    second.setup(HEIGHTS)
    assert second.params is store and store["loc"] != 0.2


def schedule(optim_class=torch.optim.Adam):
    return ppl.optim.ExponentialLR({"optimizer": optim_class, "optim_args": {"lr": 0.1}, "gamma": 0.9})


RESUMED = {
    "a plain guide": lambda: (normal_svi(), (HEIGHTS,)),
    "a score-function baseline": lambda: (
        SVI(models.normal_normal_model, models.score_normal_guide, Adam({"lr": 0.02})),
        (HEIGHTS,),
    ),
    "a schedule": lambda: (SVI(models.normal_normal_model, models.normal_guide, schedule()), (HEIGHTS,)),
    "ClippedAdam": lambda: (
        SVI(models.normal_normal_model, models.normal_guide, ppl.optim.ClippedAdam({"lr": 0.1, "lrd": 0.9})),
        (HEIGHTS,),
    ),
    "options by parameter": lambda: (
        SVI(models.normal_normal_model, models.normal_guide, Adam(lambda name: {"lr": 0.1 if name == "sd" else 0.02})),
        (HEIGHTS,),
    ),
    "momentum": lambda: (
        SVI(models.normal_normal_model, models.normal_guide, ppl.optim.SGD({"lr": 0.01, "momentum": 0.9})),
        (HEIGHTS,),
    ),
    "an AutoNormal": lambda: (
        SVI(models.eight_schools_model, AutoNormal(models.eight_schools_model), Adam({"lr": 0.05})),
        (models.EFFECTS, models.ERRORS),
    ),
    "an AutoDiagonalNormal": lambda: (
        SVI(models.eight_schools_model, AutoDiagonalNormal(models.eight_schools_model), Adam({"lr": 0.05})),
        (models.EFFECTS, models.ERRORS),
    ),
    "subsampling and drawn discrete sites": lambda: (
        SVI(models.subsampled_local_model, models.subsampled_local_guide, Adam({"lr": 0.05})),
        (HEIGHTS,),
    ),
    "enumeration": lambda: (
        SVI(models.mixture_model, models.mixture_guide, Adam({"lr": 0.05}), TraceEnum_ELBO()),
        (models.POINTS, "parallel"),
    ),
}


@pytest.mark.parametrize("name", list(RESUMED))
def test_a_fresh_svi_goes_on_from_a_file_with_the_same_bits(name):
    whole, args = RESUMED[name]()
    first = [whole.step(*args) for _ in range(6)]
    saved = through_a_file(whole.state_dict())
    rest = [whole.step(*args) for _ in range(6)]
    end = whole.state_dict()

    torch.manual_seed(999)  # another process
    resumed, args = RESUMED[name]()
    resumed.load_state_dict(saved)
    assert same_bits(resumed.state_dict(), saved)  # also before its first step
    assert [resumed.step(*args) for _ in range(6)] == rest
    assert same_bits(resumed.state_dict(), end)
    assert len(first) == 6 and resumed.num_steps == 12


@pytest.mark.parametrize("name", ["a schedule", "an AutoNormal", "a score-function baseline"])
def test_the_same_svi_goes_back_to_an_earlier_state(name):
    svi, args = RESUMED[name]()
    for _ in range(3):
        svi.step(*args)
    saved = svi.state_dict()
    rest = [svi.step(*args) for _ in range(5)]
    svi.load_state_dict(saved)
    assert [svi.step(*args) for _ in range(5)] == rest


def test_a_state_is_a_copy():
    svi = normal_svi()
    svi.step(HEIGHTS)
    saved = svi.state_dict()
    before = through_a_file(saved)
    svi.run(3, HEIGHTS, progress_bar=False)
    assert same_bits(saved, before)


def test_an_untouched_svi_can_be_saved_and_loaded():
    ppl.set_rng_seed(4)
    svi = normal_svi()
    saved = through_a_file(svi.state_dict())
    losses = [svi.step(HEIGHTS) for _ in range(3)]
    resumed = normal_svi()
    resumed.load_state_dict(saved)
    assert [resumed.step(HEIGHTS) for _ in range(3)] == losses


# -- parameters that turn up late


def late_model():
    z = ppl.sample("z", dist.Normal(0.0, 1.0))
    loc = ppl.param("a", torch.tensor(0.0))
    if z > 1:
        loc = loc + ppl.param("b", torch.tensor(0.0))
    ppl.sample("x", dist.Normal(loc + z, 1.0), obs=torch.tensor(3.0))


def late_guide():
    ppl.sample("z", dist.Normal(ppl.param("m", torch.tensor(0.2)), 1.0))


@pytest.mark.parametrize(
    "optim",
    [
        Adam({"lr": 0.05}),
        schedule(),
        ppl.optim.LambdaLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "lr_lambda": lambda e: 0.9**e}),
        Adam(lambda name: {"lr": 0.05}),
        lambda params: torch.optim.SGD(params, lr=0.01),
    ],
)
def test_a_parameter_that_the_first_runs_did_not_meet_is_trained_from_then_on(optim):
    torch.manual_seed(1)
    svi = SVI(late_model, late_guide, optim)
    svi.setup()
    assert "b" not in svi.params
    while "b" not in svi.params:
        svi.step()
    assert svi.params["b"] != 0
    saved = svi.state_dict()
    rest = [svi.step() for _ in range(5)]
    torch.manual_seed(5)
    resumed = SVI(late_model, late_guide, optim)
    resumed.load_state_dict(saved)
    assert [resumed.step() for _ in range(5)] == rest


# -- bad arguments


def test_bad_arguments_are_errors():
    adam = Adam({"lr": 0.1})
    with pytest.raises(TypeError, match="model must be callable"):
        SVI(3, models.normal_guide, adam)
    with pytest.raises(TypeError, match="guide must be callable"):
        SVI(models.normal_normal_model, None, adam)
    with pytest.raises(ValueError, match="loss must be an ELBO"):
        SVI(models.normal_normal_model, models.normal_guide, adam, "elbo")
    with pytest.raises(ValueError, match="num_steps"):
        normal_svi().run(0, HEIGHTS)
    with pytest.raises(ValueError, match="num_particles"):
        Trace_ELBO(num_particles=0)


def test_the_stack_is_empty_after_an_error_in_a_step():
    def broken(data):
        with ppl.plate("data", 3):
            raise ZeroDivisionError

    svi = SVI(broken, models.normal_guide, Adam({"lr": 0.1}))
    with pytest.raises(ZeroDivisionError):
        svi.step(HEIGHTS)
    assert not list(ppl.stack.active())
    assert ppl.get_param_store() is not svi.params
