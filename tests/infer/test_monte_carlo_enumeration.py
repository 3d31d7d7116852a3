"""Draws that stand for a site's support: their densities, their gradients, and what refuses them."""

import pytest
import torch
from told_draws import outcomes

import ppl
import ppl.distributions as dist
from ppl.distributions.validation import validation_enabled
from ppl.handlers import enum, trace
from ppl.infer import (
    TraceEnum_ELBO,
    TraceTMC_ELBO,
    config_enumerate,
)
from ppl.site import Infer

LIMIT = 4.0  # standard errors
STRATEGIES = [None, "diagonal", "mixture"]


def nothing(*args):
    pass


def mark(count, tmc=None):
    return {"enumerate": "parallel", "num_samples": count, "tmc": tmc}


EXACT = {"enumerate": "parallel"}


# -- options


def test_options_are_typed():
    options = Infer.of({"enumerate": "parallel", "num_samples": 3, "tmc": "mixture"}, "x")
    assert (options.num_samples, options.tmc) == (3, "mixture")
    assert Infer().num_samples is None and Infer().tmc is None


@pytest.mark.parametrize("count", [0, -1, 2.0, True, "3"])
def test_a_number_of_draws_that_is_none_is_an_error(count):
    with pytest.raises(ValueError, match=r"site 'x'.*num_samples.*positive int"):
        Infer.of({"num_samples": count}, "x")
    with pytest.raises(ValueError, match=r"config_enumerate: num_samples must be a positive int"):
        config_enumerate(num_samples=count)


def test_sequential_draws_and_other_strategies_are_errors():
    with pytest.raises(ValueError, match=r"site 'x'.*parallel.*but the site is marked 'sequential'.*'num_samples': 3"):
        Infer.of({"enumerate": "sequential", "num_samples": 3}, "x")
    with pytest.raises(ValueError, match=r"site 'x'.*'diagonal', 'mixture' or None, got 'both'"):
        Infer.of({"tmc": "both"}, "x")
    with pytest.raises(ValueError, match=r"config_enumerate: num_samples=3 is for parallel"):
        config_enumerate(default="sequential", num_samples=3)
    with pytest.raises(ValueError, match=r"config_enumerate: tmc.*got 'both'"):
        config_enumerate(num_samples=3, tmc="both")


def marks(program):
    nodes = trace(program).get_trace().nodes
    return {n: (s.infer.enumerate, s.infer.num_samples, s.infer.tmc) for n, s in nodes.items()}


def test_config_enumerate_marks_continuous_sites_for_draws_and_leaves_marks_alone():
    def program():
        ppl.sample("z", dist.Bernoulli(0.5))
        ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.sample("support", dist.Bernoulli(0.5), infer=EXACT)
        ppl.sample("two", dist.Normal(0.0, 1.0), infer={"num_samples": 2})
        ppl.sample("point", dist.Delta(torch.zeros(3)).to_event(1))
        ppl.sample("data", dist.Normal(0.0, 1.0), obs=torch.zeros(()))

    nothing = (None, None, None)
    always = {"support": ("parallel", None, None), "two": ("parallel", 2, None), "point": nothing, "data": nothing}
    drawn = ("parallel", 5, "mixture")
    assert marks(config_enumerate(program, num_samples=5, tmc="mixture")) == {"z": drawn, "x": drawn, **always}
    assert marks(config_enumerate(program, num_samples=5))["x"] == ("parallel", 5, "diagonal")
    assert marks(config_enumerate(program)) == {"z": ("parallel", None, None), "x": nothing, **always}
    assert marks(config_enumerate(program, None, num_samples=5))["x"] == nothing


# -- what is drawn


@pytest.mark.parametrize(("tmc", "shape"), [(None, (7, 5, 3)), ("diagonal", (7, 5, 3)), ("mixture", (7, 1, 3))])
def test_draws_stand_on_their_dim_over_the_full_batch(tmc, shape):
    def program():
        a = ppl.sample("a", dist.Normal(0.0, 1.0), infer=mark(5))
        with ppl.plate("p", 3):
            return ppl.sample("b", dist.Normal(a, 1e-9), infer=mark(7, tmc))

    with enum(first_available_dim=-2):
        found = trace(program).get_trace()
    a, b = found["a"].tensor, found["b"].tensor
    assert a.shape == (5, 1) and b.shape == shape and len(b.unique()) == b.numel()
    assert found["b"].enum_dims == ((-2, "a"), (-3, "b"))
    if tmc == "mixture":
        nearest = (b - a).abs().amin(-2)
        assert nearest.max() < 1e-7 and found["b"].mixed == ("a",)
    else:
        assert torch.allclose(b, a.expand(b.shape), atol=1e-7)  # of another number: a set for each


def test_diagonal_draws_follow_the_draw_of_their_number():
    def program():
        a = ppl.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1), infer=mark(4))
        z = ppl.sample("z", dist.Bernoulli(0.5), infer=EXACT)
        with ppl.plate("p", 3):
            b = ppl.sample("b", dist.Normal(a + 10 * z.unsqueeze(-1), 1e-9).to_event(1), infer=mark(4, "diagonal"))
        return a, z, b

    with enum(first_available_dim=-2):
        a, z, b = program()
    assert a.shape == (4, 1, 2) and z.shape == (2, 1, 1) and b.shape == (4, 2, 1, 3, 2)
    expected = a.reshape(4, 1, 1, 1, 2) + 10 * z.reshape(1, 2, 1, 1, 1)
    assert torch.allclose(b, expected.expand(b.shape), atol=1e-7)


def test_a_single_draw_takes_no_dim():
    with enum(first_available_dim=-1):
        found = trace(lambda: ppl.sample("x", dist.Normal(0.0, 1.0), infer=mark(1))).get_trace()
    assert found["x"].tensor.shape == () and found["x"].enum_dims == ()


def test_draws_are_of_the_dtype_of_their_distribution():
    def program():
        a = ppl.sample("a", dist.Normal(torch.zeros((), dtype=torch.float32), 1.0), infer=mark(3))
        ppl.sample("b", dist.Normal(a, 1.0), infer=mark(3, "mixture"))
        ppl.sample("y", dist.Normal(a, 1.0), obs=torch.zeros((), dtype=torch.float32))

    assert TraceEnum_ELBO()(program, nothing).dtype == torch.float32


# -- exact expectations over all draws of small discrete programs


class Chain:
    """u -> x -> y with tables made of a flat vector of parameters, and a guide of u -> x."""

    def __init__(self, flat, plate=1):
        self.u, self.x, self.y, self.gu, self.gx = (
            part.reshape(shape)
            for part, shape in zip(flat.split([2, 4, 4, 2, 4]), [(2,), (2, 2), (2, 2), (2,), (2, 2)], strict=True)
        )
        self.plate = plate
        self.data = torch.tensor([1, 0])[:plate]

    def model(self, u=None, x=None):
        k = ppl.sample("u", dist.Categorical(logits=self.u), infer=u)
        with ppl.plate("p", self.plate):
            j = ppl.sample("x", dist.Categorical(logits=self.x[k]), infer=x)
            ppl.sample("y", dist.Categorical(logits=self.y[j]), obs=self.data)

    def guide(self, u=None, x=None):
        k = ppl.sample("u", dist.Categorical(logits=self.gu), infer=u)
        with ppl.plate("p", self.plate):
            ppl.sample("x", dist.Categorical(logits=self.gx[k]), infer=x)

    def guide_of_u(self, u=None, x=None):
        ppl.sample("u", dist.Categorical(logits=self.gu), infer=u)

    def evidence(self):
        u, x, y = (table.log_softmax(-1) for table in (self.u, self.x, self.y))
        inner = [(x + y[:, d]).logsumexp(-1) for d in self.data]  # by u
        return (u + sum(inner)).logsumexp(-1)

    def elbo(self):
        u, x, y, gu, gx = (table.log_softmax(-1) for table in (self.u, self.x, self.y, self.gu, self.gx))
        inner = sum((gx.exp() * (x + y[:, d] - gx)).sum(-1) for d in self.data)
        return (gu.exp() * (u - gu + inner)).sum()


START = torch.linspace(-1.3, 1.1, 16).sin() * 1.5


def expectations(monkeypatch, elbo, flat, model, guide, plate=1, gradient=False):
    """E[loss], E[exp(-loss)] and E[∇ loss] over everything that is drawn."""
    flat = flat.clone().requires_grad_()
    loss, evidence, slope, total = torch.zeros(()), torch.zeros(()), torch.zeros(16), torch.zeros(())

    def run():
        chain = Chain(flat, plate)
        return elbo(max_plate_nesting=1)(lambda: model(chain), lambda: guide(chain))

    with monkeypatch.context() as patch, validation_enabled(False):  # no runs but the one that counts
        for weight, result in outcomes(patch, run):
            total = total + weight
            loss, evidence = loss + weight * result.detach(), evidence + weight * (-result.detach()).exp()
            if gradient:
                slope = slope + weight * torch.autograd.grad(result, flat)[0]
    assert torch.allclose(total, torch.ones(()))
    return loss, evidence, slope


def check_slope(monkeypatch, elbo, model, guide, plate=1):
    """The mean of the gradients is the gradient of the mean, in a direction."""
    direction, step = torch.arange(16.0).cos(), 1e-5
    ahead, behind = (
        expectations(monkeypatch, elbo, START + s * step * direction, model, guide, plate)[0] for s in (1, -1)
    )
    result = expectations(monkeypatch, elbo, START, model, guide, plate, gradient=True)
    assert torch.allclose(result[2] @ direction, (ahead - behind) / (2 * step), rtol=0, atol=1e-8)
    return result


INSIDE = [  # objective, marks of model and guide: everything is summed inside the logarithm
    *(("model", mark(2), mark(2, tmc)) for tmc in STRATEGIES),
    ("model", EXACT, mark(2, "diagonal")),
    ("model", mark(2), EXACT),
    ("model", mark(1), mark(2, "mixture")),
    ("model", mark(2), mark(1)),
    *(("guide", mark(2), mark(2, tmc)) for tmc in STRATEGIES),
    ("guide", EXACT, mark(2, "mixture")),
    ("guide", mark(2), EXACT),
    ("guide", mark(2), None),
    ("guide", None, mark(2, "diagonal")),
    ("guide", mark(1), mark(1)),
    ("guide", mark(3), mark(2, "diagonal")),
]


@pytest.mark.parametrize(("where", "u", "x"), INSIDE)
def test_estimates_of_the_evidence_and_gradients_of_their_logarithm_are_unbiased(monkeypatch, where, u, x):
    if where == "model":
        elbo, model, guide = TraceEnum_ELBO, lambda c: c.model(u, x), nothing
    else:
        exact = [EXACT if m == EXACT else None for m in (u, x)]  # marked alike in both
        elbo, model, guide = TraceTMC_ELBO, lambda c: c.model(*exact), lambda c: c.guide(u, x)
    _, evidence, _ = check_slope(monkeypatch, elbo, model, guide)
    assert torch.allclose(evidence.log(), Chain(START).evidence(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("where", "tmc"), [("model", "diagonal"), ("guide", "diagonal"), ("guide", None)])
def test_estimates_and_gradients_are_unbiased_with_a_plate(monkeypatch, where, tmc):
    u, x = (None, mark(2, tmc)) if where == "guide" else (EXACT, mark(2, tmc))
    if where == "model":
        elbo, model, guide = TraceEnum_ELBO, lambda c: c.model(u, x), nothing
    else:
        elbo, model, guide = TraceTMC_ELBO, lambda c: c.model(), lambda c: c.guide(u, x)
    _, evidence, _ = check_slope(monkeypatch, elbo, model, guide, plate=2)
    assert torch.allclose(evidence.log(), Chain(START, 2).evidence(), rtol=0, atol=1e-10)


OUTSIDE = [
    *((mark(2), mark(2, tmc)) for tmc in STRATEGIES),
    (mark(2), mark(1)),
    (mark(1), mark(2)),
    (None, mark(2, "mixture")),
    (mark(2), EXACT),
    (EXACT, mark(2, "mixture")),
    (mark(3), mark(2, "diagonal")),
]


@pytest.mark.parametrize(("u", "x"), OUTSIDE)
def test_averages_under_a_guide_are_unbiased(monkeypatch, u, x):
    model, guide = (lambda c: c.model(u, x)), (lambda c: c.guide(u, x))
    loss, _, slope = expectations(monkeypatch, TraceEnum_ELBO, START, model, guide, gradient=True)
    flat = START.clone().requires_grad_()
    exact = -Chain(flat).elbo()
    assert torch.allclose(loss, exact, rtol=0, atol=1e-10)
    assert torch.allclose(slope, torch.autograd.grad(exact, flat)[0], rtol=0, atol=1e-10)


def test_averages_under_a_guide_are_unbiased_with_a_plate(monkeypatch):
    model, guide = (lambda c: c.model(EXACT, mark(2))), (lambda c: c.guide(EXACT, mark(2, "mixture")))
    loss, _, slope = expectations(monkeypatch, TraceEnum_ELBO, START, model, guide, plate=2, gradient=True)
    flat = START.clone().requires_grad_()
    exact = -Chain(flat, 2).elbo()
    assert torch.allclose(loss, exact, rtol=0, atol=1e-10)
    assert torch.allclose(slope, torch.autograd.grad(exact, flat)[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("u", [EXACT, mark(2), None])
@pytest.mark.parametrize("tmc", STRATEGIES)
def test_draws_of_the_model_within_an_average_of_the_guide(monkeypatch, u, tmc):
    model, guide = (lambda c: c.model(u, mark(2, tmc))), (lambda c: c.guide_of_u(u))
    check_slope(monkeypatch, TraceEnum_ELBO, model, guide)
