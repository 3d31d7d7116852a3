"""The order of a contraction: the best of all for few factors, found once for a structure."""

import itertools
import random

import pytest
import torch

from ppl.tensors.elimination import contract
from ppl.tensors.factor import Factor
from ppl.tensors.live_bytes import LiveBytes
from ppl.tensors.order import FEW, contraction

SIZES = {"a": 2, "b": 3, "c": 5, "d": 7, "P": 4}


def structure(rng, count):
    factors = tuple(tuple(rng.sample(sorted(SIZES), rng.randint(1, 3))) for _ in range(count))
    return factors, tuple(tuple(SIZES[axis] for axis in axes) for axes in factors)


def cheapest(factors, gone):
    """Entries of all products of the best pairwise order, by trying every one."""
    if len(factors) == 1:
        return 0
    best = float("inf")
    for i, j in itertools.combinations(range(len(factors)), 2):
        others = [f for k, f in enumerate(factors) if k not in (i, j)]
        product = factors[i] | factors[j]
        entries = 1
        for axis in product:
            entries *= SIZES[axis]
        elsewhere = set().union(*others)
        best = min(best, entries + cheapest([*others, product - (gone - elsewhere)], gone))
    return best


@pytest.mark.parametrize("seed", range(20))
def test_few_factors_are_multiplied_in_the_best_order(seed):
    rng = random.Random(seed)
    factors, shapes = structure(rng, rng.randint(3, 5))
    gone = frozenset("abcd")
    steps = contraction(factors, shapes, gone)
    assert sum(step.entries for step in steps) == cheapest([frozenset(f) for f in factors], gone)


@pytest.mark.parametrize("count", [2, 3, FEW, FEW + 3])
def test_steps_make_what_they_announce(count):
    factors, shapes = structure(random.Random(count), count)
    gone = frozenset("abcd")
    steps = contraction(factors, shapes, gone)
    tape = []
    result = contract([Factor(f, torch.randn(s)) for f, s in zip(factors, shapes, strict=True)], gone, tape=tape)
    assert result.axes == steps[-1].left == (("P",) if any("P" in f for f in factors) else ())
    assert [(s.variables, s.factor.tensor.numel()) for s in tape] == [(s.done, s.entries) for s in steps if s.done]
    assert sorted(v for s in steps for v in s.done) == sorted(gone.intersection(*[set().union(*factors)]))


def test_a_structure_is_planned_once():
    factors = [
        Factor(("u", "v"), torch.randn(2, 3)),
        Factor(("v", "w"), torch.randn(3, 2)),
        Factor(("w",), torch.randn(2)),
    ]
    contract(factors, ["v", "w"])
    before = contraction.cache_info()
    contract([Factor(f.axes, f.tensor + 1) for f in factors], ["v", "w"])
    after = contraction.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
    contract(factors, ["w"])
    assert contraction.cache_info().misses == before.misses + 1


def test_products_are_let_go_as_soon_as_they_are_summed():
    """Factors in a row: the product at hand, a copy of it, and the results still to be used."""
    names = [f"v{i}" for i in range(60)]
    factors = [Factor((a, b), torch.randn(64, 64)) for a, b in itertools.pairwise(names)]
    with torch.no_grad(), LiveBytes() as count:
        contract(factors, names[1:-1])
    assert count.peak < 2.6 * 64**3 * 8
