"""Data and numbers that go wrong while recorded steps are taken: what eager steps say."""

import copy
import functools

import pytest
import torch
from rough_runs import X, changing, close, fresh, no_guide, run
from torch.utils.data import DataLoader, TensorDataset

import ppl
import ppl.distributions as dist
from ppl.optim import SGD, ClippedAdam

pytestmark = pytest.mark.usefixtures("alone")


def both_say(make, match, quick, *args, change=None, steps=300):
    said = []
    for compile in ("never", "auto"):
        own = copy.deepcopy(args)
        callback = None if change is None else functools.partial(change, own)
        with pytest.raises(ValueError, match=match) as caught:
            run(make(), steps, *own, compile=compile, callback=callback)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert sum(n for n, _ in quick) > 0


@pytest.mark.parametrize("bad", [-2.0, float("nan")])
def test_data_that_become_impossible(bad, quick):
    def model(counts):
        with ppl.plate("data", 5):
            ppl.sample("counts", dist.Poisson(ppl.param("rate", torch.tensor(1.0)).exp()), obs=counts)

    def change(args, step, loss):
        if step == 20:
            args[0][3] = bad

    both_say(lambda: fresh(model, no_guide), r"step 21: site 'counts'", quick, torch.ones(5), change=change)


def test_impossible_data_behind_a_mask_are_none_of_ours(quick):
    mask = torch.tensor([True, False, True])

    def model(counts):
        with ppl.plate("data", 3), ppl.handlers.mask(mask=mask):
            ppl.sample("counts", dist.Poisson(ppl.param("rate", torch.tensor(1.0)).exp()), obs=counts)

    def change(svi, args, step, loss):
        args[0][1] = -step

    close(*changing(change, torch.ones(3), make=lambda: fresh(model, no_guide)))
    assert sum(n for n, _ in quick) > 30


def test_a_batch_of_impossible_data(quick):
    def model(x):
        with ppl.plate("data", len(x)):
            ppl.sample("x", dist.Bernoulli(logits=ppl.param("logit", torch.tensor(1.0))), obs=x)

    said = []
    for compile in ("never", "auto"):
        with pytest.raises(ValueError, match="epoch 0, batch 10: step 10: site 'x'") as caught:
            batches = [*[torch.ones(5)] * 10, torch.full((5,), 2.0)]
            fresh(model, no_guide).fit(batches, 1, plate="data", compile=compile, progress_bar=False)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert quick


def test_draws_of_the_guide_that_the_model_rules_out(quick):
    def model():
        z = ppl.sample("z", dist.HalfNormal(1.0))
        ppl.sample("y", dist.Normal(z, 1.0), obs=torch.tensor(0.3))

    def guide():
        ppl.sample("z", dist.Normal(ppl.param("loc", torch.tensor(1.5)), 0.5))

    both_say(lambda: fresh(model, guide, SGD({"lr": 0.01})), r"step \d+: site 'z'.*nonnegative", quick)


def test_arguments_that_leave_their_range(quick):
    def model():
        ppl.sample("y", dist.Exponential(ppl.param("rate", torch.tensor(2.0))), obs=torch.tensor(100.0))

    both_say(lambda: fresh(model, no_guide, SGD({"lr": 0.001})), "argument 'rate' must satisfy positive", quick)


@pytest.mark.parametrize(
    "optim", [ClippedAdam({"lr": 0.1}), SGD({"lr": 0.1}, {"clip_value": 1.0})], ids=["Adam", "SGD"]
)
def test_infinite_gradients_that_clipping_would_hide(optim, quick):
    """The loss is finite, its slope at 0 is not: reached in steps of 1/8."""

    def model(x):
        loc = ppl.param("loc", torch.tensor(1.0))
        ppl.sample("y", dist.Normal((loc - x).square().pow(0.25), 1.0), obs=torch.tensor(-2.0))

    def change(args, step, loss):
        if step == 20:
            args[0].copy_(svis[-1].params["loc"].detach())

    svis = []

    def make():
        svis.append(fresh(model, no_guide, optim))
        return svis[-1]

    both_say(make, "step 21: the gradient of parameter 'loc' is not finite", quick, torch.tensor(-30.0), change=change)


def test_an_infinite_loss_goes_on_as_in_eager_steps(quick):
    def model():
        loc = ppl.param("loc", torch.tensor(0.5))
        ppl.sample("y", dist.Normal(loc, 1.0), obs=torch.tensor(-1.0))
        ppl.factor("wall", torch.where(loc > 0.2, 0.0, -torch.inf))

    losses = [run(fresh(model, no_guide, SGD({"lr": 0.05})), 60, compile=compile) for compile in ("never", "auto")]
    assert losses[0].isinf().any()
    assert torch.equal(*losses)


def test_tensors_are_a_data_set_too(quick):
    loader = DataLoader(TensorDataset(X), batch_size=7)
    losses = [fresh().fit(loader, 4, plate="data", compile=c, progress_bar=False).losses for c in ("never", "auto")]
    close(*losses)


def test_a_matrix_that_cannot_be_factorised(quick):
    """The factors that torch computes nevertheless are finite, and so is all that is made of them."""
    times = torch.linspace(0.0, 1.0, 6)

    def model(x):
        cov = torch.exp(-((times[:, None] - times) ** 2) / 2) * ppl.param("size", torch.tensor(1.0)) + 0.01 * torch.eye(
            6
        )
        factor = torch.linalg.cholesky(cov)
        ppl.sample("x", dist.MultivariateNormal(torch.zeros(6), torch.eye(6) + 0.01 * factor @ factor.T), obs=x)

    steps = []
    for compile in ("never", "auto"):
        svi = fresh(model, no_guide)

        def callback(step, loss, svi=svi):
            if step == 20:
                with torch.no_grad():
                    svi.params.unconstrained("size").fill_(-1.0)

        with pytest.raises(torch.linalg.LinAlgError, match="not positive-definite"):
            run(svi, 40, torch.zeros(6), compile=compile, callback=callback)
        steps.append(svi.num_steps)
    assert steps == [21, 21]
    assert sum(n for n, _ in quick) > 10
