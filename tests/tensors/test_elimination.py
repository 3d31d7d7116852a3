"""Variable elimination against sums over the joint, written as loops over plates and values."""

import itertools

import pytest
import torch

from ppl.tensors.elimination import Intractable, backtrack, components, contract, eliminate
from ppl.tensors.factor import Factor, add
from ppl.tensors.semiring import log_sum_exp, maximum

SIZES = {"a": 2, "b": 3, "c": 2, "d": 2, "P": 2, "Q": 2, "R": 3}
PLATES = frozenset("PQR")


def factor(*axes, impossible=0.0):
    tensor = torch.randn([SIZES[axis] for axis in axes])
    if impossible:
        tensor = tensor.masked_fill(torch.rand_like(tensor) < impossible, -torch.inf)
    return Factor(axes, tensor.requires_grad_())


def joint(factors, home):
    """Log weights of every joint value of all copies of all variables, and those copies.

    A copy is a variable at one place in its plates.
    """
    copies = [
        (v, dict(zip(sorted(plates), place, strict=True)))
        for v, plates in home.items()
        for place in itertools.product(*(range(SIZES[p]) for p in sorted(plates)))
    ]
    keys = [(v, tuple(sorted(place.items()))) for v, place in copies]
    cells = list(itertools.product(*(range(SIZES[v]) for v, _ in copies)))
    weights = []
    for cell in cells:
        value = dict(zip(keys, cell, strict=True))
        total = torch.zeros(())
        for f in factors:
            own = [axis for axis in f.axes if axis in PLATES]
            for place in itertools.product(*(range(SIZES[p]) for p in own)):
                here = dict(zip(own, place, strict=True))
                index = tuple(
                    here[axis]
                    if axis in PLATES
                    else value[axis, tuple(sorted((p, i) for p, i in here.items() if p in home[axis]))]
                    for axis in f.axes
                )
                total = total + f.tensor[index]
        weights.append(total)
    return torch.stack(weights), cells, keys


# name: the factors' axes, and the plates of each variable
TRACTABLE = {
    "one variable": (["a"], {"a": ""}),
    "a chain": (["a", "ab", "bc"], {"a": "", "b": "", "c": ""}),
    "a loop": (["ab", "bc", "ca"], {"a": "", "b": "", "c": ""}),
    "two components and a constant": (["a", "b", ""], {"a": "", "b": ""}),
    "a local variable": (["Pa", "Pa"], {"a": "P"}),
    "a global and a local variable": (["a", "aPb", "Pb"], {"a": "", "b": "P"}),
    "nested plates": (["a", "aPb", "bPQc", "PQc"], {"a": "", "b": "P", "c": "PQ"}),
    "nested plates, the middle one empty": (["a", "aPQc", "PQ"], {"a": "", "c": "PQ"}),
    "overlapping plates": (["a", "aPb", "aQc", "bP", "cQ"], {"a": "", "b": "P", "c": "Q"}),
    "overlapping plates with data in both": (["a", "aPb", "aPQ"], {"a": "", "b": "P"}),
    "a variable in the crossing of two plates": (["a", "aPQb"], {"a": "", "b": "PQ"}),
    "a dead end": (["aPb", "P", "bP"], {"a": "", "b": "P"}),
}


def build(name, impossible=0.0):
    factors, home = TRACTABLE[name]
    return [factor(*f, impossible=impossible) for f in factors], {v: frozenset(p) for v, p in home.items()}


@pytest.mark.parametrize("impossible", [0.0, 0.25])
@pytest.mark.parametrize("name", list(TRACTABLE))
def test_the_sum_and_its_gradient_equal_those_over_the_joint(name, impossible):
    factors, home = build(name, impossible)
    result = eliminate(factors, home, PLATES)
    assert not any(f.axes for f in result)
    ours = add(result).tensor
    weights, _, _ = joint(factors, home)
    theirs = log_sum_exp(weights, [0])
    assert torch.allclose(ours, theirs, atol=1e-10, rtol=0)
    leaves = [f.tensor for f in factors]
    for mine, true in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True):
        assert mine.isfinite().all()
        if theirs.isinf():  # nothing is possible: there is no gradient to compare
            continue
        assert torch.allclose(mine, true, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", list(TRACTABLE))
def test_the_gradient_equals_finite_differences(name):
    factors, home = build(name)

    def value(*tensors):
        given = [Factor(f.axes, t) for f, t in zip(factors, tensors, strict=True)]
        return add(eliminate(given, home, PLATES)).tensor

    assert torch.autograd.gradcheck(value, [f.tensor for f in factors])


@pytest.mark.parametrize("name", list(TRACTABLE))
def test_the_maximum_equals_that_over_the_joint(name):
    factors, home = build(name)
    ours = add(eliminate(factors, home, PLATES, reduction=maximum)).tensor
    assert torch.allclose(ours, joint(factors, home)[0].max(), atol=1e-10, rtol=0)


def chosen_cell(chosen, keys):
    """The values that a backtrack chose, in the order of the joint's copies."""
    cell = []
    for variable, place in keys:
        f = chosen[variable]
        here = dict(place)
        cell.append(int(f.tensor[tuple(here[axis] for axis in f.axes)]))
    return tuple(cell)


@pytest.mark.parametrize("name", list(TRACTABLE))
def test_going_back_from_a_maximum_finds_the_best_joint_value(name):
    factors, home = build(name)
    tape = []
    eliminate(factors, home, PLATES, reduction=maximum, tape=tape)
    chosen = backtrack(tape, lambda w: w.argmax(-1))
    weights, cells, keys = joint(factors, home)
    assert chosen_cell(chosen, keys) == cells[int(weights.argmax())]


@pytest.mark.parametrize("name", ["a loop", "a global and a local variable", "overlapping plates"])
def test_going_back_from_a_sum_draws_from_the_joint(name):
    factors, home = build(name)
    tape = []
    eliminate(factors, home, PLATES, tape=tape)
    weights, cells, keys = joint(factors, home)
    probs = weights.softmax(0).detach()
    counts = dict.fromkeys(cells, 0)
    n = 600

    def draw(log_weights):
        return torch.distributions.Categorical(logits=log_weights.detach()).sample()

    for _ in range(n):
        counts[chosen_cell(backtrack(tape, draw), keys)] += 1
    found = torch.tensor([counts[cell] / n for cell in cells])
    assert ((found - probs).abs() <= 4 * (probs * (1 - probs) / n).sqrt() + 1 / n).all()


def test_plates_to_keep_stay_as_axes():
    factors, home = build("nested plates")
    local = [f for f in factors if "P" in f.axes]
    kept = add(
        eliminate(local, {v: home[v] for v in ("b", "c")}, PLATES, keep=frozenset("P"), carried={"a": frozenset()})
    )
    assert set(kept.axes) == {"P", "a"}
    whole = torch.logsumexp(factors[0].tensor + kept.aligned(("P", "a")).sum(0), 0)
    assert torch.allclose(whole, log_sum_exp(joint(factors, home)[0], [0]), atol=1e-10)


def test_a_carried_axis_keeps_its_plates():
    factors, home = build("a global and a local variable")
    (result,) = eliminate([factors[2], factor("P")], {}, PLATES, carried={"b": home["b"]})[:1]
    assert set(result.axes) == {"P", "b"}


@pytest.mark.parametrize(
    ("factors", "home", "stuck"),
    [
        (["Pa", "Qb", "aPQb"], {"a": "P", "b": "Q"}, {"a", "b"}),
        (["Pa", "Qb", "aPQc", "bPQc"], {"a": "P", "b": "Q", "c": "PQ"}, {"a", "b"}),
        (["a", "aPb", "aQc", "bPQRc"], {"a": "", "b": "P", "c": "Q"}, {"b", "c"}),
    ],
)
def test_variables_of_two_plates_that_meet_in_both_are_intractable(factors, home, stuck):
    with pytest.raises(Intractable) as error:
        eliminate([factor(*f) for f in factors], {v: frozenset(p) for v, p in home.items()}, PLATES)
    assert error.value.variables == stuck
    assert error.value.plates >= {"P", "Q"}


def test_components_are_those_linked_by_the_given_axes():
    factors = [factor(*f) for f in ("ab", "c", "bd", "P", "Pc", "a")]
    groups = [{f.axes for f in group} for group in components(factors, "abcd")]
    expected = [{("a", "b"), ("b", "d"), ("a",)}, {("c",), ("P", "c")}, {("P",)}]
    assert len(groups) == 3 and all(group in groups for group in expected)


def test_contraction_equals_einsum():
    factors = [factor(*f) for f in ("ab", "bc", "cP", "Pd", "da")]
    result = contract(factors, ["a", "b", "c"])
    expected = torch.einsum("ab,bc,cP,Pd,da->Pd", *(f.tensor.exp() for f in factors)).log()
    assert torch.allclose(result.aligned(("P", "d")), expected, atol=1e-10)


def test_many_variables_are_summed_in_a_good_order():
    """A chain of 60 variables: its joint has 2⁶⁰ values."""
    names = [f"v{i}" for i in range(60)]
    tables = [torch.randn(2, 2) for _ in names[1:]]
    factors = [Factor((a, b), t) for a, b, t in zip(names, names[1:], tables, strict=False)]
    (result,) = eliminate(factors, dict.fromkeys(names, frozenset()), frozenset())
    forward = torch.zeros(2)
    for table in tables:
        forward = (forward.unsqueeze(-1) + table).logsumexp(0)
    assert torch.allclose(result.tensor, forward.logsumexp(0), atol=1e-10)
