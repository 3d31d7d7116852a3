"""Coalescents: conventions, samplers, normalisation piece by piece."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats as st
import torch
from rows_structures import coalescent

import ppl.distributions as dist
from ppl.distributions.coalescent import CoalescentTimesConstraint


def of(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


GRID = of(0.5, 0.4, 2.0, 1.0)
LEAVES = of(2.8, 3.5, 3.1)


def test_values_of_known_cases() -> None:
    leaves = of(3.0, 3.0, 3.5)
    assert dist.CoalescentTimes(leaves).log_prob(of(0.5, 2.5)).item() == pytest.approx(np.log(3) - 3 * 0.5 - 2)
    d = dist.CoalescentTimesWithRate(leaves, of(1.0, 2.0, 3.0))
    assert d.log_prob(of(-0.5, 2.5)).item() == pytest.approx(np.log(9) - 4.5 - 1.5 - 2 - 1 - 0.5)


@pytest.mark.parametrize("grid", [of(0.7), GRID])
def test_integrates_to_one(grid: torch.Tensor) -> None:
    d = dist.CoalescentTimesWithRate(LEAVES, grid)
    # Gauss-Legendre between all times at which the density may jump
    breaks = [-40.0, -20.0, -8.0, -3.0, 0.0, 1.0, 2.0, 2.8, 3.0, 3.1]
    nodes, weights = np.polynomial.legendre.leggauss(24)
    points = np.concatenate([(b - a) / 2 * nodes + (a + b) / 2 for a, b in itertools.pairwise(breaks)])
    scales = np.concatenate([(b - a) / 2 * weights for a, b in itertools.pairwise(breaks)])
    total = 0.0
    for upper, w in zip(points, scales, strict=True):
        ends = [b for b in breaks if b < upper] + [upper]
        lower = np.concatenate([(b - a) / 2 * nodes + (a + b) / 2 for a, b in itertools.pairwise(ends)])
        inner = np.concatenate([(b - a) / 2 * weights for a, b in itertools.pairwise(ends)])
        pairs = torch.tensor(np.stack([lower, np.full_like(lower, upper)], -1))
        keep = d.support.check(pairs)
        total += w * (d.log_prob(pairs[keep]).exp() * torch.tensor(inner)[keep]).sum().item()
    assert total == pytest.approx(1.0, abs=1e-5)


def test_sampler_in_its_own_time() -> None:
    # the integrated rate up to each coalescence is a standard exponential draw
    torch.manual_seed(0)
    d = dist.CoalescentTimesWithRate(LEAVES, GRID)
    x = d.sample((400,))
    assert d.support.check(x).all()
    rate = GRID.numpy()
    waits = []
    for times in x.numpy():
        first = coalescent(times[1:], LEAVES.numpy(), lambda t: rate[int(np.clip(np.floor(t), 0, 3))])
        whole = coalescent(times, LEAVES.numpy(), lambda t: rate[int(np.clip(np.floor(t), 0, 3))])
        pair_rate = rate[int(np.clip(np.floor(times[0]), 0, 3))]
        waits.append(np.log(pair_rate) - (whole - first))
    late = 0  # with the last leaf before the first coalescence the wait for the second starts there
    assert late == 0 and st.kstest(np.array(waits), st.expon.cdf).pvalue > 1e-3


def test_isochronous_times() -> None:
    torch.manual_seed(0)
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x = dist.CoalescentTimes(torch.zeros(5, dtype=torch.float64), rate).rsample((4000,))
    age = -x[:, 0].mean()
    expected = sum(2 / (k * (k - 1)) for k in range(2, 6)) / 0.7
    assert age.item() == pytest.approx(expected, abs=4 * x[:, 0].std().item() / 4000**0.5)
    (gradient,) = torch.autograd.grad(age, rate)
    assert gradient.item() == pytest.approx(-age.item() / 0.7)


def test_rate_likelihood_adds_up() -> None:
    torch.manual_seed(0)
    d = dist.CoalescentTimesWithRate(LEAVES, GRID)
    for coals in d.sample((5,)):
        likelihood = dist.CoalescentRateLikelihood(LEAVES, coals, 4)
        parts = likelihood(GRID)
        assert parts.shape == (4,)
        torch.testing.assert_close(parts.sum(), d.log_prob(coals))
        for t in range(4):
            torch.testing.assert_close(likelihood(GRID[t], t), parts[t])
        torch.testing.assert_close(likelihood(GRID[1:3], slice(1, 3)), parts[1:3])


def test_constraint_and_its_bijection() -> None:
    leaves = of(3.0, 3.0, 3.5)
    values = torch.stack([of(0.5, 2.5), of(2.5, 0.5), of(-0.5, 3.2), of(2.6, 2.6)])
    assert CoalescentTimesConstraint(leaves).check(values).tolist() == [True, False, False, True]
    assert CoalescentTimesConstraint(leaves, ordered=False).check(values).tolist() == [True, True, False, True]
    transform = dist.biject_to(CoalescentTimesConstraint(LEAVES))
    x = of(0.3, -1.0)
    y = transform(x)
    assert CoalescentTimesConstraint(LEAVES).check(y)
    torch.testing.assert_close(transform.inv(y), x)
    jacobian = torch.autograd.functional.jacobian(transform, x)
    torch.testing.assert_close(transform.log_abs_det_jacobian(x, y), jacobian.det().abs().log())


def test_errors() -> None:
    with pytest.raises(ValueError, match="two leaves"):
        dist.CoalescentTimes(of(1.0))
    with pytest.raises(ValueError, match="must ascend"):
        dist.CoalescentRateLikelihood(LEAVES, of(2.0, 1.0), 4)
