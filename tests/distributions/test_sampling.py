"""Draws of each row of the table: they fit the density, and their pathwise gradients are those of its integrals.

Some 300 tests of fit at p > 1e-6 each: together they would reject a right sampler once in three thousand choices of the
seed; the seed is fixed.
"""

from __future__ import annotations

from typing import Any

import pytest
import scipy.stats as st
import torch
from cases import CASES, Case
from quadrature import binned, grid, is_integrable

import ppl.distributions as dist

UNBATCHED = [case for case in CASES if not case.batch]


def named(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def integrable(case: Case) -> Any:
    d = case.build()
    if not case.integrates or not is_integrable(d):
        pytest.skip("more than two free dims, or no bijection to the support")
    return d


@named(UNBATCHED)
@pytest.mark.parametrize("method", ["sample", "rsample"])
def test_draws_fit(case: Case, method: str) -> None:
    d = integrable(case)
    if method == "rsample" and not d.has_rsample:
        pytest.skip("no rsample")
    g = grid(d)
    torch.manual_seed(1)
    try:
        x = getattr(d, method)((20_000,)).detach()
    except NotImplementedError:
        pytest.skip("no sampler")
    relaxed = method == "rsample" and d.is_discrete  # straight through: the values are still those of the support
    counts, expected = binned(g, d, x.round() if relaxed else x, bins=40 if len(g.axes) == 1 else 9)
    assert expected.sum() == pytest.approx(len(x), rel=1e-4)
    assert not counts[expected == 0].any()
    kept = expected > 0
    counts, expected = counts[kept], expected[kept] * counts.sum() / expected.sum()
    assert st.chisquare(counts, expected).pvalue > 1e-6


@named(UNBATCHED)
def test_pathwise_gradients(case: Case) -> None:
    d = integrable(case)
    if not d.has_rsample or d.is_discrete:
        pytest.skip("not reparameterised, or a straight-through estimate")
    free = [k for k, v in case.tensors().items() if v.is_floating_point() and k not in case.no_gradient]
    tensors = {k: v.requires_grad_(k in free) for k, v in case.tensors().items()}

    def built() -> Any:
        params = {k: (v + v.mT) / 2 if k.endswith("_matrix") else v for k, v in tensors.items()}
        with dist.validation_enabled(False):
            return case.of(**params)

    torch.manual_seed(2)
    x = d.sample((2000,)).double()
    centre = x.median(0).values
    width = (x - centre).abs().median(0).values.clamp(min=1e-3)

    def f(x: torch.Tensor) -> torch.Tensor:
        z = (x - centre) / width
        bent = z.tanh() + 0.5 * (1.3 * z).sin() / (1 + z * z)
        weights = torch.arange(1, 1 + max(1, bent[0].numel()), dtype=bent.dtype)
        return (bent.reshape(len(bent), -1) * weights).sum(-1)

    # the truth: the derivative of the integral; points move with the support, so it is a total derivative
    g = grid(built())
    expected = torch.autograd.grad(g.expectation(built(), f).sum(), [tensors[k] for k in free], allow_unused=True)
    blocks = []
    for _ in range(40):
        mean = f(built().rsample((1000,))).mean()
        found = torch.autograd.grad(mean, [tensors[k] for k in free], allow_unused=True)
        blocks.append(torch.cat([_flat(v, tensors[k]) for v, k in zip(found, free, strict=True)]))
    truth = torch.cat([_flat(v, tensors[k]) for v, k in zip(expected, free, strict=True)])
    stacked = torch.stack(blocks)
    standard_error = stacked.std(0) / len(blocks) ** 0.5
    # an exact zero has no spread: 1e-6 stands for the quadrature's own error
    assert ((stacked.mean(0) - truth).abs() <= 4 * standard_error + 1e-6).all(), (stacked.mean(0), truth)


def _flat(gradient: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    return (torch.zeros_like(like) if gradient is None else gradient).reshape(-1)
