"""What users of other libraries write first, and what they are told."""

from __future__ import annotations

import copy
import math

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from ppl.infer.autoguide import AutoDelta, AutoNormal


def model():
    ppl.sample("x", dist.Normal(0.0, 1.0))


def guide():
    ppl.sample("x", dist.Normal(ppl.param("loc", torch.tensor(5.0)), 1.0))


def test_setup_runs_the_model_where_the_guide_is_and_not_where_the_prior_breaks_down():
    def fragile():
        w = ppl.sample("w", dist.Normal(0.0, 1e6))
        ppl.sample("z", dist.Beta(w.exp(), (-w).exp()))

    def near():
        ppl.sample("w", dist.Normal(ppl.param("w_loc", torch.tensor(0.0)), 0.1))
        ppl.sample("z", dist.Beta(ppl.param("a", torch.tensor(2.0)), 2.0))

    for seed in range(5):
        torch.manual_seed(seed)
        assert math.isfinite(SVI(fragile, near, ppl.optim.Adam({"lr": 0.01})).step())


def test_a_site_is_no_dict_and_says_so():
    site = handlers.trace(model).get_trace()["x"]
    for key, attribute in (("value", "site.value"), ("is_observed", "site.observed"), ("type", "site.kind")):
        with pytest.raises(TypeError, match=attribute):
            site[key]
    with pytest.raises(TypeError, match=r"trace.log_prob\('x'\)"):
        site["log_prob"]


def rates(optim, steps=6):
    svi = SVI(model, guide, optim)
    found = []
    for _ in range(steps):
        svi.step()
        found.append(svi.optimizer.param_groups[0]["lr"])
    return svi, found


def test_a_schedule_may_be_stepped_every_so_many_steps_or_by_hand():
    options = {"optimizer": torch.optim.SGD, "optim_args": {"lr": 1.0}, "gamma": 0.5}
    assert rates(ppl.optim.ExponentialLR({**options, "every": 3}))[1] == [1, 1, 0.5, 0.5, 0.5, 0.25]
    svi, constant = rates(ppl.optim.ExponentialLR({**options, "every": None}))
    assert constant == [1.0] * 6
    svi.scheduler.step()
    assert svi.optimizer.param_groups[0]["lr"] == 0.5
    with pytest.raises(TypeError, match=r"svi.scheduler.step\(\)"):
        ppl.optim.ExponentialLR(options).step()
    with pytest.raises(ValueError, match="'every'"):
        ppl.optim.ExponentialLR({**options, "every": 0})


def test_a_plateau_schedule_looks_at_the_loss():
    options = {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.0}, "patience": 1, "threshold": 1e9}
    _, found = rates(ppl.optim.ReduceLROnPlateau({**options, "factor": 0.1, "eps": 0.0}))
    assert found == [0.0] * 6
    options["optim_args"] = {"lr": 1e-9}
    _, found = rates(ppl.optim.ReduceLROnPlateau({**options, "factor": 0.1, "eps": 0.0}))
    assert found[0] == 1e-9
    assert found[-1] < 1e-10


def test_what_cannot_be_an_optimiser_here_is_refused():
    with pytest.raises(ValueError, match=r"StepLR is a schedule.*ppl.optim.StepLR"):
        SVI(model, guide, torch.optim.lr_scheduler.StepLR)


def test_lbfgs_searches_along_one_draw_and_finds_an_exact_maximum_in_a_few_steps():
    def quadratic():
        with ppl.plate("n", 3):
            z = ppl.sample("z", dist.Normal(torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.1, 1.0, 10.0])))
            ppl.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(3))

    precision = torch.tensor([100.0, 1.0, 0.01])
    for optim in (torch.optim.LBFGS, ppl.optim.LBFGS({"lr": 1.0, "line_search_fn": "strong_wolfe"})):
        guide_of_point = AutoDelta(quadratic)
        SVI(quadratic, guide_of_point, optim).run(4, progress_bar=False)
        exact = precision * torch.tensor([1.0, -2.0, 3.0]) / (precision + 1)
        torch.testing.assert_close(guide_of_point.median()["z"], exact, atol=1e-4, rtol=0)
    noisy = SVI(model, guide, ppl.optim.LBFGS({"lr": 0.1, "line_search_fn": "strong_wolfe"}))
    losses = noisy.run(20, progress_bar=False).losses
    assert losses[-5:].mean() < losses[0] / 2


def test_a_step_that_is_done_when_ctrl_c_comes_keeps_its_loss(monkeypatch):
    svi = SVI(model, guide, ppl.optim.Adam({"lr": 0.1}))
    step = svi.step

    def interrupted():
        value = step()
        if svi.num_steps == 3:
            raise KeyboardInterrupt
        return value

    monkeypatch.setattr(svi, "step", interrupted)
    result = svi.run(10, progress_bar=False)
    assert result.interrupted
    assert len(result.losses) == svi.num_steps == 3


def test_a_mask_of_a_distribution_is_the_mask_of_its_site():
    keep = torch.tensor([True, False])
    data = torch.tensor([1.0, torch.nan])

    def by_distribution():
        with ppl.plate("n", 2):
            ppl.sample("x", dist.Normal(0.0, 1.0).mask(keep), obs=data)

    def by_handler():
        with ppl.plate("n", 2), handlers.mask(mask=keep):
            ppl.sample("x", dist.Normal(0.0, 1.0), obs=data)

    expected = dist.Normal(0.0, 1.0).log_prob(torch.tensor(1.0))
    for program in (by_distribution, by_handler):
        trace = handlers.trace(program).get_trace()
        assert torch.equal(trace.log_prob_sum(), expected)
        assert torch.equal(trace["x"].mask, keep)


def test_an_automatic_guide_does_not_count_what_a_distribution_masks():
    def masked():
        ppl.sample("x", dist.Normal(0.0, 1.0).mask(False))

    assert Trace_ELBO().loss(masked, AutoNormal(masked)) == 0


def test_an_enumerated_site_weighs_alike_under_both_masks():
    def by(how):
        def program():
            d = dist.Categorical(torch.tensor([0.2, 0.3, 0.5]))
            with handlers.mask(mask=how != "handler"):
                z = ppl.sample("z", d.mask(False) if how == "distribution" else d, infer={"enumerate": "parallel"})
            ppl.sample("x", dist.Normal(z.double(), 1.0), obs=torch.tensor(1.0))

        return TraceEnum_ELBO().loss(program, lambda: None)

    uniform = dist.Normal(torch.arange(3.0), 1.0).log_prob(torch.tensor(1.0)).logsumexp(0) - math.log(3)
    assert by("distribution") == pytest.approx(-uniform.item(), abs=1e-12)
    assert by("handler") == pytest.approx(-uniform.item(), abs=1e-12)


def test_obs_mask_marks_draws_and_never_makes_the_site_larger():
    three = torch.tensor([True, False, True])
    with pytest.raises(ValueError, match=r"site 'x': obs_mask of shape \(3,\).*batch shape \(\).*event shape \(3,\)"):
        ppl.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=torch.zeros(3), obs_mask=three)
    with pytest.raises(ValueError, match=r"obs_mask of shape \(3, 3\)"), ppl.plate("n", 3):
        ppl.sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(3), obs_mask=three.expand(3, 3))


def test_a_parameter_that_is_nan_is_named():
    svi = SVI(model, guide, ppl.optim.Adam({"lr": 0.1}))
    svi.step()
    with torch.no_grad():
        svi.params.unconstrained("loc").fill_(torch.nan)
    with pytest.raises(ValueError, match=r"step 1: parameter 'loc' is NaN.*before this step"):
        svi.step()


def test_an_svi_can_be_copied_after_a_run():
    svi = SVI(model, AutoNormal(model), ppl.optim.Adam({"lr": 0.1}))
    svi.run(3, progress_bar=False)
    twin = copy.deepcopy(svi)
    assert twin.params["x_auto_loc"].equal(svi.params["x_auto_loc"])


def test_losses_have_the_dtype_of_the_loss():
    assert SVI(model, guide, ppl.optim.Adam({})).run(2, progress_bar=False).losses.dtype == torch.float64
    torch.set_default_dtype(torch.float32)
    assert SVI(model, guide, ppl.optim.Adam({})).run(2, progress_bar=False).losses.dtype == torch.float32
