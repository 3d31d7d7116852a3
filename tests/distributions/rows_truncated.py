"""Rows of truncated distributions."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import scipy.stats as st
from case import Array, P, R, V, pair, scipy

import ppl.distributions as dist


def _cut(law: Any, low: Any = None, high: Any = None) -> Any:
    """A scipy law between bounds, by the plain definition; right where the mass is not tiny."""

    class Cut:
        a = -np.inf if low is None else low
        b = np.inf if high is None else high
        mass = law.cdf(b) - law.cdf(a)

        def logpdf(self, x: Array) -> Array:
            return np.where((x >= self.a) & (x <= self.b), law.logpdf(x) - np.log(self.mass), -np.inf)

        def ppf(self, q: Array) -> Array:
            return law.ppf(law.cdf(self.a) + q * self.mass)

        def isf(self, q: Array) -> Array:
            return law.isf(law.sf(self.b) + q * self.mass)

        def mean(self) -> float:
            return law.mean() if low is None and high is None else np.inf

        var = mean

    return Cut()


def _exactly(log_density: Any, cdf: Any) -> Any:
    """The truncated log density of one draw, from a density and a distribution function in mpmath.

    Above the centre of a symmetric family the interval is reflected: no digits would be enough there.
    """

    def exact(x: Any, low: Any = None, high: Any = None, **params: Any) -> Any:
        with mp.workdps(60):
            centre = params.get("loc")
            if centre is not None and low is not None and low > centre:
                low, high = None if high is None else 2 * centre - high, 2 * centre - low
            a = mp.mpf(0) if low is None else cdf(low, **params)
            b = mp.mpf(1) if high is None else cdf(high, **params)
            return log_density(x, **params) - mp.log(b - a)

    return exact


def _normal(x: Any, loc: Any, scale: Any) -> Any:
    return -(((x - loc) / scale) ** 2) / 2 - mp.log(scale) - mp.log(2 * mp.pi) / 2


def _normal_cdf(x: Any, loc: Any, scale: Any) -> Any:
    return mp.erfc((loc - x) / scale / mp.sqrt(2)) / 2


def _cauchy(x: Any, loc: Any, scale: Any) -> Any:
    return -mp.log(mp.pi * scale * (1 + ((x - loc) / scale) ** 2))


def _cauchy_cdf(x: Any, loc: Any, scale: Any) -> Any:
    return mp.mpf(1) / 2 + mp.atan((x - loc) / scale) / mp.pi


def _laplace(x: Any, loc: Any, scale: Any) -> Any:
    return -abs(x - loc) / scale - mp.log(2 * scale)


def _laplace_cdf(x: Any, loc: Any, scale: Any) -> Any:
    z = (x - loc) / scale
    return mp.exp(z) / 2 if z < 0 else 1 - mp.exp(-z) / 2


def _gamma(x: Any, concentration: Any, rate: Any) -> Any:
    return concentration * mp.log(rate) + (concentration - 1) * mp.log(x) - rate * x - mp.loggamma(concentration)


def _gamma_cdf(x: Any, concentration: Any, rate: Any) -> Any:
    return mp.gammainc(concentration, 0, rate * x, regularized=True)


def _law(make: Any) -> Any:
    return lambda low=None, high=None, **params: _cut(make(**params), low, high)


_NORMAL = _law(lambda loc, scale: st.norm(loc, scale))
_CAUCHY = _law(lambda loc, scale: st.cauchy(loc, scale))
_LAPLACE = _law(lambda loc, scale: st.laplace(loc, scale))
_GAMMA = _law(lambda concentration, rate: st.gamma(concentration, scale=1 / rate))
_WEIBULL = _law(lambda scale, concentration: st.weibull_min(concentration, scale=scale))


def _of_laplace(cls: type) -> Any:
    return lambda loc, scale, **bounds: cls(dist.Laplace(loc, scale), **bounds)


def _of_gamma(cls: type) -> Any:
    return lambda concentration, rate, **bounds: cls(dist.Gamma(concentration, rate), **bounds)


_exact_normal = _exactly(_normal, _normal_cdf)
_exact_laplace = _exactly(_laplace, _laplace_cdf)
_exact_gamma = _exactly(_gamma, _gamma_cdf)
_N = {"loc": 0.5, "scale": 1.2}
_FAR = {"loc": 0.0, "scale": 1.0}
_G = {"concentration": 2.5, "rate": 1.5}
CASES = [
    *pair(
        dist.TruncatedNormal,
        scipy(_NORMAL),
        {**_N, "low": -0.5, "high": 2.0},
        {"loc": R, "scale": V, "low": -1.0, "high": [0.0, 4.0]},
        exact=_exact_normal,
        extremes=(
            {**_FAR, "low": -40.0, "high": -38.0},
            {**_FAR, "low": 38.0, "high": 40.0},
            {**_FAR, "low": -30.0, "high": 30.0},
            {**_FAR, "low": 0.25, "high": 0.2500001},
            {**_FAR, "low": 100.0, "high": 1e6},
            {"loc": 1e4, "scale": 1e-3, "low": 1e4 - 1e-2, "high": 1e4 + 1e-2},
        ),
        points=(-39.0, -38.5, -38.0, 0.0, 0.25, 38.0, 38.5, 100.01, 1e4),
    ),
    *pair(
        dist.TruncatedNormal,
        scipy(_NORMAL),
        {**_N, "low": 1.0},
        {"loc": R, "scale": V, "low": [-1.0, 3.0]},
        exact=_exact_normal,
        extremes=({**_FAR, "low": 10.0}, {**_FAR, "low": 300.0}, {**_FAR, "low": -30.0}),
        points=(10.0, 10.1, 12.0, 300.0, 300.1),
        note="left",
    ),
    *pair(
        dist.TruncatedNormal,
        scipy(_NORMAL),
        {**_N, "high": 1.0},
        {"loc": R, "scale": V, "high": [-1.0, 3.0]},
        exact=_exact_normal,
        extremes=({**_FAR, "high": -10.0}, {**_FAR, "high": 30.0}),
        points=(-10.1, -12.0, 1.0),
        note="right",
    ),
    *pair(
        dist.TruncatedCauchy,
        scipy(_CAUCHY),
        {**_N, "low": -0.5, "high": 2.0},
        {"loc": R, "scale": V, "low": -1.0, "high": [0.0, 4.0]},
        exact=_exactly(_cauchy, _cauchy_cdf),
        extremes=(
            {**_FAR, "low": 1e6, "high": 1e7},
            {**_FAR, "low": -1e9, "high": -1e8},
            {**_FAR, "low": -1e3, "high": 1e9},
        ),
        points=(2e6, -2e8, 0.0),
    ),
    *pair(
        dist.TruncatedCauchy,
        scipy(_CAUCHY),
        {**_N, "low": 1.0},
        {"loc": R, "scale": V, "low": [-1.0, 3.0]},
        exact=_exactly(_cauchy, _cauchy_cdf),
        extremes=({**_FAR, "low": 1e10},),
        points=(1e10, 2e12),
        note="left",
    ),
    *pair(
        dist.TruncatedGamma,
        scipy(_GAMMA),
        {**_G, "low": 0.5, "high": 3.0},
        {"concentration": [1.5, 4.0], "rate": V, "low": 0.3, "high": [1.0, 4.0]},
        exact=_exact_gamma,
    ),
    *pair(
        dist.LeftTruncatedGamma,
        scipy(_GAMMA),
        {**_G, "low": 1.0},
        {"concentration": [1.5, 4.0], "rate": V, "low": 0.3},
        build_from=_of_gamma(dist.LeftTruncatedGamma),
        exact=_exact_gamma,
    ),
    *pair(
        dist.RightTruncatedGamma,
        scipy(_GAMMA),
        {**_G, "high": 1.0},
        {"concentration": [1.5, 4.0], "rate": V, "high": 0.3},
        build_from=_of_gamma(dist.RightTruncatedGamma),
        exact=_exact_gamma,
    ),
    *pair(
        dist.TwoSidedTruncatedGamma,
        scipy(_GAMMA),
        {**_G, "low": 0.5, "high": 1.0},
        {"concentration": [1.5, 4.0], "rate": V, "low": 0.3, "high": 0.9},
        build_from=_of_gamma(dist.TwoSidedTruncatedGamma),
        exact=_exact_gamma,
    ),
    *pair(
        dist.TruncatedDistribution,
        scipy(_WEIBULL),
        {"scale": 1.3, "concentration": 1.7, "low": 0.4, "high": 2.5},
        {"scale": 1.3, "concentration": [1.7, 2.5], "low": P, "high": 2.5},
        build_from=lambda scale, concentration, low, high: dist.TruncatedDistribution(
            dist.Weibull(scale, concentration), low, high
        ),
        note="weibull",
    ),
    *pair(
        dist.LeftTruncatedDistribution,
        scipy(_LAPLACE),
        {**_N, "low": 1.0},
        {"loc": R, "scale": V, "low": [-1.0, 3.0]},
        build_from=_of_laplace(dist.LeftTruncatedDistribution),
        exact=_exact_laplace,
        extremes=({**_FAR, "low": 100.0}, {**_FAR, "low": -30.0}),
        points=(100.5, 110.0),
    ),
    *pair(
        dist.RightTruncatedDistribution,
        scipy(_LAPLACE),
        {**_N, "high": 1.0},
        {"loc": R, "scale": V, "high": [-1.0, 3.0]},
        build_from=_of_laplace(dist.RightTruncatedDistribution),
        exact=_exact_laplace,
        extremes=({**_FAR, "high": -100.0}, {**_FAR, "high": 30.0}),
        points=(-100.5, -110.0),
    ),
    *pair(
        dist.TwoSidedTruncatedDistribution,
        scipy(_LAPLACE),
        {**_N, "low": -1.0, "high": 1.0},
        {"loc": R, "scale": V, "low": [-1.0, 0.0], "high": 1.5},
        build_from=_of_laplace(dist.TwoSidedTruncatedDistribution),
        exact=_exact_laplace,
        extremes=({**_FAR, "low": 100.0, "high": 101.0}, {**_FAR, "low": -1e-8, "high": 1e-8}),
        points=(100.5, 0.0),
    ),
]
