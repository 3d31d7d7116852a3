"""Running a program once for each value of its sequential sites."""

import itertools

import torch

import ppl
import ppl.distributions as dist
from ppl.handlers import trace
from ppl.infer.elbo import sequential
from ppl.tensors.factor import Factor

INFER = {"enumerate": "sequential"}


def runs(program):
    return list(sequential.runs(lambda: trace(program).get_trace(), sequential.watch()))


def test_every_combination_of_values_is_run_once():
    def program():
        ppl.sample("a", dist.Bernoulli(0.5), infer=INFER)
        ppl.sample("b", dist.Categorical(torch.ones(3)), infer=INFER)
        ppl.sample("drawn", dist.Bernoulli(0.5))

    found = runs(program)
    assert [(r.chosen["a"], r.chosen["b"]) for r in found] == list(itertools.product(range(2), range(3)))
    for r in found:
        assert r.sizes == {"a": 2, "b": 3}
        assert r.result["a"].tensor == float(r.chosen["a"]) and r.result["b"].tensor == r.chosen["b"]


def test_a_program_without_such_sites_runs_once_and_unwatched():
    calls = []

    def program():
        calls.append(1)
        ppl.sample("x", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})

    (run,) = runs(program)
    assert run.chosen == {} and run.sources == {} and len(calls) == 1


def test_branches_may_have_sites_of_their_own():
    def program():
        a = ppl.sample("a", dist.Bernoulli(0.5), infer=INFER)
        if a.item():
            ppl.sample("b", dist.Categorical(torch.ones(3)), infer=INFER)

    assert [r.chosen for r in runs(program)] == [{"a": 0}, *({"a": 1, "b": i} for i in range(3))]


def test_what_does_not_depend_on_the_choices_is_drawn_alike_in_every_run():
    def program():
        ppl.sample("before", dist.Normal(0.0, 1.0))
        a = ppl.sample("a", dist.Bernoulli(0.5), infer=INFER)
        ppl.sample("after", dist.Normal(a, 1.0))

    first, second = (r.result for r in runs(program))
    assert torch.equal(first["before"].tensor, second["before"].tensor)
    assert torch.allclose(second["after"].tensor - first["after"].tensor, torch.tensor(1.0))


def test_the_random_generator_goes_on_after_the_runs():
    def program():
        ppl.sample("a", dist.Bernoulli(0.5), infer=INFER)
        ppl.sample("x", dist.Normal(0.0, 1.0))

    one, two = runs(program), runs(program)
    assert not torch.equal(one[0].result["x"].tensor, two[0].result["x"].tensor)


def test_the_sources_of_a_site_are_the_choices_that_reach_its_density():
    def program():
        a = ppl.sample("a", dist.Bernoulli(0.5), infer=INFER)
        b = ppl.sample("b", dist.Bernoulli(0.5), infer=INFER)
        z = ppl.sample("z", dist.Normal(torch.zeros(2)[a.long()], 1.0))
        ppl.sample("from_z", dist.Normal(z, 1.0))
        ppl.sample("free", dist.Normal(0.0, 1.0))
        ppl.sample("from_b", dist.Normal(0.0, 1.0 + b), obs=torch.tensor(0.0))
        if a.item() > 2:
            pass
        ppl.sample("after_a_look", dist.Normal(0.0, 1.0))

    for run in runs(program):
        assert run.sources == {
            "a": {"a"}, "b": {"b"}, "z": {"a"}, "from_z": {"a"}, "from_b": {"b"}, "after_a_look": {"a"},
        }  # fmt: skip


def stacked(parts, sizes, sources, impossible=-torch.inf):
    return sequential.stack(parts, sizes, sources, impossible)


def scalar(x):
    return Factor((), torch.tensor(x))


def test_factors_get_an_axis_for_each_choice_that_they_depend_on():
    parts = [({"a": i}, {"a": scalar([0.1, 0.2][i]), "x": scalar([3.0, 4.0][i]), "y": scalar(7.0)}) for i in range(2)]
    found = stacked(parts, {"a": 2}, {"a": {"a"}, "x": {"a"}})
    assert found["a"].axes == found["x"].axes == ("a",) and found["y"].axes == ()
    assert found["x"].tensor.tolist() == [3.0, 4.0] and found["y"].tensor == 7.0


def test_equal_values_keep_their_axis_where_the_sources_say_so():
    parts = [({"a": i}, {"a": scalar(0.5), "x": scalar(1.0)}) for i in range(2)]
    assert stacked(parts, {"a": 2}, {"a": {"a"}, "x": {"a"}})["x"].axes == ("a",)
    assert stacked(parts, {"a": 2}, {"a": {"a"}})["x"].axes == ()


def test_a_choice_that_a_branch_does_not_have_is_certain_there():
    """Summed out, it then counts once, sequential or parallel."""
    parts = [
        ({"a": 0}, {"a": scalar(-1.0), "x": scalar(5.0)}),
        *(({"a": 1, "b": i}, {"a": scalar(-2.0), "b": scalar(-0.5), "x": scalar(float(i))}) for i in range(2)),
    ]
    found = stacked(parts, {"a": 2, "b": 2}, {"a": {"a"}, "b": {"a", "b"}, "x": {"a", "b"}})
    assert found["b"].aligned(("a", "b")).tolist() == [[0.0, -torch.inf], [-0.5, -0.5]]
    assert found["x"].aligned(("a", "b"))[1].tolist() == [0.0, 1.0]
    assert found["x"].aligned(("a", "b"))[0, 0] == 5.0

    parallel = Factor(("p",), torch.tensor([-0.1, -0.2, -0.3]))
    parts = [({"a": 0}, {"a": scalar(-1.0)}), ({"a": 1}, {"a": scalar(-2.0), "p": parallel})]
    found = stacked(parts, {"a": 2}, {"a": {"a"}, "p": {"a"}})
    assert found["p"].aligned(("a", "p")).tolist() == [[0.0, -torch.inf, -torch.inf], [-0.1, -0.2, -0.3]]
