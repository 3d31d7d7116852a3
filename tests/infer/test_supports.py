"""Enumerated sites whose supports depend on other choices or differ along a plate, and every family with a finite support."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.distributions as td

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.infer import TraceEnum_ELBO, compute_marginals, infer_discrete

MARKED = ["parallel", "sequential"]
WEIGHTS = torch.tensor([0.3, -0.2, 0.5])


def nothing(*args):
    pass


def assert_same(loss, expected, *leaves):
    """Equal in value and gradients, all of them finite."""
    assert torch.allclose(-loss, expected, atol=1e-10, rtol=0)
    for leaf, a, b in zip(
        leaves, torch.autograd.grad(-loss, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-10, rtol=0), leaf


def log_binomial(n, p, k):
    return td.Binomial(n, p, validate_args=False).log_prob(torch.tensor(float(k)))


# -- a number of trials that is a choice


def trials(first, second, weights, p, data):
    """n objects, k of them found, each look at those finds some again."""
    n = ppl.sample("n", dist.Categorical(logits=weights), infer={"enumerate": first})
    k = ppl.sample("k", dist.Binomial(n, p), infer={"enumerate": second})
    with ppl.plate("looks", len(data)):
        ppl.sample("y", dist.Binomial(k, 0.4), obs=data)


def trials_joint(weights, p, data):
    """Log densities by (n, k), without the impossible ones."""
    log_n, table = weights.log_softmax(-1), {}
    for n in range(len(weights)):
        for k in range(int(data.max()), n + 1):
            seen = sum(log_binomial(k, torch.tensor(0.4), y) for y in data)
            table[n, k] = log_n[n] + log_binomial(n, p, k) + seen
    return table


@pytest.mark.parametrize("second", MARKED)
@pytest.mark.parametrize("first", MARKED)
@pytest.mark.parametrize("validate", [True, False])
def test_the_number_of_trials_may_be_enumerated(first, second, validate):
    weights, p = torch.tensor([0.3, -0.2, 0.5, 0.1], requires_grad=True), torch.tensor(0.35, requires_grad=True)
    data = torch.tensor([1.0, 0.0, 2.0])
    table = trials_joint(weights, p, data)
    with dist.validation_enabled(validate):
        loss = TraceEnum_ELBO()(trials, nothing, first, second, weights, p, data)
        best = handlers.trace(infer_discrete(trials, temperature=0)).get_trace(first, second, weights, p, data)
        marginals = compute_marginals(trials, first, second, weights, p, data)
    assert_same(loss, torch.stack(list(table.values())).logsumexp(0), weights, p)
    assert (int(best["n"].value), int(best["k"].value)) == max(table, key=lambda cell: table[cell].item())
    posterior = torch.stack(list(table.values())).softmax(0).detach()
    for name, at, size in (("n", 0, 4), ("k", 1, 4)):
        exact = [sum(q for c, q in zip(table, posterior, strict=True) if c[at] == v) for v in range(size)]
        got = marginals[name].log_prob(torch.arange(size)).exp()
        assert torch.allclose(got, torch.tensor(exact), atol=1e-10, rtol=0)


@pytest.mark.parametrize("mark", MARKED)
def test_a_guide_may_enumerate_a_number_of_trials_and_its_successes(mark):
    weights, p = torch.tensor([0.3, -0.2, 0.5], requires_grad=True), torch.tensor(0.35, requires_grad=True)
    x = torch.tensor(1.3)

    def model():
        n = ppl.sample("n", dist.Categorical(torch.tensor([0.2, 0.5, 0.3])), infer={"enumerate": mark})
        k = ppl.sample("k", dist.Binomial(n, 0.6), infer={"enumerate": mark})
        ppl.sample("x", dist.Normal(k, 1.0), obs=x)

    def guide():
        n = ppl.sample("n", dist.Categorical(logits=weights), infer={"enumerate": mark})
        ppl.sample("k", dist.Binomial(n, p), infer={"enumerate": mark})

    total, log_n = torch.zeros(()), weights.log_softmax(-1)
    for n in range(3):
        for k in range(n + 1):
            log_q = log_n[n] + log_binomial(n, p, k)
            log_p = torch.tensor([0.2, 0.5, 0.3])[n].log() + log_binomial(n, torch.tensor(0.6), k)
            total = total + log_q.exp() * (log_p + td.Normal(float(k), 1.0).log_prob(x) - log_q)
    assert_same(TraceEnum_ELBO()(model, guide), total, weights, p)


@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("mark", MARKED)
def test_supports_may_differ_along_a_plate(mark, expand):
    """As many trials as each place has: 0, 3 and 1."""
    totals, x = torch.tensor([0, 3, 1]), torch.tensor([0.2, 1.4, 0.9])
    p = torch.tensor([0.3, 0.6, 0.8], requires_grad=True)

    def model():
        with ppl.plate("places", 3):
            k = ppl.sample("k", dist.Binomial(totals, p), infer={"enumerate": mark, "expand": expand})
            ppl.sample("x", dist.Normal(k, 1.0), obs=x)

    total, best = torch.zeros(()), []
    for i, n in enumerate(totals.tolist()):
        each = torch.stack([log_binomial(n, p[i], k) + td.Normal(float(k), 1.0).log_prob(x[i]) for k in range(n + 1)])
        total = total + each.logsumexp(0)
        best.append(int(each.argmax()))
    assert_same(TraceEnum_ELBO()(model, nothing), total, p)
    trace = handlers.trace(infer_discrete(model, temperature=0)).get_trace()
    assert trace["k"].value.tolist() == best


@pytest.mark.parametrize("mark", MARKED)
def test_a_masked_place_weighs_its_own_values_alike(mark):
    """One that has one value only does not choose among those of the others."""
    totals, x = torch.tensor([0, 3]), torch.tensor([0.2, 1.4])

    def model(seen):
        with ppl.plate("places", 2):
            with handlers.mask(mask=torch.tensor([seen, False])):
                k = ppl.sample("k", dist.Binomial(totals, 0.3), infer={"enumerate": mark})
            ppl.sample("x", dist.Normal(k, 1.0), obs=x)

    one = td.Normal(0.0, 1.0).log_prob(x[0])
    alike = (td.Normal(torch.arange(4.0), 1.0).log_prob(x[1]) - torch.tensor(4.0).log()).logsumexp(0)
    for seen in (True, False):
        assert TraceEnum_ELBO().loss(model, nothing, seen) == pytest.approx(-(one + alike).item(), abs=1e-10)
        trace = handlers.trace(infer_discrete(model, temperature=0)).get_trace(seen)
        assert trace["k"].value.tolist() == [0, 1]


def ranges(first, second, x):
    with ppl.plate("places", len(x)):
        low = ppl.sample("low", dist.Categorical(logits=WEIGHTS), infer={"enumerate": first})
        k = ppl.sample("k", dist.DiscreteUniform(low, low + 2), infer={"enumerate": second})
        ppl.sample("x", dist.Normal(k.to(x.dtype), 1.0), obs=x)


def ranges_joint(x):
    log_low = WEIGHTS.log_softmax(-1)
    return {
        (low, k): (log_low[low] - torch.tensor(3.0).log() + td.Normal(float(k), 1.0).log_prob(x)).item()
        for low in range(3)
        for k in range(low, low + 3)
    }


@pytest.mark.parametrize("second", MARKED)
@pytest.mark.parametrize("first", MARKED)
def test_both_ends_of_a_support_may_depend_on_a_choice(first, second):
    x = torch.tensor([2.2, 3.1, -0.4])
    tables = [ranges_joint(value) for value in x]
    evidence = sum(torch.tensor(list(t.values())).logsumexp(0).item() for t in tables)
    assert TraceEnum_ELBO().loss(ranges, nothing, first, second, x) == pytest.approx(-evidence, abs=1e-10)
    best = handlers.trace(infer_discrete(ranges, temperature=0)).get_trace(first, second, x)
    found = list(zip(best["low"].value.tolist(), best["k"].value.tolist(), strict=True))
    assert found == [max(t, key=lambda cell, t=t: t[cell]) for t in tables]
    count = 4000
    drawn = handlers.trace(infer_discrete(ranges)).get_trace(first, second, x[:1].expand(count))
    pairs = list(zip(drawn["low"].value.tolist(), drawn["k"].value.tolist(), strict=True))
    posterior = torch.tensor(list(tables[0].values())).softmax(0)
    for cell, p in zip(tables[0], posterior.tolist(), strict=True):
        assert abs(pairs.count(cell) / count - p) < 4 * (p * (1 - p) / count) ** 0.5
    assert set(pairs) <= set(tables[0])


def test_marginals_of_values_that_depend_on_a_sequential_choice_are_refused():
    with pytest.raises(ValueError, match=r"site 'k'.*sequentially.*'parallel'"):
        compute_marginals(ranges, "sequential", "parallel", torch.tensor([0.1]))
    exact = ranges_joint(torch.tensor(0.1))
    weights = torch.tensor(list(exact.values())).softmax(0).tolist()
    mean = sum(k * p for (_, k), p in zip(exact, weights, strict=True))
    got = compute_marginals(ranges, "parallel", "parallel", torch.tensor([0.1]))["k"].mean
    assert got.item() == pytest.approx(mean, abs=1e-10)


def test_data_are_refused_only_where_no_choice_allows_them():
    def model(y, mark):
        n = ppl.sample("n", dist.Categorical(torch.ones(3) / 3), infer={"enumerate": mark})
        ppl.sample("y", dist.Binomial(n, 0.5), obs=torch.tensor(y))
        ppl.sample("u", dist.Uniform(0.0, torch.tensor([1.0, 2.0, 3.0])[n]), obs=torch.tensor(1.5))

    for mark in MARKED:  # n is 1 or 2
        expected = torch.tensor([1 / 3 * 0.5 / 2 + 1 / 3 * 0.5 / 3]).log().item()
        assert TraceEnum_ELBO().loss(model, nothing, 1.0, mark) == pytest.approx(-expected, abs=1e-10)
    with pytest.raises(ValueError, match="site 'y': the obs must lie in the support"):
        TraceEnum_ELBO().loss(model, nothing, 5.0, "parallel")


@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("mark", MARKED)
def test_a_guide_may_count_successes_among_trials_that_it_chooses(mark, expand):
    """Each in both programs; `expand` means nothing to a site without a dim."""
    weights, p, x = torch.tensor([0.2, 0.3, 0.5]), torch.tensor(0.4), torch.tensor(0.3)
    guessed, q = torch.tensor([0.3, 0.3, 0.4], requires_grad=True), torch.tensor(0.7, requires_grad=True)

    def pair(weights, p):
        n = ppl.sample("n", dist.Categorical(weights), infer={"enumerate": "parallel"})
        return ppl.sample("k", dist.Binomial(n, p), infer={"enumerate": mark, "expand": expand})

    def model():
        ppl.sample("x", dist.Normal(pair(weights, p), 1.0), obs=x)

    expected = torch.zeros(())
    for n, k in [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]:
        log_q = (guessed[n] / guessed.sum()).log() + log_binomial(n, q, k)
        log_p = weights[n].log() + log_binomial(n, p, k) + td.Normal(float(k), 1.0).log_prob(x)
        expected = expected + log_q.exp() * (log_p - log_q)
    assert_same(TraceEnum_ELBO()(model, lambda: pair(guessed, q)), expected, guessed, q)


@pytest.mark.parametrize("mark", MARKED)
def test_values_that_differ_along_a_plate_are_enumerated_place_by_place(mark):
    """Each place has a list of its own."""
    values = torch.tensor([[0.0, 1.0, 4.0], [2.0, -1.0, 0.5]])
    log_weights, x = torch.tensor([[0.1, 0.2, -0.3], [0.5, 0.0, 0.2]]), torch.tensor([3.1, 0.4])

    def model():
        with ppl.plate("places", 2):
            z = ppl.sample("z", dist.Empirical(values, log_weights), infer={"enumerate": mark})
            ppl.sample("x", dist.Normal(z, 1.0), obs=x)

    table = log_weights.log_softmax(-1) + td.Normal(values, 1.0).log_prob(x.unsqueeze(-1))
    assert TraceEnum_ELBO().loss(model, nothing) == pytest.approx(-table.logsumexp(-1).sum().item(), abs=1e-10)
    trace = handlers.trace(infer_discrete(model, temperature=0)).get_trace()
    assert trace["z"].value.tolist() == values.gather(-1, table.argmax(-1, keepdim=True)).squeeze(-1).tolist()


# -- every family that has one


TREE = torch.tensor([0.3, -0.4, 0.2])
FAMILIES = {
    "Bernoulli": lambda: dist.Bernoulli(torch.tensor(0.3)),
    "Bernoulli logits": lambda: dist.Bernoulli(logits=torch.tensor(0.4)),
    "RelaxedBernoulliStraightThrough": lambda: dist.RelaxedBernoulliStraightThrough(torch.tensor(0.5), probs=0.3),
    "Categorical": lambda: dist.Categorical(logits=WEIGHTS),
    "OneHotCategorical": lambda: dist.OneHotCategorical(logits=WEIGHTS),
    "OneHotCategoricalStraightThrough": lambda: dist.OneHotCategoricalStraightThrough(logits=WEIGHTS),
    "RelaxedOneHotCategoricalStraightThrough": lambda: dist.RelaxedOneHotCategoricalStraightThrough(
        torch.tensor(0.5), logits=WEIGHTS
    ),
    "OrderedLogistic": lambda: dist.OrderedLogistic(torch.tensor(0.2), torch.tensor([-1.0, 0.3])),
    "Binomial": lambda: dist.Binomial(4, torch.tensor(0.3)),
    "BetaBinomial": lambda: dist.BetaBinomial(1.5, 2.0, 4),
    "DiscreteUniform": lambda: dist.DiscreteUniform(-1, 3),
    "Empirical": lambda: dist.Empirical(torch.tensor([1.0, -2.0, 1.0]), WEIGHTS),
    "Empirical vectors": lambda: dist.Empirical(torch.tensor([[1.0, 2.0], [0.5, 0.0], [-1.0, 2.0]]), WEIGHTS),
    "SpanningTree": lambda: dist.SpanningTree(TREE),
    "OneOneMatching": lambda: dist.OneOneMatching(torch.tensor([[0.1, 0.4], [-0.3, 0.2]])),
    "OneTwoMatching": lambda: dist.OneTwoMatching(torch.tensor([[0.1, 0.4], [-0.3, 0.2], [0.0, 0.5], [0.7, -0.1]])),
    "MixtureSameFamily": lambda: dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.4, 0.6])), dist.Binomial(torch.tensor([2, 4]), torch.tensor([0.3, 0.8]))
    ),
    "MixtureGeneral": lambda: dist.MixtureGeneral(
        dist.Categorical(torch.tensor([0.4, 0.6])),
        [dist.Categorical(logits=WEIGHTS), dist.DiscreteUniform(2, 5)],
        support=dist.constraints.integer_interval(0, 5),
    ),
    "ZeroInflatedDistribution": lambda: dist.ZeroInflatedDistribution(dist.Binomial(3, 0.4), gate=torch.tensor(0.2)),
    "HurdleDistribution": lambda: dist.HurdleDistribution(dist.Binomial(3, 0.4), gate=torch.tensor(0.2)),
    "ExpandedDistribution": lambda: dist.ExpandedDistribution(dist.Categorical(logits=WEIGHTS), ()),
    "Masked": lambda: dist.Categorical(logits=WEIGHTS).mask(True),
    "foreign": lambda: td.Binomial(3, torch.tensor(0.3)),
}


@pytest.mark.parametrize("mark", MARKED)
@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_in_a_small_model(name, mark):
    """Two sites in a plate, the second's data depending on the first's value; against a loop over the values."""
    x = torch.tensor([0.4, -0.7])
    d = FAMILIES[name]()
    values = d.enumerate_support(expand=False)
    probabilities = torch.stack([d.log_prob(v) for v in values])
    assert probabilities.exp().sum().item() == pytest.approx(1.0, abs=1e-12)

    def features(z):
        z = z.to(x.dtype)
        steps = torch.arange(1.0, 1 + d.event_shape.numel())
        return (z.reshape((*z.shape[: z.dim() - len(d.event_shape)], -1)) * steps).sum(-1) * 0.3

    def model():
        with ppl.plate("n", 2):
            z = ppl.sample("z", FAMILIES[name](), infer={"enumerate": mark})
            ppl.sample("x", dist.Normal(features(z), 1.0), obs=x)

    table = torch.stack([td.Normal(features(v), 1.0).log_prob(x) for v in values]) + probabilities.unsqueeze(-1)
    assert TraceEnum_ELBO().loss(model, nothing) == pytest.approx(-table.logsumexp(0).sum().item(), abs=1e-10)
    best = handlers.trace(infer_discrete(model, temperature=0)).get_trace()["z"].value
    assert torch.equal(best.to(values.dtype), values[table.argmax(0)])
    marginal = compute_marginals(model)["z"]
    posterior = table.softmax(0)
    got = torch.stack([marginal.log_prob(v).exp() for v in values])
    assert torch.allclose(got, posterior, atol=1e-10, rtol=0)


def test_the_list_of_families_is_complete():
    """Every class of the catalogue that can say it has a finite support has a row above."""
    from_rows = {type(make()).__name__ for make in FAMILIES.values()} | {"MaskedDistribution", "Binomial"}
    found = {name for name in dist.__all__ if getattr(getattr(dist, name), "has_enumerate_support", False) is True}
    assert found <= from_rows


# -- several enumerated indices at once


@pytest.mark.parametrize("marks", list(itertools.product(MARKED, repeat=3)), ids="-".join)
def test_a_table_read_with_three_enumerated_indices_over_two_plates(marks):
    table = torch.randn(2, 3, 2, 3, 2)  # (j, a, b, c, value): j a plate
    table.requires_grad_()
    data = torch.tensor([[0, 1], [1, 1], [0, 0]])  # (i, j)

    def model():
        infers = [{"enumerate": m} for m in marks]
        j = ppl.plate("j", 2, dim=-1)
        a = ppl.sample("a", dist.Categorical(logits=WEIGHTS), infer=infers[0])
        with j:
            b = ppl.sample("b", dist.Bernoulli(0.3), infer=infers[1])
            with ppl.plate("i", 3, dim=-2):
                c = ppl.sample("c", dist.Categorical(logits=WEIGHTS), infer=infers[2])
                logits = ppl.vindex(table, (..., a, b.long(), c, slice(None)))
                ppl.sample("x", dist.Categorical(logits=logits), obs=data)

    log_w, log_b = WEIGHTS.log_softmax(-1), torch.tensor([0.7, 0.3]).log()
    likelihood = table.log_softmax(-1)
    over_a = []
    for a in range(3):
        total = log_w[a]
        for j in range(2):
            over_b = []
            for b in range(2):
                places = [
                    torch.stack([log_w[c] + likelihood[j, a, b, c, data[i, j]] for c in range(3)]).logsumexp(0)
                    for i in range(3)
                ]
                over_b.append(log_b[b] + sum(places))
            total = total + torch.stack(over_b).logsumexp(0)
        over_a.append(total)
    assert_same(TraceEnum_ELBO()(model, nothing), torch.stack(over_a).logsumexp(0), table)
