"""The stable density against special cases and asymptotes far out, its sampler and its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats as st
import torch
from rows_structures import stable_fourier

import ppl.distributions as dist
from ppl.tensors.stable_density import log_density


def of(*values: float) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(v, dtype=torch.float64) for v in values)


@pytest.mark.parametrize("x", [-30.0, -1.0, 0.0, 0.3, 5.0, 1e9])
def test_cauchy_and_normal(x: float) -> None:
    got = log_density(*of(x, 1.0, 0.0)).item()
    assert got == pytest.approx(st.cauchy.logpdf(x), rel=2e-8, abs=2e-8)
    for skew in (-1.0, 0.0, 0.7):
        got = log_density(*of(x, 2.0, skew)).item()
        assert got == pytest.approx(st.norm(0, math.sqrt(2)).logpdf(x), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("y", [1e-3, 0.02, 1.0, 30.0, 1e6, 1e12])
def test_levy(y: float) -> None:
    # in S0 the Lévy law starts at -1
    x = np.float64(y) - 1
    got = log_density(*of(x, 0.5, 1.0)).item()
    assert got == pytest.approx(st.levy.logpdf(x + 1), rel=1e-9, abs=1e-9)
    assert log_density(*of(-1.0 - y, 0.5, 1.0)).item() == -math.inf


@pytest.mark.parametrize("stability", [0.6, 0.95, 1.0, 1.05, 1.5, 1.9])
@pytest.mark.parametrize("skew", [-0.8, 0.0, 0.5])
def test_against_the_fourier_integral(stability: float, skew: float) -> None:
    import mpmath

    with mpmath.workdps(40):
        for x in (-6.0, -0.4, 1.3, 25.0):
            exact = float(stable_fourier(*map(mpmath.mpf, (x, stability, skew))))
            assert log_density(*of(x, stability, skew)).item() == pytest.approx(exact, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("stability", [0.3, 0.999, 1.0, 1.5, 1.999])
def test_the_far_tail_is_a_power(stability: float) -> None:
    x, skew = 1e30, 0.4
    constant = math.sin(math.pi * stability / 2) * math.gamma(stability) * (1 + skew) * stability / math.pi
    expected = math.log(constant) - (1 + stability) * math.log(x)
    if stability == 0.3:
        x = 1e60
        expected = math.log(constant) - (1 + stability) * math.log(x)
    assert log_density(*of(x, stability, skew)).item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("stability", [0.4, 0.99, 0.99995, 1.0, 1.00007, 1.3, 1.9])
@pytest.mark.parametrize("x", [-3.0, 0.2, 40.0])
def test_gradients(stability: float, x: float) -> None:
    values = [v.requires_grad_() for v in of(x, stability, 0.3)]
    found = torch.autograd.grad(log_density(*values), values)
    for i, gradient in enumerate(found):
        shift = torch.zeros(4, 3, dtype=torch.float64)
        steps = torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64) * 2e-5
        shift[:, i] = steps
        at = torch.stack(list(values)).detach() + shift
        lower2, lower, upper, upper2 = log_density(*at.T)
        numeric = (8 * (upper - lower) - (upper2 - lower2)) / (12 * 2e-5)
        torch.testing.assert_close(gradient, numeric.detach(), rtol=1e-4, atol=1e-5)


def test_gradient_at_the_pivot() -> None:
    pivot = -0.5 * math.tan(math.pi * 0.75)
    x = torch.tensor([pivot, pivot + 1e-9, pivot + 1e-5], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(log_density(x, *of(1.5, 0.5)).sum(), x)
    assert found.isfinite().all()
    assert (found - found[0]).abs().max() < 1e-4


@pytest.mark.parametrize("coords", ["S0", "S"])
@pytest.mark.parametrize(("stability", "skew"), [(0.5, 1.0), (0.8, -0.5), (1.0, 0.0), (1.3, 0.9), (2.0, 0.0)])
def test_sampler_fits_scipy(stability: float, skew: float, coords: str) -> None:
    torch.manual_seed(0)
    d = dist.Stable(*of(stability, skew, 0.7, 0.5), coords=coords)
    x = d.sample((400,)).numpy()
    law = st.levy_stable
    law.parameterization = {"S0": "S0", "S": "S1"}[coords]
    try:
        assert st.kstest(x, law(stability, skew, 0.5, 0.7).cdf).pvalue > 1e-4  # ten tests
    finally:
        law.parameterization = "S1"


def test_draws_are_smooth_through_one() -> None:
    draws = []
    for stability in (1 - 1e-6, 1.0, 1 + 1e-6):
        torch.manual_seed(0)
        draws.append(dist.Stable(*of(stability, 0.7)).sample((200,)))
    scale = 1 + draws[1].abs()
    assert ((draws[0] - draws[1]) / scale).abs().max() < 1e-4
    assert ((draws[2] - draws[1]) / scale).abs().max() < 1e-4


def test_gradients_of_draws() -> None:
    for stability in (0.6, 1.3):
        values = of(stability, 0.3, 0.7, 0.5)

        def draw(*values: torch.Tensor) -> torch.Tensor:
            torch.manual_seed(0)
            return dist.Stable(*values).rsample((20,)).tanh()

        assert torch.autograd.gradcheck(draw, [v.requires_grad_() for v in values])


def test_moments() -> None:
    d = dist.Stable(*of(1.5, 0.5))
    assert d.mean.item() == pytest.approx(0.5) and d.variance.item() == math.inf
    assert dist.Stable(*of(1.5, 0.5), coords="S").mean.item() == 0.0
    assert dist.Stable(*of(0.9, 0.5)).mean.isnan() and dist.Stable(*of(2.0, 0.0, 3.0)).variance.item() == 18.0


def test_coords() -> None:
    with pytest.raises(ValueError, match="'coords' must be 'S0' or 'S', but got 'S1'"):
        dist.Stable(1.5, 0.0, coords="S1")
