"""Rows of continuous univariate families."""

from __future__ import annotations

import numpy as np
import scipy.stats as st
from case import Array, P, R, V, logit, pair, scipy

import ppl.distributions as dist


def _relaxed_bernoulli(x: Array, temperature: Array, probs: Array) -> Array:
    t, a = temperature, np.exp(logit(probs))  # Maddison, Mnih & Teh 2017, binary concrete
    kernel = np.log(t) + np.log(a) - (t + 1) * (np.log(x) + np.log1p(-x))
    return kernel - 2 * np.log(a * x**-t + (1 - x) ** -t)


def _continuous_bernoulli(x: Array, probs: Array) -> Array:
    norm = 2 * np.arctanh(1 - 2 * probs) / (1 - 2 * probs)
    return np.log(norm) + x * np.log(probs) + (1 - x) * np.log1p(-probs)


def _kumaraswamy(x: Array, concentration1: Array, concentration0: Array) -> Array:
    a, b = concentration1, concentration0
    return np.log(a) + np.log(b) + (a - 1) * np.log(x) + (b - 1) * np.log1p(-(x**a))


CASES = [
    *pair(
        dist.Beta,
        scipy(lambda concentration1, concentration0: st.beta(concentration1, concentration0)),
        {"concentration1": 1.7, "concentration0": 2.2},
        {"concentration1": [1.7, 3.0], "concentration0": 2.2},
    ),
    *pair(dist.Chi2, scipy(lambda df: st.chi2(df)), {"df": 3.5}, {"df": [2.5, 7.0]}),
    *pair(dist.ContinuousBernoulli, _continuous_bernoulli, {"probs": 0.3}, {"probs": [0.2, 0.9]}),
    *pair(dist.Exponential, scipy(lambda rate: st.expon(scale=1 / rate)), {"rate": 1.5}, {"rate": V}),
    *pair(
        dist.FisherSnedecor,
        scipy(lambda df1, df2: st.f(df1, df2)),
        {"df1": 3.0, "df2": 5.0},
        {"df1": [3.0, 4.5], "df2": 5.0},
    ),
    *pair(
        dist.Gamma,
        scipy(lambda concentration, rate: st.gamma(concentration, scale=1 / rate)),
        {"concentration": 2.5, "rate": 1.5},
        {"concentration": [1.5, 4.0], "rate": V},
    ),
    *pair(
        dist.GeneralizedPareto,
        scipy(lambda loc, scale, concentration: st.genpareto(concentration, loc, scale)),
        {"loc": 0.5, "scale": 1.5, "concentration": 0.3},
        {"loc": R, "scale": V, "concentration": [0.4, -0.3]},
    ),
    *pair(dist.HalfCauchy, scipy(lambda scale: st.halfcauchy(scale=scale)), {"scale": 1.2}, {"scale": V}),
    *pair(dist.HalfNormal, scipy(lambda scale: st.halfnorm(scale=scale)), {"scale": 1.2}, {"scale": V}),
    *pair(
        dist.InverseGamma,
        scipy(lambda concentration, rate: st.invgamma(concentration, scale=rate)),
        {"concentration": 2.5, "rate": 1.5},
        {"concentration": [2.5, 4.0], "rate": V},
    ),
    *pair(
        dist.Kumaraswamy,
        _kumaraswamy,
        {"concentration1": 1.7, "concentration0": 2.2},
        {"concentration1": [1.7, 3.0], "concentration0": 2.2},
    ),
    *pair(
        dist.LogNormal,
        scipy(lambda loc, scale: st.lognorm(s=scale, scale=np.exp(loc))),
        {"loc": 0.5, "scale": 0.8},
        {"loc": R, "scale": V},
    ),
    *pair(
        dist.Pareto,
        scipy(lambda scale, alpha: st.pareto(alpha, scale=scale)),
        {"scale": 1.5, "alpha": 2.5},
        {"scale": V, "alpha": [2.5, 3.5]},
    ),
    *pair(
        dist.RelaxedBernoulli,
        _relaxed_bernoulli,
        {"temperature": 0.8, "probs": 0.3},
        {"temperature": 0.8, "probs": P},
    ),
    *pair(
        dist.StudentT,
        scipy(lambda df, loc, scale: st.t(df, loc, scale)),
        {"df": 3.5, "loc": 0.5, "scale": 1.2},
        {"df": 3.5, "loc": R, "scale": V},
    ),
    *pair(
        dist.Uniform,
        scipy(lambda low, high: st.uniform(low, high - low)),
        {"low": -1.5, "high": 2.0},
        {"low": R, "high": [0.5, 7.0]},
    ),
    *pair(
        dist.Weibull,
        scipy(lambda scale, concentration: st.weibull_min(concentration, scale=scale)),
        {"scale": 1.5, "concentration": 2.5},
        {"scale": V, "concentration": [0.8, 2.5]},
    ),
]
