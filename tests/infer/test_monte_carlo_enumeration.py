"""Draws that stand for a site's support: their densities, their gradients, and what refuses them."""

import math

import pytest
import torch
from told_draws import outcomes

import ppl
import ppl.distributions as dist
from ppl.distributions.validation import validation_enabled
from ppl.handlers import condition, enum, mask, scale, trace
from ppl.infer import (
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceTMC_ELBO,
    compute_marginals,
    config_enumerate,
    explain_enumeration,
    infer_discrete,
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


# -- continuous sites against closed forms


def within(values, expected):
    """Whether the mean of independent values is as expected, within 4 standard errors."""
    return (values.mean(0) - expected).abs() <= LIMIT * values.std(0) / math.sqrt(len(values)) + 1e-12


def estimates(model, guide=nothing, elbo=TraceEnum_ELBO, count=400, parameter=None):
    """Values of log Ẑ, or of its gradients."""
    made = elbo()
    losses = (made(model, guide) for _ in range(count))
    if parameter is None:
        return -torch.stack([loss.detach() for loss in losses])
    return -torch.stack([torch.autograd.grad(loss, parameter)[0] for loss in losses])


TIMES = torch.tensor([0.3, -1.2, 2.0, 0.5, 1.1])


def walk(mark_of):
    x = torch.zeros(())
    for t in ppl.markov(range(len(TIMES))):
        x = ppl.sample(f"x{t}", dist.Normal(0.9 * x, 1.0), infer=mark_of)
        ppl.sample(f"y{t}", dist.Normal(x, 0.7), obs=TIMES[t])


def evidence_of_walk():
    steps = torch.tensor([[0.9 ** (i - j) if j <= i else 0.0 for j in range(5)] for i in range(5)])
    return dist.MultivariateNormal(torch.zeros(5), steps @ steps.T + 0.49 * torch.eye(5)).log_prob(TIMES)


@pytest.mark.parametrize("tmc", ["diagonal", "mixture"])
def test_a_random_walk_in_a_markov_loop(tmc):
    values = estimates(lambda: walk(mark(25, tmc)))
    exact = evidence_of_walk()
    assert within(values.exp(), exact.exp()) and values.mean() < exact < values.mean() + 0.5


def test_draws_for_each_value_of_another_step_are_refused():
    with pytest.raises(ValueError, match=r"site 'x1'.*each value of site 'x0'.*another step.*'tmc': 'mixture'"):
        TraceEnum_ELBO()(lambda: walk(mark(25)), nothing)

    def switch(z_mark, x_mark):
        x = torch.zeros(())
        for t in ppl.markov(range(3)):
            z = ppl.sample(f"z{t}", dist.Bernoulli(0.5), infer=z_mark)
            x = ppl.sample(f"x{t}", dist.Normal(x + z, 1.0), infer=x_mark)

    with pytest.raises(ValueError, match=r"site 'x1'.*site 'z0'"):
        TraceEnum_ELBO()(lambda: switch(EXACT, mark(25, "diagonal")), nothing)
    with pytest.raises(ValueError, match=r"site 'x1'.*site 'z0'"):
        TraceEnum_ELBO()(lambda: switch(EXACT, mark(1)), nothing)


def test_a_mixture_over_the_values_of_another_step():
    switches = torch.tensor([[0.9, 0.1], [0.3, 0.7]])

    def model(z_mark, x_mark):
        x, z = torch.zeros(()), torch.zeros((), dtype=torch.long)
        for t in ppl.markov(range(3)):
            z = ppl.sample(f"z{t}", dist.Categorical(switches[z]), infer=z_mark)
            x = ppl.sample(f"x{t}", dist.Normal(0.9 * x + 2 * z, 1.0), infer=x_mark)
            ppl.sample(f"y{t}", dist.Normal(x, 0.7), obs=TIMES[t])

    steps = torch.tensor([[0.9 ** (i - j) if j <= i else 0.0 for j in range(3)] for i in range(3)])
    noise = steps @ steps.T + 0.49 * torch.eye(3)
    exact = torch.zeros(())
    for z in torch.cartesian_prod(*[torch.arange(2)] * 3):
        p = switches[0, z[0]] * switches[z[0], z[1]] * switches[z[1], z[2]]
        exact = exact + p * dist.MultivariateNormal(steps @ (2.0 * z), noise).log_prob(TIMES[:3]).exp()
    for z_mark in (EXACT, mark(20, "mixture")):
        values = estimates(lambda z_mark=z_mark: model(z_mark, mark(20, "mixture")))
        assert within(values.exp(), exact)


@pytest.mark.parametrize("tmc", STRATEGIES)
def test_pathwise_gradients_of_the_bound(tmc):
    """E ∇log Ẑ against a difference of E log Ẑ with the same random numbers."""
    loc = torch.tensor(0.4, requires_grad=True)

    def model(loc=loc):
        u = ppl.sample("u", dist.Normal(loc, 1.0), infer=mark(3))
        x = ppl.sample("x", dist.Normal(u * loc, 1.0), infer=mark(3, tmc))
        ppl.sample("y", dist.Normal(x, 0.5), obs=torch.tensor(1.3))

    step = 1e-5
    sides = []
    for sign in (1, -1):
        ppl.set_rng_seed(0)
        sides.append(estimates(lambda sign=sign: model(loc.detach() + sign * step), count=50))
    ppl.set_rng_seed(0)
    slopes = estimates(model, parameter=loc, count=50)
    assert torch.allclose(slopes, (sides[0] - sides[1]) / (2 * step), rtol=1e-6, atol=1e-6)


def test_draws_of_a_count_without_bound():
    rate = torch.tensor(1.0, requires_grad=True)
    y = torch.tensor(1.7)

    def model():
        k = ppl.sample("k", dist.Poisson(rate), infer=mark(4))
        ppl.sample("y", dist.Normal(k, 1.0), obs=y)

    support = torch.arange(14.0)
    log_p, log_likelihood = dist.Poisson(rate).log_prob(support), dist.Normal(support, 1.0).log_prob(y)
    four = torch.cartesian_prod(*[torch.arange(14)] * 4)
    bound = (log_p[four].sum(-1).exp() * (log_likelihood[four].logsumexp(-1) - math.log(4))).sum()
    (slope,) = torch.autograd.grad(bound, rate)
    assert within(estimates(model).exp(), (log_p + log_likelihood).detach().logsumexp(0).exp())
    assert within(estimates(model), bound.detach())
    assert within(estimates(model, parameter=rate, count=500), slope)


# -- plates, masks, scales, data


def test_masked_draws_add_nothing_and_observed_sites_are_not_drawn():
    kept = torch.tensor([True, False, True])
    data = torch.tensor([0.2, 50.0, -0.4])

    def model(tmc, kept=kept):
        u = ppl.sample("u", dist.Normal(0.0, 1.0), infer=mark(6))
        with ppl.plate("p", 3), mask(mask=kept):
            x = ppl.sample("x", dist.Normal(u, 1.0), infer=mark(6, tmc))
            ppl.sample("y", dist.Normal(x, 0.5), obs=data)

    cov = torch.ones(2, 2) + 1.25 * torch.eye(2)
    exact = dist.MultivariateNormal(torch.zeros(2), cov).log_prob(data[kept])
    for tmc in STRATEGIES:
        assert within(estimates(lambda tmc=tmc: model(tmc)).exp(), exact.exp())
        none = TraceEnum_ELBO()(lambda tmc=tmc: model(tmc, torch.zeros(3, dtype=torch.bool)), nothing)
        assert torch.allclose(none, torch.zeros(()), atol=1e-12)
    given = trace(condition(lambda: model(None), data={"u": torch.zeros(())})).get_trace()
    assert given["u"].observed and given["u"].enum_dims == ()


def test_a_scale_multiplies_the_logarithm():
    def model():
        x = ppl.sample("x", dist.Normal(0.0, 1.0), infer=mark(5))
        ppl.sample("y", dist.Normal(x, 0.5), obs=torch.tensor(1.0))

    ppl.set_rng_seed(3)
    plain = TraceEnum_ELBO()(model, nothing)
    ppl.set_rng_seed(3)
    assert torch.allclose(TraceEnum_ELBO()(scale(model, scale=2.5), nothing), 2.5 * plain)


def test_a_subsampled_plate():
    data = torch.linspace(-1.0, 1.0, 10)

    def model():
        with ppl.plate("p", 10, subsample_size=4) as index:
            x = ppl.sample("x", dist.Normal(0.0, 1.0), infer=mark(3000))
            ppl.sample("y", dist.Normal(x, 0.5), obs=data[index])

    exact = dist.Normal(0.0, 1.25**0.5).log_prob(data).sum()
    assert within(estimates(model, count=300), exact)


# -- with sequential sites


def test_draws_in_runs_value_by_value():
    def model(family):
        z = ppl.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "sequential"})
        x = ppl.sample("x", family(1.0 + z), infer=mark(8))
        ppl.sample("y", dist.Normal(x, 0.5), obs=torch.tensor(1.0))

    terms = [math.log(p) + dist.Normal(m, 1.25**0.5).log_prob(torch.tensor(1.0)) for p, m in ((0.7, 1.0), (0.3, 2.0))]
    exact = torch.stack(terms).logsumexp(0)
    assert within(estimates(lambda: model(lambda m: dist.Normal(m, 1.0))).exp(), exact.exp())
    with pytest.raises(ValueError, match=r"site 'x' is drawn without reparameterisation.*\['z'\].*parallel"):
        TraceEnum_ELBO()(lambda: model(dist.Poisson), nothing)


# -- what reads enumerated sites


def pair():
    z = ppl.sample("z", dist.Categorical(torch.ones(3)), infer=EXACT)
    x = ppl.sample("x", dist.Normal(z, 1.0), infer=mark(5))
    return ppl.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(0.5))


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(
    ("what", "name"),
    [
        (lambda model: infer_discrete(model)(), "infer_discrete"),
        (lambda model: infer_discrete(model, temperature=0)(), "infer_discrete"),
        (compute_marginals, "compute_marginals"),
        (lambda model: TraceEnum_ELBO().sample_posterior(model, nothing), "infer_discrete"),
        (lambda model: TraceEnum_ELBO().compute_marginals(model, nothing), "compute_marginals"),
        (lambda model: Predictive(model, num_samples=2, infer_discrete=True)(), "infer_discrete"),
    ],
)
def test_exact_posteriors_are_refused_by_name(what, name, count):
    def model():
        x = ppl.sample("x", dist.Normal(0.0, 1.0), infer=mark(count))
        ppl.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(0.5))

    with pytest.raises(ValueError, match=rf"{name}: sites \['x'\] are marked with num_samples.*condition"):
        what(model)


def test_exact_posteriors_given_the_values_of_draws():
    given = condition(pair, data={"x": torch.tensor(1.0)})
    expected = dist.Normal(torch.arange(3.0), 1.0).log_prob(torch.tensor(1.0)).softmax(0)
    assert torch.allclose(compute_marginals(given)["z"].probs, expected)
    assert torch.allclose(
        TraceEnum_ELBO().compute_marginals(pair, lambda: ppl.sample("x", dist.Delta(torch.tensor(1.0))))["z"].probs,
        expected,
    )


def test_explanations_count_draws(capsys):
    found = {site.name: site.size for site in explain_enumeration(pair).sites}
    assert found == {"z": 3, "x": 5} and "x" in capsys.readouterr().out


@pytest.mark.parametrize("parallel", [False, True])
def test_predictions_ignore_the_marks(parallel):
    drawn = Predictive(pair, num_samples=4, parallel=parallel)()
    assert drawn["x"].shape == (4,) and len(drawn["x"].unique()) == 4


def test_a_bound_of_drawn_sites_ignores_the_marks_and_names_what_the_guide_lacks():
    def guide():
        ppl.sample("z", dist.Categorical(torch.ones(3)))
        ppl.sample("x", dist.Normal(0.0, 1.0), infer=mark(5))

    assert Trace_ELBO()(pair, guide).shape == ()
    with pytest.raises(ValueError, match=r"lacks the model's latent sites \['z', 'x'\]"):
        Trace_ELBO()(pair, nothing)


def test_draws_of_a_guide_must_lie_in_the_model_s_support():
    def model():
        ppl.sample("x", dist.Gamma(1.0, 1.0))

    def guide():
        ppl.sample("x", dist.Normal(-50.0, 1.0), infer=mark(5))

    with pytest.raises(ValueError, match=r"site 'x'.*support"):
        TraceTMC_ELBO()(model, guide)


def test_a_reduction_over_draws_is_noticed():
    def model():
        x = ppl.sample("x", dist.Normal(0.0, 1.0), infer=mark(5))
        ppl.sample("y", dist.Normal(x.mean(), 1.0), obs=torch.tensor(0.5))

    with pytest.raises(ValueError, match=r"site 'y' was computed from the enumerated site 'x'"):
        TraceEnum_ELBO()(model, nothing)


def test_draws_differentiated_in_part_do_not_mix():
    class Partly(dist.Normal):
        def score_parts(self, x):
            parts = super().score_parts(x)
            return parts._replace(score_function=parts.log_prob)

    def model(tmc):
        u = ppl.sample("u", dist.Normal(0.0, 1.0), infer=mark(3))
        x = ppl.sample("x", Partly(u, 1.0), infer=mark(3, tmc))
        ppl.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(0.5))

    assert TraceEnum_ELBO()(lambda: model(None), nothing).shape == ()
    with pytest.raises(ValueError, match=r"site 'x'.*Partly.*'tmc': None"):
        TraceEnum_ELBO()(lambda: model("mixture"), nothing)


def test_draws_in_a_scan_are_refused_by_name():
    def step(x, y):
        x = ppl.sample("x", dist.Bernoulli(0.2 + 0.6 * x), infer=mark(5))
        ppl.sample("y", dist.Normal(x, 1.0), obs=y)
        return x, None

    with pytest.raises(ValueError, match=r"site 'x.*num_samples does not go with a scan.*markov"):
        TraceEnum_ELBO()(lambda: ppl.scan(step, torch.zeros(()), TIMES), nothing)
