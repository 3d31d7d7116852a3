"""The updates of a graph against torch's own optimisers, stepped eagerly as SVI does."""

import copy

import pytest
import torch
from optimizer_cases import DOUBLE, OPTIMISERS, SINGLE, Fit, assert_same, assert_same_fit

import ppl
from ppl import optim
from ppl.engine.optimizers import plan_of, unpack, update
from ppl.infer import SVI
from ppl.infer.autoguide import AutoNormal


@pytest.fixture
def single_by_default():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_hundred_steps_are_those_of_torch(name):
    expected = Fit(OPTIMISERS[name]()).eager(100)
    start = Fit(OPTIMISERS[name]()).leaves
    assert any((a - b).abs().max() > 0.03 for a, b in zip(start, expected.leaves, strict=True) if a.numel())
    assert_same_fit(Fit(OPTIMISERS[name]()).planned(100), expected, DOUBLE)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_hundred_steps_in_single_precision(name, single_by_default):
    expected = Fit(OPTIMISERS[name](), torch.float32).eager(100)
    assert_same_fit(Fit(OPTIMISERS[name](), torch.float32).planned(100), expected, SINGLE)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_eager_and_planned_steps_may_alternate(name, single_by_default):  # of parameters in double precision
    expected = Fit(OPTIMISERS[name]()).eager(43)
    found = Fit(OPTIMISERS[name]()).eager(3)
    plan = found.plan()
    found.planned(1, plan).planned(7, plan, looked=20).eager(11).planned(20, plan).eager(1)
    assert plan.current()
    assert_same_fit(found, expected, DOUBLE)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_state_dict_made_after_planned_steps_can_be_gone_on_from(name):
    expected = Fit(OPTIMISERS[name]()).eager(30)
    first, second = Fit(OPTIMISERS[name]()).planned(10), Fit(OPTIMISERS[name]())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    if second.scheduler is not None:
        second.scheduler.load_state_dict(copy.deepcopy(first.scheduler.state_dict()))
    with torch.no_grad():
        for mine, theirs in zip(second.leaves, first.leaves, strict=True):
            mine.copy_(theirs)
    second.num_steps = 10
    assert_same_fit(second.planned(10).eager(10), expected, DOUBLE)


# -- with SVI


def schools():
    scale = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    effects = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    mean = ppl.sample("mean", ppl.distributions.Normal(0.0, 5.0))
    spread = ppl.sample("spread", ppl.distributions.HalfCauchy(5.0))
    with ppl.plate("school", 8):
        effect = ppl.sample("effect", ppl.distributions.Normal(mean, spread))
        ppl.sample("y", ppl.distributions.Normal(effect, scale), obs=effects)


def planned_svi_steps(svi, num):
    """Steps of an SVI in which all but loss and gradients is the plan's."""
    leaves = [leaf for _, leaf in svi.trained]
    plan = plan_of(svi.optimizer, leaves, svi.optim.clip_args, svi.scheduler, svi.optim.advance)
    carries, rows = plan.gather(), plan.rows(num, svi.num_steps)
    for row in rows:
        with torch.no_grad():
            for leaf, value in zip(leaves, unpack(plan.packs, carries), strict=True):
                leaf.copy_(value)
        with svi.params:
            gradients = torch.autograd.grad(svi.loss(svi.model, svi.guide), leaves)
        carries = update(plan.packs, carries, [[gradients[i] for i in p["leaves"]] for p in plan.packs], row, plan.clip)
    plan.scatter(carries, num)
    plan.commit(num)
    svi.num_steps += num


@pytest.mark.parametrize("name", ["two groups of a guide", "ClippedAdam", "OneCycleLR", "StepLR", "clip_norm"])
def test_an_svi_may_go_back_and_forth(name):
    def options(parameter):
        return {"lr": 0.02, "weight_decay": 0.1} if "scale" in parameter else {"lr": 0.05}

    made = {"two groups of a guide": lambda: optim.AdamW(options), **OPTIMISERS}[name]

    def fit():
        torch.manual_seed(2)
        svi = SVI(schools, AutoNormal(schools), made())
        svi.step()
        return svi

    expected, found = fit(), fit()
    for _ in range(30):
        expected.step()
    torch.manual_seed(2)
    found = fit()
    planned_svi_steps(found, 12)
    for _ in range(8):
        found.step()
    planned_svi_steps(found, 10)
    one, two = found.state_dict(), expected.state_dict()
    assert_same(one, two, 1e-12)
    assert found.num_steps == 31
