"""Rows of power laws, life times and folded families."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import scipy.stats as st
from case import Array, Case, R, V, pair, scipy

import ppl.distributions as dist


def exact_generalized_pareto(x: Any, loc: Any, scale: Any, concentration: Any) -> Any:
    z, k = (x - loc) / scale, concentration
    with mp.workdps(60):
        return -mp.log(scale) - ((1 / k + 1) * mp.log1p(k * z) if k else z)


def exact_pareto(x: Any, scale: Any, alpha: Any) -> Any:
    return mp.log(alpha / scale) - (alpha + 1) * mp.log(x / scale)


def exact_weibull(x: Any, scale: Any, concentration: Any) -> Any:
    z = x / scale
    return mp.log(concentration / scale) + (concentration - 1) * mp.log(z) - z**concentration


def exact_gompertz(x: Any, concentration: Any, rate: Any) -> Any:
    return mp.log(concentration * rate) + rate * x - concentration * mp.expm1(rate * x)


def dagum(concentration: Array, sharpness: Array, scale: Array) -> Any:
    return st.mielke(concentration * sharpness, sharpness, scale=scale)


def exact_dagum(x: Any, concentration: Any, sharpness: Any, scale: Any) -> Any:
    power = sharpness * mp.log(x / scale)
    with mp.workdps(60):
        rest = concentration * power - (concentration + 1) * mp.log1p(mp.exp(power))
    return mp.log(sharpness * concentration / x) + rest


def exact_levy(x: Any, loc: Any, scale: Any) -> Any:
    y = x - loc
    return mp.log(scale / (2 * mp.pi)) / 2 - scale / (2 * y) - mp.mpf(3) / 2 * mp.log(y)


def exact_log_normal(x: Any, loc: Any, scale: Any) -> Any:
    z = (mp.log(x) - loc) / scale
    return -z * z / 2 - mp.log(scale) - mp.log(2 * mp.pi) / 2 - mp.log(x)


SCALES: tuple[dict[str, Any], ...] = ({"scale": 1e-10}, {"scale": 1e10})

CASES: list[Case] = [
    *pair(
        dist.Pareto,
        scipy(lambda scale, alpha: st.pareto(alpha, scale=scale)),
        {"scale": 1.5, "alpha": 2.5},
        {"scale": V, "alpha": [2.5, 3.5]},
        exact=exact_pareto,
        extremes=(*SCALES, {"alpha": 1e-2}, {"alpha": 1e6}),
        points=(1.5001, 1e20),
    ),
    *pair(
        dist.LowerTruncatedPowerLaw,
        scipy(lambda alpha, low: st.pareto(-1 - alpha, scale=low)),
        {"alpha": -3.5, "low": 1.5},
        {"alpha": [-3.5, -4.0], "low": V},
        exact=lambda x, alpha, low: exact_pareto(x, low, -1 - alpha),
        extremes=({"low": 1e-10}, {"low": 1e10}, {"alpha": -1.125}, {"alpha": -1e6}),
        points=(1.5001, 1e20),
    ),
    *pair(
        dist.GeneralizedPareto,
        scipy(lambda loc, scale, concentration: st.genpareto(concentration, loc, scale)),
        {"loc": 0.5, "scale": 1.5, "concentration": 0.3},
        {"loc": R, "scale": V, "concentration": [0.4, -0.3]},
        exact=exact_generalized_pareto,
        extremes=(
            {"concentration": 0.0},
            {"concentration": 1e-9},
            {"concentration": -1e-5},
            {"concentration": 3.0},
            {"concentration": -0.5},
            {"concentration": -1.0},
            {"loc": 0.0, "scale": 1e-10},
            {"loc": 0.0, "scale": 1e10},
        ),
        points=(0.50001, 0.75, 2.0),
    ),
    Case(
        dist.GeneralizedPareto,
        {"loc": 0.5, "scale": 1.5, "concentration": -0.3},
        scipy(lambda loc, scale, concentration: st.genpareto(concentration, loc, scale)),
        exact=exact_generalized_pareto,
        note="bounded",
    ),
    *pair(
        dist.Weibull,
        scipy(lambda scale, concentration: st.weibull_min(concentration, scale=scale)),
        {"scale": 1.5, "concentration": 2.5},
        {"scale": V, "concentration": [0.8, 2.5]},
        exact=exact_weibull,
        extremes=(*SCALES, {"concentration": 0.1}, {"concentration": 1.0}, {"concentration": 1e4}),
        points=(1e-20, 1.0),
    ),
    *pair(
        dist.Gompertz,
        scipy(lambda concentration, rate: st.gompertz(concentration, scale=1 / rate)),
        {"concentration": 0.8, "rate": 1.5},
        {"concentration": V, "rate": [0.5, 2.0]},
        exact=exact_gompertz,
        extremes=({"concentration": 1e-8}, {"concentration": 1e8}, {"rate": 1e-10}, {"rate": 1e10}),
        points=(0.0, 1e-20),
    ),
    *pair(
        dist.Dagum,
        scipy(dagum),
        {"concentration": 0.8, "sharpness": 3.5, "scale": 1.5},
        {"concentration": V, "sharpness": 3.5, "scale": [1.5, 0.4]},
        exact=exact_dagum,
        extremes=(*SCALES, {"concentration": 1e-2}, {"concentration": 1e6}, {"sharpness": 0.5}, {"sharpness": 1e3}),
        points=(1e-10, 1.5, 1e10),
    ),
    Case(
        dist.Dagum,
        {"concentration": 1.3, "sharpness": 1.5, "scale": 1.5},
        scipy(dagum),
        exact=exact_dagum,
        note="infinite-variance",
    ),
    *pair(
        dist.Levy,
        scipy(lambda loc, scale: st.levy(loc, scale)),
        {"loc": 0.5, "scale": 1.2},
        {"loc": R, "scale": V},
        exact=exact_levy,
        extremes=({"loc": 0.0, "scale": 1e-10}, {"loc": 0.0, "scale": 1e10}),
        points=(0.75, 1e25),
    ),
    *pair(
        dist.HalfCauchy,
        scipy(lambda scale: st.halfcauchy(scale=scale)),
        {"scale": 1.2},
        {"scale": V},
        exact=lambda x, scale: mp.log(2 / (mp.pi * scale)) - mp.log1p((x / scale) ** 2),
        extremes=SCALES,
        points=(0.0, 1e25),
    ),
    *pair(
        dist.HalfNormal,
        scipy(lambda scale: st.halfnorm(scale=scale)),
        {"scale": 1.2},
        {"scale": V},
        exact=lambda x, scale: mp.log(2 / (mp.pi * scale**2)) / 2 - (x / scale) ** 2 / 2,
        extremes=SCALES,
        points=(0.0, 50.0),
    ),
    *pair(
        dist.LogNormal,
        scipy(lambda loc, scale: st.lognorm(s=scale, scale=np.exp(loc))),
        {"loc": 0.5, "scale": 0.8},
        {"loc": R, "scale": V},
        exact=exact_log_normal,
        extremes=({"scale": 1e-3}, {"scale": 5.0}, {"loc": -20.0}, {"loc": 20.0}),
        points=(1e-30, 1.0, 1e30),
    ),
]
