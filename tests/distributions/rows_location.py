"""Rows of families on the whole line, and of angles."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import scipy.stats as st
from case import Array, Case, R, V, pair, scipy

import ppl.distributions as dist

#: Scales near the ends of what floats hold, and locations that swamp them.
ENDS: tuple[dict[str, Any], ...] = ({"scale": 1e-10}, {"scale": 1e10}, {"loc": 1e6, "scale": 1.0}, {"loc": -1e-8})


def two_exponentials(x: Array, left: Array, right: Array) -> Array:
    return -np.abs(x) / np.where(x < 0, left, right) - np.log(left + right)


def check_loss(x: Array, loc: Array, scale: Array, quantile: Array) -> Array:
    z = (x - loc) / scale
    return np.log(quantile * (1 - quantile) / scale) - z * (quantile - (z < 0))


def exact_laplace(x: Any, loc: Any, scale: Any, asymmetry: Any = 1) -> Any:
    side = scale * asymmetry if x < loc else scale / asymmetry
    return -abs(x - loc) / side - mp.log(scale * asymmetry + scale / asymmetry)


def exact_check_loss(x: Any, loc: Any, scale: Any, quantile: Any) -> Any:
    z = (x - loc) / scale
    return mp.log(quantile * (1 - quantile) / scale) - z * (quantile - (1 if z < 0 else 0))


def exact_soft(x: Any, loc: Any, scale: Any, asymmetry: Any, softness: Any) -> Any:
    """Each side's exponential convolved with the normal."""
    x, s, left, right = x - loc, scale * softness, scale * asymmetry, scale / asymmetry

    def side(x: Any, b: Any) -> Any:
        return mp.exp(s**2 / (2 * b**2) - x / b) * mp.erfc((s / b - x / s) / mp.sqrt(2)) / 2

    with mp.workdps(400):  # the factors overflow and underflow against each other
        return mp.log(side(x, right) + side(-x, left)) - mp.log(left + right)


def soft(x: Array, loc: Array, scale: Array, asymmetry: Array, softness: Array) -> Array:
    exact = np.vectorize(lambda *args: float(exact_soft(*map(mp.mpf, args))))
    return exact(x, loc, scale, asymmetry, softness)


def exact_logistic(x: Any, loc: Any, scale: Any, asymmetry: Any = 1) -> Any:
    z = (x - loc) / scale
    return mp.log(asymmetry / scale) - z - (asymmetry + 1) * mp.log1p(mp.exp(-z))


def exact_gumbel(x: Any, loc: Any, scale: Any) -> Any:
    z = (x - loc) / scale
    return -z - mp.exp(-z) - mp.log(scale)


def exact_normal(x: Any, loc: Any, scale: Any) -> Any:
    z = (x - loc) / scale
    return -z * z / 2 - mp.log(scale) - mp.log(2 * mp.pi) / 2


def exact_cauchy(x: Any, loc: Any, scale: Any) -> Any:
    return -mp.log(mp.pi * scale) - mp.log1p(((x - loc) / scale) ** 2)


def exact_soft_laplace(x: Any, loc: Any, scale: Any) -> Any:
    return -mp.log(mp.pi * scale * mp.cosh((x - loc) / scale))


def exact_von_mises(x: Any, loc: Any, concentration: Any) -> Any:
    return concentration * mp.cos(x - loc) - mp.log(2 * mp.pi * mp.besseli(0, concentration))


ONE, TWO = {"loc": 0.5, "scale": 1.2}, {"loc": R, "scale": V}
CIRCULAR = dict.fromkeys(
    ("test_minus_infinity_outside", "test_gradients_outside_are_no_nan", "test_mean", "test_variance"),
    "angles: values are taken modulo 2π, and moments are circular",
)

CASES = [
    *pair(
        dist.AsymmetricLaplace,
        scipy(lambda loc, scale, asymmetry: st.laplace_asymmetric(asymmetry, loc, scale)),
        {**ONE, "asymmetry": 1.7},
        {**TWO, "asymmetry": [0.6, 1.3]},
        exact=exact_laplace,
        extremes=(*ENDS, {"asymmetry": 1e-3}, {"asymmetry": 1e3}),
    ),
    *pair(
        dist.AsymmetricLaplaceQuantile,
        check_loss,
        {**ONE, "quantile": 0.2},
        {**TWO, "quantile": [0.6, 0.9]},
        exact=exact_check_loss,
        law=lambda loc, scale, quantile: st.laplace_asymmetric(
            (quantile / (1 - quantile)) ** 0.5, loc, scale / (quantile * (1 - quantile)) ** 0.5
        ),
        extremes=(*ENDS, {"quantile": 1e-6}, {"quantile": 1 - 1e-6}),
    ),
    *pair(
        dist.Cauchy,
        scipy(lambda loc, scale: st.cauchy(loc, scale)),
        ONE,
        TWO,
        exact=exact_cauchy,
        points=(1e20, -1e18),
        extremes=ENDS,
    ),
    *pair(
        dist.Gumbel,
        scipy(lambda loc, scale: st.gumbel_r(loc, scale)),
        ONE,
        TWO,
        exact=exact_gumbel,
        extremes=ENDS,
    ),
    *pair(dist.Laplace, scipy(lambda loc, scale: st.laplace(loc, scale)), ONE, TWO, exact=exact_laplace, extremes=ENDS),
    *pair(
        dist.Logistic,
        scipy(lambda loc, scale: st.logistic(loc, scale)),
        ONE,
        TWO,
        exact=exact_logistic,
        points=(-800.0, 800.0),
        extremes=ENDS,
    ),
    *pair(
        dist.Normal,
        scipy(lambda loc, scale: st.norm(loc, scale)),
        ONE,
        TWO,
        exact=exact_normal,
        points=(-1e5, 1e5),
        extremes=ENDS,
    ),
    Case(
        dist.Normal, {"loc": [[0.5], [1.0], [-2.0]], "scale": V}, scipy(lambda loc, scale: st.norm(loc, scale)), (3, 2)
    ),
    *pair(
        dist.SkewLogistic,
        scipy(lambda loc, scale, asymmetry: st.genlogistic(asymmetry, loc, scale)),
        {**ONE, "asymmetry": 1.7},
        {**TWO, "asymmetry": [0.6, 1.3]},
        exact=exact_logistic,
        points=(-800.0, 800.0),
        extremes=(*ENDS, {"asymmetry": 1e-3}, {"asymmetry": 1e3}),
    ),
    *pair(
        dist.SoftAsymmetricLaplace,
        soft,
        {**ONE, "asymmetry": 1.7, "softness": 0.8},
        {**TWO, "asymmetry": [0.6, 1.3], "softness": [0.5, 2.0]},
        exact=exact_soft,
        points=(-100.0, -20.0, -3.0, 0.5, 1.0, 4.0, 30.0, 200.0),
        extremes=(
            {"scale": 1e-8},
            {"scale": 1e8},
            {"asymmetry": 0.01},
            {"asymmetry": 100.0},
            {"softness": 0.01},
            {"softness": 50.0},
        ),
    ),
    *pair(
        dist.SoftLaplace,
        scipy(lambda loc, scale: st.hypsecant(loc, scale)),
        ONE,
        TWO,
        exact=exact_soft_laplace,
        points=(-800.0, 800.0),
        extremes=ENDS,
    ),
    *pair(
        dist.VonMises,
        scipy(lambda loc, concentration: st.vonmises(concentration, loc)),
        {"loc": 0.5, "concentration": 2.5},
        {"loc": [-0.7, 1.5], "concentration": [0.4, 5.0]},
        exact=exact_von_mises,
        law=None,
        points=(-3.14, -2.0, 0.4999, 0.5, 0.6, 3.1),
        extremes=({"concentration": 1e-8}, {"concentration": 700.0}, {"concentration": 1e6}),
        skips=CIRCULAR,
    ),
]
