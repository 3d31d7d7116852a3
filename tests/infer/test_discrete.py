"""infer_discrete: exact posterior draws, and the most probable joint values."""

import itertools
import math

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.distributions import constraints
from ppl.handlers import condition, trace
from ppl.infer import config_enumerate, infer_discrete

MARKS = ["parallel", "sequential"]


def values_of(program, *args):
    return {name: site.tensor for name, site in trace(program).get_trace(*args).stochastic_nodes.items()}


def frequencies(program, names, n, *args):
    """How often each joint value came, as a dict from tuples."""
    counts = {}
    for _ in range(n):
        drawn = values_of(program, *args)
        key = tuple(int(v) for name in names for v in drawn[name].flatten())
        counts[key] = counts.get(key, 0) + 1
    return {key: count / n for key, count in counts.items()}


def assert_frequencies(found, probs, n):
    assert set(found) <= set(probs)
    for key, p in probs.items():
        assert abs(found.get(key, 0.0) - p) <= 4 * math.sqrt(p * (1 - p) / n) + 1e-12, (key, found.get(key, 0.0), p)


# The most probable pair is (0, 0), but the most probable first value alone is 1.
PAIR = torch.tensor([[0.36, 0.04], [0.30, 0.30]])


def pair(marks=("parallel", "parallel")):
    a = ppl.sample("a", dist.Categorical(PAIR.sum(-1)), infer={"enumerate": marks[0]})
    b = ppl.sample("b", dist.Categorical((PAIR / PAIR.sum(-1, keepdim=True))[a]), infer={"enumerate": marks[1]})
    return a, b


@pytest.mark.parametrize("marks", list(itertools.product(MARKS, MARKS)))
def test_temperature_zero_is_the_maximum_of_the_joint_and_not_of_the_marginals(marks):
    assert PAIR.sum(-1).argmax() == 1
    for _ in range(3):
        a, b = infer_discrete(pair, temperature=0)(marks)
        assert (int(a), int(b)) == (0, 0)


@pytest.mark.parametrize("marks", list(itertools.product(MARKS, MARKS)))
def test_temperature_one_draws_from_the_joint(marks):
    n = 400
    found = frequencies(infer_discrete(pair), "ab", n, marks)
    assert_frequencies(found, {(i, j): PAIR[i, j].item() for i in range(2) for j in range(2)}, n)


def tree(marks, data):
    """A global site, one in each group, one for each person."""
    top = ppl.sample("top", dist.Bernoulli(0.4), infer={"enumerate": marks[0]})
    with ppl.plate("groups", 2, dim=-2):
        group = ppl.sample("group", dist.Bernoulli(0.2 + 0.5 * top), infer={"enumerate": marks[1]})
        with ppl.plate("people", 2, dim=-1):
            person = ppl.sample("person", dist.Bernoulli(0.7 - 0.4 * group), infer={"enumerate": marks[2]})
            ppl.sample("x", dist.Normal(person + 0.5 * group - top, 0.8), obs=data)


DATA = torch.tensor([[0.5, 1.2], [-0.8, 0.1]])


def joint_of_tree():
    """The exact posterior over (top, group 0, group 1, four people), by running every value."""
    log_probs = {}
    for cell in itertools.product((0.0, 1.0), repeat=7):
        values = {
            "top": torch.tensor(cell[0]),
            "group": torch.tensor(cell[1:3]).reshape(2, 1),
            "person": torch.tensor(cell[3:]).reshape(2, 2),
        }
        given = condition(lambda: tree((None,) * 3, DATA), data=values)
        log_probs[tuple(map(int, cell))] = trace(given).get_trace().log_prob_sum()
    total = torch.stack(list(log_probs.values())).logsumexp(0)
    return {key: (value - total).exp().item() for key, value in log_probs.items()}


MIXES = [("parallel",) * 3, ("sequential", "parallel", "parallel"), ("sequential",) * 3]


@pytest.mark.parametrize("marks", MIXES, ids="-".join)
def test_nested_plates_are_drawn_from_the_exact_posterior(marks):
    probs = joint_of_tree()
    n = 250
    found = frequencies(infer_discrete(tree), ["top", "group", "person"], n, marks, DATA)
    assert_frequencies(found, probs, n)
    # and every single site's and pair's share
    for i, j in itertools.combinations(range(7), 2):
        p = sum(v for k, v in probs.items() if k[i] == k[j])
        q = sum(v for k, v in found.items() if k[i] == k[j])
        assert abs(p - q) <= 4 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("marks", MIXES, ids="-".join)
def test_nested_plates_have_the_joint_maximum(marks):
    probs = joint_of_tree()
    drawn = values_of(infer_discrete(tree, temperature=0), marks, DATA)
    assert tuple(int(v) for n in ("top", "group", "person") for v in drawn[n].flatten()) == max(probs, key=probs.get)
    assert [tuple(drawn[n].shape) for n in ("top", "group", "person")] == [(), (2, 1), (2, 2)]


def test_it_can_be_a_decorator_and_take_the_first_dim():
    @infer_discrete(temperature=0, first_available_dim=-4)
    @config_enumerate
    def model(x):
        with ppl.plate("n", 3):
            z = ppl.sample("z", dist.Categorical(torch.ones(2)))
            ppl.sample("x", dist.Normal(z, 0.3), obs=x)
        return z

    assert model(torch.tensor([0.9, -0.2, 1.1])).tolist() == [1, 0, 1]


def test_events_and_onehot_supports_are_values_and_not_indices():
    @config_enumerate
    def model():
        with ppl.plate("n", 2):
            z = ppl.sample("z", dist.OneHotCategorical(torch.ones(3)))
            ppl.sample(
                "x", dist.Normal((z * torch.tensor([-4.0, 0.0, 4.0])).sum(-1), 1.0), obs=torch.tensor([4.0, -4.0])
            )
        return z

    assert infer_discrete(model, temperature=0)().tolist() == [[0, 0, 1], [1, 0, 0]]


def test_what_is_drawn_beside_the_discrete_sites_is_what_they_were_inferred_from():
    """A subsample, and a continuous site that nobody conditioned."""
    data = torch.tensor([-5.0, 5.0, -5.0, 5.0, 5.0])

    @config_enumerate
    def model():
        flip = ppl.sample("flip", dist.Normal(0.0, 1.0))
        with ppl.plate("p", 5, subsample_size=2) as i:
            z = ppl.sample("z", dist.Bernoulli(0.5))
            ppl.sample("x", dist.Normal(flip.sign() * (10 * z - 5), 0.5), obs=data[i])
        return flip, i, z

    for _ in range(20):
        flip, i, z = infer_discrete(model)()
        assert torch.equal(z, ((flip.sign() * data[i]) > 0).double())


def test_parameters_and_values_around_are_seen():
    @config_enumerate
    def model():
        p = ppl.param("p", torch.tensor([0.5, 0.5]), constraint=constraints.simplex)
        loc = ppl.sample("loc", dist.Normal(0.0, 1.0))
        z = ppl.sample("z", dist.Categorical(p))
        ppl.sample("x", dist.Normal(loc * (2 * z - 1), 0.1), obs=torch.tensor(2.0))
        return z

    for sign, expected in ((1.0, 1), (-1.0, 0)):
        given = condition(model, data={"loc": torch.tensor(2.0 * sign)})
        assert int(infer_discrete(given, temperature=0)()) == expected


def test_a_value_that_is_impossible_is_never_drawn():
    @config_enumerate
    def model():
        a = ppl.sample("a", dist.Categorical(torch.tensor([0.5, 0.5])))
        jumps = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])
        b = ppl.sample("b", dist.Categorical(logits=jumps[a]))
        return a, b

    for temperature in (0, 1):
        for _ in range(20):
            a, b = infer_discrete(model, temperature=temperature)()
            assert int(a) == int(b)


def test_a_site_with_one_value_keeps_it():
    @config_enumerate
    def model():
        with ppl.plate("n", 2):
            return ppl.sample("z", dist.Categorical(torch.ones(1)))

    assert infer_discrete(model)().tolist() == [0, 0]


def test_bad_arguments_and_structures_are_errors():
    with pytest.raises(ValueError, match=r"temperature must be 0 .* or 1"):
        infer_discrete(pair, temperature=2)
    with pytest.raises(TypeError, match="wraps a callable"):
        infer_discrete(3)

    @config_enumerate
    def crossing():
        with ppl.plate("rows", 2, dim=-2):
            a = ppl.sample("a", dist.Bernoulli(0.3))
        with ppl.plate("columns", 3, dim=-1):
            b = ppl.sample("b", dist.Bernoulli(0.6))
        with ppl.plate("rows", 2, dim=-2), ppl.plate("columns", 3, dim=-1):
            ppl.sample("x", dist.Normal(a + b, 1.0), obs=torch.zeros(2, 3))

    with pytest.raises(ValueError, match=r"(?s)'a', 'b'.*'columns', 'rows'.*sequential"):
        infer_discrete(crossing)()


def test_the_posterior_is_given_what_outer_handlers_decide():
    @config_enumerate
    def model():
        loc = ppl.sample("loc", dist.Normal(0.0, 1.0))
        with ppl.plate("n", 2):
            z = ppl.sample("z", dist.Bernoulli(0.5))
            ppl.sample("x", dist.Normal(torch.where(z == 1, loc, -loc), 0.1), obs=torch.tensor([3.0, -3.0]))
        return z

    for loc, expected in ((3.0, [1, 0]), (-3.0, [0, 1])):
        with condition(data={"loc": torch.tensor(loc)}), trace() as seen:
            assert infer_discrete(model)().tolist() == expected
        assert list(seen) == ["loc", "n", "z", "x"]
        with condition(data={"loc": torch.tensor(loc)}), ppl.plate("outer", 4, dim=-2):
            assert infer_discrete(model)().tolist() == [expected] * 4


def test_what_is_drawn_beside_the_choice_is_what_the_choice_was_made_for():
    """u explains x or z does: shown together, they must."""

    @config_enumerate
    def model():
        z = ppl.sample("z", dist.Bernoulli(0.5))
        u = ppl.sample("u", dist.Normal(0.0, 5.0))
        ppl.sample("x", dist.Normal(torch.where(z == 1, u, -u), 0.01), obs=torch.tensor(3.0))
        return z, u

    for _ in range(20):
        z, u = infer_discrete(model)()
        assert int(z) == int(u > 0)


@pytest.mark.parametrize("mark", ["parallel", "sequential"])
@pytest.mark.parametrize("temperature", [0, 1])
def test_a_draw_below_a_choice_says_nothing_about_it_and_is_shown_with_it(mark, temperature):
    """The narrow component has a density a thousand times higher; unseen, it is no likelier for that."""
    scales = torch.tensor([0.01, 10.0])

    def model():
        with ppl.plate("n", 200):
            z = ppl.sample("z", dist.Categorical(torch.tensor([0.45, 0.55])), infer={"enumerate": mark})
            x = ppl.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            y = ppl.sample("y", dist.Normal(100.0 * z, scales[z]))
        return z, x, y

    z, x, y = infer_discrete(model, temperature=temperature)()
    assert z.shape == y.shape == (200,)
    assert x.shape == (200, 2)
    assert torch.equal(y > 50, z == 1)
    assert (y[z == 0].abs() < 0.05).all()
    expected, error = (1.0, 0.0) if temperature == 0 else (0.55, 4 * math.sqrt(0.45 * 0.55 / 200))
    assert abs(z.double().mean() - expected) <= error


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("how", ["observed", "partly observed", "masked"])
def test_a_masked_place_says_nothing_about_how_many_values_it_could_have(mark, how):
    """The most probable n is 1: 0.6 · 0.9 against 0.4 where k = 0 was seen, and 0.6 against 0.4 where nothing was."""

    def model():
        n = ppl.sample("n", dist.Bernoulli(0.6), infer={"enumerate": mark})
        k = dist.Binomial(n, torch.tensor(0.1))
        marked = {"enumerate": "parallel"}
        if how == "observed":
            ppl.sample("k", k, obs=torch.tensor(0.0))
        elif how == "partly observed":
            ppl.sample("k", k, obs=torch.tensor(0.0), obs_mask=torch.tensor(True), infer=marked)
        else:
            ppl.sample("k", k.mask(torch.tensor(False)), infer=marked)

    found = trace(infer_discrete(model, temperature=0)).get_trace()
    assert found["n"].tensor.item() == 1
    if how != "masked":
        assert found["k"].tensor.item() == 0
