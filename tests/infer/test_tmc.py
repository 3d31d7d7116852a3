"""The tensor Monte Carlo bound: its value between the usual bound and the evidence, its gradients, and fits with it."""

import itertools
import math

import pytest
import torch
from told_draws import outcomes
from torch.fx.experimental.proxy_tensor import make_fx

import ppl
import ppl.distributions as dist
from ppl.distributions import constraints
from ppl.distributions.validation import validation_enabled
from ppl.handlers import mask, scale
from ppl.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceTMC_ELBO, config_enumerate
from ppl.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal

LIMIT = 4.0  # standard errors
TMC = ["diagonal", "mixture", None]
DATA = torch.tensor([0.3, -1.2, 2.0])


def within(values, expected):
    return (values.mean(0) - expected).abs() <= LIMIT * values.std(0) / math.sqrt(len(values)) + 1e-12


def below(low, high):
    """Whether one mean is not above the other's, within 4 standard errors."""
    error = (low.var() / len(low) + high.var() / len(high)).sqrt()
    return low.mean() <= high.mean() + LIMIT * error


def estimates(model, guide, elbo=TraceTMC_ELBO, count=300):
    made = elbo()
    return -torch.stack([made(model, guide).detach() for _ in range(count)])


def hierarchy():
    u = ppl.sample("u", dist.Normal(0.0, 1.0))
    with ppl.plate("p", 3):
        x = ppl.sample("x", dist.Normal(u, 1.0))
        ppl.sample("y", dist.Normal(x, 0.5), obs=DATA)


def guess():
    u = ppl.sample("u", dist.Normal(0.1, 0.8))
    with ppl.plate("p", 3):
        ppl.sample("x", dist.Normal(0.3 * u + 0.5 * DATA, 0.7))


EVIDENCE = dist.MultivariateNormal(torch.zeros(3), torch.ones(3, 3) + 1.25 * torch.eye(3)).log_prob(DATA)


@pytest.mark.parametrize("tmc", TMC)
def test_the_estimate_of_the_evidence_is_unbiased_and_the_bound_lies_between(tmc):
    usual = estimates(hierarchy, guess, Trace_ELBO)
    few, many = (estimates(hierarchy, config_enumerate(guess, num_samples=k, tmc=tmc)) for k in (3, 12))
    for values in (few, many):
        assert within(values.exp(), EVIDENCE.exp())
    assert below(usual, few) and below(few, many) and below(many, EVIDENCE + torch.zeros(2))
    assert few.mean() - usual.mean() > 1.0 and EVIDENCE - many.mean() < 0.25


@pytest.mark.parametrize("tmc", TMC)
def test_many_draws_come_close_to_the_evidence(tmc):
    values = estimates(hierarchy, config_enumerate(guess, num_samples=150, tmc=tmc), count=100)
    print(values.mean() - EVIDENCE, values.std() / 10)
    assert (values.mean() - EVIDENCE).abs() < 0.02


def test_one_draw_is_the_usual_estimate():
    for program in (guess, config_enumerate(guess, num_samples=1)):
        ppl.set_rng_seed(5)
        expected = Trace_ELBO()(hierarchy, guess)
        ppl.set_rng_seed(5)
        assert torch.allclose(TraceTMC_ELBO()(hierarchy, program), expected, rtol=1e-12)


def test_draws_of_the_exact_posterior_estimate_the_evidence_without_noise():
    def model():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(x, 0.5), obs=DATA[0])

    def guide():
        ppl.sample("x", dist.Normal(DATA[0] / 1.25, 0.2**0.5))

    values = estimates(model, config_enumerate(guide, num_samples=4), count=5)
    assert torch.allclose(values, dist.Normal(0.0, 1.25**0.5).log_prob(DATA[0]).expand(5), rtol=0, atol=1e-12)


@pytest.mark.parametrize("how", ["parallel", "sequential"])
def test_sites_enumerated_exactly_are_summed(how):
    logits = torch.randn(3, 3, requires_grad=True)
    kept = torch.tensor([True, True, False])

    def sites(logits):
        z = ppl.sample("z", dist.Categorical(logits=logits[0]), infer={"enumerate": how})
        people = ppl.plate("p", 3)
        with people, mask(mask=kept):
            return z, ppl.sample("w", dist.Categorical(logits=logits[z]), infer={"enumerate": "parallel"}), people

    def model():
        z, w, people = sites(logits)
        with people, mask(mask=kept):
            ppl.sample("y", dist.Normal(w + z, 1.0), obs=DATA)

    exact = TraceEnum_ELBO()(model, lambda: None)
    slope = torch.autograd.grad(exact, logits)[0]
    for guide in (lambda: None, lambda: sites(torch.zeros(3, 3))):
        loss = TraceTMC_ELBO()(model, guide)
        assert torch.allclose(loss, exact, rtol=1e-12)
        assert torch.allclose(torch.autograd.grad(loss, logits)[0], slope, rtol=1e-10)


def test_draws_in_the_guide_and_a_support_in_the_model():
    """Known means of two kinds, drawn; who is of which kind, summed."""
    weights = torch.tensor([0.3, 0.7])

    def model():
        with ppl.plate("k", 2):
            mean = ppl.sample("mean", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0))
        with ppl.plate("p", 3):
            z = ppl.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
            ppl.sample("y", dist.Normal(torch.where(z == 0, mean[..., :1], mean[..., 1:]), 0.5), obs=DATA)

    def one_by_one(sites):
        first, second = (ppl.sample(f"mean{i}", dist.Normal(loc, 1.0)) for i, loc in enumerate((-1.0, 1.0)))
        if sites:
            with ppl.plate("p", 3):
                z = ppl.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
                ppl.sample("y", dist.Normal(torch.where(z == 0, first, second), 0.5), obs=DATA)

    exact = torch.zeros(())
    for z in itertools.product(range(2), repeat=3):
        one = torch.nn.functional.one_hot(torch.tensor(z), 2).double()
        law = dist.MultivariateNormal(one @ torch.tensor([-1.0, 1.0]), one @ one.T + 0.25 * torch.eye(3))
        exact = exact + weights[list(z)].prod() * law.log_prob(DATA).exp()
    guide = config_enumerate(lambda: one_by_one(False), num_samples=8)
    assert within(estimates(lambda: one_by_one(True), guide, count=400).exp(), exact)


# -- gradients


def test_gradients_of_a_continuous_bound():
    """E ∇log Ẑ against differences of log Ẑ with the same random numbers, for model's and guide's parameters."""
    theta = torch.tensor([0.3, -0.4, 0.2], requires_grad=True)

    def programs(t):
        def model():
            u = ppl.sample("u", dist.Normal(t[0], 1.0))
            with ppl.plate("p", 3):
                x = ppl.sample("x", dist.Normal(u, 1.0))
                ppl.sample("y", dist.Normal(x, 0.5), obs=DATA)

        def guide():
            u = ppl.sample("u", dist.Normal(t[1], t[2].exp()))
            with ppl.plate("p", 3):
                ppl.sample("x", dist.Gumbel(t[2] * u + 0.5 * DATA, 0.7))

        return model, guide

    for tmc in TMC:

        def loss(t, tmc=tmc):
            model, guide = programs(t)
            ppl.set_rng_seed(2)
            return TraceTMC_ELBO(max_plate_nesting=1)(model, config_enumerate(guide, num_samples=4, tmc=tmc))

        slope = torch.autograd.grad(loss(theta), theta)[0]
        with torch.no_grad():
            steps = 1e-5 * torch.eye(3)
            differences = torch.stack([(loss(theta + s) - loss(theta - s)) / 2e-5 for s in steps])
        assert torch.allclose(slope, differences, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("vectorised", [False, True])
def test_particles_average_bounds(vectorised):
    ppl.set_rng_seed(1)
    elbo = TraceTMC_ELBO(num_particles=400, vectorize_particles=vectorised)
    mean = -elbo(hierarchy, config_enumerate(guess, num_samples=5))
    single = estimates(hierarchy, config_enumerate(guess, num_samples=5), count=400)
    assert (mean - single.mean()).abs() <= LIMIT * math.sqrt(2 / 400) * single.std()


def test_no_tensor_decides_the_program():
    """The bound becomes a graph of its parameters."""

    def loss(loc):
        def guide():
            u = ppl.sample("u", dist.Normal(loc, 0.8))
            with ppl.plate("p", 3):
                ppl.sample("x", dist.Normal(0.3 * u + 0.5 * DATA, 0.7))

        total = TraceTMC_ELBO(max_plate_nesting=1)(hierarchy, config_enumerate(guide, num_samples=4, tmc="mixture"))
        return total, torch.autograd.grad(total, loc)[0]

    with validation_enabled(False):
        graph = make_fx(loss)(torch.tensor(0.1, requires_grad=True))
        for start in (0.1, 0.7):
            loc = torch.tensor(start, requires_grad=True)
            ppl.set_rng_seed(4)
            expected = loss(loc)
            ppl.set_rng_seed(4)
            assert all(torch.allclose(a, b) for a, b in zip(graph(loc), expected, strict=True))


# -- scales, data


def test_a_scale_multiplies_the_logarithm_and_unequal_ones_are_refused():
    marked = config_enumerate(guess, num_samples=4)
    ppl.set_rng_seed(3)
    plain = TraceTMC_ELBO()(hierarchy, marked)
    ppl.set_rng_seed(3)
    assert torch.allclose(TraceTMC_ELBO()(scale(hierarchy, scale=2.5), scale(marked, scale=2.5)), 2.5 * plain)
    with pytest.raises(ValueError, match=r"must share one scale"):
        TraceTMC_ELBO()(scale(hierarchy, scale=2.5), marked)


def test_a_subsampled_plate_of_local_sites():
    data = torch.linspace(-1.0, 1.0, 10)

    def model():
        u = ppl.sample("u", dist.Delta(torch.tensor(0.2)))
        with ppl.plate("p", 10, subsample_size=4) as index:
            x = ppl.sample("x", dist.Normal(u, 1.0))
            ppl.sample("y", dist.Normal(x, 0.5), obs=data[index])

    def guide():
        ppl.sample("u", dist.Delta(torch.tensor(0.2)))
        with ppl.plate("p", 10, subsample_size=4) as index:
            ppl.sample("x", dist.Normal(0.04 + 0.8 * data[index], 0.2**0.5))

    exact = dist.Normal(0.2, 1.25**0.5).log_prob(data).sum()
    assert within(estimates(model, config_enumerate(guide, num_samples=3)), exact)


def test_masked_places_add_nothing():
    kept = torch.tensor([True, False, True])

    def model():
        u = ppl.sample("u", dist.Normal(0.0, 1.0))
        with ppl.plate("p", 3), mask(mask=kept):
            x = ppl.sample("x", dist.Normal(u, 1.0))
            ppl.sample("y", dist.Normal(x, 0.5), obs=DATA)

    exact = dist.MultivariateNormal(torch.zeros(2), torch.ones(2, 2) + 1.25 * torch.eye(2)).log_prob(DATA[kept])

    def masked_guess():
        u = ppl.sample("u", dist.Normal(0.1, 0.8))
        with ppl.plate("p", 3), mask(mask=kept):
            ppl.sample("x", dist.Normal(0.3 * u + 0.5 * DATA, 0.7))

    for tmc in TMC:
        values = estimates(model, config_enumerate(masked_guess, num_samples=6, tmc=tmc))
        assert within(values.exp(), exact.exp())


def test_what_the_guide_lacks_is_named():
    with pytest.raises(ValueError, match=r"lacks the model's latent sites \['x'\]"):
        TraceTMC_ELBO()(hierarchy, config_enumerate(lambda: ppl.sample("u", dist.Normal(0.0, 1.0)), num_samples=3))


@pytest.mark.parametrize("tmc", ["diagonal", "mixture"])
def test_a_guide_in_a_markov_loop(tmc, monkeypatch):
    """Dims are used again; over all outcomes of the draws, the mean of the estimate is the evidence."""
    move, see = torch.tensor([[0.7, 0.3], [0.4, 0.6]]), torch.tensor([[0.8, 0.2], [0.1, 0.9]])
    propose, data = torch.tensor([[0.5, 0.5], [0.2, 0.8]]), [0, 1, 1]

    def model():
        x = torch.tensor(0)
        for t in ppl.markov(range(3)):
            x = ppl.sample(f"x{t}", dist.Categorical(move[x]))
            ppl.sample(f"y{t}", dist.Categorical(see[x]), obs=torch.tensor(data[t]))

    def guide():
        x = torch.tensor(0)
        for t in ppl.markov(range(3)):
            infer = {"enumerate": "parallel", "num_samples": 2, "tmc": tmc}
            x = ppl.sample(f"x{t}", dist.Categorical(propose[x]), infer=infer)

    state = torch.tensor([1.0, 0.0])
    for seen in data:
        state = (state @ move) * see[:, seen]
    objective = TraceTMC_ELBO(max_plate_nesting=0)
    with validation_enabled(False), torch.no_grad():
        total = sum(p * (-loss).exp() for p, loss in outcomes(monkeypatch, lambda: objective(model, guide)))
    assert torch.allclose(total, state.sum(), rtol=1e-10)


# -- as a user would


def test_a_fit_comes_closer_to_the_evidence_than_the_usual_one():
    def guide():
        loc, sd = ppl.param("loc", torch.zeros(())), ppl.param("sd", torch.ones(()), constraint=constraints.positive)
        locs = ppl.param("locs", torch.zeros(3))
        u = ppl.sample("u", dist.Normal(loc, sd))
        with ppl.plate("p", 3):
            ppl.sample("x", dist.Normal(locs + 0.2 * u, 0.6))

    bounds = {}
    for elbo, program in ((Trace_ELBO(), guide), (TraceTMC_ELBO(), config_enumerate(guide, num_samples=8))):
        svi = SVI(hierarchy, program, ppl.optim.Adam({"lr": 0.03}), elbo)
        for _ in range(250):
            svi.step()
        bounds[type(elbo).__name__] = -sum(svi.evaluate_loss() for _ in range(100)) / 100
    assert bounds["Trace_ELBO"] < bounds["TraceTMC_ELBO"] < EVIDENCE + 0.1
    assert EVIDENCE - bounds["TraceTMC_ELBO"] < 0.25


@pytest.mark.parametrize("guide_type", [AutoNormal, AutoDiagonalNormal, AutoDelta])
def test_automatic_guides(guide_type):
    guide = guide_type(hierarchy)
    svi = SVI(hierarchy, config_enumerate(guide, num_samples=6), ppl.optim.Adam({"lr": 0.05}), TraceTMC_ELBO())
    losses = [svi.step() for _ in range(120)]
    assert sum(losses[-30:]) < sum(losses[:30])


def test_discrete_draws_learn():
    """A guide of a few of twenty categories finds the one that the data tell of."""

    def model():
        z = ppl.sample("z", dist.Categorical(torch.ones(20)))
        ppl.sample("y", dist.Normal(z.to(torch.get_default_dtype()), 1.0), obs=torch.tensor(13.0))

    def guide():
        ppl.sample("z", dist.Categorical(logits=ppl.param("logits", torch.zeros(20))))

    svi = SVI(model, config_enumerate(guide, num_samples=5), ppl.optim.Adam({"lr": 0.05}), TraceTMC_ELBO())
    for _ in range(300):
        svi.step()
    probs = svi.params["logits"].softmax(-1)
    assert probs.argmax() == 13 and probs[12:15].sum() > 3 * 3 / 20  # three times what they were
