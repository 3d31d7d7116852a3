"""Recorded steps one a call: the same as eager ones, whatever is changed or looked at in between."""

import copy

import models
import pytest
import torch

import ppl
from ppl.engine.training import Blocks
from ppl.infer import SVI, Trace_ELBO
from ppl.optim import Adam, ClippedAdam, ExponentialLR, OneCycleLR

ARGS = models.EFFECTS, models.ERRORS


def pair(optim=None):
    """Two equal SVIs, the second with a program."""
    made = []
    for recorded in (False, True):
        ppl.set_rng_seed(0)
        svi = SVI(models.eight_schools_model, models.eight_schools_guide, optim or Adam({"lr": 0.01}))
        svi.setup(*ARGS)
        if recorded:
            svi.record(*ARGS)
        ppl.set_rng_seed(0)
        made.append(svi)
    return made


def both(svis, steps, action=lambda svi: None, before=None):
    """Take steps with both, and do the same to both afterwards; losses and parameters are the same."""
    states = before or [torch.get_rng_state()] * 2
    losses, after = [], []
    for svi, state in zip(svis, states, strict=True):
        torch.set_rng_state(state)
        losses.append([svi.step(*ARGS) for _ in range(steps)])
        action(svi)
        after.append(torch.get_rng_state())
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-10, atol=1e-10)
    for name, value in svis[0].params.items():
        torch.testing.assert_close(svis[1].params[name], value, rtol=1e-10, atol=1e-10)
    assert torch.equal(*after)
    assert svis[0].num_steps == svis[1].num_steps
    return after


def change_a_parameter(svi):
    svi.params["mu_loc"] = torch.tensor(3.0)


def change_the_rate(svi):
    svi.held.param_groups[0]["lr"] = 0.1


def halve_the_rate(svi):
    svi.held.param_groups[0]["lr"] *= 0.5


def change_an_option(svi):
    svi.held.param_groups[0]["weight_decay"] = 0.5


def bound_the_parameters(svi):
    """As one bounds the weights of a network: torch does not count this as a change."""
    for _, leaf in svi.trained:
        leaf.data.clamp_(-0.1, 0.1)


def train_less(svi):
    svi.params.unconstrained("mu_loc").requires_grad_(False)


def replace_the_model(svi):
    svi.model = ppl.handlers.scale(svi.model, scale=2.0)


def replace_the_loss(svi):
    svi.loss = Trace_ELBO(num_particles=2)


def change_the_state(svi):
    for state in svi.optimizer.state.values():
        state["exp_avg"].zero_()


def save_and_load(svi):
    svi.load_state_dict(copy.deepcopy(svi.state_dict()))


def look(svi):
    svi.evaluate_loss(*ARGS)


def run_on(svi):
    svi.run(3, *ARGS, compile="never", progress_bar=False)


@pytest.mark.parametrize(
    "action",
    [
        change_a_parameter,
        bound_the_parameters,
        train_less,
        change_the_rate,
        halve_the_rate,
        change_an_option,
        change_the_state,
        replace_the_model,
        replace_the_loss,
        save_and_load,
        look,
        run_on,
    ],
    ids=lambda f: f.__name__,
)
def test_what_happens_between_steps_counts(action):
    svis = pair()
    states = both(svis, 7)
    for svi in svis:
        svi.held = svi.optimizer
    states = both(svis, 5, before=states)
    states = both(svis, 5, action, before=states)
    both(svis, 9, before=states)


@pytest.mark.parametrize(
    "optim",
    [
        ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.97}),
        OneCycleLR({"optimizer": torch.optim.SGD, "optim_args": {"lr": 1e-5}, "max_lr": 1e-3, "total_steps": 150}),
        ClippedAdam({"lr": 0.05, "lrd": 0.99}),
    ],
    ids=["exponential", "one cycle", "clipped"],
)
def test_schedules_go_on(optim):
    svis = pair(optim)
    states = both(svis, 70)  # more than one row of numbers made ahead
    both(svis, 60, before=states)
    for svi in svis:
        svi.rate = svi.optimizer.param_groups[0]["lr"]
    assert svis[0].rate == pytest.approx(svis[1].rate, rel=1e-12)
    if svis[0].scheduler is not None:
        assert svis[0].scheduler.state_dict() == svis[1].scheduler.state_dict()


def test_an_optimiser_and_a_schedule_in_the_users_hands():
    """They are never behind, whether they are asked of the SVI or kept."""
    optim = ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.9, "every": None})
    svis = pair(optim)
    states = None
    for svi in svis:
        svi.held = svi.scheduler
    for steps in (64, 64, 30):
        states = both(svis, steps, lambda svi: svi.held.step(), before=states)
    svis, states = pair(ClippedAdam({"lr": 0.05, "lrd": 0.99})), None
    for svi in svis:
        svi.held = svi.optimizer
    for _ in range(3):
        states = both(svis, 5, halve_the_rate, before=states)
    assert len({svi.held.param_groups[0]["lr"] for svi in svis}) == 1


def test_compiling_changes_no_buffers():
    norm, x = torch.nn.BatchNorm1d(1), torch.linspace(-1.0, 2.0, 20)

    def model():
        ppl.module("norm", norm)
        with ppl.plate("data", 20):
            ppl.sample("x", ppl.distributions.Normal(norm(x[:, None])[:, 0], 1.0), obs=x)

    svi = SVI(model, lambda: None, Adam({"lr": 0.01}))
    svi.setup()
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    svi.record()
    torch.testing.assert_close(dict(norm.named_buffers()), before, rtol=0, atol=0)


def test_baselines_that_the_first_step_makes():
    def model():
        ppl.sample("k", ppl.distributions.Bernoulli(0.3))

    def guide():
        probs = ppl.distributions.Bernoulli(logits=ppl.param("a", torch.tensor(0.0)))
        ppl.sample("k", probs, infer={"baseline": {"use_decaying_avg_baseline": True}})

    svi = SVI(model, guide, Adam({"lr": 0.01}))
    with pytest.raises(ValueError, match=r"running means that later steps have\. Take one step before, by svi\.step"):
        svi.record()
    svi.step()
    svi.record()
    svi.step()


def test_the_state_dicts_are_the_same():
    svis = pair()
    both(svis, 11)
    first, second = (svi.state_dict() for svi in svis)
    torch.testing.assert_close(second["optimizer"]["state"], first["optimizer"]["state"], rtol=1e-10, atol=1e-12)
    assert second["num_steps"] == first["num_steps"] == 11


def test_the_program_is_what_takes_the_steps(monkeypatch):
    _, svi = pair()
    calls = []
    call = Blocks.call
    monkeypatch.setattr(Blocks, "call", lambda self, n, *rest: calls.append(n) or call(self, n, *rest))
    for _ in range(5):
        svi.step(*ARGS)
    assert calls == [1] * 5


def test_what_cannot_be_captured_is_an_error():
    def model():
        z = ppl.sample("z", ppl.distributions.Normal(0.0, 1.0))
        ppl.sample("x", ppl.distributions.Normal(float(z), 1.0), obs=torch.tensor(1.0))

    svi = SVI(model, ppl.infer.autoguide.AutoNormal(model), Adam({"lr": 0.01}))
    with pytest.raises(ValueError, match=r"float\(z\)"):
        svi.record()
    svi.step()
