"""Expectations under the enumerated sites of a guide: exact, and cheap along chains."""

from __future__ import annotations

import pytest
import torch

from ppl.infer.elbo import estimator
from ppl.infer.elbo.estimator import Expectation
from ppl.tensors.factor import Factor, add


def weights_of(parents):
    """Random log probabilities of two-valued sites, each given its parents."""
    found = {}
    for name, above in parents.items():
        table = torch.randn((2,) * (len(above) + 1)).log_softmax(-1)
        found[name] = Factor((*above, name), table)
    return found


def brute(weights, cost):
    joint = add(list(weights.values()))
    both = add([Factor(joint.axes, torch.zeros_like(joint.tensor)), cost])
    return (joint.aligned(both.axes).exp() * both.tensor).sum()


GRAPHS = {
    "chain": {f"z{t}": tuple(f"z{s}" for s in range(max(0, t - 2), t)) for t in range(9)},
    "fan in": {**{f"z{i}": () for i in range(8)}, **{f"z{8 + i}": (f"z{2 * i}", f"z{2 * i + 1}") for i in range(7)}},
    "fan out": {f"z{i}": (f"z{(i - 1) // 2}",) if i else () for i in range(11)},
    "children first": {f"z{i}": (f"z{i + 1}",) if i < 7 else () for i in range(8)},
}


@pytest.mark.parametrize("name", GRAPHS)
def test_expectations_equal_sums_over_the_joint(name):
    weights = weights_of(GRAPHS[name])
    expectation = Expectation(weights, dict.fromkeys(weights, frozenset()))
    names = list(weights)
    for axes in (
        [(n,) for n in names] + list(zip(names, names[3:], strict=False)) + [tuple(names[-3:]), tuple(names[:4])]
    ):
        cost = Factor(axes, torch.randn((2,) * len(axes)))
        assert torch.allclose(expectation.of(cost).tensor, brute(weights, cost), atol=1e-12, rtol=0)


def test_the_costs_of_a_chain_take_time_linear_in_its_length(monkeypatch):
    calls = []
    contract = estimator.contract
    monkeypatch.setattr(
        estimator, "contract", lambda factors, *rest: calls.append(len(factors)) or contract(factors, *rest)
    )
    weights = weights_of({f"z{t}": (f"z{t - 1}",) if t else () for t in range(300)})
    expectation = Expectation(weights, dict.fromkeys(weights, frozenset()))
    for t in reversed(range(1, 300)):
        expectation.of(Factor((f"z{t}", f"z{t - 1}"), torch.randn(2, 2)))
    assert sum(calls) < 5 * 300
