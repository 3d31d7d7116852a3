"""What changes between steps and between runs: recorded steps heed it as eager ones do."""

import copy
import functools
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from rough_runs import ARGS, X, changing, close, eager_losses, fresh, no_guide, normal, run, schools, stubbed
from torch.utils.data import DataLoader, Dataset

import ppl
import ppl.distributions as dist
from ppl.engine.gradients import Gradients
from ppl.infer import SVI, compiled
from ppl.infer.autoguide import AutoNormal
from ppl.optim import Adam

pytestmark = pytest.mark.usefixtures("alone")

# -- what changes between steps and between runs


def after(step, change):
    return lambda svi, args, number, loss: change(svi, args) if number == step else None


def set_lr(svi, args):
    svi.optimizer.param_groups[0]["lr"] = 0.2


def set_betas(svi, args):
    svi.optimizer.param_groups[0]["betas"] = (0.5, 0.9)


def set_param(svi, args):
    svi.params[svi.params.keys()[0]] = torch.tensor(3.0)


def delete_param(svi, args):
    del svi.params[svi.params.keys()[0]]


def reload(svi, args):
    state = copy.deepcopy(svi.state_dict())
    state["params"]["leaves"] = {name: leaf + 1.0 for name, leaf in state["params"]["leaves"].items()}
    svi.load_state_dict(state)


def add_to_data(svi, args):
    args[0].add_(1.0)


def other_particles(svi, args):
    svi.loss = ppl.infer.Trace_ELBO(num_particles=2)


def more_particles(svi, args):
    svi.loss.num_particles = 2


def train_less(svi, args):
    svi.trained[0][1].requires_grad_(False)


def bound_the_gradient(svi, args):
    svi.trained[0][1].register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))


def bound_the_gradient_in_its_place(svi, args):
    svi.trained[0][1].register_post_accumulate_grad_hook(lambda leaf: torch.nn.utils.clip_grad_value_(leaf, 0.01))


CHANGES = [
    set_lr,
    set_betas,
    set_param,
    delete_param,
    reload,
    add_to_data,
    other_particles,
    more_particles,
    train_less,
    bound_the_gradient,
]


@pytest.mark.parametrize("change", CHANGES)
def test_changes_in_a_callback_are_heeded(change, quick):
    eager, recorded = changing(after(15, change), X)
    close(recorded, eager)
    assert sum(n for n, _ in quick) >= 30


def test_gradients_that_are_not_for_the_optimiser_alone(quick):
    with pytest.warns(UserWarning, match=r"parameter of shape \(\) has a hook that runs once its gradient is there"):
        close(*changing(after(0, bound_the_gradient_in_its_place), X)[::-1])
    assert not quick
    seen = []

    def count(svi, args):
        svi.trained[0][1].register_hook(lambda gradient: seen.append(1))

    with pytest.warns(UserWarning, match="changes what 'seen' holds"):
        close(*changing(after(0, count), X)[::-1])
    assert len(seen) == 2 * 39
    found = []
    for compile in ("never", "auto"):
        x = X.clone().requires_grad_()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(fresh(), 30, x, compile=compile)
        found.append(x.grad)
    assert r"shape (20,) requires gradients" in str(caught[0].message)
    close(*found)
    assert not quick


STRENGTH = np.ones(20)
TABLE = [1.0] * 100
BOUNDS = {"low": (0.0, 1.0)}
KNOWN = {1, 2}


def set_array(net):
    STRENGTH[3] = 2.0


def set_table(net):
    TABLE[7] = 2.0


def set_bounds(net):
    BOUNDS["low"] = (1.0, 2.0)


def set_known(net):
    KNOWN.discard(2)
    KNOWN.add(3)


def set_dropout(net):
    net[1].p = 0.1


def set_part(net):
    net[1] = torch.nn.Tanh()


def add_hook(net):
    net[0].register_forward_hook(lambda module, given, found: found + 1.0)


@pytest.mark.parametrize("change", [set_array, set_table, set_bounds, set_known, set_dropout, set_part, add_hook])
def test_what_containers_arrays_and_modules_hold_is_heeded(change, quick):
    def losses(compile):
        STRENGTH[:], TABLE[:], BOUNDS["low"] = 1.0, [1.0] * 100, (0.0, 1.0)
        KNOWN.symmetric_difference_update(KNOWN ^ {1, 2})
        net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout(0.5))
        torch.manual_seed(0)
        net[0].reset_parameters()

        def model(x):
            ppl.module("net", net)
            shift = float(STRENGTH.mean()) + sum(TABLE) + BOUNDS["low"][0] + max(KNOWN)
            with ppl.plate("data", len(x)):
                ppl.sample("x", dist.Normal(net(x[:, None])[:, 0] + shift, 1.0), obs=x)

        return run(
            fresh(model, no_guide), 40, X, compile=compile, callback=lambda i, _: change(net) if i == 20 else None
        )

    expected = losses("never")
    close(losses("auto"), expected)
    assert sum(n for n, _ in quick) > 30


def test_a_loss_of_the_users_own_that_counts(quick):
    class Annealed(ppl.infer.Trace_ELBO):
        def __call__(self, model, guide, *args, **kwargs):
            self._count = getattr(self, "_count", 0) + 1
            return super().__call__(model, guide, *args, **kwargs) * min(1.0, self._count / 20)

    def make():
        svi = fresh()
        svi.loss = Annealed()
        return svi

    with pytest.warns(UserWarning, match="changes the attribute '_count' of Annealed"):
        close(*changing(lambda *_: None, X, make=make)[::-1])
    assert not quick


def double(x):
    return 2 * x


def triple(x):
    return 3 * x


class Settings:
    def __init__(self, factor=1.0):
        self.factor = factor


SETTINGS = Settings()
TRANSFORM = double


def set_function():
    global TRANSFORM
    TRANSFORM = triple


def set_object():
    global SETTINGS
    SETTINGS = Settings(3.0)


@pytest.mark.parametrize("change", [set_function, set_object], ids=lambda f: f.__name__)
def test_names_that_refer_to_something_else_are_heeded(change, quick, monkeypatch):
    def losses(compile):
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules[__name__], "TRANSFORM", double)
            patch.setattr(sys.modules[__name__], "SETTINGS", Settings())
            svi = fresh(lambda x: normal(TRANSFORM(x) * SETTINGS.factor))
            return run(svi, 40, X, compile=compile, callback=lambda i, _: change() if i == 20 else None)

    close(losses("auto"), losses("never"))
    assert sum(n for n, _ in quick) > 30


class counting(ppl.stack.Handler):
    def __init__(self):
        super().__init__()
        self.count = 0

    def handle(self, site):
        self.count += 1
        return ppl.stack.perform(site)


def test_handlers_around_a_run_are_the_users_code(quick):
    counts = []
    for compile in ("never", "auto"):
        with counting() as handler, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(fresh(), 30, X, compile=compile)
        counts.append(handler.count)
    assert counts[0] == counts[1]
    assert "changes the attribute 'count' of counting" in str(caught[0].message)
    assert not quick


def test_gradients_that_a_callback_looks_at(quick, monkeypatch):
    calls = []
    take = Gradients.run
    monkeypatch.setattr(Gradients, "run", lambda *args: calls.append(1) or take(*args))

    def norms(compile):
        svi, seen = fresh(), []

        def norm():
            return torch.stack([leaf.grad for _, leaf in svi.trained]).norm()

        run(svi, 30, X, compile=compile, callback=lambda step, loss: seen.append(norm()))
        return svi, torch.stack(seen)

    close(norms("auto")[1], norms("never")[1])
    assert len(calls) > 20
    assert not quick
    svi, _ = norms("auto")
    run(svi, 30, X)
    assert sum(n for n, _ in quick) > 20
    assert [leaf.grad for _, leaf in svi.trained] == [None] * 4


def test_hooks_of_modules_are_the_users_code(quick):
    seen = []
    net = torch.nn.Linear(1, 1)
    net.register_forward_hook(lambda module, given, found: seen.append(1))

    def model(x):
        ppl.module("net", net)
        with ppl.plate("data", len(x)):
            ppl.sample("x", dist.Normal(net(x[:, None])[:, 0], 1.0), obs=x)

    with pytest.warns(UserWarning, match="changes what 'seen' holds"):
        run(fresh(model, no_guide), 30, X)
    assert len(seen) == 31  # the setup's among them
    assert not quick


def test_small_tensors_that_are_changed_as_data(quick):
    beta = torch.tensor(0.1)

    def change(svi, args, step, loss):
        beta.data.fill_(0.1 + 0.01 * step)
        args[0].data[3] += 0.1

    found = []
    for compile in ("never", "auto"):
        beta.fill_(0.1)
        x, svi = X.clone(), fresh(lambda x: normal(x * (1 - beta)))
        found.append(run(svi, 30, x, compile=compile, callback=functools.partial(change, svi, (x,))))
    close(*found)
    assert sum(n for n, _ in quick) > 20


def test_changes_that_torch_does_not_count_are_heeded(quick):
    def shifted(x):
        normal(x.exp())

    def change(svi, args, step, loss):
        args[0].numpy()[:] += 0.01

    numbers = X.numpy().copy()
    found = []
    for compile in ("never", "auto"):
        numbers[:] = X.numpy()
        x = torch.from_numpy(numbers)
        found.append(run(fresh(shifted), 30, x, compile=compile, callback=functools.partial(change, None, (x,))))
    close(*found)
    with torch.inference_mode():
        x = X + 0.0
    close(run(fresh(shifted), 30, x), run(fresh(shifted), 30, x, compile="never"))
    assert sum(n for n, _ in quick) > 50


def test_changes_between_runs_are_heeded(quick):
    def losses(compile):
        svi, x = fresh(), X.clone()
        found = [run(svi, 20, x, compile=compile)]
        for change in (set_param, set_lr, add_to_data, reload, delete_param):
            change(svi, (x,))
            found.append(run(svi, 20, x, compile=compile))
        with ppl.handlers.scale(scale=0.1):
            found.append(run(svi, 20, x, compile=compile))
        with ppl.handlers.condition(data={"loc": torch.tensor(0.5)}):
            found.append(run(svi, 20, x, compile=compile))
        with ppl.handlers.seed(rng_seed=3):
            found.append(run(svi, 20, x, compile=compile))
        found.append(run(svi, 20, x, compile=compile))
        torch.set_default_dtype(torch.float32)
        found.append(run(svi, 20, x, compile=compile))
        torch.set_default_dtype(torch.float64)
        return torch.cat([part.double() for part in found])

    torch.testing.assert_close(losses("auto"), losses("never"), rtol=1e-6, atol=1e-6)
    assert sum(n for n, _ in quick) > 150


def test_a_parameter_that_comes_later_than_the_first_steps(quick):
    def model(x):
        normal(x)
        if svi.num_steps >= 1:
            ppl.sample("y", dist.Normal(ppl.param("late", torch.tensor(0.0)), 1.0), obs=torch.tensor(1.0))

    losses = []
    for compile in ("auto", "never"):
        svi = fresh(model, AutoNormal(normal))
        losses.append(run(svi, 30, X, compile=compile))
    close(*losses)
    assert sum(n for n, _ in quick) > 20


def test_a_parameter_that_comes_in_a_later_run(quick):
    switch = [False]

    def model(x):
        normal(x)
        if switch[0]:
            ppl.sample("y", dist.Normal(ppl.param("late", torch.tensor(0.0)), 1.0), obs=torch.tensor(1.0))

    losses = []
    for compile in ("auto", "never"):
        switch[0] = False
        svi = fresh(model, AutoNormal(normal))
        run(svi, 30, X, compile=compile)
        switch[0] = True
        losses.append(run(svi, 30, X, compile=compile))
    close(*losses)
    assert sum(n for n, _ in quick) > 45


def test_a_program_that_changes_after_many_steps_is_noticed(quick, monkeypatch):
    """Not at once, but not never: the warning says how far."""
    monkeypatch.setattr(compiled, "TRUST", 0)

    def guide(x):
        loc, scale = ppl.param("a", torch.tensor(0.0)), ppl.param("b", torch.tensor(0.0))
        ppl.sample("loc", dist.Normal(loc, 0.1 if svi.num_steps < 50 else 0.2))
        ppl.sample("scale", dist.LogNormal(scale, 0.1))

    svi = fresh(guide=guide)
    with pytest.warns(UserWarning, match=r"changed since it was recorded.*latest steps, to number (\d+)") as caught:
        result = svi.run(5000, X, compile="auto", progress_bar=False)
    assert len(caught) == 1
    assert len(result.losses) == svi.num_steps == 5000
    assert 50 <= sum(n for n, _ in quick) < 4000


def test_a_module_put_into_another_mode_by_a_callback_is_noticed(quick, monkeypatch):
    monkeypatch.setattr(compiled, "TRUST", 0)
    net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout(0.5))

    def model(x):
        ppl.module("net", net)
        with ppl.plate("data", len(x)):
            ppl.sample("x", dist.Normal(net(x[:, None])[:, 0], 1.0), obs=x)

    def losses(compile):
        torch.manual_seed(0)
        net[0].reset_parameters()
        net.train()
        return run(fresh(model, no_guide), 60, X, compile=compile, callback=lambda step, loss: net.train(step < 15))

    expected = losses("never")
    close(losses("auto"), expected)
    assert sum(n for n, _ in quick) > 40


def test_a_program_that_stays_the_same_is_left_alone(quick, monkeypatch):
    monkeypatch.setattr(compiled, "TRUST", 0)
    close(run(schools(), 100, *ARGS), eager_losses(100))
    assert sum(n for n, _ in quick) > 90


def test_single_compiled_steps_know_the_handlers_around(package, monkeypatch, tmp_path):
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path))
    stubbed(monkeypatch, package)

    def losses(is_compiled):
        svi = schools()
        svi.setup(*ARGS)
        if is_compiled:
            svi.compile(*ARGS)
        found = [svi.step(*ARGS) for _ in range(3)]
        with ppl.handlers.scale(scale=0.1):
            found += [svi.step(*ARGS) for _ in range(3)]
        return torch.tensor(found)

    close(losses(True), losses(False))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_no_steps_are_taken(mode):
    with mode(), pytest.raises(ValueError, match="gradients are switched off"):
        run(fresh(), 10, X)


def test_threads(quick):
    """One other than the main one, and two at once, where nothing is drawn, since they share torch's generator."""

    def model(x):
        ppl.sample("x", dist.Normal(ppl.param("loc", torch.tensor(0.0)), 1.0).expand((20,)).to_event(1), obs=x)

    found = {}

    def work(number):
        torch.set_default_dtype(torch.float64)
        found[number] = run(SVI(model, no_guide, Adam({"lr": 0.01})), 200, X + number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        close(found[number], run(SVI(model, no_guide, Adam({"lr": 0.01})), 200, X + number, compile="never"))
    assert sum(n for n, _ in quick) > 300


# -- loaders


class Rows(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return {"x": X[index], "weight": torch.tensor(1.0)}


def weighted(x, weight):
    with ppl.handlers.scale(scale=2.0):
        normal(x * weight)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_shuffling_loader_with_dicts_and_a_ragged_last_batch(num_workers, quick):
    losses = []
    for compile in ("never", "auto"):
        svi = fresh(weighted)
        torch.manual_seed(1)
        loader = DataLoader(Rows(), batch_size=6, shuffle=True, num_workers=num_workers)
        losses.append(svi.fit(loader, 5, plate="data", compile=compile, progress_bar=False).losses)
    assert len(losses[0]) == 20
    close(*losses)
    assert sum(n for n, _ in quick) > 10


def test_batches_that_lie_in_memory_in_two_ways(quick):
    columns = torch.randn(6, 5, 3)
    batches = [x[:, 0] if i % 2 else x[:, 1].clone() for i, x in enumerate(columns)]
    losses = [
        fresh().fit(batches, 10, plate=(), compile=compile, progress_bar=False).losses for compile in ("never", "auto")
    ]
    close(*losses)
    assert sum(n for n, _ in quick) > 40


class Box:
    def __init__(self, x):
        self.x = x


def test_objects_are_never_taken_for_each_other(quick):
    """Their numbers may be the same, if one of them is gone when the next one is made."""

    class Boxes:
        def __iter__(self):
            return (Box(X + shift) for shift in range(3))

    losses = []
    for compile in ("never", "auto"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            svi = fresh(lambda box: normal(box.x))
            losses.append(svi.fit(Boxes(), 10, compile=compile, progress_bar=False).losses)
    close(*losses)
    assert len(caught) == 1
    assert "argument 0 has come in 5 kinds (a Box)" in str(caught[0].message)


def test_the_argument_that_comes_in_many_kinds_is_named(quick):
    batches = [{"x": X[:n], "weight": X[:n]} for n in (20, 3, 4, 5, 6)]
    svi = fresh(lambda x, weight: normal(x * weight))
    with pytest.warns(
        UserWarning, match=r"argument 'x' has come in 5 kinds \(\(20,\), \(3,\), \(4,\), \(5,\), \(6,\)\)"
    ):
        svi.fit(batches, 2, plate="data", compile="auto", progress_bar=False)
