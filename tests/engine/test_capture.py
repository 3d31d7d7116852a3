"""Captured functions against the functions themselves: results, random stream, buffers, and what is refused."""

import models
import numpy
import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.distributions import constraints
from ppl.engine import CannotCapture, background, capture
from ppl.handlers import mask, trace
from ppl.infer import Predictive, Trace_ELBO, TraceEnum_ELBO
from ppl.infer.autoguide import AutoNormal
from ppl.tensors import native


def close(a, b, rtol=1e-10):
    torch.testing.assert_close(a, b, rtol=rtol, atol=rtol)


def agree(fn, captured, *calls, rtol=1e-10, means=None):
    """The captured function does what the function does: for these arguments, and as to the random state.

    Args: means, running ones that the function replaces.
    """
    means = {} if means is None else means

    def check(run, args):
        means.update(before)
        torch.set_rng_state(start)
        close(run(*args), expected, rtol)
        assert torch.equal(torch.get_rng_state(), end)

    for args in calls:
        start, before = torch.get_rng_state(), dict(means)
        expected = fn(*args)
        end, after = torch.get_rng_state(), dict(means)
        graph = captured.graph_module()

        def result_of_graph(*args, graph=graph, after=after):
            with torch.no_grad():
                found = graph(*captured.bind(*args))
            if not means:
                return found
            close(found[1], [after])
            return found[0]

        check(result_of_graph, args)
        check(captured, args)
        close(means, after)
        move_parameters()


def move_parameters():
    """Other values, in place and not, so that nothing of the first ones can be left in a program."""
    with torch.no_grad():
        for _, leaf in ppl.get_param_store().named_unconstrained():
            leaf += 0.01


def gradients_of(loss):
    """A loss and its gradients, as a function to be captured."""

    def loss_and_grads(*args):
        value = loss(*args)
        leaves = [leaf for _, leaf in ppl.get_param_store().named_unconstrained()]
        return value.detach(), torch.autograd.grad(value, leaves, allow_unused=True)

    return loss_and_grads


def made(fn, *args):
    """Capture it after a first call, in which parameters and running means come up."""
    fn(*args)
    return capture(fn, *args)


@pytest.mark.parametrize("case", models.CASES.values(), ids=str)
def test_loss_and_gradients_of_every_model_of_the_zoo(case):
    elbo = TraceEnum_ELBO() if case.enumerates else Trace_ELBO()
    fn = gradients_of(lambda *args: elbo(case.model, case.guide, *args))
    agree(fn, made(fn, *case.args), case.args, case.args, means=elbo.baselines.means)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_log_density_of_other_data_at_other_parameters(dtype):
    torch.set_default_dtype(dtype)

    def model(x):
        loc = ppl.param("loc", torch.zeros(3))
        with ppl.plate("rows", len(x)):
            ppl.sample(
                "x",
                dist.Normal(loc, ppl.param("sd", torch.ones(3), constraint=constraints.positive)).to_event(1),
                obs=x,
            )

    def density(x):
        return trace(model).get_trace(x).log_prob_sum().detach()

    captured = capture(density, torch.randn(5, 3))
    assert sorted(one.kind for one in captured.inputs) == ["argument", "parameter", "parameter"]
    agree(density, captured, *[(torch.randn(5, 3),) for _ in range(3)], rtol=1e-10 if dtype == torch.float64 else 1e-5)
    ppl.get_param_store()["sd"] = torch.full((3,), 2.0)
    x = torch.randn(5, 3)
    expected = torch.distributions.Normal(ppl.get_param_store()["loc"], 2.0).log_prob(x).sum()
    close(captured(x), expected.detach(), 1e-5)


def test_the_store_at_capture_is_the_one_that_is_read_later():
    def fn():
        return ppl.param("x", torch.tensor(1.0)).detach() * 2

    store, other = ppl.ParamStore(), ppl.ParamStore()
    with store:
        captured = capture(fn)
    store["x"] = torch.tensor(5.0)
    with other:
        fn()
        assert captured() == 10
    del store["x"]
    store["x"] = torch.tensor(7.0)  # another leaf
    assert captured() == 14
    store["x"] = torch.ones(2)
    with pytest.raises(
        ValueError, match=r"captured fn: parameter x: float64\[\] when captured, but is float64\[2\] now"
    ):
        captured()
    del store["x"]
    with pytest.raises(ValueError, match="'x' is no longer in its store"):
        captured()


def test_a_store_that_the_function_enters_itself():
    store = ppl.ParamStore()

    def fn():
        with store:
            return ppl.param("x", torch.tensor(1.0)).detach() * 2

    captured = capture(fn)
    store["x"] = torch.tensor(3.0)
    assert captured() == 6
    store.load_state_dict({"leaves": {"x": torch.tensor(4.0)}, "constraints": {"x": "real"}})
    assert captured() == 8


@pytest.mark.parametrize("parallel", [True, False])
def test_predictive_draws(parallel):
    def model(x):
        w = ppl.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with ppl.plate("rows", len(x)):
            ppl.sample("k", dist.Bernoulli(logits=x @ w.unsqueeze(-1).squeeze(-1) if w.dim() == 1 else (x * w).sum(-1)))
            ppl.sample("y", dist.Normal((x * w).sum(-1), 1.0))

    guide = AutoNormal(ppl.handlers.block(model, expose=["w"]))
    guide(torch.randn(4, 2))
    predictive = Predictive(model, guide=guide, num_samples=6, parallel=parallel)
    captured = capture(predictive, torch.randn(4, 2))
    agree(predictive, captured, (torch.randn(4, 2),), (torch.randn(4, 2),))


def test_a_draw_itself_is_not_overwritten_by_the_next():
    captured = capture(lambda: torch.randn(3))
    first = captured()
    kept = first.clone()
    assert not torch.equal(captured(), kept)
    assert torch.equal(first, kept)


def test_draws_in_another_order_of_memory():
    def fn():
        return torch.randn_like(torch.zeros(2, 3).t()), torch.rand(2, 3).t().normal_()

    agree(fn, capture(fn), (), ())


def test_draws_that_reject():
    def fn(a):
        return dist.Gamma(a, 1.0).sample(), dist.Poisson(a).sample(), torch.randn(2)

    captured = capture(fn, torch.ones(4))
    agree(fn, captured, (torch.ones(4),), (torch.full((4,), 5.0),))


def test_masks_and_subsampling():
    data = torch.randn(20)

    def model(keep):
        loc = ppl.param("loc", torch.tensor(0.0))
        with ppl.plate("rows", 20, subsample_size=6) as i, mask(mask=keep[i]):
            ppl.sample("x", dist.Normal(loc, 1.0), obs=data[i])

    fn = gradients_of(lambda keep: -trace(model).get_trace(keep).log_prob_sum())
    captured = made(fn, torch.ones(20, dtype=torch.bool))
    agree(fn, captured, *[(torch.rand(20) < 0.5,) for _ in range(4)])
    data.add_(3.0)  # looked up anew
    agree(fn, captured, (torch.rand(20) < 0.5,))


def test_a_scan_with_an_enumerated_state():
    def model(data):
        rows = ppl.param("rows", torch.tensor([[0.7, 0.3], [0.2, 0.8]]), constraint=constraints.simplex)
        locs = ppl.param("locs", torch.tensor([-1.0, 1.0]))

        def step(z, x):
            z = ppl.sample("z", dist.Categorical(rows[z]), infer={"enumerate": "parallel"})
            ppl.sample("x", dist.Normal(locs[z], 1.0), obs=x)
            return z, None

        ppl.scan(step, 0, data)

    elbo = TraceEnum_ELBO()
    fn = gradients_of(lambda x: elbo(model, lambda x: None, x))
    with native.disabled():  # tests/engine/test_chains.py has the operators
        agree(fn, made(fn, torch.randn(12)), (torch.randn(12),), (torch.randn(12),))


def test_a_score_function_with_a_baseline():
    def model():
        z = ppl.sample("z", dist.Bernoulli(0.3))
        ppl.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.7))

    def guide():
        p = ppl.param("p", torch.tensor(0.4), constraint=constraints.unit_interval)
        ppl.sample(
            "z", dist.Bernoulli(p), infer={"baseline": {"use_decaying_avg_baseline": True, "baseline_beta": 0.7}}
        )

    one, other = Trace_ELBO(), Trace_ELBO()
    eager = gradients_of(lambda: one(model, guide))
    fn = gradients_of(lambda: other(model, guide))
    eager()
    fn()
    other.load_state_dict(one.state_dict())
    captured = capture(fn)
    assert [str(i) for i in captured.inputs if i.kind == "mean"] == ["mean z: float64[]"]
    close(other.state_dict(), one.state_dict())  # capturing is no call
    for k in range(5):
        if k == 3:  # a run that goes on from elsewhere
            one.load_state_dict({"baselines": {"z": torch.tensor(3.0)}})
            other.load_state_dict({"baselines": {"z": torch.tensor(3.0)}})
        ppl.set_rng_seed(k)
        expected = eager()
        ppl.set_rng_seed(k)
        close(captured(), expected)
        close(other.state_dict(), one.state_dict())
        move_parameters()


def test_a_first_call_that_makes_running_means_is_refused():
    elbo = Trace_ELBO()

    def guide():
        p = ppl.param("p", torch.tensor(0.4))
        ppl.sample("z", dist.Bernoulli(p), infer={"baseline": {"use_decaying_avg_baseline": True}})

    fn = gradients_of(lambda: elbo(lambda: ppl.sample("z", dist.Bernoulli(0.3)), guide))
    with pytest.raises(CannotCapture, match="call it once before"):
        capture(fn)
    assert not elbo.baselines.means
    fn()
    capture(fn)


def test_sequential_enumeration_rewinds_the_random_state():
    def model():
        z = ppl.sample("z", dist.Bernoulli(ppl.param("p", torch.tensor(0.4))), infer={"enumerate": "sequential"})
        ppl.sample("y", dist.Normal(z, 1.0))
        ppl.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.7))

    def guide():
        ppl.sample("y", dist.Normal(ppl.param("loc", torch.tensor(0.0)), 1.0))

    elbo = TraceEnum_ELBO()
    fn = gradients_of(lambda: elbo(model, guide))
    agree(fn, made(fn), (), ())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_module_that_the_model_calls_itself_and_its_batch_norm(dtype):
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    nets = [
        torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)) for _ in range(2)
    ]
    nets[1].load_state_dict(nets[0].state_dict())

    def gradients_through(net):
        def model(x, y):
            ppl.module("net", net)
            with ppl.plate("data", len(x)):
                ppl.sample("y", dist.Normal(net(x).squeeze(-1), 1.0), obs=y)

        def fn(x, y):
            loss = -trace(model).get_trace(x, y).log_prob_sum()
            return loss.detach(), torch.autograd.grad(loss, list(net.parameters()))

        return fn

    eager = gradients_through(nets[0])
    with ppl.ParamStore():
        captured = capture(gradients_through(nets[1]), torch.randn(9, 3), torch.randn(9))
    buffers = [str(one) for one in captured.inputs if one.kind == "buffer"]
    assert len(buffers) == 3
    assert sum(one.kind == "parameter" and one.name.startswith("net.") for one in captured.inputs) == 6
    close(nets[1].state_dict(), nets[0].state_dict(), 0.0)  # capturing is no call
    rtol = 1e-10 if dtype == torch.float64 else 1e-4
    for _ in range(3):
        x, y = torch.randn(9, 3), torch.randn(9)
        close(captured(x, y), eager(x, y), rtol)
        close(nets[1].state_dict(), nets[0].state_dict(), rtol)
        with torch.no_grad():
            for net in nets:
                for p in net.parameters():
                    p += 0.1
    assert int(nets[1][1].num_batches_tracked) == 3


def test_dropout_draws_anew():
    net = torch.nn.Dropout(0.5)

    def fn(x):
        return net(x)

    captured = capture(fn, torch.ones(20))
    agree(fn, captured, (torch.ones(20),), (torch.ones(20),))
    assert not torch.equal(captured(torch.ones(20)), captured(torch.ones(20)))


def test_nests_of_arguments_and_results():
    def fn(batch, *rest, scale, flip=False):
        x, (y, z) = batch["x"], batch["rest"]
        return {"sum": x + y * scale, "both": [z, (x * rest[0],)], "number": 3, "flip": flip, "none": None, "x": x}

    batch = {"x": torch.ones(2), "rest": (torch.ones(2), torch.zeros(1))}
    captured = capture(fn, batch, torch.ones(2), scale=torch.tensor(2.0))
    other = {"x": torch.rand(2), "rest": (torch.rand(2), torch.rand(1))}
    result = captured(other, torch.full((2,), 3.0), scale=torch.tensor(0.5))
    close(result, fn(other, torch.full((2,), 3.0), scale=torch.tensor(0.5)))
    assert result["x"] is other["x"]
    assert [one.name for one in captured.inputs] == [
        "batch['rest'][0]",
        "scale",
        "batch['x']",
        "rest[0]",
        "batch['rest'][1]",
    ]


def test_an_argument_that_is_written_into():
    def fn(total, x):
        total += x
        return total * 2

    total = torch.zeros(2)
    captured = capture(fn, total, torch.ones(2))
    assert torch.equal(total, torch.zeros(2))
    other = torch.ones(2)
    close(captured(other, torch.ones(2)), torch.full((2,), 4.0))
    close(other, torch.full((2,), 2.0))


def test_arguments_laid_out_otherwise():
    x = torch.randn(4, 3)
    captured = capture(lambda x: x.reshape(-1) * 2, x)
    close(captured(x.t().contiguous().t()), x.reshape(-1) * 2)


def test_what_arguments_alone_decide_may_be_read_but_not_change():
    def fn(x, lengths):
        return sum(x[:, t].sum() for t in range(int(lengths.max())))

    x, lengths = torch.rand(3, 4), torch.tensor([1, 3, 2])
    captured = capture(fn, x, lengths)
    assert "must stay 3" in captured.explain()
    close(captured(x + 1, torch.tensor([3, 1, 1])), fn(x + 1, lengths))
    with pytest.raises(ValueError, match="capture it again for such data"):
        captured(x, torch.tensor([4, 1, 1]))


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((torch.ones(4), {"y": torch.ones(2)}), {}, r"argument x is a tensor of shape \(4,\) .*but was .* \(3,\)"),
        ((torch.ones(3).int(), {"y": torch.ones(2)}), {}, "argument x is .*int32, but was .*float64"),
        ((torch.ones(3), {"z": torch.ones(2)}), {}, "argument data is a dict of 'z', but was a dict of 'y'"),
        ((torch.ones(3), {"y": torch.ones(1)}), {}, r"argument data\['y'\] is a tensor of shape \(1,\)"),
        ((torch.ones(3), {"y": 1.0}), {}, r"argument data has float 1.0 where a tensor"),
        (
            (torch.ones(3), {"y": torch.ones(2)}),
            {"n": 4},
            "argument n was 2, .* but is 4. Give a tensor if it is to change",
        ),
        ((torch.ones(3), {"y": torch.ones(2)}), {"n": 2.0}, "argument n was 2"),
        ((torch.ones(3),), {}, "missing a required argument: 'data'"),
        ((torch.ones(3), {"y": torch.ones(2)}), {"other": 4}, "unexpected keyword argument 'other'"),
    ],
)
def test_arguments_unlike_the_first_ones(args, kwargs, message):
    def fn(x, data, n=2):
        return x.sum() * n + data["y"].sum()

    captured = capture(fn, torch.ones(3), data={"y": torch.ones(2)})
    close(captured(torch.ones(3), {"y": torch.ones(2)}, n=2), torch.tensor(8.0))
    with pytest.raises(ValueError, match=f"captured fn: .*{message}"):
        captured(*args, **kwargs)


def test_arguments_that_were_one_tensor():
    x = torch.ones(2)
    captured = capture(lambda a, b: a * b, x, x)
    y = torch.full((2,), 3.0)
    close(captured(y, y), y * y)
    close(captured(y, x), y)


def test_an_argument_that_is_something_else_as_well():
    data = torch.arange(3.0)
    captured = capture(lambda x: x + data, data)
    close(captured(data + 1), 2 * data + 1)


def test_another_default_dtype():
    captured = capture(lambda: torch.zeros(2))
    torch.set_default_dtype(torch.float32)
    with pytest.raises(ValueError, match=r"default dtype was torch\.float64, but is"):
        captured()


def test_results_that_require_gradients():
    def fn():
        return {"loss": ppl.param("x", torch.tensor(1.0)) * 2}

    with pytest.raises(ValueError, match=r"fn: its result\['loss'\] requires gradients.*torch.autograd.grad"):
        capture(fn)


def test_results_that_are_no_data():
    def fn():
        return trace(lambda: ppl.sample("x", dist.Normal(0.0, 1.0))).get_trace()

    with pytest.raises(ValueError, match="fn: its result is of type Trace; expected tensors"):
        capture(fn)


def test_backward_is_refused_and_leaves_nothing():
    def fn():
        loss = ppl.param("x", torch.tensor(1.0)) * 2
        loss.backward()
        return loss.detach()

    with pytest.raises(CannotCapture, match=r"fn calls backward\(\).*torch.autograd.grad"):
        capture(fn)
    assert ppl.get_param_store().unconstrained("x").grad is None


def test_values_that_change_are_not_read():
    def fn(x):
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        return x if z > 0 else -x

    with pytest.raises(CannotCapture, match=r"test_capture.py, \"return x if z > 0 else -x\".*'z'"):
        capture(fn, torch.ones(2))


@pytest.mark.parametrize("kind", ["number", "array", "site", "result"])
def test_functions_that_change_from_call_to_call(kind):
    calls = []

    def fn(x):
        calls.append(0)
        if kind == "number":
            return x * len(calls)
        if kind == "array":
            return x + torch.from_numpy(numpy.random.randn(2))
        if kind == "site":
            return torch.stack([ppl.sample(f"z{k}", dist.Normal(x, 1.0)) for k in range(len(calls))]).sum(0)
        return len(calls)

    with pytest.raises(CannotCapture, match="fn changes from call to call"):
        capture(fn, torch.ones(2))


def test_a_function_that_sets_the_random_state():
    def fn():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return torch.randn(2)

    with pytest.raises(CannotCapture, match="sets torch's random state"):
        capture(fn)


def test_sparse_gradients_are_refused():
    net = torch.nn.Embedding(4, 2, sparse=True)

    def fn(i):
        return torch.autograd.grad(net(i).sum(), net.weight)[0].to_dense()

    with pytest.raises(CannotCapture, match="sparse"):
        capture(fn, torch.tensor([1, 2]))


def test_capturing_leaves_no_trace():
    state, counter = torch.zeros(3), torch.tensor(0)

    def fn(x):
        counter.add_(1)
        state[1:].add_(x)
        return state * ppl.param("scale", lambda: torch.rand(())).detach()

    start = torch.get_rng_state()
    captured = capture(fn, torch.ones(2))
    assert torch.equal(torch.get_rng_state(), start)
    assert int(counter) == 0
    assert torch.equal(state, torch.zeros(3))
    expected = torch.tensor([0.0, 1.0, 1.0]) * ppl.get_param_store()["scale"].detach()
    close(captured(torch.ones(2)), expected)
    assert int(counter) == 1
    close(state, torch.tensor([0.0, 1.0, 1.0]))


def test_what_is_captured_explains_itself():
    def fn(x):
        return ppl.sample("z", dist.Normal(ppl.param("loc", torch.tensor(0.0)).detach(), 1.0)) + x

    text = str(capture(fn, torch.ones(2)))
    for part in (
        "fn:",
        "one by one",
        "parameter loc: float64[]",
        "argument x: float64[2]",
        "draws 1 random number",
        "gives float64[2]",
    ):
        assert part in text, text


@pytest.mark.skipif(background.compiler() is None, reason="there is no C++ compiler on this machine")
def test_a_compiled_function(tmp_path, monkeypatch):
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path))
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    weights = torch.rand(3)

    def model(x):
        ppl.module("net", net)
        loc = ppl.param("loc", torch.zeros(4))
        with ppl.plate("rows", 12, subsample_size=8) as i:
            z = ppl.sample("z", dist.Normal(loc, 1.0).to_event(1))
            k = ppl.sample("k", dist.Bernoulli(logits=z.sum(-1)))
            rate = ppl.sample("rate", dist.Gamma(k + 1, 2.0))
            ppl.sample(
                "x", dist.Normal(net(x[i] * weights) + z * rate.unsqueeze(-1), 1.0).to_event(1), obs=torch.ones(8, 4)
            )

    def fn(x):
        run = trace(model).get_trace(x)
        loss = -run.log_prob_sum()
        leaves = [ppl.get_param_store().unconstrained("loc"), *net.parameters()]
        return loss.detach(), torch.autograd.grad(loss, leaves), run["z"].tensor.detach(), torch.randn(3)

    captured = capture(fn, torch.randn(12, 3)).compile()
    assert "compiled" in str(captured)
    for _ in range(3):
        x, start = torch.randn(12, 3), torch.get_rng_state()
        buffers = {name: value.clone() for name, value in net.named_buffers()}
        expected, end = fn(x), torch.get_rng_state()
        after = {name: value.clone() for name, value in net.named_buffers()}
        net.load_state_dict({**net.state_dict(), **buffers})
        torch.set_rng_state(start)
        close(captured(x), expected)
        assert torch.equal(torch.get_rng_state(), end)
        close(dict(net.named_buffers()), after)
        move_parameters()
        weights.mul_(1.1)
    again = capture(fn, x).compile()  # found in the cache
    assert again(x)[0].isfinite()


def test_matrices_that_cannot_be_factorised():
    captured = capture(lambda x: torch.linalg.cholesky(x), torch.eye(2))
    close(captured(4 * torch.eye(2)), 2 * torch.eye(2))
    with pytest.raises(ValueError, match="singular or not positive definite"):
        captured(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))


def test_operations_whose_several_results_depend_on_values():
    captured = capture(lambda x: torch.unique(x, return_counts=True), torch.tensor([1.0, 2.0, 1.0]))
    values, counts = captured(torch.tensor([5.0, 3.0, 3.0]))
    close(values, torch.tensor([3.0, 5.0]))
    close(counts, torch.tensor([2, 1]))
