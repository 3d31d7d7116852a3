"""Steps of optimisers that are no part of a program, against eager ones."""

import copy

import models
import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.engine.gradients import Gradients
from ppl.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from ppl.infer.autoguide import AutoDelta
from ppl.infer.compiled import rehearse
from ppl.infer.descent import Descent
from ppl.optim import LBFGS, Adadelta, Adagrad, Adamax, NAdam, ReduceLROnPlateau, Rprop

STEPS = 60


class Signs(torch.optim.Optimizer):
    """Steps of one size, of a user's own, with noise from torch's generator."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p -= group["lr"] * (p.grad.sign() + 0.1 * torch.randn_like(p))
                    p.grad.zero_()  # as optimisers may: gradients are theirs


@pytest.fixture
def replayed(at_once):
    return at_once(Descent)


def check(svi, args, replayed, rtol=1e-10):
    """A run with the recorded program gives what eager steps give."""
    svi.setup(*args)
    ppl.set_rng_seed(1)
    start = copy.deepcopy(svi.state_dict())
    eager = svi.run(STEPS, *args, compile="never", progress_bar=False)
    state, rng = copy.deepcopy(svi.state_dict()), torch.get_rng_state()
    svi.load_state_dict(start)
    recorded = svi.run(STEPS, *args, compile="auto", progress_bar=False)
    assert sum(replayed) >= STEPS - 4
    torch.testing.assert_close(recorded.losses, eager.losses, rtol=rtol, atol=rtol)
    assert torch.equal(rng, torch.get_rng_state())
    found = svi.state_dict()
    torch.testing.assert_close(found["params"]["leaves"], state["params"]["leaves"], rtol=rtol, atol=rtol)
    torch.testing.assert_close(found["loss"], state["loss"], rtol=rtol, atol=rtol)
    torch.testing.assert_close(
        found["optimizer"]["state"], state["optimizer"]["state"], rtol=1e3 * rtol, atol=10 * rtol
    )
    assert found["scheduler"] == state["scheduler"]
    assert found["num_steps"] == state["num_steps"]


OPTIMISERS = {
    "Adagrad": Adagrad({"lr": 0.1}),
    "clipped Adagrad": Adagrad({"lr": 0.1}, {"clip_norm": 1.0, "clip_value": 0.5}),
    "Adamax": Adamax({"lr": 0.01}),
    "NAdam": NAdam({"lr": 0.01}),
    "Adadelta": Adadelta({"lr": 1.0}),
    "Rprop": Rprop({"lr": 0.01}),
    "plateau": ReduceLROnPlateau(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "patience": 2, "factor": 0.5}
    ),
    "a user's": lambda params: Signs(params, lr=0.02),
}


@pytest.mark.parametrize("optim", OPTIMISERS.values(), ids=list(OPTIMISERS))
def test_optimisers_outside_of_the_program(optim, replayed):
    svi = SVI(models.eight_schools_model, models.eight_schools_guide, optim)
    check(svi, (models.EFFECTS, models.ERRORS), replayed)


@pytest.mark.parametrize(
    "name", ["mixture, all drawn", "local discrete, subsampled", "masked and scaled, score function"]
)
def test_score_functions_with_baselines_subsampling_and_masks(name, replayed):
    case = models.CASES[name]
    loss = TraceEnum_ELBO() if case.enumerates else Trace_ELBO()
    check(SVI(case.model, case.guide, Adagrad({"lr": 0.05}), loss), case.args, replayed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batch_norm(dtype, replayed):
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    x, y = torch.randn(20, 3), torch.randn(20)

    def model(x, y):
        ppl.module("net", net)
        with ppl.plate("data", len(x)):
            ppl.sample("y", dist.Normal(net(x).squeeze(-1), 1.0), obs=y)

    def fitted(compile):
        net.load_state_dict(start)
        svi = SVI(model, lambda x, y: None, Adagrad({"lr": 0.01}))
        losses = svi.run(STEPS, x, y, compile=compile, progress_bar=False).losses
        return losses, copy.deepcopy(net.state_dict())

    start = copy.deepcopy(net.state_dict())
    eager = fitted("never")
    recorded = fitted("auto")
    assert sum(replayed) >= STEPS - 4
    rtol = 1e-10 if dtype == torch.float64 else 1e-3
    torch.testing.assert_close(recorded, eager, rtol=rtol, atol=rtol)
    assert int(eager[1]["1.num_batches_tracked"]) > STEPS - 1


def test_gradients_are_shaped_and_owned_like_eager_ones():
    def model():
        a = ppl.param("a", torch.ones(3))
        b = ppl.param("b", torch.ones(3))
        t = ppl.param("t", torch.ones(2, 3).t())
        ppl.factor("f", -(a + b).sum() - 2 * t.sum())

    svi = SVI(model, lambda: None, Adagrad({"lr": 0.1}))
    svi.setup()
    found = Gradients(rehearse(svi, (), {}).step, svi.loss.baselines.means)
    found.load(None)
    loss, grads = found.run([])
    leaves = [leaf for _, leaf in svi.trained]
    assert loss == 18
    assert [g.stride() for g in grads] == [leaf.stride() for leaf in leaves]
    kept = [g.clone() for g in grads]
    grads[0].add_(1)  # `a` and `b` have one gradient, but two tensors
    torch.testing.assert_close(grads[1:], kept[1:], rtol=0, atol=0)
    torch.testing.assert_close(found.run([])[1], kept, rtol=0, atol=0)
    torch.testing.assert_close(kept, [torch.ones(3), torch.ones(3), torch.full((3, 2), 2.0)], rtol=0, atol=0)


def test_nan_changes_nothing_and_eager_steps_find_it(replayed):
    def model():
        loc = ppl.param("loc", torch.tensor(2.2))
        with ppl.plate("data", 3):
            ppl.sample("x", dist.Normal(torch.sqrt(loc - torch.tensor([0.0, 1.0, 2.0])), 1.0), obs=torch.zeros(3))

    def errors(compile):
        svi = SVI(model, lambda: None, lambda params: torch.optim.Rprop(params, lr=0.01))
        with pytest.raises(ValueError, match="step ") as caught:
            svi.run(500, compile=compile, progress_bar=False)
        return str(caught.value), svi

    eager, one = errors("never")
    recorded, other = errors("auto")
    assert sum(replayed) > 3
    assert recorded == eager
    assert "plate 'data' index 2" in eager
    torch.testing.assert_close(other.params["loc"], one.params["loc"], rtol=1e-10, atol=1e-10)
    assert other.num_steps == one.num_steps


def test_lbfgs_stays_eager_with_one_warning(replayed):
    def model():
        ppl.sample("x", dist.Normal(ppl.sample("loc", dist.Normal(0.0, 3.0)), 1.0), obs=torch.tensor(2.0))

    svi = SVI(model, AutoDelta(model), LBFGS({"lr": 0.1}))
    with pytest.warns(UserWarning, match="LBFGS") as caught:
        svi.run(8, compile="auto", progress_bar=False)
    assert len(caught) == 1
    assert not replayed


def test_embeddings_with_sparse_gradients_stay_eager(replayed):
    net = torch.nn.Embedding(4, 1, sparse=True)

    def model(i):
        ppl.module("net", net)
        with ppl.plate("data", len(i)):
            ppl.sample("y", dist.Normal(net(i).squeeze(-1), 1.0), obs=torch.ones(len(i)))

    svi = SVI(model, lambda i: None, ppl.optim.SparseAdam({"lr": 0.1}))
    with pytest.warns(UserWarning, match="sparse"):
        losses = svi.run(20, torch.tensor([0, 1, 3]), compile="auto", progress_bar=False).losses
    assert losses[-1] < losses[0]


def test_parameters_without_a_gradient_in_some_batches_are_left_alone_there(replayed):
    def model(x):
        loc = ppl.param("loc", torch.tensor(1.0))
        extra = ppl.param("extra", torch.tensor(1.0))
        with ppl.plate("data", len(x)):
            ppl.sample("x", dist.Normal(loc + extra if len(x) > 1 else loc, 1.0), obs=x)

    def fitted(compile):
        svi = SVI(model, lambda x: None, Adagrad({"lr": 0.1}))
        svi.setup(torch.zeros(2))
        return svi.fit([torch.zeros(2), torch.ones(1)], 20, plate=(), compile=compile, progress_bar=False)

    eager = fitted("never")
    recorded = fitted("auto")
    assert sum(replayed) > 25
    torch.testing.assert_close(recorded.losses, eager.losses, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(recorded.params, eager.params, rtol=1e-10, atol=1e-10)
