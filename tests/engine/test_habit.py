"""Loops over `svi.step`: after some steps their operations are done one by one, and nobody can tell, but by the clock."""

import copy
import random
import sys
import warnings

import models
import numpy as np
import pytest
import torch
from rough_runs import ARGS, CHANGES, X, fresh, no_guide, normal, schools

import ppl
import ppl.distributions as dist
from ppl.infer import SVI, Trace_ELBO, TraceEnum_ELBO, habit
from ppl.infer.descent import Descent
from ppl.infer.habit import CHECK, WAIT
from ppl.optim import SGD, Adam, ClippedAdam

pytestmark = pytest.mark.usefixtures("alone")
STEPS = WAIT + 2 * CHECK


@pytest.fixture
def recorded(monkeypatch):
    """Lets loops go over to recorded operations; the numbers of the steps that were taken by them."""
    taken = []
    step = Descent.step

    def counted(self, arguments, num_steps, done):
        found = step(self, arguments, num_steps, done)
        if found is not None:
            taken.append(num_steps)
        return found

    monkeypatch.setattr(Descent, "step", counted)
    monkeypatch.setattr(habit, "QUICKER", 100.0)
    monkeypatch.setenv("PPL_COMPILE", "auto")
    return taken


def loop(make, *args, mode, steps=STEPS, between=None):
    """The losses, the parameters and the random state after a loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPL_COMPILE", mode)
        own = copy.deepcopy(args)
        svi = make()
        losses = []
        for number in range(steps):
            losses.append(svi.step(*own))
            if between is not None:
                between(svi, own, number)
    return losses, dict(svi.params.items()), torch.get_rng_state()


def check(make, *args, **options):
    """Eager steps and others must give the same bits."""
    eager, own = (loop(make, *args, mode=mode, **options) for mode in ("never", "auto"))
    assert eager[0] == own[0]
    assert eager[1].keys() == own[1].keys()
    assert all(torch.equal(value, own[1][name]) for name, value in eager[1].items())
    assert torch.equal(eager[2], own[2])


# -- the same bits


@pytest.mark.parametrize("name", models.CASES)
def test_bits_are_those_of_eager_steps(name, recorded):
    case = models.CASES[name]

    def make():
        ppl.set_rng_seed(0)
        loss = TraceEnum_ELBO() if case.enumerates else Trace_ELBO()
        return SVI(case.model, case.guide, Adam({"lr": 0.01}), loss)

    check(make, *case.args, steps=WAIT + 20)
    # where a draw takes as many attempts as it needs, there is nothing that could be recorded
    assert len(recorded) > 10 or name == "beta-bernoulli, pathwise"


@pytest.mark.parametrize("optim", [SGD({"lr": 0.01, "momentum": 0.9}), ClippedAdam({"lr": 0.01}), torch.optim.Adagrad])
def test_optimisers(optim, recorded):
    check(lambda: fresh(optim=optim), X)
    assert len(recorded) > CHECK


def test_single_precision(recorded):
    torch.set_default_dtype(torch.float32)
    check(fresh, X.float())
    assert len(recorded) > CHECK


def test_named_arguments_and_batches_of_two_shapes(recorded):
    def losses(mode):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PPL_COMPILE", mode)
            svi = fresh()
            return [svi.step(x=X[: 20 - 5 * (i % 2)] + i) for i in range(2 * STEPS)]

    assert losses("auto") == losses("never")
    assert {number % 2 for number in recorded} == {0, 1}
    assert len(recorded) > 2 * CHECK


def test_a_scan(recorded):
    def model(x):
        rows = ppl.sample("rows", dist.Dirichlet(torch.ones(3, 3)).to_event(1))

        def step(z, x):
            z = ppl.sample("z", dist.Categorical(rows[z]), infer={"enumerate": "parallel"})
            ppl.sample("x", dist.Normal(z.double(), 1.0), obs=x)
            return z, None

        ppl.scan(step, 0, x)

    def make():
        ppl.set_rng_seed(0)
        guide = ppl.infer.autoguide.AutoDelta(ppl.handlers.block(model, expose=["rows"]))
        return SVI(model, guide, Adam({"lr": 0.01}), TraceEnum_ELBO())

    check(make, X)
    assert len(recorded) > CHECK


def test_state_is_the_eager_state(recorded):
    svi = fresh()
    for _ in range(WAIT + 20):
        svi.step(X)
    assert recorded
    assert all(leaf.grad is not None for _, leaf in svi.trained)
    assert svi.num_steps == WAIT + 20
    other = copy.deepcopy(svi)
    resumed = fresh()
    resumed.load_state_dict(svi.state_dict())
    ends = []
    for one in (svi, other, resumed):
        torch.set_rng_state(resumed.state_dict()["rng"] if not ends else ends[0][1])
        start = torch.get_rng_state()
        ends.append(([one.step(X) for _ in range(50)], start))
    assert ends[0][0] == ends[1][0] == ends[2][0]


# -- what changes is heeded


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_changes_between_steps_are_heeded(change, recorded):
    check(fresh, X, between=lambda svi, args, number: change(svi, args) if number == WAIT + 20 else None)
    assert recorded


SHIFT = 0.0
STRENGTH = np.ones(20)
TABLE = {"scale": 1.0}


def shifted(x):
    normal(x * float(STRENGTH.mean()) * TABLE["scale"] + SHIFT)


def other_number(svi):
    global SHIFT
    SHIFT = 1.0


def other_array(svi):
    STRENGTH[3] = 2.0


def other_entry(svi):
    TABLE["scale"] = 3.0


def more_particles(svi):
    svi.loss.num_particles = 2


@pytest.mark.parametrize("change", [other_number, other_array, other_entry, more_particles])
def test_python_values_are_heeded_at_once(change, recorded):
    def between(svi, args, number):
        if number == WAIT + 20:
            change(svi)

    def make():
        global SHIFT
        SHIFT, STRENGTH[:], TABLE["scale"] = 0.0, 1.0, 1.0
        return fresh(shifted)

    check(make, X, steps=2 * STEPS, between=between)
    assert min(recorded) < WAIT + 20 and max(recorded) > STEPS + CHECK  # recorded anew


def test_what_changes_again_and_again_is_recorded_a_few_times_only(recorded, monkeypatch):
    made = []
    rehearse = habit.rehearse
    monkeypatch.setattr(habit, "rehearse", lambda *args: made.append(1) or rehearse(*args))

    def between(svi, args, number):
        global SHIFT
        SHIFT = float(number // (WAIT + 10))

    def make():
        global SHIFT
        SHIFT, STRENGTH[:], TABLE["scale"] = 0.0, 1.0, 1.0
        return fresh(shifted)

    check(make, X, steps=8 * WAIT, between=between)
    assert recorded
    assert len(made) == 1 + habit.RESTARTS


def test_numbers_as_arguments(recorded):
    """A weight that grows for a while: each of its values is an argument of another kind."""

    def weighted(x, beta):
        with ppl.handlers.scale(scale=beta):
            normal(x)

    def losses(mode):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PPL_COMPILE", mode)
            svi = fresh(weighted)
            return [svi.step(X, min(1.0, (i + 1) / 30)) for i in range(STEPS)]

    assert losses("auto") == losses("never")
    assert len(recorded) > 20
    assert min(recorded) > 30 + WAIT - 5


def test_a_loss_of_the_users_own(recorded):
    class Annealed(Trace_ELBO):
        count = 0

        def __call__(self, model, guide, *args, **kwargs):
            self._count = getattr(self, "_count", 0) + 1
            return super().__call__(model, guide, *args, **kwargs) * min(1.0, self._count / 100)

    def make():
        ppl.set_rng_seed(0)
        return SVI(models.eight_schools_model, models.eight_schools_guide, Adam({"lr": 0.01}), Annealed())

    check(make, *ARGS)
    assert not recorded


def test_modules_that_are_switched(recorded):
    net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout(0.5))

    def model(x):
        ppl.module("net", net)
        with ppl.plate("data", len(x)):
            ppl.sample("x", dist.Normal(net(x[:, None])[:, 0], 1.0), obs=x)

    def make():
        torch.manual_seed(0)
        net[0].reset_parameters()
        net.train()
        return fresh(model, no_guide)

    check(make, X, between=lambda svi, args, number: net.eval() if number == WAIT + 20 else None)
    assert len(recorded) > 15


# -- what is left alone


def printing(x):
    print("here")
    normal(x)


COUNT = [0]


def counting(x):
    COUNT[0] += 1
    normal(x * (1.0 if COUNT[0] < 100 else 2.0))


def drawing(x):
    normal(x * np.random.uniform(0.9, 1.1) * random.uniform(0.9, 1.1))


def looking_at_the_clock(x):
    import time

    assert time.time() > 0
    normal(x)


def branching(x):
    loc = ppl.sample("loc", dist.Normal(0.0, 1.0))
    scale = ppl.sample("scale", dist.LogNormal(0.0, 1.0))
    with ppl.plate("data", len(x)):
        ppl.sample("x", dist.Normal(loc if loc > 0 else -loc, scale), obs=x)


LARGE = np.ones(5000)


def of_large_arrays(x):
    normal(x * float(LARGE[0]))


@pytest.mark.parametrize("model", [printing, counting, drawing, looking_at_the_clock, branching, of_large_arrays])
def test_programs_that_do_more_than_compute_are_left_alone(model, recorded, capsys):
    def make():
        COUNT[0] = 0
        np.random.seed(0)
        random.seed(0)
        return fresh(model)

    check(make, X)
    assert not recorded
    if model is printing:
        assert capsys.readouterr().out.count("here") >= 2 * STEPS


class seeing(ppl.stack.Handler):
    def __init__(self):
        super().__init__()
        self.count = 0

    def handle(self, site):
        self.count += 1
        return ppl.stack.perform(site)


def test_steps_within_handlers_are_left_alone(recorded):
    svi = fresh()
    with seeing() as handler:
        for _ in range(STEPS):
            svi.step(X)
    assert handler.count >= 6 * STEPS
    assert not recorded


def test_steps_that_are_looked_at_are_left_alone(recorded):
    svi = fresh()
    for _ in range(WAIT + 10):
        svi.step(X)
    count = len(recorded)
    assert count
    before = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        svi.step(X)
    finally:
        sys.settrace(before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is slow
        with torch.autograd.detect_anomaly():
            svi.step(X)
    with torch.device("cpu"):
        svi.step(X)
    assert len(recorded) == count
    with torch.no_grad(), pytest.raises(ValueError, match="gradients are switched off here"):
        svi.step(X)
    svi.step(X)
    assert len(recorded) == count + 1


def test_line_searches_are_left_alone(recorded):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(lambda: fresh(optim=lambda leaves: torch.optim.LBFGS(leaves, lr=0.01, max_iter=2)), X, steps=WAIT + 10)
    assert not recorded


def test_programs_that_are_no_quicker_are_left_alone(recorded, monkeypatch):
    monkeypatch.setattr(habit, "QUICKER", 0.0)
    check(schools, *ARGS)
    assert len(recorded) < habit.PATIENCE


def test_runs_say_themselves_how_steps_are_taken(recorded):
    svi = fresh()
    svi.run(STEPS, X, compile="never", progress_bar=False)
    assert not recorded


# -- errors


def test_nan_is_found_where_it_comes_up(recorded):
    def model(x):
        loc = ppl.sample("loc", dist.Normal(0.0, 10.0))
        with ppl.plate("data", len(x)):
            ppl.sample("x", dist.Normal(loc, 1.0), obs=x.log())

    x = X.abs() + 0.1
    svi = fresh(model)
    for _ in range(WAIT + 20):
        svi.step(x)
    assert recorded
    before = {name: value.clone() for name, value in svi.params.items()}
    x[7] = -1.0
    message = rf"step {WAIT + 20}.*'x'"
    with pytest.raises(ValueError, match=message):
        svi.step(x)
    assert all(torch.equal(value, before[name]) for name, value in svi.params.items())
    x[7] = 1.0
    assert svi.step(x) > 0
    assert svi.num_steps == WAIT + 21


def test_a_change_that_cannot_be_seen_is_found_after_some_steps(recorded):
    rates = torch.optim.SGD([torch.zeros(1)], lr=1.0)  # whatever library's object that holds a number

    def make():
        rates.param_groups[0]["lr"] = 1.0
        return fresh(lambda x: normal(x * rates.param_groups[0]["lr"]))

    at = WAIT + 40

    def between(svi, args, number):
        if number + 1 == at:
            rates.param_groups[0]["lr"] = 2.0

    eager, _, _ = loop(make, X, mode="never", between=between)
    first, last = (
        WAIT + 33,
        WAIT + 64,
    )  # two comparisons lie around these; the first eager step is none of the many alike
    message = rf"since step {first - 1}: the loss of step {last + 1} .* Steps {first} to {last} may have been taken"
    with pytest.warns(UserWarning, match=message) as caught:
        own, _, _ = loop(make, X, mode="auto", between=between)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert own[:at] == eager[:at] and own[at] != eager[at]
    assert max(recorded) == last
