"""Rows of laws of directions and of several angles."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import scipy.integrate
import scipy.special as sp
import scipy.stats as st
from case import Array, Case, pair, rows

import ppl.distributions as dist


@rows("(k),(k)->()")
def _fisher(x: Array, concentration: Array) -> Any:
    length = np.linalg.norm(concentration)
    return st.vonmises_fisher(concentration / length, length).logpdf(x / np.linalg.norm(x))


@rows("(k),(k)->()")
def _projected(x: Array, concentration: Array) -> Any:
    # the normal density along the ray through x, integrated
    along, rest = concentration @ x, concentration @ concentration

    def ray(r: float) -> Any:
        return r ** (len(x) - 1) * np.exp(-(r * r - 2 * r * along + rest) / 2)

    whole = scipy.integrate.quad(ray, 0, max(along, 0) + 12, epsabs=0, epsrel=1e-12, limit=200)[0]
    return np.log(whole) - len(x) / 2 * np.log(2 * np.pi)


def _exact_fisher(x: Any, concentration: Any) -> Any:
    length = mpmath.sqrt(sum(c * c for c in concentration))
    scale = mpmath.log(length / mpmath.sinh(length)) if length else mpmath.mpf(0)
    return scale - mpmath.log(4 * mpmath.pi) + sum(a * b for a, b in zip(x, concentration, strict=True))


def _exact_projected(x: Any, concentration: Any) -> Any:
    t = sum(a * b for a, b in zip(x, concentration, strict=True))
    rest = sum((c - t * v) ** 2 for v, c in zip(x, concentration, strict=True))
    n = len(x)
    with mpmath.workdps(60):
        # a parabolic cylinder function (DLMF 12.5.1), with the Gaussian factors taken out
        integral = mpmath.gamma(n) * mpmath.pcfd(-n, -t) * mpmath.exp(-t * t / 4)
        return mpmath.log(integral) - rest / 2 - mpmath.mpf(n) / 2 * mpmath.log(2 * mpmath.pi)


def _log_constant(k1: Array, k2: Array, rho: Array) -> Array:
    # Singh et al. (2002), eq. 2.2
    m = np.arange(60)
    terms = (
        sp.gammaln(2 * m + 1)
        - 2 * sp.gammaln(m + 1)
        + m * np.log(rho[..., None] ** 2 / (4 * k1 * k2)[..., None])
        + np.log(sp.ive(m, k1[..., None]))
        + np.log(sp.ive(m, k2[..., None]))
    )
    return sp.logsumexp(terms, -1) + k1 + k2 + np.log(4 * np.pi**2)


def _sine(
    x: Array,
    phi_loc: Array,
    psi_loc: Array,
    phi_concentration: Array,
    psi_concentration: Array,
    correlation: Array,
) -> Array:
    a, b = x[..., 0] - phi_loc, x[..., 1] - psi_loc
    kernel = phi_concentration * np.cos(a) + psi_concentration * np.cos(b) + correlation * np.sin(a) * np.sin(b)
    return kernel - _log_constant(phi_concentration, psi_concentration, correlation)


def _sine_weighted(x: Array, weighted_correlation: Array, **params: Any) -> Array:
    root = np.sqrt(params["phi_concentration"] * params["psi_concentration"])
    return _sine(x, correlation=weighted_correlation * root, **params)


def _exact_sine(
    x: Any, phi_loc: Any, psi_loc: Any, phi_concentration: Any, psi_concentration: Any, correlation: Any
) -> Any:
    k1, k2, rho = phi_concentration, psi_concentration, correlation
    total, m = mpmath.mpf(0), 0
    while True:
        ratio = (rho * rho / (4 * k1 * k2)) ** m if rho or m == 0 else 0
        term = mpmath.binomial(2 * m, m) * ratio * mpmath.besseli(m, k1) * mpmath.besseli(m, k2)
        total += term
        m += 1
        if term <= total * mpmath.mpf(10) ** -25:
            break
    a, b = x[0] - phi_loc, x[1] - psi_loc
    kernel = k1 * mpmath.cos(a) + k2 * mpmath.cos(b) + rho * mpmath.sin(a) * mpmath.sin(b)
    return kernel - mpmath.log(4 * mpmath.pi**2 * total)


def _skewed(x: Array, loc: Array, concentration: Array, skewness: Array) -> Array:
    return st.vonmises(concentration, loc).logpdf(x) + np.log1p(skewness * np.sin(x - loc))


def _skewed_pair(x: Array, loc: Array, concentration: Array, skewness: Array) -> Array:
    base = st.vonmises(concentration, loc).logpdf(x).sum(-1)
    return base + np.log1p((skewness * np.sin(x - loc)).sum(-1))


CIRCULAR = dict.fromkeys(
    ("test_minus_infinity_outside", "test_gradients_outside_are_no_nan", "test_mean", "test_variance"),
    "angles: values are taken modulo 2π, and moments are circular",
)
_SINE = {"phi_loc": 0.3, "psi_loc": -0.8, "phi_concentration": 2.0, "psi_concentration": 3.0}
CASES = [
    *pair(
        dist.VonMises3D,
        _fisher,
        {"concentration": [1.0, -2.0, 0.5]},
        {"concentration": [[1.0, -2.0, 0.5], [-3.0, 0.2, 4.0]]},
        event=(3,),
        exact=_exact_fisher,
        points=([1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.6, 0.8, 0.0], [-0.6, 0.0, 0.8]),
        extremes=(
            {"concentration": [0.0, 0.0, 1e-9]},
            {"concentration": [1e5, 1e5, 0.0]},
            {"concentration": [1e-3, 0.0, 0.0]},
        ),
    ),
    *pair(
        dist.ProjectedNormal,
        _projected,
        {"concentration": [1.0, -0.5]},
        {"concentration": [[1.0, -2.0, 0.5], [-3.0, 0.2, 1.0]]},
        event=(2,),
        exact=_exact_projected,
        points=([1.0, 0.0], [0.0, -1.0], [0.6, 0.8], [-0.6, 0.8], [-1.0, 0.0]),
        extremes=({"concentration": [0.0, 0.0]}, {"concentration": [100.0, 0.0]}, {"concentration": [-1e-3, 30.0]}),
    )[:1],
    Case(
        dist.ProjectedNormal,
        {"concentration": [[1.0, -2.0, 0.5], [-3.0, 0.2, 1.0]]},
        _projected,
        (2,),
        (3,),
    ),
    Case(
        dist.ProjectedNormal,
        {"concentration": [1.0, -2.0, 0.5, 0.3, 0.7]},
        _projected,
        (),
        (5,),
        note="five",
        exact=_exact_projected,
        points=([1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0], [-0.6, 0.8, 0.0, 0.0, 0.0]),
        extremes=({"concentration": [0.0, 0.0, 0.0, 0.0, 0.0]}, {"concentration": [100.0, 3.0, 0.0, 0.0, -7.0]}),
    ),
    *pair(
        dist.SineBivariateVonMises,
        _sine,
        {**_SINE, "correlation": 1.5},
        {**_SINE, "phi_loc": [0.3, 1.0], "correlation": [1.5, -4.0]},
        event=(2,),
        skips=CIRCULAR,
        exact=_exact_sine,
        points=([0.3, -0.8], [1.0, 1.0], [3.0, -3.0], [-2.8, 2.3]),
        extremes=(
            {"correlation": 0.0},
            {"correlation": -30.0},
            {"phi_concentration": 1e-4, "psi_concentration": 1e-4, "correlation": 1e-5},
            {"phi_concentration": 1e4, "psi_concentration": 2e3, "correlation": 1e3},
        ),
    ),
    Case(
        dist.SineBivariateVonMises,
        {**_SINE, "weighted_correlation": 0.9},
        _sine_weighted,
        (),
        (2,),
        note="weighted",
        skips=CIRCULAR,
    ),
    *pair(
        dist.SineSkewed,
        _skewed,
        {"loc": 0.3, "concentration": 1.5, "skewness": 0.6},
        {"loc": [0.3, 1.0], "concentration": 1.5, "skewness": [0.6, -1.0]},
        build_from=lambda loc, concentration, skewness: dist.SineSkewed(dist.VonMises(loc, concentration), skewness),
        skips=CIRCULAR,
    ),
    *pair(
        dist.SineSkewed,
        _skewed_pair,
        {"loc": [0.3, 1.0], "concentration": 1.5, "skewness": [0.6, -0.3]},
        {"loc": [[0.3, 1.0], [0.0, 0.5]], "concentration": 1.5, "skewness": [0.6, -0.3]},
        event=(2,),
        build_from=lambda loc, concentration, skewness: dist.SineSkewed(
            dist.VonMises(loc, concentration).to_event(1), skewness
        ),
        note="pair",
        skips=CIRCULAR,
    ),
]
