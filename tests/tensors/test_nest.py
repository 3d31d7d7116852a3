"""Nests of tensors, one for each of many steps."""

from typing import NamedTuple

import pytest
import torch

from ppl.tensors.nest import (
    at_once,
    device_of,
    is_repeated,
    join_nests,
    leaves,
    map_nest,
    refill_tensors,
    stack_nests,
    tensors_in,
)


class Pair(NamedTuple):
    a: object
    b: object


X, Y = torch.tensor([1.0, 2.0]), torch.tensor(3.0)
NEST = {"first": (X, [None, 4]), "second": Pair(Y, "text")}


def test_leaves_and_maps_keep_the_form():
    assert leaves(NEST)[1:3] == [None, 4] and len(leaves(NEST)) == 5
    assert [t is x for t, x in zip(tensors_in(NEST), (X, Y), strict=True)] == [True, True]
    doubled = map_nest(lambda leaf: leaf * 2 if isinstance(leaf, torch.Tensor) else leaf, NEST)
    assert isinstance(doubled["second"], Pair) and doubled["second"].b == "text"
    assert torch.equal(doubled["first"][0], 2 * X) and doubled["first"][1] == [None, 4]
    assert refill_tensors(NEST, ["x", "y"]) == {"first": ("x", [None, 4]), "second": Pair("y", "text")}
    assert device_of(None, NEST) == X.device and device_of(None, 3) is None


def test_stacks_and_joins():
    steps = [(torch.tensor(float(t)), t, None) for t in range(3)]
    values, numbers, nothing = stack_nests(steps)
    assert values.tolist() == [0.0, 1.0, 2.0] and numbers.tolist() == [0, 1, 2] and nothing is None
    joined = join_nests([(torch.zeros(2), None)], (torch.ones(3, 2), None))
    assert torch.equal(joined[0], torch.tensor([[0.0, 0], [1, 1], [1, 1], [1, 1]])) and joined[1] is None
    assert join_nests([None], None) is None


def test_repetition_is_noticed():
    assert is_repeated((X.expand(4, 2), torch.tensor([5, 5])), (X, 5))
    assert not is_repeated((torch.stack([X, X + 1]),), (X,))
    assert not is_repeated((X.expand(4, 2),), (Y,))
    with pytest.raises(ValueError, match="must keep its form"):
        is_repeated((X.expand(4, 2),), (X, X))


def test_what_differs_is_batched_and_the_rest_repeated():
    x, carry = torch.arange(3.0), torch.tensor(10.0)
    differing, alike = at_once(
        lambda at, xs, given: [xs[0] + given[0], given[0] * 2], (torch.arange(3), [x], [carry]), False
    )
    assert torch.equal(differing, x + 10) and torch.equal(alike, torch.full((3,), 20.0)) and alike.stride(0) == 0
