"""Recorded steps against eager ones: the same losses, parameters and random stream."""

import copy
import threading
import warnings

import models
import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceTMC_ELBO
from ppl.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal
from ppl.optim import SGD, Adam, ClippedAdam, ExponentialLR, RMSprop
from ppl.tensors import native

STEPS = 100


def check(svi, args, replayed, rtol=1e-10, steps=STEPS, most_eager=4):
    """A run with the recorded program gives what eager steps give."""
    svi.setup(*args)
    ppl.set_rng_seed(1)
    start = copy.deepcopy(svi.state_dict())
    eager = svi.run(steps, *args, compile="never", progress_bar=False)
    optimizer, rng = copy.deepcopy(svi.optimizer.state_dict()), torch.get_rng_state()
    svi.load_state_dict(start)
    recorded = svi.run(steps, *args, compile="auto", progress_bar=False)
    assert sum(replayed) >= steps - most_eager
    torch.testing.assert_close(recorded.losses, eager.losses, rtol=rtol, atol=rtol)
    assert recorded.params.keys() == eager.params.keys()
    for name, value in eager.params.items():
        torch.testing.assert_close(recorded.params[name], value, rtol=rtol, atol=rtol, msg=name)
    assert torch.equal(rng, torch.get_rng_state())
    torch.testing.assert_close(svi.optimizer.state_dict()["state"], optimizer["state"], rtol=1e3 * rtol, atol=10 * rtol)


@pytest.mark.parametrize("case", models.CASES.values(), ids=str)
def test_every_model_of_the_zoo(case, replayed):
    loss = TraceEnum_ELBO() if case.enumerates else Trace_ELBO()
    check(SVI(case.model, case.guide, Adam({"lr": 0.01}), loss), case.args, replayed)


@pytest.mark.parametrize("guide", [AutoNormal, AutoDiagonalNormal, AutoDelta])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_automatic_guides(guide, dtype, replayed):
    torch.set_default_dtype(dtype)
    args = [t.to(dtype) for t in (models.EFFECTS, models.ERRORS)]
    svi = SVI(models.eight_schools_model, guide(models.eight_schools_model), Adam({"lr": 0.01}))
    check(svi, args, replayed, 1e-10 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize(
    "loss",
    [
        Trace_ELBO(num_particles=3),
        Trace_ELBO(num_particles=5, vectorize_particles=True),
        TraceEnum_ELBO(num_particles=2),
        TraceTMC_ELBO(),
    ],
    ids=["particles", "vectorised particles", "enumerated particles", "TMC"],
)
def test_other_bounds(loss, replayed):
    svi = SVI(models.eight_schools_model, models.eight_schools_guide, Adam({"lr": 0.01}), loss)
    check(svi, (models.EFFECTS, models.ERRORS), replayed)


@pytest.mark.parametrize(
    "optim",
    [
        SGD({"lr": 1e-4, "momentum": 0.9}),
        RMSprop({"lr": 0.01}),
        ClippedAdam({"lr": 0.01, "lrd": 0.999, "clip_norm": 0.5}),
        Adam({"lr": 0.01}, {"clip_norm": 1.0}),
        ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.99}),
        Adam(lambda name: {"lr": 0.1 if "loc" in name else 0.01}),
    ],
    ids=["SGD", "RMSprop", "ClippedAdam", "clipped Adam", "schedule", "by name"],
)
def test_optimisers(optim, replayed):
    svi = SVI(models.eight_schools_model, models.eight_schools_guide, optim)
    check(svi, (models.EFFECTS, models.ERRORS), replayed)


def test_a_scan_is_recorded(replayed):
    def model(data):
        rows = ppl.sample("rows", dist.Dirichlet(torch.ones(3, 3)).to_event(1))
        locs = ppl.sample("locs", dist.Normal(torch.zeros(3), 3.0).to_event(1))

        def step(z, x):
            z = ppl.sample("z", dist.Categorical(rows[z]), infer={"enumerate": "parallel"})
            ppl.sample("x", dist.Normal(locs[z], 1.0), obs=x)
            return z, None

        ppl.scan(step, 0, data)

    guide = AutoDelta(ppl.handlers.block(model, expose=["rows", "locs"]))
    with native.disabled():  # tests/engine/test_chains.py has the operators
        check(SVI(model, guide, Adam({"lr": 0.01}), TraceEnum_ELBO()), (torch.randn(12),), replayed)


def test_modules_and_their_buffers(replayed):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    x, y = torch.randn(20, 3), torch.randn(20)

    def model(x, y):
        ppl.module("net", net)
        with ppl.plate("data", len(x)):
            ppl.sample("y", dist.Normal(net(x).squeeze(-1), 1.0), obs=y)

    svi = SVI(model, lambda x, y: None, SGD({"lr": 0.01}))  # a bias before the norm has rounding errors for a gradient
    svi.setup(x, y)
    first = {name: value.clone() for name, value in net[1].named_buffers()}
    start = copy.deepcopy(svi.state_dict())
    eager = svi.run(50, x, y, compile="never", progress_bar=False)
    after = {name: value.clone() for name, value in net[1].named_buffers()}
    svi.load_state_dict(start)
    svi.setup(x, y)
    for name, buffer in net[1].named_buffers():
        buffer.copy_(first[name])
    recorded = svi.run(50, x, y, compile="auto", progress_bar=False)
    assert sum(replayed) >= 46
    torch.testing.assert_close(recorded.losses, eager.losses, rtol=1e-10, atol=1e-10)
    assert int(net[1].num_batches_tracked) == 50 + int(first["num_batches_tracked"])
    torch.testing.assert_close(dict(net[1].named_buffers()), after, rtol=1e-10, atol=1e-10)


def test_data_in_a_closure_are_looked_up_anew(replayed):
    data = torch.zeros(5)

    def model():
        loc = ppl.param("loc", torch.tensor(1.0))
        with ppl.plate("data", 5):
            ppl.sample("x", dist.Normal(loc, 1.0), obs=data)

    svi = SVI(model, lambda: None, SGD({"lr": 0.1}))
    svi.run(20, progress_bar=False, compile="auto")
    data += 10.0
    result = svi.run(100, progress_bar=False, compile="auto")
    assert sum(replayed) > 100
    torch.testing.assert_close(result.params["loc"], torch.tensor(10.0))


def test_a_callback_sees_every_step(replayed):
    seen = []
    svi = SVI(models.eight_schools_model, models.eight_schools_guide, Adam({"lr": 0.01}))

    def callback(step, loss):
        seen.append((step, loss, svi.params["mu_loc"].item(), svi.num_steps))

    args = models.EFFECTS, models.ERRORS
    result = svi.run(20, *args, callback=callback, compile="auto", progress_bar=False)
    assert max(replayed) == 1
    assert [s[0] for s in seen] == list(range(20))
    assert [s[1] for s in seen] == result.losses.tolist()
    assert len({s[2] for s in seen}) == 20
    assert [s[3] for s in seen] == list(range(1, 21))


def test_nan_in_a_recorded_run_is_found_by_eager_steps(replayed):
    def model(n):
        loc = ppl.param("loc", torch.tensor(3.5))
        with ppl.plate("data", 3):
            ppl.sample("x", dist.Normal(torch.sqrt(loc - torch.tensor([0.0, 1.0, 2.0])), 1.0), obs=torch.zeros(3))

    def errors(compile):
        ppl.set_rng_seed(0)
        svi = SVI(model, lambda n: None, SGD({"lr": 0.05}))
        with pytest.raises(ValueError, match="step ") as caught:
            svi.run(500, 3, compile=compile, progress_bar=False)
        return str(caught.value), svi

    eager, one = errors("never")
    recorded, other = errors("auto")
    assert sum(replayed) > 3
    assert recorded == eager
    assert "site 'x'" in eager
    assert other.num_steps == one.num_steps
    torch.testing.assert_close(other.params["loc"], one.params["loc"])


def test_value_dependent_control_flow_stays_eager_with_one_warning(replayed):
    def model():
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        if z > 0:
            z = z * 2
        ppl.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    svi = SVI(model, AutoNormal(model), Adam({"lr": 0.01}))
    with pytest.warns(UserWarning, match=r"if z > 0.*'z'") as caught:
        svi.run(50, compile="auto", progress_bar=False)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svi.run(50, compile="auto", progress_bar=False)
    assert not replayed


def test_a_program_that_changes_stays_eager(replayed):
    calls = threading.local()  # which nobody looks into
    calls.count = 0

    def model():
        calls.count += 1
        loc = ppl.param("loc", torch.tensor(1.0))
        ppl.sample("x", dist.Normal(loc * calls.count, 1.0), obs=torch.tensor(1.0))

    svi = SVI(model, lambda: None, Adam({"lr": 0.01}))
    with pytest.warns(UserWarning, match="changes from step to step"):
        svi.run(50, compile="auto", progress_bar=False)
    assert not replayed


def test_values_that_depend_on_data_alone_may_be_read(replayed):
    lengths = torch.tensor([2, 3, 1])

    def model(data, lengths):
        scale = ppl.param("scale", torch.tensor(1.0))
        with ppl.plate("rows", len(data)):
            for t in range(int(lengths.max())):
                with ppl.handlers.mask(mask=t < lengths):
                    ppl.sample(f"x{t}", dist.Normal(0.0, scale.exp()), obs=data[:, t])
        ppl.sample("y", dist.Normal(scale, 1.0).expand((3,)).to_event(1), obs=data[data > 0][:3])

    check(SVI(model, lambda data, lengths: None, Adam({"lr": 0.01})), (torch.rand(3, 3) + 0.1, lengths), replayed)


def test_batches_of_two_shapes(replayed):
    x = torch.randn(25)
    batches = [x[:10], x[10:20], x[20:]]

    def model(x):
        loc = ppl.sample("loc", dist.Normal(0.0, 10.0))
        with ppl.plate("data", len(x)):
            ppl.sample("x", dist.Normal(loc, 1.0), obs=x)

    def fitted(compile):
        ppl.set_rng_seed(0)
        svi = SVI(model, AutoNormal(model), Adam({"lr": 0.01}))
        return svi.fit(batches, 30, plate="data", compile=compile, progress_bar=False)

    eager = fitted("never")
    assert not replayed
    recorded = fitted("auto")
    assert sum(replayed) > 70
    torch.testing.assert_close(recorded.losses, eager.losses, rtol=1e-10, atol=1e-10)


def test_many_shapes_warn_once_and_name_the_argument(replayed):
    def model(x):
        loc = ppl.sample("loc", dist.Normal(0.0, 10.0))
        with ppl.plate("data", len(x)):
            ppl.sample("x", dist.Normal(loc, 1.0), obs=x)

    svi = SVI(model, AutoNormal(model), Adam({"lr": 0.01}))
    with pytest.warns(UserWarning, match=r"argument 0 has come in 5 kinds \(\(1,\), \(2,\)") as caught:
        svi.fit([torch.ones(n) for n in range(1, 9)], 3, plate="data", compile="auto", progress_bar=False)
    assert len(caught) == 1


def test_a_word_that_is_none():
    svi = SVI(models.eight_schools_model, models.eight_schools_guide, Adam({"lr": 0.01}))
    with pytest.raises(ValueError, match="'auto', 'always' or 'never', got 'yes'"):
        svi.run(1, models.EFFECTS, models.ERRORS, compile="yes")
