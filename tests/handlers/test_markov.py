"""markov marks the steps of a loop, a block or a recursion."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers


def coin(name):
    return ppl.sample(name, dist.Bernoulli(0.5))


def steps(program, *args):
    tr = handlers.trace(program).get_trace(*args)
    return {name: [(s.step, s.history) for s in site.steps] for name, site in tr.nodes.items()}


def loops(program, *args):
    tr = handlers.trace(program).get_trace(*args)
    return {name: [s.loop for s in site.steps] for name, site in tr.nodes.items()}


def test_a_loop_counts_its_steps_and_yields_its_items():
    items = []

    def model():
        coin("before")
        for t in ppl.markov("abc", history=2):
            items.append(t)
            coin(f"x_{t}")
        coin("after")

    assert steps(model) == {"before": [], "x_a": [(0, 2)], "x_b": [(1, 2)], "x_c": [(2, 2)], "after": []}
    assert items == ["a", "b", "c"]


def test_two_loops_are_two_and_nested_ones_are_listed_outermost_first():
    def model():
        for i in ppl.markov(range(2)):
            for j in ppl.markov(range(2), history=3):
                coin(f"x_{i}{j}")
        for k in ppl.markov(range(1)):
            coin(f"y_{k}")

    assert steps(model) == {
        "x_00": [(0, 1), (0, 3)],
        "x_01": [(0, 1), (1, 3)],
        "x_10": [(1, 1), (0, 3)],
        "x_11": [(1, 1), (1, 3)],
        "y_0": [(0, 1)],
    }
    found = loops(model)
    assert found["x_00"][0] == found["x_11"][0] and found["x_00"][1] == found["x_01"][1] != found["x_10"][1]
    assert found["y_0"][0] not in found["x_00"]


def test_one_object_iterated_twice_is_two_loops():
    def model():
        chain = ppl.markov(range(2))
        for t in chain:
            coin(f"x_{t}")
        for t in chain:
            coin(f"y_{t}")

    assert steps(model) == {"x_0": [(0, 1)], "x_1": [(1, 1)], "y_0": [(0, 1)], "y_1": [(1, 1)]}
    found = loops(model)
    assert found["x_0"] == found["x_1"] != found["y_0"] == found["y_1"]


def test_loops_can_run_side_by_side():
    def model():
        for s, t in zip(ppl.markov(range(2)), range(5, 7), strict=True):
            coin(f"x_{s}_{t}")

    assert steps(model) == {"x_0_5": [(0, 1)], "x_1_6": [(1, 1)]}


def test_each_entry_of_a_context_manager_is_a_step():
    def model():
        with ppl.markov() as chain:
            coin("a")
        with chain:
            coin("b")

    assert steps(model) == {"a": [(0, 1)], "b": [(1, 1)]}


@handlers.markov
def recurse(depth, name="x"):
    coin(f"{name}_{depth}_down")
    if depth:
        recurse(depth - 1, name)
    coin(f"{name}_{depth}_up")


def test_each_call_within_a_call_is_a_step_and_returning_goes_back():
    assert steps(recurse, 2) == {
        "x_2_down": [(0, 1)],
        "x_1_down": [(1, 1)],
        "x_0_down": [(2, 1)],
        "x_0_up": [(2, 1)],
        "x_1_up": [(1, 1)],
        "x_2_up": [(0, 1)],
    }
    assert len({tuple(loop) for loop in loops(recurse, 2).values()}) == 1


def test_two_calls_side_by_side_are_two_loops():
    def model():
        recurse(1, "a")
        recurse(1, "b")

    found, marks = loops(model), steps(model)
    assert found["a_0_down"] != found["b_0_down"]
    assert marks["b_1_down"] == [(0, 1)] and marks["b_0_down"] == [(1, 1)]


def test_a_decorated_function_keeps_its_count_in_many_threads_and_after_errors():
    with pytest.raises(TypeError):
        recurse("no number")
    expected = steps(recurse, 20)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(lambda _: steps(recurse, 20), range(16)))


def test_leaving_a_loop_early_or_by_an_error_ends_it():
    for _ in ppl.markov(range(3)):
        break
    assert not ppl.stack.is_running()
    with pytest.raises(ArithmeticError):
        for _ in ppl.markov(range(3)):
            raise ArithmeticError("on purpose")
    assert not ppl.stack.is_running()


def test_markov_changes_neither_draws_nor_densities():
    def model(loop):
        x = torch.tensor(0.0)
        for t in loop(range(5)):
            x = ppl.sample(f"x_{t}", dist.Normal(x, 1.0))

    ppl.set_rng_seed(1)
    plain = handlers.trace(model).get_trace(lambda items: items)
    ppl.set_rng_seed(1)
    marked = handlers.trace(model).get_trace(ppl.markov)
    assert [s.tensor.item() for s in marked.nodes.values()] == [s.tensor.item() for s in plain.nodes.values()]
    assert marked.log_prob_sum().item() == plain.log_prob_sum().item()


def test_markov_says_what_it_wants():
    with pytest.raises(TypeError, match=r"markov wraps a function or an iterable, but got int: 5"):
        ppl.markov(5)
    with pytest.raises(ValueError, match="markov: history must be a non-negative int, got -1"):
        ppl.markov(range(3), history=-1)
    with pytest.raises(TypeError, match="markov: nothing to iterate over"):
        list(ppl.markov())


def two_loops(shared):
    for i in ppl.markov(range(2)):
        for j in ppl.markov(range(2), history=2):
            ppl.sample(f"a_{i}_{j}", dist.Normal(0.0, 1.0))
    for i in shared:
        ppl.sample(f"b_{i}", dist.Normal(0.0, 1.0))


def test_two_runs_of_a_program_have_equal_steps():
    """Also with a loop made outside of it, under other loops, and in many threads."""

    def steps_of(_=None):
        record = handlers.trace(two_loops).get_trace(shared)
        return {name: site.steps for name, site in record.nodes.items()}

    shared = ppl.markov(range(3))
    first = steps_of()
    assert [s.loop for s in first["a_0_1"]] == [0, 1]
    assert [s.loop for s in first["a_1_0"]] == [0, 2]
    assert [(s.loop, s.step) for s in first["b_2"]] == [(3, 2)]
    assert steps_of() == first
    with ThreadPoolExecutor(8) as pool:
        assert all(found == first for found in pool.map(steps_of, range(40)))
    recorder = handlers.trace(two_loops)
    for _ in range(2):
        recorder(shared)
        assert {name: site.steps for name, site in recorder.trace.nodes.items()} == first


def test_a_program_in_a_program_counts_for_itself():
    inner = []

    def model():
        for i in ppl.markov(range(2)):
            with handlers.trace() as record:
                for j in ppl.markov(range(2)):
                    ppl.sample(f"z_{i}_{j}", dist.Normal(0.0, 1.0))
            inner.append({name.split("_")[2]: site.steps for name, site in record.nodes.items()})

    record = handlers.trace(model).get_trace()
    assert [[s.loop for s in site.steps] for site in record.nodes.values()] == [[0, 1], [0, 1], [0, 2], [0, 2]]
    assert [[s.loop for s in steps] for steps in inner[1].values()] == [[0, 1], [0, 1]]
