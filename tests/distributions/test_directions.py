"""Laws of directions and angles: normalisation on spheres, marginals of draws, sharp and double peaks."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.special as sp
import scipy.stats as st
import torch

import ppl.distributions as dist


def sphere(n: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of the sphere in three dims and their areas: Gauss-Legendre in height, even in longitude."""
    height, weight = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(n))
    turn = torch.arange(2 * n, dtype=torch.float64) * math.pi / n
    z, t = torch.meshgrid(height, turn, indexing="ij")
    s = (1 - z * z).sqrt()
    points = torch.stack([s * t.cos(), s * t.sin(), z], -1)
    return points.reshape(-1, 3), (weight[:, None] * (math.pi / n)).expand(n, 2 * n).reshape(-1)


CENTRES = ([1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [-6.0, 3.0, 0.0])


@pytest.mark.parametrize("cls", [dist.VonMises3D, dist.ProjectedNormal])
@pytest.mark.parametrize("centre", CENTRES)
def test_sphere(cls: type, centre: list[float]) -> None:
    d: Any = cls(torch.tensor(centre, dtype=torch.float64))
    points, area = sphere()
    p = d.log_prob(points).exp() * area
    assert float(p.sum()) == pytest.approx(1.0, rel=1e-9)
    torch.manual_seed(0)
    x = d.sample((5000,))
    assert bool(d.support.check(x).all())
    mean = (p[:, None] * points).sum(0)
    if cls is dist.VonMises3D:
        torch.testing.assert_close(d.mean, mean)
    assert ((x.mean(0) - mean).abs() <= 4.5 * x.std(0) / 5000**0.5).all()
    second = (p[:, None, None] * points[:, :, None] * points[:, None, :]).sum(0)
    squares = x[:, :, None] * x[:, None, :]
    assert ((squares.mean(0) - second).abs() <= 4.5 * squares.std(0) / 5000**0.5).all()


@pytest.mark.parametrize("length", [1e-6, 0.5, 20.0, 1e5])
def test_von_mises_fisher_heights(length: float) -> None:
    torch.manual_seed(0)
    mode = torch.tensor([-0.6, 0.0, 0.8], dtype=torch.float64)
    x = dist.VonMises3D(length * mode).sample((5000,))
    # 1 - cos is a truncated exponential
    law = st.truncexpon(2 * length, scale=1 / length)
    versine = 0.5 * (x - mode).square().sum(-1)
    assert st.kstest(versine.numpy(), law.cdf).pvalue > 1e-3  # four tests


@pytest.mark.parametrize("cls", [dist.VonMises3D, dist.ProjectedNormal])
def test_gradients_at_no_concentration(cls: type) -> None:
    concentration = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(cls(concentration).log_prob(x), [concentration])
    slope = 1.0 if cls is dist.VonMises3D else math.sqrt(8 / math.pi)  # E of the length of a normal vector
    torch.testing.assert_close(gradient, (slope * x) if slope != 1.0 else gradient)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("size", [1, 2, 4, 9])
def test_projected_normal_in_any_dims(size: int) -> None:
    """E[f / uniform density] over uniform directions is 1."""
    torch.manual_seed(0)
    d = dist.ProjectedNormal(0.7 * torch.randn(size, dtype=torch.float64))
    uniform = dist.ProjectedNormal(torch.zeros(size, dtype=torch.float64))
    area = math.log(2) + size / 2 * math.log(math.pi) - math.lgamma(size / 2)
    x = uniform.sample((20_000,))
    torch.testing.assert_close(uniform.log_prob(x), torch.full((20_000,), -area, dtype=torch.float64))
    ratio = (d.log_prob(x) + area).exp()
    assert (ratio.mean() - 1).abs() <= 4.5 * ratio.std() / 20_000**0.5


def test_off_the_sphere() -> None:
    with dist.validation_enabled(False):
        for cls in (dist.VonMises3D, dist.ProjectedNormal):
            assert float(cls(torch.ones(3)).log_prob(torch.ones(3))) == -torch.inf
    with pytest.raises(ValueError, match="VonMises3D: 'concentration' must have 3 entries"):
        dist.VonMises3D(torch.ones(2))


def _exact_log_constant(k1: float, k2: float, rho: float) -> float:
    """Singh et al. (2002), eq. 2.2, at 40 digits."""
    with mpmath.workdps(40):
        total, m = mpmath.mpf(0), 0
        while True:
            ratio = (mpmath.mpf(rho) ** 2 / (4 * mpmath.mpf(k1) * k2)) ** m
            term = mpmath.binomial(2 * m, m) * ratio * mpmath.besseli(m, k1) * mpmath.besseli(m, k2)
            total += term
            m += 1
            if term < total * mpmath.mpf(10) ** -30:
                return float(mpmath.log(4 * mpmath.pi**2 * total))


@pytest.mark.parametrize(
    ("k1", "k2", "rho"),
    [
        (1e-3, 1e-3, 1e-4),
        (2.0, 3.0, 1.5),
        (50.0, 0.5, 4.9),
        (800.0, 300.0, -480.0),
        (5.0, 5.0, 40.0),
        (30.0, 1e4, 500.0),
    ],
)
def test_sine_normaliser(k1: float, k2: float, rho: float) -> None:
    d = dist.SineBivariateVonMises(*(torch.tensor(v, dtype=torch.float64) for v in (0.0, 0.0, k1, k2, rho)))
    got = k1 + k2 - float(d.log_prob(torch.zeros(2, dtype=torch.float64)))
    exact = _exact_log_constant(k1, k2, rho)
    assert abs(got - exact) <= 1e-10 * max(1.0, abs(exact))


@pytest.mark.parametrize(
    ("k1", "k2", "rho"),
    [(2.0, 3.0, 1.5), (1e6, 2e6, 9e5), (5.0, 5.0, 40.0), (2000.0, 3000.0, 4000.0), (1e-3, 2.0, 0.5)],
)
def test_sine_draws_fit_their_marginals(k1: float, k2: float, rho: float) -> None:
    """The first angle's, by quadrature; and the second's, which by symmetry is the same with the parameters swapped."""
    torch.manual_seed(0)
    d = dist.SineBivariateVonMises(*(torch.tensor(v, dtype=torch.float64) for v in (0.0, 0.0, k1, k2, rho)))
    x = d.sample((5000,))
    for i, (a, b) in enumerate(((k1, k2), (k2, k1))):  # ten tests
        assert st.kstest(x[:, i].numpy(), _marginal(a, b, rho)).pvalue > 1e-4
    # the sign of the dependence
    product = x.sin().prod(-1)
    assert float(product.mean() / product.std()) * math.sqrt(5000) * math.copysign(1, rho) > 4


def _marginal(k1: float, k2: float, rho: float) -> Any:
    reach = min(math.pi, 60 / math.sqrt(k1)) if rho * rho < k1 * k2 else math.pi
    angle = np.linspace(-reach, reach, 400_001)
    s = np.sqrt(k2**2 + (rho * np.sin(angle)) ** 2)
    log = k1 * (np.cos(angle) - 1) + np.log(sp.ive(0, s)) + s - k2
    density = np.exp(log - log.max())
    cdf = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return lambda x: np.interp(x, angle, cdf / cdf[-1])


def test_sine_draws_are_nearly_always_accepted() -> None:
    """Independent of the location, and around it."""
    torch.manual_seed(0)
    d = dist.SineBivariateVonMises(3.0, -3.0, 40.0, 40.0, weighted_correlation=0.5)
    x = d.sample((2000,))
    assert bool((x.abs() <= math.pi).all())
    centred = torch.atan2((x - d.mean).sin(), (x - d.mean).cos())
    assert float(centred.abs().max()) < 1.5 and (centred.mean(0).abs() < 4.5 * centred.std(0) / 2000**0.5).all()


def test_sine_needs_one_correlation() -> None:
    for given in ({}, {"correlation": 0.1, "weighted_correlation": 0.1}):
        with pytest.raises(ValueError, match="exactly one of 'correlation' and 'weighted_correlation'"):
            dist.SineBivariateVonMises(0.0, 0.0, 1.0, 1.0, **given)


class TestSineSkewed:
    def test_skewness_must_fit(self) -> None:
        base = dist.VonMises(torch.zeros(2), 1.0).to_event(1)
        with pytest.raises(ValueError, match="SineSkewed: 'skewness' must end in the event shape"):
            dist.SineSkewed(base, torch.tensor(0.3))
        with pytest.raises(ValueError, match="SineSkewed: argument 'skewness' must satisfy"):
            dist.SineSkewed(base, torch.tensor([0.8, 0.7]))

    def test_full_skewness_vanishes_on_one_side(self) -> None:
        d = dist.SineSkewed(dist.VonMises(torch.tensor(0.0, dtype=torch.float64), 1.0), 1.0)
        assert float(d.log_prob(torch.tensor(-math.pi / 2, dtype=torch.float64))) < -30
        torch.manual_seed(0)
        angle = np.linspace(-math.pi, math.pi, 100_001)
        density = np.exp(d.log_prob(torch.as_tensor(angle)).numpy())
        cdf = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
        x = d.sample((5000,)).numpy()
        assert st.kstest(x, lambda v: np.interp(v, angle, cdf / cdf[-1])).pvalue > 1e-3

    def test_skewed_dependent_angles_integrate_to_one(self) -> None:
        base = dist.SineBivariateVonMises(*(torch.tensor(v, dtype=torch.float64) for v in (0.3, -0.8, 2.0, 3.0, 1.5)))
        d = dist.SineSkewed(base, torch.tensor([0.5, -0.4]))
        angle = torch.arange(-math.pi, math.pi, 2 * math.pi / 200, dtype=torch.float64)
        points = torch.cartesian_prod(angle, angle)
        assert float(d.log_prob(points).exp().sum()) * (2 * math.pi / 200) ** 2 == pytest.approx(1.0, rel=1e-9)
