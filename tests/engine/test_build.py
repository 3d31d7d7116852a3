"""What is seen to before a program is compiled."""

import warnings

import pytest
import torch

pytest.importorskip("torch._inductor")

from torch._higher_order_ops.while_loop import while_loop

import ppl
import ppl.distributions as dist
from ppl.engine import capture
from ppl.engine.build import _OTHERWISE
from ppl.engine.generated import improved
from ppl.infer import SVI, TraceEnum_ELBO
from ppl.infer.autoguide import AutoDelta

aten = torch.ops.aten


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 5e-7), (torch.float64, 1e-15)])
def test_cheaper_ways_are_as_exact(dtype, digits):
    x = torch.cat([torch.linspace(-87, 87, 4001), torch.logspace(-30, 1, 500), -torch.logspace(-30, 1, 500)]).double()
    x = x.to(dtype).double()  # the same numbers in both
    below = (-x.abs()).exp().log1p()
    cases = [
        (aten.log_sigmoid_forward.default, x.clamp(max=0) - below, ()),
        (aten.softplus.default, x.clamp(min=0) + below, (1, 200)),
        (aten.softplus.default, x.clamp(min=0) + 2 * (-x.abs() / 2).exp().log1p(), (0.5, 200)),
    ]
    for op, expected, options in cases:
        found = _OTHERWISE[op](x.to(dtype), *options)
        found = found[0] if isinstance(found, tuple) else found
        torch.testing.assert_close(found.double(), expected, rtol=digits, atol=0)
    usual = torch.nn.functional.softplus(x)  # from its threshold on, the number itself
    torch.testing.assert_close(_OTHERWISE[aten.softplus.default](x), usual, rtol=1e-15, atol=0)


def test_what_is_done_otherwise_compiled(monkeypatch):
    monkeypatch.setenv("PPL_COMPILE", "auto")
    torch.manual_seed(0)
    lower = torch.randn(5, 5, dtype=torch.float64).tril(-1) + 2 * torch.eye(5, dtype=torch.float64)
    given = torch.randn(40, dtype=torch.float64) * 30, lower, torch.randn(5, 300, dtype=torch.float64)

    def fn(x, lower, b):
        functional = torch.nn.functional
        solved = torch.linalg.solve_triangular(lower, b, upper=False)
        up = torch.linalg.solve_triangular(lower.mT, b, upper=True)
        return functional.softplus(x), functional.logsigmoid(x), solved, up, 0 * x.log(), 0 * x.long()

    program = capture(fn, *given)
    program.compile()
    for found, expected in zip(program(*given), fn(*given), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-300, equal_nan=True)


def test_large_parameters_are_updated_in_place(monkeypatch):
    """The memory of users and of the optimiser stays theirs, and NaN in a block takes nothing from them."""
    monkeypatch.setenv("PPL_COMPILE", "auto")

    def model(x):
        w = ppl.param("w", torch.linspace(1, 2, 80 * 80, dtype=torch.float64).reshape(80, 80))
        ppl.factor("loss", -(w @ x).square().mean() - 0 * w.log().sum())  # NaN from where an entry is below 0

    found = []
    for compile in ("never", "always"):
        svi = SVI(model, lambda x: None, ppl.optim.Adam({"lr": 0.01}))
        x = torch.ones(80, 3, dtype=torch.float64)
        svi.step(x)
        w, state = svi.params.unconstrained("w"), next(iter(svi.optimizer.state.values()))
        memory = [t.data_ptr() for t in (w, state["exp_avg"], state["exp_avg_sq"])]
        losses = svi.run(60, x, compile=compile, progress_bar=False).losses
        before = [t.clone() for t in (w.detach(), state["exp_avg"], state["exp_avg_sq"])]
        with pytest.raises(ValueError, match=r"site 'loss': log_factor is NaN"):
            svi.run(200, x, compile=compile, progress_bar=False)
        assert memory == [t.data_ptr() for t in (w, state["exp_avg"], state["exp_avg_sq"])]
        found.append([torch.as_tensor(losses), *before, w.detach(), state["exp_avg"], torch.tensor(svi.num_steps)])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-300)


class Turned(torch.nn.Module):
    """Adds a turned matrix at places that a tensor says."""

    def forward(self, x, y):
        def turn(i, x):
            return i + 1, x.index_put((torch.arange(len(x)),), (y * (1 + i)).T, accumulate=True)

        return while_loop(lambda i, x: i < 3, turn, (torch.zeros((), dtype=torch.int64), x))


class Summed(torch.nn.Module):
    """Sums a turned matrix's rows."""

    def forward(self, x, y):
        return (torch.exp(y).T * x).sum(-1)


class Scattered(torch.nn.Module):
    """Adds many rows to few."""

    def forward(self, x, y, places):
        def turn(i, x):
            return i + 1, x.index_put((places,), y * (1 + i), accumulate=True)

        return while_loop(lambda i, x: i < 3, turn, (torch.zeros((), dtype=torch.int64), x))


class Weighed(torch.nn.Module):
    """Adds what is made by reductions, with which it shares a loop."""

    def forward(self, x, y, places):
        def turn(i, x):
            p = torch.softmax(y * (i + 1), -1)
            return i + 1, x.index_put((places,), p * (p * p).sum(-1, keepdim=True), accumulate=True)

        return while_loop(lambda i, x: i < 3, turn, (torch.zeros((), dtype=torch.int64), x))


def of_two_threads(module, inputs, target):
    with improved(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        package = torch._inductor.aoti_compile_and_package(
            torch.export.export(module, inputs),
            package_path=str(target),
            inductor_configs={"cpp.threads": 2, "cpp.vec_isa_ok": True},
        )
    assert package is not None
    return torch._inductor.aoti_load_package(package)


def test_several_threads_add_where_they_are_told(tmp_path):
    """Torch's compiler adds beside the tensor, and memory breaks."""
    torch.manual_seed(0)
    x, y = torch.randn(33, 20), torch.randn(20, 33)
    _, found = of_two_threads(Turned(), (x, y), tmp_path / "x.pt2")(x, y)
    torch.testing.assert_close(found, x + 6 * y.T)


def test_a_turned_matrix_is_summed(tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(33, 20), torch.randn(20, 33)
    found = of_two_threads(Summed(), (x, y), tmp_path / "x.pt2")(x, y)
    torch.testing.assert_close(found, Summed()(x, y))


@pytest.mark.parametrize("module", [Scattered(), Weighed()])
def test_several_threads_add_in_the_same_order_every_time(tmp_path, module):
    torch.manual_seed(0)
    inputs = torch.randn(20, 19), torch.randn(1600, 19), torch.randint(20, (1600,))
    add = of_two_threads(module, inputs, tmp_path / "x.pt2")
    first, *others = (add(*inputs)[1] for _ in range(20))
    assert all(torch.equal(first, other) for other in others)
    torch.testing.assert_close(first, module(*inputs)[1])


@pytest.mark.slow
def test_a_chain_compiled_for_two_threads():
    """Its emissions' slopes are additions at places: torch's compiler, of two threads, wrote them beside the tensor."""

    def model(data):
        with ppl.plate("states", 16, dim=-1):
            moves = ppl.sample("moves", dist.Dirichlet(torch.ones(16)))
            words = ppl.sample("words", dist.Dirichlet(torch.ones(10)))

        def step(z, x):
            with ppl.plate("sequences", 20, dim=-1):
                z = ppl.sample("z", dist.Categorical(moves[z]), infer={"enumerate": "parallel"})
                ppl.sample("x", dist.Categorical(words[z]), obs=x)
            return z, None

        ppl.scan(step, 0, data)

    torch.manual_seed(0)
    data, found = torch.randint(10, (60, 20)), []
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for compile in ("never", "always"):
            torch.manual_seed(1)
            svi = SVI(model, AutoDelta(model), ppl.optim.Adam({"lr": 0.01}), TraceEnum_ELBO())
            found.append(svi.run(100, data, compile=compile, progress_bar=False).losses)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(*map(torch.as_tensor, found), rtol=1e-4, atol=0)
