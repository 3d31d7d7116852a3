"""enum gives each marked site its whole support on a dim of its own."""

import itertools
import string

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers

PARALLEL = {"enumerate": "parallel"}


def enumerated(program, first_available_dim=-1, *args):
    return handlers.trace(handlers.enum(program, first_available_dim=first_available_dim)).get_trace(*args)


def total(tr):
    """The log of the sum over all enumerated values, by one einsum whose letters are the enumerated sites."""
    letter = {name: string.ascii_letters[i] for i, name in enumerate(tr)}
    terms, operands = [], []
    for name, log_prob in tr.compute_log_prob().items():
        names = dict(tr[name].enum_dims)
        used = [dim for dim in range(-log_prob.dim(), 0) if log_prob.shape[dim] > 1]
        assert set(used) <= set(names), f"{name}: a dim that nobody owns"
        terms.append("".join(letter[names[dim]] for dim in used))
        operands.append(log_prob.squeeze().exp())
    return torch.einsum(",".join(terms) + "->", *operands).log().item()


def test_values_lie_on_fresh_dims_from_the_right():
    def model():
        a = ppl.sample("a", dist.Bernoulli(0.3), infer=PARALLEL)
        b = ppl.sample("b", dist.Categorical(torch.ones(3) / 3), infer=PARALLEL)
        ppl.sample("c", dist.Normal(a + b, 1.0), obs=torch.tensor(0.5))

    tr = enumerated(model)
    assert tr["a"].tensor.tolist() == [0.0, 1.0]
    assert tr["b"].tensor.tolist() == [[0], [1], [2]]
    assert tr.log_prob("c").shape == (3, 2)
    assert tr["c"].enum_dims == ((-1, "a"), (-2, "b"))


def test_enumeration_stands_left_of_the_plates():
    def model():
        with ppl.plate("rows", 2, dim=-2), ppl.plate("columns", 4, dim=-1):
            z = ppl.sample("z", dist.Bernoulli(torch.full((2, 4), 0.3)), infer=PARALLEL)
            ppl.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(2, 4))

    tr = enumerated(model, -3)
    assert tr["z"].tensor.shape == (2, 1, 1) and tr.log_prob("z").shape == (2, 2, 4)
    torch.testing.assert_close(tr.log_prob("z").exp()[1], torch.full((2, 4), 0.3))


def test_expand_gives_values_of_the_full_batch():
    def model():
        with ppl.plate("data", 4):
            ppl.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel", "expand": True})

    assert enumerated(model, -2)["z"].tensor.tolist() == [[0.0] * 4, [1.0] * 4]


def test_event_dims_of_a_support_stay_on_the_right():
    def model():
        with ppl.plate("data", 2):
            ppl.sample("z", dist.OneHotCategorical(torch.ones(3) / 3), infer=PARALLEL)

    tr = enumerated(model, -2)
    assert tr["z"].tensor.shape == (3, 1, 3)
    assert torch.equal(tr["z"].tensor.squeeze(1), torch.eye(3))
    assert tr.log_prob("z").shape == (3, 2)


def test_the_sum_over_all_values_is_one_without_data():
    def model():
        a = ppl.sample("a", dist.Bernoulli(0.3), infer=PARALLEL)
        b = ppl.sample("b", dist.Bernoulli(0.2 + 0.5 * a), infer=PARALLEL)
        ppl.sample("c", dist.Bernoulli(0.1 + 0.3 * a + 0.4 * b), infer=PARALLEL)

    tr = enumerated(model)
    assert tr.log_prob("c").shape == (2, 2, 2)
    assert total(tr) == pytest.approx(0.0, abs=1e-12)


def test_unmarked_observed_and_decided_sites_are_left_alone():
    def model():
        ppl.sample("free", dist.Bernoulli(0.5))
        ppl.sample("seen", dist.Bernoulli(0.5), obs=torch.tensor(1.0), infer=PARALLEL)
        ppl.sample("set", dist.Bernoulli(0.5), infer=PARALLEL)
        ppl.sample("one by one", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})

    tr = enumerated(handlers.substitute(model, data={"set": torch.tensor(1.0)}))
    assert all(site.tensor.shape == () for site in tr.nodes.values())


def test_each_run_starts_with_all_dims_free():
    def model():
        return ppl.sample("z", dist.Bernoulli(0.5), infer=PARALLEL)

    wrapped = handlers.enum(model, first_available_dim=-1)
    assert [tuple(wrapped().shape) for _ in range(3)] == [(2,)] * 3
    h = handlers.enum(first_available_dim=-1)
    for _ in range(2):
        with h:
            assert model().shape == (2,)


# -- markov

INIT = torch.tensor([0.5, 0.3, 0.2])
MOVE = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]])
SPOKEN = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])


def hmm(length, obs=None):
    probs = INIT
    for t in ppl.markov(range(length)):
        z = ppl.sample(f"z_{t}", dist.Categorical(probs), infer=PARALLEL)
        ppl.sample(f"x_{t}", dist.Categorical(SPOKEN[z]), obs=None if obs is None else obs[t])
        probs = MOVE[z]


def forward_algorithm(obs):
    alpha = INIT * SPOKEN[:, obs[0]]
    for x in obs[1:]:
        alpha = (alpha @ MOVE) * SPOKEN[:, x]
    return alpha.sum().log().item()


def test_dims_are_used_again_so_that_a_hundred_steps_need_two():
    obs = torch.arange(100) % 2
    tr = enumerated(hmm, -1, 100, obs)
    dims = {dim for site in tr.nodes.values() for dim, _ in site.enum_dims}
    assert dims == {-1, -2}
    assert max(site.tensor.dim() for site in tr.nodes.values()) == 2
    assert all(len(site.enum_dims) <= 2 for site in tr.nodes.values())
    assert {tr.log_prob(f"z_{t}").numel() for t in range(1, 100)} == {9}


@pytest.mark.parametrize("length", [1, 2, 3, 8])
def test_the_sum_over_a_chain_is_the_forward_algorithms(length):
    obs = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])[:length]
    assert total(enumerated(hmm, -1, length, obs)) == pytest.approx(forward_algorithm(obs), rel=1e-10)


def test_a_longer_history_keeps_more_dims():
    def second_order(length):
        before, last = torch.tensor(0), torch.tensor(0)
        for t in ppl.markov(range(length), history=2):
            p = 0.1 + 0.3 * before + 0.5 * last
            before, last = last, ppl.sample(f"z_{t}", dist.Bernoulli(p), infer=PARALLEL)

    tr = enumerated(second_order, -1, 30)
    assert {dim for site in tr.nodes.values() for dim, _ in site.enum_dims} == {-1, -2, -3}
    assert {tr.log_prob(f"z_{t}").shape.numel() for t in range(2, 30)} == {8}
    assert total(enumerated(second_order, -1, 6)) == pytest.approx(0.0, abs=1e-12)


def test_independent_steps_share_one_dim():
    def steps():
        for t in ppl.markov(range(50), history=0):
            ppl.sample(f"z_{t}", dist.Bernoulli(0.5), infer=PARALLEL)

    tr = enumerated(steps)
    assert {dim for site in tr.nodes.values() for dim, _ in site.enum_dims} == {-1}


def test_a_site_before_the_loop_keeps_its_dim():
    def switching():
        s = ppl.sample("s", dist.Bernoulli(0.4), infer=PARALLEL)
        z = torch.tensor(0.0)
        for t in ppl.markov(range(10)):
            z = ppl.sample(f"z_{t}", dist.Bernoulli(0.2 + 0.3 * z + 0.4 * s), infer=PARALLEL)

    tr = enumerated(switching)
    assert all((-1, "s") in site.enum_dims for site in tr.nodes.values())
    assert {dim for site in tr.nodes.values() for dim, _ in site.enum_dims} == {-1, -2, -3}
    assert total(tr) == pytest.approx(0.0, abs=1e-12)


def test_the_last_step_can_still_be_looked_at_after_the_loop():
    def model():
        z = torch.tensor(0.0)
        for t in ppl.markov(range(4)):
            z = ppl.sample(f"z_{t}", dist.Bernoulli(0.2 + 0.5 * z), infer=PARALLEL)
        end = ppl.sample("end", dist.Bernoulli(0.5), infer=PARALLEL)
        ppl.sample("x", dist.Bernoulli(0.1 + 0.4 * z + 0.4 * end), obs=torch.tensor(1.0))

    p = 0.0
    for path in itertools.product((0, 1), repeat=5):
        weight, before = 1.0, 0
        for z in path[:4]:
            one = 0.2 + 0.5 * before
            weight, before = weight * (one if z else 1 - one), z
        p += weight * 0.5 * (0.1 + 0.4 * path[3] + 0.4 * path[4])
    assert total(enumerated(model)) == pytest.approx(torch.tensor(p).log().item(), rel=1e-10)


# -- bad input


def test_enumerating_a_continuous_site_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"site 'x'.*Normal cannot be enumerated.*Remove infer="):
        enumerated(lambda: ppl.sample("x", dist.Normal(0.0, 1.0), infer=PARALLEL))
    with pytest.raises(ValueError, match=r"site 'n'.*Poisson cannot be enumerated"):
        enumerated(lambda: ppl.sample("n", dist.Poisson(1.0), infer=PARALLEL))


def test_too_many_sites_at_once_are_told_of_markov():
    def model():
        for i in range(70):
            ppl.sample(f"z_{i}", dist.Bernoulli(0.5), infer=PARALLEL)

    with pytest.raises(ValueError, match=r"64 sites are enumerated at once.*ppl\.markov"):
        enumerated(model)


@pytest.mark.parametrize("bad", [None, 0, 2])
def test_the_first_dim_must_be_negative(bad):
    with pytest.raises(ValueError, match=r"handlers\.enum: first_available_dim must be a negative int left of all"):
        handlers.enum(hmm, first_available_dim=bad)


def test_a_plate_on_an_enumeration_dim_is_named():
    def model():
        with ppl.plate("data", 2):
            ppl.sample("z", dist.Bernoulli(0.5), infer=PARALLEL)

    with pytest.raises(ValueError, match=r"site 'z'.*plate 'data' uses dim -1, but enumeration starts at dim -1"):
        enumerated(model)
