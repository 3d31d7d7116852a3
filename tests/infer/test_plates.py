"""Plates in all arrangements, against programs without any: loops, summed over all joint values one by one."""

from __future__ import annotations

import itertools

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.distributions import constraints
from ppl.infer import SVI, Trace_ELBO, TraceEnum_ELBO, infer_discrete

PARALLEL = {"enumerate": "parallel"}
START = torch.tensor([0.6, 0.4])
MOVE = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
BOTH = torch.tensor([[[0.9, 0.1], [0.5, 0.5]], [[0.3, 0.7], [0.2, 0.8]]])


def nothing(*args):
    pass


def evidence(model, names, *args):
    """The log of the sum over all joint values of two-valued sites."""
    found = []
    for values in itertools.product((0, 1), repeat=len(names)):
        data = {name: torch.tensor(v) for name, v in zip(names, values, strict=True)}
        found.append(handlers.trace(handlers.condition(model, data=data)).get_trace(*args).log_prob_sum())
    return torch.stack(found).logsumexp(0).item()


def assert_evidence(model, expected, *args, **options):
    assert TraceEnum_ELBO(**options).loss(model, nothing, *args) == pytest.approx(-expected, abs=1e-10)


def z(name, probs, mark="parallel"):
    return ppl.sample(name, dist.Categorical(probs), infer={"enumerate": mark})


# -- nested


def branches(x, value):
    """The log density of a tree of data below a site's value: what five nested plates say, written as a recursion."""
    if x.dim() == 0:
        return dist.Normal(2.0 * value, 1.0).log_prob(x)
    total = torch.zeros(())
    for row in x:
        total = total + torch.stack([MOVE[value, z].log() + branches(row, z) for z in range(2)]).logsumexp(0)
    return total


def nested(x, how):
    """A choice in every plate, each below that of the plate around, data below the innermost."""

    def inside(depth, value):
        if depth == x.dim():
            return ppl.sample("x", dist.Normal(2.0 * value, 1.0), obs=x.permute(*reversed(range(x.dim()))))
        with ppl.plate(f"p{depth}", x.size(depth), dim=-1 - depth if how == "dims" else None):
            return inside(depth + 1, z(f"z{depth}", MOVE[value]))

    inside(0, z("top", START))


@pytest.mark.parametrize("how", ["found", "dims"])
@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_plates_nest_to_any_depth(depth, how):
    x = torch.randn([2, 3, 2, 1, 2][:depth])
    expected = torch.stack([START[v].log() + branches(x, v) for v in range(2)]).logsumexp(0).item()
    assert_evidence(nested, expected, x, how)
    assert_evidence(nested, expected, x, how, max_plate_nesting=depth)
    assert_evidence(nested, expected, x, how, max_plate_nesting=depth + 2)
    if depth > 1:
        with pytest.raises(ValueError, match=f"give at least {depth}"):
            assert_evidence(nested, expected, x, how, max_plate_nesting=depth - 1)


def test_a_stack_of_plates_is_their_nest():
    x = torch.randn(2, 3)

    def model():
        top = z("top", START)
        with ppl.plate_stack("p", (2, 3)):
            ppl.sample("x", dist.Normal(2.0 * z("z", MOVE[top]), 1.0), obs=x)

    inner = torch.stack([MOVE[:, v].log()[:, None, None] + dist.Normal(2.0 * v, 1.0).log_prob(x) for v in range(2)])
    expected = (START.log() + inner.logsumexp(0).sum((-1, -2))).logsumexp(0).item()
    assert_evidence(model, expected)


# -- overlapping


def overlapping(x, order, how):
    """Sites under i, under j, and under both, in either order; local choices in each."""

    def plates():
        if how == "shared":
            return i, j
        return ppl.plate("i", 2, dim=-2), ppl.plate("j", 2, dim=-1)  # made anew wherever they are needed

    i, j = ppl.plate("i", 2, dim=-2), ppl.plate("j", 2, dim=-1)
    with plates()[0]:
        a = z("a", START)
    with plates()[1]:
        ppl.sample("y", dist.Normal(0.5, 1.0), obs=x[0])
    first, second = plates() if order == "ij" else reversed(plates())
    with first, second:
        b = z("b", MOVE[a])
    first, second = reversed(plates()) if order == "ij" else plates()
    with first, second:
        ppl.sample("x", dist.Normal(2.0 * b, 1.0), obs=x)


@pytest.mark.parametrize("how", ["shared", "anew"])
@pytest.mark.parametrize("order", ["ij", "ji"])
def test_overlapping_plates_may_be_entered_in_either_order(order, how):
    x = torch.randn(2, 2)

    def loops():
        for j in range(2):
            ppl.sample(f"y{j}", dist.Normal(0.5, 1.0), obs=x[0, j])
        for i in range(2):
            a = z(f"a{i}", START)
            for j in range(2):
                b = z(f"b{i}{j}", MOVE[a])
                ppl.sample(f"x{i}{j}", dist.Normal(2.0 * b, 1.0), obs=x[i, j])

    names = ["a0", "a1", "b00", "b01", "b10", "b11"]
    assert_evidence(overlapping, evidence(loops, names), x, order, how)


def test_helpers_make_plates_of_their_own():
    """A function that is called at two depths finds free dims at both."""
    x = torch.randn(3)

    def rows(name, value):
        plate = ppl.plate(f"{name}_rows", 3)
        with plate:
            leaf = z(f"{name}_leaf", MOVE[value])
            data = x.reshape((3,) + (1,) * (-1 - plate.frame.dim))
            ppl.sample(f"{name}_x", dist.Normal(2.0 * leaf, 1.0), obs=data)

    def model():
        rows("outer", z("a", START))
        with ppl.plate("groups", 2):
            rows("inner", z("b", START))

    below = torch.stack([MOVE[:, v].log()[:, None] + dist.Normal(2.0 * v, 1.0).log_prob(x) for v in range(2)])
    one = (START.log() + below.logsumexp(0).sum(-1)).logsumexp(0).item()
    assert_evidence(model, 3 * one)


# -- loops and dims together


@pytest.mark.parametrize("mark", ["parallel", "sequential"])
@pytest.mark.parametrize("outer", [True, False])
def test_loops_and_dims_nest_both_ways(outer, mark):
    """Choices shared by a row and by a column at once: with one of the plates as a loop, they can be summed."""
    x = torch.randn(2, 2)

    def loops():
        row = [z(f"row{i}", START) for i in range(2)]
        column = [z(f"column{j}", START) for j in range(2)]
        for i in range(2):
            for j in range(2):
                cell = z(f"cell{i}{j}", BOTH[row[i], column[j]])
                ppl.sample(f"x{i}{j}", dist.Normal(2.0 * cell, 1.0), obs=x[i, j])

    def model():
        columns = ppl.plate("columns", 2, dim=-1)
        with columns:
            column = z("column", START)
        for i in ppl.plate("rows", 2):
            row = z(f"row{i}", START, mark)
            with columns:
                cell = z(f"cell{i}", ppl.vindex(BOTH, (row, column, slice(None))))
                ppl.sample(f"x{i}", dist.Normal(2.0 * cell, 1.0), obs=x[i])

    def turned():  # the loop inside the dim
        rows = [z(f"row{i}", START, mark) for i in range(2)]
        with ppl.plate("columns", 2, dim=-1):
            column = z("column", START)
            for i in ppl.plate("rows", 2):
                cell = z(f"cell{i}", ppl.vindex(BOTH, (rows[i], column, slice(None))))
                ppl.sample(f"x{i}", dist.Normal(2.0 * cell, 1.0), obs=x[i])

    names = ["row0", "row1", "column0", "column1", "cell00", "cell01", "cell10", "cell11"]
    assert_evidence(model if outer else turned, evidence(loops, names))


# -- ragged


@pytest.mark.parametrize("mark", ["parallel", "sequential"])
def test_ragged_groups_are_padded_and_masked(mark):
    """Groups of 3, 1 and 2 members, each member with a choice; the padding is NaN and adds nothing."""
    sizes = torch.tensor([3, 1, 2])
    seen = torch.arange(3).unsqueeze(-1) < sizes
    x = torch.randn(3, 3).masked_fill(~seen, torch.nan)
    move = MOVE.clone().requires_grad_()

    def model():
        with ppl.plate("groups", 3, dim=-1):
            g = z("g", START)
            with ppl.plate("members", 3, dim=-2), handlers.mask(mask=seen):
                m = z("m", move[g], mark)
                ppl.sample("x", dist.Normal(2.0 * m, 1.0), obs=x)

    expected = torch.zeros(())
    for i, size in enumerate(sizes.tolist()):
        rows = x[:size, i]
        inner = torch.stack([move[:, v].log()[:, None] + dist.Normal(2.0 * v, 1.0).log_prob(rows) for v in range(2)])
        normal = move.sum(-1).log() * size
        expected = expected + (START.log() + inner.logsumexp(0).sum(-1) - normal).logsumexp(0)
    loss = TraceEnum_ELBO()(model, nothing)
    assert torch.allclose(-loss, expected, atol=1e-10, rtol=0)
    ours, theirs = torch.autograd.grad(-loss, move)[0], torch.autograd.grad(expected, move)[0]
    assert torch.allclose(ours, theirs, atol=1e-10, rtol=0)


# -- subsamples


def members(x, size):
    with (
        ppl.plate("groups", 3, subsample_size=2, dim=-1) as i,
        ppl.plate("members", 4, subsample_size=size, dim=-2) as j,
    ):
        m = z("m", START)
        ppl.sample("x", dist.Normal(2.0 * m, 1.0), obs=x[j][:, i])


@pytest.mark.parametrize("size", [1, 3])
def test_scales_of_nested_subsamples_multiply_and_the_bound_is_unbiased(size):
    x = torch.randn(4, 3)
    each = torch.stack([START[v].log() + dist.Normal(2.0 * v, 1.0).log_prob(x) for v in range(2)]).logsumexp(0)
    objective, seen = TraceEnum_ELBO(), {}
    for _ in range(60):
        loss = objective.loss(members, nothing, x, size)
        model, _ = objective.last_traces
        i, j = model["groups"].tensor, model["members"].tensor
        assert loss == pytest.approx(-(3 / 2) * (4 / size) * each[j][:, i].sum().item(), abs=1e-10)
        seen[tuple(sorted(i.tolist())), tuple(sorted(j.tolist()))] = -loss
    if len(seen) == 12:  # all parts: their mean is the whole
        assert sum(seen.values()) / 12 == pytest.approx(each.sum().item(), abs=1e-9)


@pytest.mark.parametrize("dims", [(-1, -2), (-2, -1), (None, None)])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("enumerated", [False, True])
def test_model_and_guide_see_one_subsample_whatever_their_order_of_plates(turned, dims, enumerated):
    """Square plates, where a mistaken dim would go unnoticed; the exact bound of the part seen, with its gradients."""
    x, table = torch.randn(5, 5), torch.randn(5, 5, requires_grad=True)

    def model():
        with ppl.plate("i", 5, subsample_size=3) as i, ppl.plate("j", 5, subsample_size=3) as j:
            if enumerated:
                m = ppl.sample("m", dist.Bernoulli(0.3), infer=PARALLEL)
            else:
                m = ppl.sample("m", dist.Normal(0.0, 1.0))
            ppl.sample("x", dist.Normal(2.0 * m, 1.0), obs=x[i][:, j].T)

    def guide():
        i, j = ppl.plate("i", 5, 3, dim=dims[0]), ppl.plate("j", 5, 3, dim=dims[1])
        with j if turned else i, i if turned else j:
            logits = table[i.indices][:, j.indices]
            logits = logits if i.frame.dim < j.frame.dim else logits.T
            if enumerated:
                ppl.sample("m", dist.Bernoulli(logits=logits), infer=PARALLEL)
            else:
                ppl.sample("m", dist.Delta(logits, log_density=logits))

    objective = TraceEnum_ELBO()
    for _ in range(3):
        loss = objective(model, guide)
        model_trace, guide_trace = objective.last_traces
        i, j = model_trace["i"].tensor, model_trace["j"].tensor
        assert torch.equal(guide_trace["i"].tensor, i) and torch.equal(guide_trace["j"].tensor, j)
        part, data = table[i][:, j], x[i][:, j]
        if enumerated:
            q = torch.sigmoid(part)
            bound = q * (torch.tensor(0.3).log() + dist.Normal(2.0, 1.0).log_prob(data) - q.log())
            bound = bound + (1 - q) * (torch.tensor(0.7).log() + dist.Normal(0.0, 1.0).log_prob(data) - (1 - q).log())
        else:
            bound = dist.Normal(0.0, 1.0).log_prob(part) + dist.Normal(2.0 * part, 1.0).log_prob(data) - part
        exact = 25 / 9 * bound.sum()
        assert torch.allclose(-loss, exact, atol=1e-10, rtol=0)
        ours, theirs = torch.autograd.grad(-loss, table)[0], torch.autograd.grad(exact, table)[0]
        assert torch.allclose(ours, theirs, atol=1e-10, rtol=0)


def test_drawn_values_go_to_the_dims_that_the_plates_have_in_the_model():
    """Three plates in three orders, values with event dims among them."""

    def program(order, check=None):
        def run():
            with plates[order[0]], plates[order[1]], plates[order[2]]:
                return ppl.sample("v", dist.Normal(torch.zeros(2), 1.0).to_event(1))

        plates = {name: ppl.plate(name, 3) for name in "abc"}
        value = run()
        at = {name: plates[name].frame.dim - 1 for name in "abc"}
        return value.permute([value.dim() + at[name] for name in "abc"] + [3])

    for one, other in itertools.permutations(list(itertools.permutations("abc")), 2):
        recorded = handlers.trace(program).get_trace(one)
        assert torch.equal(handlers.replay(program, recorded)(other), recorded.returned)


def test_plate_objects_may_be_shared_by_model_and_guide():
    x = torch.tensor([0.3, -1.2, 1.7])
    rows = ppl.plate("rows", 3)

    def model():
        with rows:
            m = ppl.sample("m", dist.Categorical(START), infer=PARALLEL)
        with rows:
            ppl.sample("x", dist.Normal(2.0 * m, 1.0), obs=x)

    def guide():
        with rows:
            q = ppl.param("q", torch.ones(3, 2) / 2, constraint=constraints.simplex)
            ppl.sample("m", dist.Categorical(q), infer=PARALLEL)

    table = START.log() + dist.Normal(torch.tensor([0.0, 2.0]), 1.0).log_prob(x.unsqueeze(-1))
    assert TraceEnum_ELBO().loss(model, guide) == pytest.approx(-(table + torch.tensor(2.0).log()).sum().item() / 2)
    svi = SVI(model, guide, ppl.optim.Adam({"lr": 0.1}), TraceEnum_ELBO())
    svi.run(300)
    assert torch.allclose(svi.params["q"], table.softmax(-1), atol=0.02)
    assert TraceEnum_ELBO().loss(model, nothing) == pytest.approx(-table.logsumexp(-1).sum().item(), abs=1e-10)


def test_a_subsampled_loop_has_its_choices_and_its_scale():
    x = torch.randn(4)

    def model():
        for i in ppl.plate("rows", 4, subsample_size=2):
            m = z(f"m{i}", START)
            ppl.sample(f"x{i}", dist.Normal(2.0 * m, 1.0), obs=x[i])

    each = torch.stack([START[v].log() + dist.Normal(2.0 * v, 1.0).log_prob(x) for v in range(2)]).logsumexp(0)
    objective = TraceEnum_ELBO()
    for _ in range(10):  # each time with other sites
        loss = objective.loss(model, nothing)
        rows = objective.last_traces[0]["rows"].tensor
        assert loss == pytest.approx(-2 * each[rows].sum().item(), abs=1e-10)


def test_particles_stand_left_of_plates_in_any_order():
    """Vectorised, with values that are moved between dims."""
    x = torch.randn(3, 3)

    def model():
        with ppl.plate("i", 3), ppl.plate("j", 3):
            m = ppl.sample("m", dist.Normal(0.0, 1.0))
            ppl.sample("x", dist.Normal(m, 1.0), obs=x.T)

    def guide():
        with ppl.plate("j", 3), ppl.plate("i", 3):
            ppl.sample("m", dist.Delta(x, log_density=0.0))

    exact = (dist.Normal(0.0, 1.0).log_prob(x) + dist.Normal(x, 1.0).log_prob(x)).sum().item()
    for objective in (Trace_ELBO, TraceEnum_ELBO):
        for vectorised in (False, True):
            loss = objective(num_particles=4, vectorize_particles=vectorised).loss(model, guide)
            assert loss == pytest.approx(-exact, abs=1e-10)


# -- partly observed


@pytest.mark.parametrize("mark", ["parallel", "sequential"])
def test_hidden_entries_of_a_site_over_two_plates_are_summed(mark):
    """What is hidden has a common parent and children of its own."""
    values = torch.tensor([[0, 1], [1, 0]])
    seen = torch.tensor([[True, False], [False, True]])
    x = torch.randn(2, 2)

    def model():
        with ppl.plate("i", 2, dim=-2):
            a = z("a", START)
            with ppl.plate("j", 2, dim=-1):
                b = ppl.sample("b", dist.Categorical(MOVE[a]), obs=values, obs_mask=seen, infer={"enumerate": mark})
                ppl.sample("x", dist.Normal(2.0 * b, 1.0), obs=x)

    def loops():
        for i in range(2):
            a = z(f"a{i}", START)
            for j in range(2):
                d = dist.Categorical(MOVE[a])
                b = ppl.sample(f"b{i}{j}", d, obs=values[i, j] if seen[i, j] else None)
                ppl.sample(f"x{i}{j}", dist.Normal(2.0 * b, 1.0), obs=x[i, j])

    assert_evidence(model, evidence(loops, ["a0", "a1", "b01", "b10"]))
    best = handlers.trace(infer_discrete(model, temperature=0)).get_trace()
    assert torch.equal(best["b"].tensor[seen], values[seen])
    scores = {}
    for values_of in itertools.product((0, 1), repeat=4):
        data = dict(zip(["a0", "a1", "b01", "b10"], map(torch.tensor, values_of), strict=True))
        scores[values_of] = handlers.trace(handlers.condition(loops, data=data)).get_trace().log_prob_sum().item()
    found = (*best["a"].tensor.flatten().tolist(), int(best["b"].tensor[0, 1]), int(best["b"].tensor[1, 0]))
    assert found == max(scores, key=scores.__getitem__)
