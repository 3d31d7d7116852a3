"""plate: independent repetitions, along a dim or in a loop."""

import pytest
import scipy.stats
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.distributions.subsample import draw_distinct

DATA = torch.arange(6.0)


def normal(name, mean=0.0, **options):
    return ppl.sample(name, dist.Normal(mean, 1.0), **options)


def dims(program):
    tr = handlers.trace(program).get_trace()
    return {name: {f.name: f.dim for f in site.plates} for name, site in tr.nodes.items() if site.kind == "sample"}


# -- dims


def test_nested_plates_take_the_free_dims_from_the_right():
    def model():
        with ppl.plate("a", 2):
            normal("x")
            with ppl.plate("b", 3):
                normal("y")
                with ppl.plate("c", 4):
                    normal("z")
        with ppl.plate("d", 5):
            normal("w")

    assert dims(model) == {
        "x": {"a": -1},
        "y": {"a": -1, "b": -2},
        "z": {"a": -1, "b": -2, "c": -3},
        "w": {"d": -1},
    }
    tr = handlers.trace(model).get_trace()
    assert tr["z"].tensor.shape == (4, 3, 2) and len(set(tr["z"].tensor.flatten().tolist())) == 24


def test_explicit_dims_are_kept_and_free_ones_filled():
    def model():
        with ppl.plate("a", 2, dim=-2):
            normal("w")
            with ppl.plate("b", 3):
                normal("x")
                with ppl.plate("c", 4):
                    normal("y")

    assert dims(model)["y"] == {"a": -2, "b": -1, "c": -3}
    tr = handlers.trace(model).get_trace()
    assert [tuple(tr[n].tensor.shape) for n in "wxy"] == [(2, 1), (2, 3), (4, 2, 3)]


def test_a_plate_can_be_entered_again_on_the_same_dim():
    def model():
        a, b = ppl.plate("a", 2, dim=-2), ppl.plate("b", 3, dim=-1)
        with a:
            x = normal("x")
        with b:
            y = normal("y")
        with a, b:
            normal("z", x + y)

    tr = handlers.trace(model).get_trace()
    assert tr["z"].tensor.shape == (2, 3)
    assert list(tr) == ["a", "x", "b", "y", "z"]


def test_two_plates_on_one_dim_are_an_error_that_names_both():
    def model():
        with ppl.plate("a", 2, dim=-1), ppl.plate("b", 3, dim=-1):
            normal("x")

    with pytest.raises(ValueError, match=r"plates 'b' and 'a' both use dim -1.*plate\('b', 3, dim=-2\)"):
        model()
    assert not ppl.stack.is_running()


def test_a_plate_inside_itself_is_an_error():
    p = ppl.plate("p", 2)
    with pytest.raises(ValueError, match=r"plates 'p' and 'p' both use dim -1"), p, p:
        pass
    twice = ppl.plate("p", 2)(ppl.plate("p", 2)(lambda: normal("x")))
    with pytest.raises(ValueError, match=r"site 'x'.*two plates named 'p' stand inside each other"):
        twice()


def test_a_plate_of_the_same_name_in_a_scope_is_another():
    def model():
        with ppl.plate("p", 2), handlers.scope(prefix="in"), ppl.plate("p", 3):
            normal("x")

    assert dims(model) == {"in/x": {"p": -1, "in/p": -2}}


def test_plate_stack_puts_the_last_size_rightmost():
    with handlers.trace() as tr, ppl.plate_stack("p", [4, 3, 2]) as indices:
        normal("x")
    assert tr["x"].tensor.shape == (4, 3, 2)
    assert [len(i) for i in indices] == [2, 3, 4]
    with handlers.trace() as tr, ppl.plate_stack("p", [4, 3], rightmost_dim=-2):
        normal("x")
    assert tr["x"].tensor.shape == (4, 3, 1)


# -- what it means


def test_a_plate_draws_independent_values_and_adds_their_densities():
    def model():
        with ppl.plate("data", 6) as indices:
            assert indices.tolist() == [0, 1, 2, 3, 4, 5]
            normal("x", obs=DATA)
            return normal("z")

    tr = handlers.trace(model).get_trace()
    assert len(set(tr.returned.tolist())) == 6
    assert tr.log_prob("x").tolist() == pytest.approx(list(scipy.stats.norm.logpdf(DATA.numpy())))


def test_params_and_deterministic_sites_are_not_repeated():
    def model():
        with ppl.plate("data", 6):
            return ppl.param("w", torch.tensor(1.0)), ppl.deterministic("d", torch.tensor(2.0))

    tr = handlers.trace(model).get_trace()
    assert [value.shape for value in tr.returned] == [(), ()]
    assert tr["d"].plates[0].name == "data"


@pytest.mark.parametrize("wrap", ["with", "call", "decorator"])
def test_a_plate_works_in_all_three_ways(wrap):
    def inside():
        return normal("x", obs=DATA)

    def model():
        if wrap == "with":
            with ppl.plate("data", 6):
                inside()
        elif wrap == "call":
            ppl.plate("data", 6)(inside)()
        else:

            @ppl.plate("data", 6)
            def decorated():
                return inside()

            decorated()

    assert handlers.trace(model).get_trace().log_prob("x").shape == (6,)


def test_sites_of_many_dtypes_expand():
    with ppl.plate("data", 3):
        assert ppl.sample("a", dist.Categorical(torch.ones(2))).shape == (3,)
        assert ppl.sample("b", dist.Dirichlet(torch.ones(4))).shape == (3, 4)
        assert ppl.sample("c", dist.Delta(torch.tensor(2.0))).tolist() == [2.0] * 3
        assert ppl.sample("d", dist.MultivariateNormal(torch.zeros(2), torch.eye(2))).shape == (3, 2)


def test_an_empty_plate_has_no_draws_and_density_zero():
    def model():
        with ppl.plate("nobody", 0):
            return normal("x")

    tr = handlers.trace(model).get_trace()
    assert tr.returned.shape == (0,) and tr.log_prob_sum().item() == 0.0


# -- subsampling


def test_subsampled_densities_are_scaled_to_the_whole():
    def model():
        with ppl.plate("data", 6, subsample_size=2) as indices:
            normal("x", obs=DATA[indices])
        return indices

    tr = handlers.trace(model).get_trace()
    assert tr["x"].scale == 3.0
    expected = 3 * scipy.stats.norm.logpdf(DATA[tr.returned].numpy()).sum()
    assert tr.log_prob_sum().item() == pytest.approx(expected, rel=1e-12)


def test_the_subsampled_density_is_unbiased():
    def model():
        with ppl.plate("data", 6, subsample_size=2) as indices:
            normal("x", obs=DATA[indices])

    draws = torch.stack([handlers.trace(model).get_trace().log_prob_sum() for _ in range(400)])
    whole = scipy.stats.norm.logpdf(DATA.numpy()).sum()
    assert abs(draws.mean().item() - whole) < 4 * draws.std().item() / 20


def test_indices_are_different_in_range_and_drawn_anew_in_each_run():
    def indices():
        with ppl.plate("data", 20, subsample_size=5) as chosen:
            return tuple(chosen.tolist())

    runs = [indices() for _ in range(20)]
    assert all(len(set(run)) == 5 and min(run) >= 0 and max(run) < 20 for run in runs)
    assert len(set(runs)) > 15
    assert set().union(*runs) == set(range(20))


def test_a_wrapped_plate_draws_anew_in_each_call_too():
    wrapped = ppl.plate("data", 1000, subsample_size=1)(lambda: ppl.subsample(torch.arange(1000.0), event_dim=0))
    assert len({wrapped().item() for _ in range(10)}) > 5


def test_a_plate_that_has_been_entered_starts_afresh_where_it_wraps():
    p = ppl.plate("data", 1000, subsample_size=5)
    with ppl.plate("outer", 2), p as entered:
        pass
    wrapped = p(lambda: normal("x"))
    tr = handlers.trace(wrapped).get_trace()
    assert not torch.equal(tr["data"].tensor, entered)
    assert tr["x"].plates[0].dim == -1


def test_given_indices_are_used_and_scaled():
    def model():
        with ppl.plate("data", 6, subsample=torch.tensor([4, 1])) as indices:
            normal("x", obs=DATA[indices])

    tr = handlers.trace(model).get_trace()
    assert tr["data"].tensor.tolist() == [4, 1] and tr["x"].scale == 3.0


def test_an_entered_again_plate_has_the_same_indices():
    def model():
        p = ppl.plate("data", 100, subsample_size=3)
        with p as first:
            normal("x")
        with p as second:
            normal("y")
        return first, second, p.indices

    first, second, third = handlers.trace(model).get_trace().returned
    assert torch.equal(first, second) and torch.equal(first, third)


def test_scales_of_nested_subsampled_plates_multiply():
    def model():
        with ppl.plate("a", 6, subsample_size=2), ppl.plate("b", 20, subsample_size=4):
            normal("x")

    assert handlers.trace(model).get_trace()["x"].scale == 15.0


def test_params_with_event_dim_are_subsampled_and_gradients_reach_the_whole():
    def model():
        with ppl.plate("data", 4, subsample=torch.tensor([2, 0])):
            w = ppl.param("w", torch.arange(4.0), event_dim=0)
            v = ppl.param("v", torch.zeros(4, 3), event_dim=1)
            shared = ppl.param("shared", torch.zeros(4))
        return w, v, shared

    w, v, shared = model()
    assert w.tolist() == [2.0, 0.0] and v.shape == (2, 3) and shared.shape == (4,)
    (gradient,) = torch.autograd.grad(w.sum(), ppl.get_param_store().unconstrained("w"))
    assert gradient.tolist() == [1.0, 0.0, 1.0, 0.0]


# -- loops


def test_a_sequential_plate_is_a_loop_with_the_vectorised_density():
    def vectorised():
        with ppl.plate("data", 6):
            normal("x", obs=DATA)

    def sequential():
        for i in ppl.plate("data", 6):
            normal(f"x_{i}", obs=DATA[i])

    one, other = handlers.trace(vectorised).get_trace(), handlers.trace(sequential).get_trace()
    assert other.log_prob_sum().item() == pytest.approx(one.log_prob_sum().item(), rel=1e-12)
    assert [(f.name, f.dim, f.index) for f in other["x_3"].plates] == [("data", None, 3)]


def test_a_subsampled_loop_is_scaled_like_a_subsampled_dim():
    def model():
        seen = []
        for i in ppl.plate("data", 6, subsample_size=2):
            seen.append(i)
            normal(f"x_{i}", obs=DATA[i])
        return seen

    tr = handlers.trace(model).get_trace()
    assert len(set(tr.returned)) == 2
    assert {tr[f"x_{i}"].scale for i in tr.returned} == {3.0}
    assert all(isinstance(i, int) for i in tr.returned)


def test_loops_and_dims_nest_both_ways():
    def model():
        for i in ppl.plate("loop", 2):
            with ppl.plate("data", 3):
                normal(f"x_{i}")
        with ppl.plate("outer", 4):
            for j in ppl.plate("inner", 2):
                normal(f"y_{j}")

    tr = handlers.trace(model).get_trace()
    assert tr["x_1"].tensor.shape == (3,) and tr["y_0"].tensor.shape == (4,)
    assert [(f.name, f.index) for f in tr["x_1"].plates] == [("loop", 1), ("data", None)]
    assert [(f.name, f.index) for f in tr["y_0"].plates] == [("outer", None), ("inner", 0)]


def test_breaking_out_of_a_loop_leaves_it():
    for i in ppl.plate("loop", 3):
        assert ppl.stack.is_running()
        if i == 1:
            break
    assert not ppl.stack.is_running()


def test_an_error_in_a_loop_leaves_it():
    with pytest.raises(ArithmeticError):
        for _ in ppl.plate("loop", 3):
            raise ArithmeticError("on purpose")
    assert not ppl.stack.is_running()


def test_a_program_left_inside_a_loop_leaves_it():
    def model():
        for i in ppl.plate("loop", 3):
            normal(f"x_{i}")

    with pytest.raises(handlers.NonlocalExit):
        handlers.escape(model, escape_fn=lambda site: site.name == "x_1")()
    assert not ppl.stack.is_running()


# -- bad input


@pytest.mark.parametrize("size", [-1, 2.0, "3", None, True, torch.tensor(3)])
def test_a_size_must_be_a_count(size):
    with pytest.raises(ValueError, match=r"plate 'p': size must be a non-negative int.*write len\(data\)"):
        ppl.plate("p", size)


@pytest.mark.parametrize("dim", [0, 1, -1.0])
def test_a_dim_must_be_negative(dim):
    with pytest.raises(ValueError, match="plate 'p': dim must be a negative int, counted from the right"):
        ppl.plate("p", 3, dim=dim)


@pytest.mark.parametrize("count", [0, -1, 4, 1.5])
def test_a_subsample_size_must_fit(count):
    with pytest.raises(ValueError, match="plate 'p': subsample_size must be an int from 1 to size 3"):
        ppl.plate("p", 3, subsample_size=count)


@pytest.mark.parametrize("indices", [[0, 3], [-1, 0]])
def test_indices_out_of_range_are_named(indices):
    with pytest.raises(
        ValueError, match=r"plate 'p': subsample indices must lie in 0 to 2, but got \[(3|-1)\] \(1 of 2"
    ):
        ppl.plate("p", 3, subsample=torch.tensor(indices))


@pytest.mark.parametrize("indices", [[0, 1], torch.tensor([0.0, 1.0]), torch.tensor([[0, 1]]), torch.tensor(1)])
def test_indices_must_be_a_vector_of_ints(indices):
    with pytest.raises(ValueError, match="plate 'p': subsample must be a one-dimensional tensor of ints, got"):
        ppl.plate("p", 3, subsample=indices)


def test_indices_and_a_size_that_contradicts_them_are_refused():
    with pytest.raises(ValueError, match="plate 'p': subsample_size is 1, but subsample has 2 indices; give one"):
        ppl.plate("p", 3, subsample=torch.tensor([0, 1]), subsample_size=1)


def test_a_tensor_of_another_size_than_the_plate_is_named_with_both_sizes():
    with pytest.raises(ValueError, match=r"site 'x'.*plate 'p' has size 3 at dim -1.*batch shape \(4,\) has size 4"):
        ppl.plate("p", 3)(lambda: normal("x", torch.zeros(4)))()
    with pytest.raises(ValueError, match=r"site 'x' \(in plates p\[3\]\): obs does not fit.*\(4,\)"):
        ppl.plate("p", 3)(lambda: normal("x", obs=torch.zeros(4)))()


def test_a_small_part_of_a_large_plate_is_drawn_uniformly():
    """Ordered pairs of different indices, and single ones, each as often as the others."""
    torch.manual_seed(0)
    size, count, runs = 40, 5, 4000
    drawn = torch.stack([draw_distinct(size, count) for _ in range(runs)])
    assert (drawn.sort(-1).values.diff(dim=-1) > 0).all() and drawn.min() == 0 and drawn.max() == size - 1
    for position in range(count):
        frequency = drawn[:, position].bincount(minlength=size) / runs
        assert ((frequency - 1 / size).abs() < 4.5 * (1 / size / runs) ** 0.5).all()
    low = ((drawn[:, 0] < 4) & (drawn[:, 1] < 4)).double().mean()  # both of one tenth
    expected = 4 * 3 / (size * (size - 1))
    assert abs(low - expected) < 4 * (expected / runs) ** 0.5


def test_subsamples_of_very_large_plates():
    with ppl.plate("data", 10**12, subsample_size=1000) as indices:
        assert indices.unique().numel() == 1000 and indices.max() > 10**11
