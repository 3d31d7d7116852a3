"""Data of compiled steps lie in memory as loops read them fastest, and the results stay what they were."""

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.infer.compiled import rehearse

ROWS, COLUMNS = 40, 3


@pytest.fixture
def data():
    ppl.set_rng_seed(0)
    x = torch.randn(ROWS, COLUMNS, dtype=torch.float64)
    return x, (x.sum(-1) > 0).to(x)


def logistic(x, y):
    w = ppl.sample("w", dist.Normal(x.new_zeros(x.shape[1]), 1.0).to_event(1))
    with ppl.plate("data", len(x)):
        ppl.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def inference(model):
    ppl.clear_param_store()
    ppl.set_rng_seed(1)
    return ppl.infer.SVI(
        model, ppl.infer.autoguide.AutoNormal(model), ppl.optim.Adam({"lr": 0.1}), ppl.infer.Trace_ELBO()
    )


def inputs(model, *args):
    """The static inputs of a recorded step."""
    svi = inference(model)
    svi.setup(*args)
    step = rehearse(svi, args, {}).step
    return [step.parts.step.inputs[i] for i in step.parts.given]


def matrices(model, *args):
    return [spec.strides for spec in inputs(model, *args) if len(spec.shape) == 2]


def check(model, *args):
    """Whole trajectories, eager and recorded; most of the latter's steps are recorded ones."""
    losses, found = [], []
    for compile in ("never", "auto"):
        svi = inference(model)
        losses.append(torch.as_tensor(svi.run(60, *args, compile=compile, progress_bar=False).losses))
        found.append({name: ppl.param(name).detach() for name in ppl.get_param_store()})
    torch.testing.assert_close(*losses, rtol=1e-10, atol=0)
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


def test_a_long_matrix_of_data_is_turned(data, replayed):
    assert matrices(logistic, *data) == [(1, ROWS)]
    check(logistic, *data)
    assert sum(replayed) > 50


def test_a_wide_one_is_not(data):
    x, y = data
    assert matrices(logistic, x.T.contiguous(), y[:COLUMNS]) == [(ROWS, 1)]


def test_one_that_is_used_otherwise_is_not(data, replayed):
    def model(x, y):
        w = ppl.sample("w", dist.Normal(x.new_zeros(x.shape[1]), 1.0).to_event(1))
        with ppl.plate("data", len(x)):
            ppl.sample("y", dist.Bernoulli(logits=x @ w + (x * w.exp()).view(-1)[: len(x)]), obs=y)

    assert matrices(model, *data) == [(COLUMNS, 1)]
    check(model, *data)


def test_one_in_two_products(data, replayed):
    def model(x, y):
        w = ppl.sample("w", dist.Normal(x.new_zeros(x.shape[1]), 1.0).to_event(1))
        ppl.factor("shrunken", -(x.T @ (x @ w)).square().sum() / 1e4)
        with ppl.plate("data", len(x)):
            ppl.sample("y", dist.Bernoulli(logits=x @ w), obs=y)

    assert matrices(model, *data) == [(1, ROWS)]
    check(model, *data)


def test_masks_come_as_numbers(data, replayed):
    x, y = data

    def model(x, y, seen):
        w = ppl.sample("w", dist.Normal(x.new_zeros(x.shape[1]), 1.0).to_event(1))
        with ppl.plate("data", len(x)), ppl.handlers.mask(mask=seen):
            ppl.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    found = inputs(model, x, y, x[:, 0] > 0)
    assert all(spec.dtype != torch.bool for spec in found)
    check(model, x, y, x[:, 0] > 0)
    assert sum(replayed) > 50


def test_other_data_are_laid_out_anew(data, replayed):
    x, y = data

    def losses(compile):
        svi = inference(logistic)
        return [
            torch.as_tensor(svi.run(30, *args, compile=compile, progress_bar=False).losses)
            for args in ((x, y), (-x, y), (x, 1 - y))
        ]

    torch.testing.assert_close(losses("auto"), losses("never"), rtol=1e-10, atol=0)
