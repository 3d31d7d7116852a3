"""Eliminations within a limit of memory: what they give is what they give without one, and they hold what they promise."""

import pytest
import torch

from ppl.tensors.chunks import Query, Shape, TooLarge, choose_within, eliminate_within, need, plan
from ppl.tensors.elimination import Intractable
from ppl.tensors.factor import Factor, add
from ppl.tensors.live_bytes import LiveBytes
from ppl.tensors.semiring import maximum

SIZES = {"a": 3, "b": 4, "c": 5, "d": 6, "P": 7, "Q": 6, "R": 5}
PLATES = frozenset("PQR")

# name: the factors' axes, and the plates of each variable
STRUCTURES = {
    "one plate": (["Pab", "Pbc", "Pca"], {"a": "P", "b": "P", "c": "P"}),
    "a global variable": (["a", "aPb", "Pbc", "Pca"], {"a": "", "b": "P", "c": "P"}),
    "nested plates": (["a", "aPb", "bPQc", "aPQcd"], {"a": "", "b": "P", "c": "PQ", "d": "PQ"}),
    "three deep": (["aPb", "bPQc", "aPQRcd", "PQRd"], {"a": "", "b": "P", "c": "PQ", "d": "PQR"}),
    "siblings": (["a", "aPbc", "Pcb", "aQd", "Qd"], {"a": "", "b": "P", "c": "P", "d": "Q"}),
    "crossing": (["aPb", "aQd", "bPQc", "aPQc"], {"a": "", "b": "P", "c": "PQ", "d": "Q"}),
}


def build(name, impossible=0.0):
    factors, home = STRUCTURES[name]
    made = []
    for axes in factors:
        tensor = torch.randn([SIZES[axis] for axis in axes])
        tensor = tensor.masked_fill(torch.rand_like(tensor) < impossible, -torch.inf)
        made.append(Factor(tuple(axes), tensor.requires_grad_()))
    return made, Query(tuple((v, frozenset(p)) for v, p in home.items()), PLATES)


def smallest_limit(factors, query):
    """By bisection: one byte less is refused."""
    shapes = tuple(map(Shape.of, factors))
    low, high = 0, need(shapes, query).both
    while high - low > 1:
        middle = (low + high) // 2
        try:
            plan(shapes, query, middle)
            high = middle
        except TooLarge:
            low = middle
    return high


def limits(factors, query):
    most, least = need(tuple(map(Shape.of, factors)), query).both, smallest_limit(factors, query)
    assert least < most
    return [least, least + (most - least) // 4, most - 1]


@pytest.mark.parametrize("impossible", [0.0, 0.2])
@pytest.mark.parametrize("name", list(STRUCTURES))
def test_values_and_gradients_are_those_without_a_limit(name, impossible):
    factors, query = build(name, impossible)
    leaves = [f.tensor for f in factors]
    expected = add(query(factors)).tensor
    gradients = torch.autograd.grad(expected, leaves)
    for limit in limits(factors, query):
        assert plan(tuple(map(Shape.of, factors)), query, limit) is not None
        value = add(eliminate_within(limit, factors, query)).tensor
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
        for got, wanted in zip(torch.autograd.grad(value, leaves), gradients, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_no_more_bytes_are_alive_than_the_limit(name):
    factors, query = build(name)
    leaves = [f.tensor for f in factors]
    for limit in limits(factors, query):
        plan(tuple(map(Shape.of, factors)), query, limit)
        with LiveBytes() as counted:
            value = add(eliminate_within(limit, factors, query)).tensor
            gradients = torch.autograd.grad(value, leaves)
        assert counted.peak_without(gradients) <= 1.05 * limit + 256  # scalars: the sum and its slope


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_the_rehearsal_counts_what_the_real_run_holds(name):
    factors, query = build(name)
    expected = need(tuple(map(Shape.of, factors)), query)
    with LiveBytes() as counted, torch.no_grad():
        kept = query(factors)
    assert counted.peak == expected.forward
    del kept
    with LiveBytes() as counted:
        value = add(query(factors)).tensor
        gradients = torch.autograd.grad(value, [f.tensor for f in factors])
    assert counted.peak_without(gradients) == pytest.approx(expected.both, rel=0.05, abs=256)


def test_second_derivatives():
    factors, query = build("a global variable")
    leaves = [f.tensor for f in factors]

    def second(limit):
        value = add(eliminate_within(limit, factors, query)).tensor
        first = torch.autograd.grad(value, leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)

    for got, wanted in zip(second(smallest_limit(factors, query)), second(10**9), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


def test_under_vmap_and_func_grad():
    factors, query = build("nested plates")
    shapes = [f.tensor.shape for f in factors]
    batch = [torch.randn(3, *shape) for shape in shapes]
    limit = smallest_limit(factors, query)

    def value(limit, *tensors):
        made = [Factor(f.axes, t) for f, t in zip(factors, tensors, strict=True)]
        return add(eliminate_within(limit, made, query)).tensor

    def by_row(limit):
        return torch.func.vmap(torch.func.grad(lambda *t: value(limit, *t), argnums=tuple(range(len(shapes)))))(*batch)

    for got, wanted in zip(by_row(limit), by_row(10**9), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_the_best_values_are_those_without_a_limit(name):
    factors, query = build(name)
    factors = [Factor(f.axes, f.tensor.detach()) for f in factors]
    query = Query(query.variables, PLATES, reduction=maximum, choose=lambda w: w.argmax(-1))

    def best(limit):
        chunks = plan(tuple(map(Shape.of, factors)), query, limit)
        return choose_within(factors, query, chunks)

    whole, sliced = best(10**9), best(smallest_limit(factors, query))
    assert whole.keys() == sliced.keys()
    for variable, f in whole.items():
        assert torch.equal(f.tensor, sliced[variable].aligned(f.axes))


def test_kept_plates_and_carried_axes_stay():
    factors, _ = build("nested plates")
    inner = factors[1:]
    query = Query(
        (("c", frozenset("PQ")), ("d", frozenset("PQ"))),
        PLATES,
        frozenset("P"),
        (("a", frozenset()), ("b", frozenset("P"))),
    )
    (whole,) = [add(query(inner))]
    for limit in limits(inner, query):
        sliced = add(eliminate_within(limit, inner, query))
        assert set(sliced.axes) == set(whole.axes) == {"P", "a", "b"}
        torch.testing.assert_close(sliced.aligned(whole.axes), whole.tensor, rtol=1e-12, atol=1e-12)


def test_what_fits_in_no_way_names_what_is_needed():
    factors, query = build("nested plates")
    with pytest.raises(TooLarge) as error:
        eliminate_within(100, factors, query)
    assert error.value.limit == 100 < error.value.needed
    assert error.value.plates and error.value.variables
    with pytest.raises(TooLarge):
        eliminate_within(error.value.needed // 4, factors, query)


def test_an_intractable_structure_is_refused_first():
    factors = [Factor(tuple(f), torch.randn([SIZES[axis] for axis in f])) for f in ("Pa", "Qb", "aPQb")]
    with pytest.raises(Intractable) as error:
        eliminate_within(10, factors, Query((("a", frozenset("P")), ("b", frozenset("Q"))), PLATES))
    assert error.value.variables == {"a", "b"}


def test_chunks_are_few():
    """A slice has as many elements as fit: the next larger number of elements does not."""
    factors, query = build("one plate")
    shapes = tuple(map(Shape.of, factors))
    limit = need(shapes, query).both // 2
    chunks = plan(shapes, query, limit)
    assert chunks.plate == "P" and 2 <= chunks.count == -(-SIZES["P"] // chunks.size) < SIZES["P"]
    larger = tuple(s.cut("P", chunks.size + 1) for s in shapes)
    assert need(larger, query.within("P")).every > limit - 100
