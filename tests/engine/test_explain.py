"""What stops a program from being captured is named with its line; such programs run as eager ones do, whatever is asked."""

import copy
import math
import random
import threading
import warnings

import numpy as np
import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.infer import SVI, Trace_ELBO, TraceEnum_ELBO, compiled

DATA = torch.linspace(-1.0, 2.0, 8)
OWN = torch.Generator()
COUNT = 0
LOG = []
SCALE = 1.0


def guide(data):
    loc = ppl.param("loc", torch.tensor(0.3))
    ppl.sample("z", dist.Normal(loc, 0.5))


def model_with(body):
    """A model whose mean is what the body makes of the latent and the data."""

    def model(data):
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        loc = body(z, data)
        with ppl.plate("n", len(data)):
            ppl.sample("x", dist.Normal(loc, SCALE), obs=data)

    return model


def branches(z, data):
    return 2 * z if z > 0 else z


def takes_the_item(z, data):
    return z * z.item()


def takes_an_integer(z, data):
    return z + int(z)


def loops_over_a_draw(z, data):
    for i in range(z.abs().long()):
        z = z + i
    return z


def asks_numpy(z, data):
    return z + float(np.asarray(z.detach()))


def goes_through_numpy(z, data):
    return z + torch.from_numpy(np.sin(z.detach().reshape(1).numpy()))


def makes_a_list(z, data):
    return z + sum(z.detach().reshape(1).tolist())


def copies_the_number(z, data):
    return z + torch.tensor([z.detach(), 1.0]).sum()


def prints_a_tensor(z, data):
    print(z)
    return z


def formats_a_tensor(z, data):
    LOG.clear()
    f"{z:.3f}"
    return z


def selects_by_a_drawn_mask(z, data):
    return z + data[data > z].sum()


def asks_where(z, data):
    return z + torch.nonzero(data > z).sum()


def counts_different_values(z, data):
    return z + len(torch.unique(data > z))


def draws_from_its_own(z, data):
    return z + 0.1 * torch.randn((), generator=OWN)


def compares(z, data):
    return z if torch.equal(z, z.abs()) else -z


def copies_deeply(z, data):
    return z + copy.deepcopy(z.detach())


def takes_a_part(z, data):
    return z + data[: z.abs().long() + 1].sum()


def makes_as_many_as_drawn(z, data):
    return z + torch.zeros(z.abs().long() + 1).sum()


def seeds(z, data):
    torch.manual_seed(3)
    return z + torch.randn(())


def forks(z, data):
    with torch.random.fork_rng(devices=[]):
        return z + torch.randn(())


REFUSED = [
    (seeds, "random state", "before the run", "torch.randn(())"),
    (copies_deeply, "memory", "x.clone()", "copy.deepcopy"),
    (takes_a_part, "reads a value", "mask=i < n", "data[: z.abs"),
    (makes_as_many_as_drawn, "reads a value", "mask=i < n", "torch.zeros("),
    (branches, "reads a value", "torch.where", "if z > 0"),
    (takes_the_item, "reads a value", "instead of .item()", "z.item()"),
    (takes_an_integer, "reads a value", "instead of int()", "int(z)"),
    (loops_over_a_draw, "reads a value", "mask", "range(z.abs().long())"),
    (asks_numpy, "reads a value", "compute with torch", "np.asarray"),
    (goes_through_numpy, "reads a value", "compute with torch", ".numpy()"),
    (makes_a_list, "reads a value", "list of its entries", "tolist()"),
    (copies_the_number, "reads a value", "torch.stack", "torch.tensor([z.detach(), 1.0])"),
    (prints_a_tensor, "reads a value", "callback", "print(z)"),
    (formats_a_tensor, "reads a value", "f-string", 'f"{z:.3f}"'),
    (selects_by_a_drawn_mask, "shape", "torch.where(mask, x, 0)", "data[data > z]"),
    (asks_where, "shape", "keep the mask", "torch.nonzero(data > z)"),
    (counts_different_values, "shape", "keep the mask", "torch.unique(data > z)"),
    (draws_from_its_own, "Generator", "default generator", "generator=OWN"),
    (compares, "reads a value", "torch.where", "torch.equal(z, z.abs())"),
]


@pytest.mark.parametrize(("body", "reason", "instead", "line"), REFUSED, ids=lambda x: getattr(x, "__name__", ""))
def test_what_cannot_be_captured_is_explained(body, reason, instead, line):
    found = ppl.engine.explain(model_with(body), guide, DATA)
    assert not found.is_captured
    assert reason in found.reason
    assert instead.lower() in found.instead.lower()
    assert line in found.line
    assert "test_explain.py" in found.line
    assert found.site == "z"
    assert found.cost is None
    assert found.reason in str(found)
    assert found.instead in str(found)


def reads_data(z, data):
    return z + float(data.numpy().max()) + len(str(data)) / 1000 + data[data > 0].sum() * max(data.tolist())


def test_data_may_be_read_and_are_looked_at_again():
    model = model_with(reads_data)
    assert ppl.engine.explain(model, guide, DATA).is_captured
    svi = SVI(model, guide, ppl.optim.Adam({"lr": 0.01}))
    svi.step(DATA)
    step = compiled.rehearse(svi, (DATA,), {}).step
    assert step.bind([DATA]) is not None
    assert step.bind([DATA.clone()]) is not None
    assert step.bind([DATA + 1]) is None


# -- what a program does besides


def prints(z, data):
    print("hello")
    return z


def draws_from_numpy(z, data):
    return z + np.random.normal()


def draws_from_random(z, data):
    return z + random.gauss(0.0, 1.0)


def counts(z, data):
    global COUNT
    COUNT += 1
    return z + 0.01 * COUNT


def collects(z, data):
    LOG.append(1.0)
    return z + 0.01 * len(LOG)


def changes_its_sites(z, data):
    global COUNT
    COUNT += 1
    if COUNT % 3 == 0:
        ppl.factor("now and then", -z.square())
    return z


def changes_its_shapes(z, data):
    global COUNT
    COUNT += 1
    return z + torch.randn(1 + COUNT % 3).mean()


def reads_a_file(z, data):
    with open(__file__) as file:
        return z + len(file.readline()) / 100


EFFECTS = [
    (prints, {"output"}, 'print("hello")'),
    (draws_from_numpy, {"numpy"}, "np.random.normal()"),
    (draws_from_random, {"random"}, "random.gauss"),
    (counts, {"change"}, "COUNT += 1"),
    (collects, {"change"}, "LOG.append(1.0)"),
    (changes_its_sites, {"change"}, "COUNT += 1"),
    (changes_its_shapes, {"change"}, "COUNT += 1"),
    (reads_a_file, {"file"}, "open(__file__)"),
]


@pytest.fixture
def start():
    """All that the programs change is as at the start, and is again at each call."""

    def again():
        global COUNT
        COUNT = 0
        LOG.clear()
        np.random.seed(1)
        random.seed(1)
        ppl.set_rng_seed(1)
        OWN.manual_seed(1)

    again()
    yield again
    again()


@pytest.mark.parametrize(("body", "kinds", "line"), EFFECTS, ids=lambda x: getattr(x, "__name__", ""))
def test_what_would_be_frozen_is_named(body, kinds, line, start, capsys):
    states = np.random.get_state()[1:3], random.getstate(), torch.get_rng_state()
    found = ppl.engine.explain(model_with(body), guide, DATA)
    assert {effect.kind for effect in found.effects} == kinds
    assert all(line in effect.line and effect.instead in str(found) for effect in found.effects)
    assert (COUNT, LOG) == (0, [])
    assert capsys.readouterr() == ("", "")
    now = np.random.get_state()[1:3], random.getstate(), torch.get_rng_state()
    assert np.array_equal(states[0][0], now[0][0])
    assert (states[0][1], states[1]) == (now[0][1], now[1])
    assert torch.equal(states[2], now[2])


@pytest.fixture
def early(monkeypatch):
    """Runs record their steps at once and do the recorded operations, as long ones do; no compiler."""
    monkeypatch.delenv("PPL_COMPILE")
    monkeypatch.setattr(compiled, "LONG", 0.0)
    monkeypatch.setattr(compiled, "VERY_LONG", math.inf)
    monkeypatch.setattr(compiled, "PATIENCE", math.inf)
    monkeypatch.setattr(compiled, "_warned", set())


def losses_of(body, compile, start, callback=None):
    start()
    svi = SVI(model_with(body), guide, ppl.optim.Adam({"lr": 0.05}))
    result = svi.run(40, DATA, progress_bar=False, compile=compile, callback=callback)
    return result.losses, torch.rand(()), (COUNT, len(LOG), np.random.rand(), random.random())


@pytest.mark.parametrize("body", [row[0] for row in (*REFUSED, *EFFECTS)], ids=lambda x: x.__name__)
def test_such_programs_run_as_eager_ones_do(body, start, early):
    expected = losses_of(body, "never", start)
    with pytest.warns(UserWarning, match="goes on without compiling") as caught:
        found = losses_of(body, "auto", start)
    assert len(caught) == 1
    assert "test_explain.py" in str(caught[0].message)
    assert torch.equal(expected[0], found[0])
    assert expected[1:] == found[1:]


def harmless(z, data):
    return torch.sin(z) + data.mean()


def test_programs_without_effects_are_recorded_without_a_warning(start, early):
    expected = losses_of(harmless, "never", start)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = losses_of(harmless, "auto", start)
    torch.testing.assert_close(expected[0], found[0], rtol=1e-10, atol=0)
    assert expected[1:] == found[1:]
    svi = SVI(model_with(harmless), guide, ppl.optim.Adam({"lr": 0.05}))
    stepper = compiled.Stepper(svi, "auto")
    for _ in range(12):
        stepper.advance((DATA,), {}, 1000, 1)
    (way,) = stepper.ways.values()
    assert way.blocks is not None


def test_always_records_nevertheless_and_says_what_is_frozen(start, early, monkeypatch):
    monkeypatch.setattr(compiled, "Compilation", NoCompiler)
    with pytest.warns(UserWarning, match="nevertheless. It changes the global 'COUNT' at line") as caught:
        losses_of(counts, "always", start)
    assert sum("nevertheless" in str(w.message) for w in caught) == 1
    assert COUNT == 2  # of the setup and the eager step


class NoCompiler:
    def __init__(self, job, key):
        self.key = key

    def wait(self):
        pass

    def poll(self):
        pass

    def cancel(self):
        pass


def reads_a_global(z, data):
    return z * SCALE


def test_a_callback_may_switch_a_module_to_evaluation(start, early):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout(0.5))
    state = copy.deepcopy(net.state_dict())

    def run(compile):
        start()
        net.load_state_dict(state)
        net.train()

        def model(data):
            ppl.module("net", net)
            z = ppl.sample("z", dist.Normal(0.0, 1.0))
            ppl.sample("x", dist.Normal(net(data.unsqueeze(-1)).squeeze(-1) + z, 1.0).to_event(1), obs=data)

        svi = SVI(model, guide, ppl.optim.Adam({"lr": 0.05}))
        callback = lambda step, loss: net.train(step < 20)  # noqa: E731
        return svi.run(40, DATA, progress_bar=False, compile=compile, callback=callback).losses

    torch.testing.assert_close(run("never"), run("auto"), rtol=1e-10, atol=0)


@pytest.mark.parametrize("changes", [1, 2, 40])
def test_numbers_that_a_callback_changes_are_not_frozen(changes, start, early, monkeypatch):
    """SCALE is read by the model, and changed by the callback: now and then, or in each step."""

    def schedule(step, loss):
        if step % (40 // changes) == 0:
            globals()["SCALE"] = 1.0 + 0.1 * step

    monkeypatch.setitem(globals(), "SCALE", 1.0)
    expected = losses_of(reads_a_global, "never", start, schedule)
    monkeypatch.setitem(globals(), "SCALE", 1.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = losses_of(reads_a_global, "auto", start, schedule)
    torch.testing.assert_close(expected[0], found[0], rtol=1e-10, atol=0)
    assert len(caught) == (changes == 40)
    assert all("the global 'SCALE'" in str(w.message) for w in caught)


def test_a_tensor_that_a_callback_writes_into_is_looked_at_in_each_step(start, early):
    rate = torch.tensor(1.0)

    def body(z, data):
        return z * rate

    def schedule(step, loss):
        rate.fill_(1.0 + 0.01 * step)

    expected = losses_of(body, "never", start, schedule)
    rate.fill_(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = losses_of(body, "auto", start, schedule)
    torch.testing.assert_close(expected[0], found[0], rtol=1e-10, atol=0)


class Averaging(torch.nn.Module):
    """A module that replaces its buffer in each call."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        y = self.linear(x.unsqueeze(-1)).squeeze(-1)
        self.mean = 0.9 * self.mean + 0.1 * y.detach().mean()
        return y - self.mean


def test_a_buffer_that_is_replaced_is_not_frozen(start, early):
    torch.manual_seed(0)
    state = Averaging().state_dict()

    def run(compile):
        start()
        net = Averaging()
        net.load_state_dict(state)

        def model(data):
            ppl.module("net", net)
            z = ppl.sample("z", dist.Normal(0.0, 1.0))
            with ppl.plate("n", len(data)):
                ppl.sample("x", dist.Normal(net(data) + z, 1.0), obs=data)

        svi = SVI(model, guide, ppl.optim.Adam({"lr": 0.05}))
        return svi.run(40, DATA, progress_bar=False, compile=compile).losses, net.mean

    expected = run("never")
    with pytest.warns(UserWarning, match="replaces the buffer 'mean' of Averaging.*copy_"):
        found = run("auto")
    assert torch.equal(expected[0], found[0])
    assert torch.equal(expected[1], found[1])


# -- what it costs


def test_costs_of_a_linear_model_by_hand():
    x, y = torch.randn(50, 3), torch.randn(50)

    def model():
        w = ppl.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with ppl.plate("n", 50):
            ppl.sample("y", dist.Normal((x.exp() @ w.unsqueeze(-1)).squeeze(-1), SCALE), obs=y)

    def guide():
        ppl.sample("w", dist.Normal(ppl.param("loc", torch.zeros(3)), 0.1).to_event(1))

    found = ppl.engine.explain(model, guide)
    cost = found.cost
    assert found.is_captured
    assert any("'SCALE' = 1.0" in text for text in found.frozen)
    assert cost.product_flops == 2 * (2 * 50 * 3)  # forwards, and backwards to w
    assert (cost.draws, cost.random_numbers) == (1, 3)
    assert cost.once >= 1  # exp of the data
    assert cost.input_bytes >= 8 * (150 + 50 + 3 + 3)  # data, parameter, noise
    assert 0 < cost.peak_bytes <= cost.made_bytes
    assert sum(part.operations for part in cost.parts) == cost.operations
    assert sum(part.num_bytes for part in cost.parts) == cost.made_bytes
    names = [part.name for part in cost.parts]
    assert {"guide 'w'", "densities", "gradients"} <= set(names)
    assert names[-1] == "gradients"
    assert "300" not in names
    assert "600 floating-point" in str(found)


def test_the_peak_forgets_what_is_used_up():
    x = torch.randn(1000)

    def model():
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        with torch.no_grad():
            y = x * z.detach()
            for _ in range(10):
                y = y + 1
        ppl.factor("f", z + y.sum())

    cost = ppl.engine.explain(
        model, lambda: ppl.sample("z", dist.Normal(ppl.param("loc", torch.tensor(0.0)), 1.0))
    ).cost
    assert cost.made_bytes >= 11 * 8000
    assert 2 * 8000 <= cost.peak_bytes < 3 * 8000


# -- nothing shows


def test_nothing_shows_of_an_explanation():
    net = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    versions = {name: id(value) for name, value in net.state_dict(keep_vars=True).items()}

    def model(data):
        ppl.module("net", net)
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        with ppl.plate("n", len(data)):
            ppl.sample("x", dist.Normal(net(data.unsqueeze(-1)).squeeze(-1) + z, 1.0), obs=data)

    auto = ppl.infer.autoguide.AutoNormal(model)
    loss = Trace_ELBO()
    held = dict(vars(auto))
    rng = torch.get_rng_state()
    found = ppl.engine.explain(model, auto, DATA, loss=loss)
    assert found.is_captured, found
    assert not found.effects
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert versions == {name: id(value) for name, value in net.state_dict(keep_vars=True).items()}
    assert len(ppl.get_param_store()) == 0
    assert vars(auto) == held
    assert auto.prototype is None
    assert list(auto.parameters()) == []
    assert loss.last_traces is None


def test_parameters_and_baselines_of_a_trained_svi_stay_as_they_are():
    def model():
        ppl.sample("b", dist.Bernoulli(0.3))

    def guide():
        ppl.sample("b", dist.Bernoulli(torch.sigmoid(ppl.param("logit", torch.tensor(0.2)))))

    svi = SVI(model, guide, ppl.optim.Adam({"lr": 0.05}))
    svi.run(5, progress_bar=False)
    before = {**svi.loss.baselines.means}, svi.params["logit"].item(), svi.params.version
    with svi.params:
        found = ppl.engine.explain(model, guide, loss=svi.loss)
    assert found.is_captured, found
    assert before == ({**svi.loss.baselines.means}, svi.params["logit"].item(), svi.params.version)


def test_enumeration_and_errors_of_the_programs_themselves():
    def model(data):
        k = ppl.sample("k", dist.Categorical(torch.ones(3)), infer={"enumerate": "parallel"})
        with ppl.plate("n", len(data)):
            ppl.sample("x", dist.Normal(ppl.param("m", torch.arange(3.0))[k], 1.0), obs=data)

    found = ppl.engine.explain(model, lambda data: None, DATA, loss=TraceEnum_ELBO())
    assert found.is_captured, found
    with pytest.raises(ValueError, match="'k'"):
        ppl.engine.explain(model, lambda data: None, DATA)


def test_a_fork_of_the_random_state_is_refused():
    found = ppl.engine.explain(model_with(forks), guide, DATA)
    assert not found.is_captured
    assert "random state" in found.reason


def test_what_the_first_step_alone_does_is_no_effect(capsys):
    known = {}

    def body(z, data):
        if len(data) not in known:
            print("made")
            known[len(data)] = data.exp().mean()
        return z * known[len(data)]

    found = ppl.engine.explain(model_with(body), guide, DATA)
    assert found.is_captured, found
    assert found.effects == ()
    assert known == {}
    assert capsys.readouterr().out == ""


def test_an_error_in_a_recording_alone_does_not_end_a_run(start, early):
    def body(z, data):
        if ppl.tensors.rewind.is_recorded():
            raise ZeroDivisionError("only here")
        return z

    found = ppl.engine.explain(model_with(body), guide, DATA)
    assert not found.is_captured
    assert "ZeroDivisionError: only here" in found.reason
    expected = losses_of(body, "never", start)
    with pytest.warns(UserWarning, match="ZeroDivisionError: only here"):
        found = losses_of(body, "auto", start)
    assert torch.equal(expected[0], found[0])


def test_a_change_that_nobody_can_see_shows_in_the_second_recording():
    hidden = threading.local()
    hidden.count = 0

    def body(z, data):
        hidden.count += 1
        return z * hidden.count

    found = ppl.engine.explain(model_with(body), guide, DATA)
    assert not found.is_captured
    assert "changes from step to step" in found.reason
    assert "arguments" in found.instead


def test_an_iterator_is_not_advanced():
    batches = iter([DATA, DATA + 1, DATA + 2])

    def model():
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        ppl.sample("x", dist.Normal(z, 1.0).expand([8]).to_event(1), obs=next(batches))

    found = ppl.engine.explain(model, lambda: guide(None))
    assert not found.is_captured
    assert "'batches'" in found.effects[0].what
    assert "next(batches)" in found.effects[0].line
    assert torch.equal(next(batches), DATA)


def test_a_program_that_catches_what_stops_it():
    def model():
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        try:
            z = z * z.item()
        except Exception:
            z = -z
        ppl.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    def guide():
        ppl.sample("z", dist.Normal(ppl.param("loc", torch.tensor(0.0)), 1.0))

    found = ppl.engine.explain(model, guide)
    assert "reads a value into Python" in found.reason
    assert "z = z * z.item()" in found.line


def test_what_is_found_out_in_the_end_has_no_line():
    def model():
        torch.manual_seed(0)
        ppl.sample("x", dist.Normal(ppl.param("loc", torch.tensor(0.0)), 1.0), obs=torch.tensor(1.0))

    found = ppl.engine.explain(model, lambda: None)
    assert "sets torch's random state" in found.reason
    assert "explain" not in found.line
