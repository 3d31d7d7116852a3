"""Chains whose dims are used again: exact all the same."""

from __future__ import annotations

import itertools

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.infer import TraceEnum_ELBO, infer_discrete

START = torch.tensor([0.6, 0.4])
MOVE = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
MOVE2 = torch.tensor([[[0.9, 0.1], [0.5, 0.5]], [[0.3, 0.7], [0.2, 0.8]]])
PARALLEL = {"enumerate": "parallel"}


def nothing(*args):
    pass


def chain(x):
    z = None
    for t in ppl.markov(range(len(x))):
        z = ppl.sample(f"z_{t}", dist.Categorical(START if z is None else MOVE[z]), infer=PARALLEL)
        ppl.sample(f"x_{t}", dist.Normal(2.0 * z, 1.0), obs=x[t])


def long_memory(x):
    before, z = None, None
    for t in ppl.markov(range(len(x)), history=2):
        probs = START if z is None else MOVE[z] if before is None else MOVE2[before, z]
        before, z = z, ppl.sample(f"z_{t}", dist.Categorical(probs), infer=PARALLEL)
        ppl.sample(f"x_{t}", dist.Normal(2.0 * z, 1.0), obs=x[t])


def joint(x, history):
    """The log density of every path: brute force."""
    paths = {}
    for path in itertools.product((0, 1), repeat=len(x)):
        total = START[path[0]].log()
        for t in range(1, len(x)):
            two = history == 2 and t > 1
            total = total + (MOVE2[path[t - 2], path[t - 1]] if two else MOVE[path[t - 1]])[path[t]].log()
        paths[path] = total + dist.Normal(2.0 * torch.tensor(path), 1.0).log_prob(x).sum()
    return paths


@pytest.mark.parametrize(("model", "history"), [(chain, 1), (long_memory, 2)])
def test_the_evidence_of_a_chain_is_that_of_all_its_paths(model, history):
    x = torch.randn(7) + 1
    exact = torch.stack(list(joint(x, history).values())).logsumexp(0)
    assert TraceEnum_ELBO().loss(model, nothing, x) == pytest.approx(-exact.item(), abs=1e-10)


@pytest.mark.parametrize(("model", "history"), [(chain, 1), (long_memory, 2)])
def test_the_best_path_and_the_posterior_of_paths_are_exact(model, history):
    x = torch.randn(5) + 1
    paths = joint(x, history)
    names = [f"z_{t}" for t in range(5)]

    def draw(temperature):
        trace = handlers.trace(infer_discrete(model, temperature=temperature)).get_trace(x)
        return tuple(int(trace[name].tensor) for name in names)

    assert draw(0) == max(paths, key=lambda path: paths[path])
    count = 400
    drawn = [draw(1) for _ in range(count)]
    probs = torch.stack(list(paths.values())).softmax(0)
    for path, p in zip(paths, probs.tolist(), strict=True):
        assert abs(drawn.count(path) / count - p) < 4 * (p * (1 - p) / count) ** 0.5 + 1 / count


def test_a_chain_may_be_longer_than_a_tensor_has_dims():
    """Independent steps: the evidence is a sum."""
    x = torch.randn(100)

    def model():
        for t in ppl.markov(range(100)):
            z = ppl.sample(f"z_{t}", dist.Categorical(START), infer=PARALLEL)
            ppl.sample(f"x_{t}", dist.Normal(2.0 * z, 1.0), obs=x[t])

    log_probs = START.log() + dist.Normal(torch.tensor([0.0, 2.0]), 1.0).log_prob(x[:, None])
    assert TraceEnum_ELBO().loss(model, nothing) == pytest.approx(-log_probs.logsumexp(-1).sum().item(), abs=1e-10)


# -- guides with chains


def steps_of(x, history, backwards=False):
    order = range(len(x))
    return ppl.markov(reversed(order) if backwards else order, history=history)


def chain_guide(tables, backwards=False, expand=False):
    """Each step depends on those before it in the guide's own order."""
    history = len(tables) - 1

    def guide(x):
        past = []
        for t in steps_of(x, history, backwards):
            table = tables[len(past)]
            probs = ppl.vindex(table.softmax(-1), (t, *past, slice(None)))
            options = {"enumerate": "parallel", "expand": expand}
            z = ppl.sample(f"z_{t}", dist.Categorical(probs), infer=options)
            past = [*past, z][-history:] if history else []

    return guide


def log_q(tables, path, backwards=False):
    total, past, history = torch.zeros(()), [], len(tables) - 1
    for t in reversed(range(len(path))) if backwards else range(len(path)):
        total = total + tables[len(past)].log_softmax(-1)[(t, *past, path[t])]
        past = [*past, path[t]][-history:] if history else []
    return total


@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("model", "history"), [(chain, 1), (long_memory, 2)])
@pytest.mark.parametrize("own", [0, 1, 2])
def test_a_chain_in_the_guide_gives_the_exact_bound(model, history, own, backwards, expand):
    """Also where the guide looks back less far than the model: then it has no more dims than it can share."""
    x = torch.randn(6)
    tables = [torch.randn(6, *(2,) * (i + 1), requires_grad=True) for i in range(own + 1)]
    exact = torch.zeros(())
    for path, log_p in joint(x, history).items():
        q = log_q(tables, path, backwards)
        exact = exact + q.exp() * (log_p - q)
    if own < history:
        with pytest.raises(
            ValueError, match=r"enumerated on one dim in turn in the guide's markov loop.*with one history"
        ):
            TraceEnum_ELBO()(model, chain_guide(tables, backwards, expand), x)
        return
    loss = TraceEnum_ELBO()(model, chain_guide(tables, backwards, expand), x)
    assert torch.allclose(-loss, exact, atol=1e-10, rtol=0)
    ours, theirs = torch.autograd.grad(-loss, tables), torch.autograd.grad(exact, tables)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-10, rtol=0)


def test_a_plain_range_in_the_guide_goes_with_markov_in_the_model():
    x, table = torch.randn(4), torch.randn(4, 2)

    def guide(x):
        for t in range(len(x)):
            ppl.sample(f"z_{t}", dist.Categorical(logits=table[t]), infer=PARALLEL)

    exact = sum(q.exp() * (p - q) for path, p in joint(x, 1).items() for q in [log_q([table], path)])
    assert TraceEnum_ELBO().loss(chain, guide, x) == pytest.approx(-exact.item(), abs=1e-10)


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_a_guide_may_have_a_long_chain_in_a_plate_beside_sites_that_the_model_sums(where):
    """Eighty steps; the model's own choices at each step, and one before the loop, are summed within."""
    length = 80
    x, table = torch.randn(length, 3), torch.randn(length, 2)
    flip = torch.tensor([0.9, 0.6])

    def model():
        top = ppl.sample("top", dist.Categorical(START), infer=PARALLEL)
        groups = ppl.plate("groups", 3)
        z = None

        def step(t, z):
            z = ppl.sample(f"z_{t}", dist.Categorical(START if z is None else MOVE[z]), infer=PARALLEL)
            w = ppl.sample(f"w_{t}", dist.Bernoulli(flip[z]), infer=PARALLEL)
            ppl.sample(f"x_{t}", dist.Normal(w + z + top, 1.0), obs=x[t])
            return z

        if where == "outside":
            with groups:
                for t in ppl.markov(range(length)):
                    z = step(t, z)
        else:
            for t in ppl.markov(range(length)):
                with groups:
                    z = step(t, z)

    def guide():
        ppl.sample("top", dist.Categorical(START), infer=PARALLEL)
        for t in ppl.markov(range(length)):
            with ppl.plate("groups", 3):
                ppl.sample(f"z_{t}", dist.Categorical(logits=table[t]), infer=PARALLEL)

    log_q = table.log_softmax(-1)  # independent steps: expectations factor
    q = log_q.exp()
    exact = -3 * (q * log_q).sum() + 3 * (q[0] * START.log()).sum()
    for t in range(1, length):
        exact = exact + 3 * (q[t - 1].unsqueeze(-1) * q[t] * MOVE.log()).sum()
    w = torch.tensor([0.0, 1.0])
    log_w = torch.stack([1 - flip, flip], -1).log()  # (z, w)
    for top in range(2):
        for z in range(2):
            inner = log_w[z] + dist.Normal(w + z + top, 1.0).log_prob(x.unsqueeze(-1))
            exact = exact + START[top] * (q[:, z, None] * inner.logsumexp(-1)).sum()
    assert TraceEnum_ELBO().loss(model, guide) == pytest.approx(-exact.item(), abs=1e-9)


def test_a_draw_of_the_guide_may_stand_before_the_choice_that_it_was_made_for():
    """In the guide y_t depends on z_t, in the model z_t on y_t; y is drawn without noise."""
    x = torch.tensor([0.3, -0.8, 1.2])

    def guide():
        for t in ppl.markov(range(3)):
            z = ppl.sample(f"z_{t}", dist.Categorical(START), infer=PARALLEL)
            ppl.sample(f"y_{t}", dist.Delta(0.7 * z + 0.1))

    def model():
        z = None
        for t in ppl.markov(range(3)):
            y = ppl.sample(f"y_{t}", dist.Normal(0.0, 1.0))
            chances = torch.sigmoid(y + (0.0 if z is None else z))
            z = ppl.sample(f"z_{t}", dist.Bernoulli(chances), infer=PARALLEL).to(x.dtype)
            ppl.sample(f"x_{t}", dist.Normal(y, 1.0), obs=x[t])

    total = torch.zeros(())
    for path in itertools.product((0, 1), repeat=3):
        z = torch.tensor(path, dtype=x.dtype)
        y = 0.7 * z + 0.1
        before = torch.cat([torch.zeros(1), z[:-1]])
        log_p = dist.Normal(0.0, 1.0).log_prob(y) + dist.Normal(y, 1.0).log_prob(x)
        log_p = log_p + dist.Bernoulli(torch.sigmoid(y + before)).log_prob(z)
        log_q = START[list(path)].log()
        total = total + log_q.sum().exp() * (log_p - log_q).sum()
    assert TraceEnum_ELBO().loss(model, guide) == pytest.approx(-total.item(), abs=1e-10)


# -- loops in loops, plates in loops


def brute(model, names, *args):
    """The log densities of all joint values of some two-valued sites."""
    found = []
    for values in itertools.product((0, 1), repeat=len(names)):
        data = {name: torch.tensor(v) for name, v in zip(names, values, strict=True)}
        found.append(handlers.trace(handlers.condition(model, data=data)).get_trace(*args).log_prob_sum())
    return torch.stack(found).logsumexp(0)


def grid(rows, columns, x, history):
    """A lattice, each site depending on its left neighbour and, with history, on the one above."""
    above = [None] * columns
    for i in ppl.markov(range(rows), history=history):
        left = None
        for j in ppl.markov(range(columns), history=columns if history else 1):
            probs = START if left is None else MOVE[left]
            if history and above[j] is not None:
                probs = ppl.vindex(MOVE2, (above[j], left if left is not None else 0, slice(None)))
            left = ppl.sample(f"z_{i}_{j}", dist.Categorical(probs), infer=PARALLEL)
            above[j] = left
            ppl.sample(f"x_{i}_{j}", dist.Normal(2.0 * left, 1.0), obs=x[i, j])


@pytest.mark.parametrize("history", [0, 1])
def test_a_loop_in_a_loop_equals_brute_force(history):
    x = torch.randn(3, 3)
    names = [f"z_{i}_{j}" for i in range(3) for j in range(3)]
    expected = brute(grid, names, 3, 3, x, history).item()
    assert TraceEnum_ELBO().loss(grid, nothing, 3, 3, x, history) == pytest.approx(-expected, abs=1e-10)


def test_a_hundred_sequences_one_after_the_other_share_their_dims():
    x = torch.randn(100, 3)
    expected = sum(brute(chain, ["z_0", "z_1", "z_2"], row).item() for row in x)

    def model():
        for i in ppl.markov(range(100), history=0):
            with handlers.scope(prefix=f"row_{i}"):
                chain(x[i])

    assert TraceEnum_ELBO().loss(model, nothing) == pytest.approx(-expected, abs=1e-9)


def test_a_plate_in_a_loop_may_be_entered_again_in_each_step():
    """A global chain with local sites below it in a plate, entered twice a step; brute force over all sites."""
    x = torch.randn(3, 2)

    def model(split):
        z, places = None, ppl.plate("places", 2)
        for t in ppl.markov(range(3)):
            z = ppl.sample(f"z_{t}", dist.Categorical(START if z is None else MOVE[z]), infer=PARALLEL)
            if split:  # as loops, for brute force
                for i in range(2):
                    w = ppl.sample(f"w_{t}_{i}", dist.Categorical(MOVE[z]))
                    ppl.sample(f"x_{t}_{i}", dist.Normal(2.0 * w, 1.0), obs=x[t, i])
                continue
            with places:
                w = ppl.sample(f"w_{t}", dist.Categorical(MOVE[z]), infer=PARALLEL)
            with places:
                ppl.sample(f"x_{t}", dist.Normal(2.0 * w, 1.0), obs=x[t])

    names = [f"z_{t}" for t in range(3)] + [f"w_{t}_{i}" for t in range(3) for i in range(2)]
    expected = brute(model, names, True).item()
    assert TraceEnum_ELBO().loss(model, nothing, False) == pytest.approx(-expected, abs=1e-10)


@pytest.mark.parametrize("how", ["mask", "stop"])
def test_sequences_of_many_lengths_in_one_plate(how):
    """Padded data: masked where they have ended, or with a plate that shrinks; each row equals the chain by itself."""
    lengths, x = torch.tensor([5, 4, 2, 1]), torch.randn(4, 5)
    expected = sum(
        brute(chain, [f"z_{t}" for t in range(n)], row[:n]).item() for row, n in zip(x, lengths, strict=True)
    )

    def masked():
        with ppl.plate("rows", 4):
            z = None
            for t in ppl.markov(range(5)):
                with handlers.mask(mask=t < lengths):
                    z = ppl.sample(f"z_{t}", dist.Categorical(START if z is None else MOVE[z]), infer=PARALLEL)
                    ppl.sample(f"x_{t}", dist.Normal(2.0 * z, 1.0), obs=x[:, t].masked_fill(t >= lengths, torch.nan))

    def stopped():
        for i in ppl.plate("rows", 4):
            z = None
            for t in ppl.markov(range(int(lengths[i]))):
                z = ppl.sample(f"z_{i}_{t}", dist.Categorical(START if z is None else MOVE[z]), infer=PARALLEL)
                ppl.sample(f"x_{i}_{t}", dist.Normal(2.0 * z, 1.0), obs=x[i, t])

    model = masked if how == "mask" else stopped
    assert TraceEnum_ELBO().loss(model, nothing) == pytest.approx(-expected, abs=1e-10)


# -- what markov cannot know


def test_looking_further_back_than_said_is_an_error_that_names_the_sites():
    def model():
        past = []
        for t in ppl.markov(range(5)):
            probs = MOVE[past[-1]] if past else START
            past.append(ppl.sample(f"z_{t}", dist.Categorical(probs), infer=PARALLEL))
            ppl.sample(f"x_{t}", dist.Normal(2.0 * past[max(0, t - 2)], 1.0), obs=torch.tensor(0.3))

    with pytest.raises(ValueError, match=r"'x_2' was computed from the enumerated sites \['z_0'\].*longer history"):
        TraceEnum_ELBO().loss(model, nothing)


def tree(history):
    """Each node has two below it, whose statements stand behind one another's."""

    def node(path, depth, probs):
        z = ppl.sample(f"z{path}", dist.Categorical(probs), infer=PARALLEL)
        ppl.sample(f"x{path}", dist.Normal(2.0 * z, 1.0), obs=torch.tensor(0.1 * len(path) - 0.4))
        for side in "lr" if depth else "":
            called(path + side, depth - 1, MOVE[z])

    called = ppl.markov(node, history=history)
    return called


@pytest.mark.parametrize(("depth", "history"), [(1, 1), (2, 2)])
def test_a_tree_by_recursion_equals_brute_force(depth, history):
    paths = [p for n in range(depth + 1) for p in map("".join, itertools.product("lr", repeat=n))]
    expected = brute(tree(history), [f"z{p}" for p in paths], "", depth, START).item()
    assert TraceEnum_ELBO().loss(tree(history), nothing, "", depth, START) == pytest.approx(-expected, abs=1e-10)


def test_a_value_whose_dim_an_inner_call_took_over_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"'zr' stands behind an inner call.*site 'z' or 'zll'.*history"):
        TraceEnum_ELBO().loss(tree(1), nothing, "", 2, START)
