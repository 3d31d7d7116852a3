"""Rows of families on intervals."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import scipy.stats as st
from case import Array, Case, R, V, pair, scipy

import ppl.distributions as dist


def exact_beta(x: Any, concentration1: Any, concentration0: Any) -> Any:
    a, b = concentration1, concentration0
    log_beta = mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b)
    return (a - 1) * mp.log(x) + (b - 1) * mp.log(1 - x) - log_beta


def kumaraswamy(x: Array, concentration1: Array, concentration0: Array) -> Array:
    a, b = concentration1, concentration0
    return np.log(a) + np.log(b) + (a - 1) * np.log(x) + (b - 1) * np.log1p(-(x**a))


def exact_kumaraswamy(x: Any, concentration1: Any, concentration0: Any) -> Any:
    a, b = concentration1, concentration0
    with mp.workdps(60):
        return mp.log(a * b) + (a - 1) * mp.log(x) + (b - 1) * mp.log(1 - x**a)


class KumaraswamyQuantiles:
    """Quantiles in closed form, for the points at which tails are compared."""

    def __init__(self, concentration1: Array, concentration0: Array) -> None:
        self.a, self.b = concentration1, concentration0

    def ppf(self, q: float) -> float:
        return float((-np.expm1(np.log1p(-q) / self.b)) ** (1 / self.a))

    def isf(self, q: float) -> float:
        return float((-np.expm1(np.log(q) / self.b)) ** (1 / self.a))


def continuous_bernoulli(x: Array, probs: Array) -> Array:
    norm = 2 * np.arctanh(1 - 2 * probs) / (1 - 2 * probs)
    return np.log(norm) + x * np.log(probs) + (1 - x) * np.log1p(-probs)


def continuous_bernoulli_logits(x: Array, logits: Array) -> Array:
    return logits * x + np.log(logits / np.expm1(logits))


def exact_tilted(x: Any, logits: Any) -> Any:
    return logits * x + (mp.log(logits / mp.expm1(logits)) if logits else 0)


def power_law(x: Array, alpha: Array, low: Array, high: Array) -> Array:
    g = alpha + 1
    return alpha * np.log(x) + np.log(g / (high**g - low**g))


def exact_power_law(x: Any, alpha: Any, low: Any, high: Any) -> Any:
    with mp.workdps(80):
        g = alpha + 1
        norm = (high**g - low**g) / g if g else mp.log(high / low)
        return alpha * mp.log(x) - mp.log(norm)


UNIT = (1e-30, 1e-6, 0.01, 0.3, 0.5, 0.9, 1 - 1e-6)
BETA_ENDS: tuple[dict[str, Any], ...] = (
    {"concentration1": 1e-3, "concentration0": 1e-3},
    {"concentration1": 1.0, "concentration0": 1.0},
    {"concentration1": 1.0, "concentration0": 3.0},
    {"concentration1": 1e6, "concentration0": 1e6},
    {"concentration1": 1e-2, "concentration0": 1e4},
    {"concentration1": 1e4, "concentration0": 1e-2},
    {"concentration1": 3e5, "concentration0": 7.0},
)

CASES: list[Case] = [
    *pair(
        dist.Beta,
        scipy(lambda concentration1, concentration0: st.beta(concentration1, concentration0)),
        {"concentration1": 1.7, "concentration0": 2.2},
        {"concentration1": [1.7, 3.0], "concentration0": 2.2},
        exact=exact_beta,
        extremes=BETA_ENDS,
        points=UNIT,
    ),
    Case(
        dist.Beta,
        {"concentration1": 0.6, "concentration0": 0.8},
        scipy(lambda concentration1, concentration0: st.beta(concentration1, concentration0)),
        exact=exact_beta,
        note="below-1",
    ),
    *pair(
        dist.BetaProportion,
        scipy(lambda mean, concentration: st.beta(mean * concentration, (1 - mean) * concentration)),
        {"mean": 0.3, "concentration": 5.0},
        {"mean": [0.2, 0.6], "concentration": 5.0},
        exact=lambda x, mean, concentration: exact_beta(x, mean * concentration, (1 - mean) * concentration),
        extremes=({"concentration": 1e-3}, {"concentration": 1e6}, {"mean": 1e-4}),
        points=UNIT,
    ),
    *pair(
        dist.AffineBeta,
        scipy(lambda concentration1, concentration0, loc, scale: st.beta(concentration1, concentration0, loc, scale)),
        {"concentration1": 1.7, "concentration0": 2.2, "loc": -0.5, "scale": 2.5},
        {"concentration1": 1.7, "concentration0": 2.2, "loc": R, "scale": V},
        exact=lambda x, concentration1, concentration0, loc, scale: (
            exact_beta((x - loc) / scale, concentration1, concentration0) - mp.log(scale)
        ),
        extremes=({"loc": 0.0, "scale": 1e-10}, {"loc": 0.0, "scale": 1e10}, {"concentration1": 0.5, "loc": 0.0}),
    ),
    *pair(
        dist.Kumaraswamy,
        kumaraswamy,
        {"concentration1": 1.7, "concentration0": 2.2},
        {"concentration1": [1.7, 3.0], "concentration0": 2.2},
        exact=exact_kumaraswamy,
        law=KumaraswamyQuantiles,
        extremes=(
            {"concentration1": 1e-2, "concentration0": 1e-2},
            {"concentration1": 1.0, "concentration0": 1.0},
            {"concentration1": 1e4, "concentration0": 1e4},
            {"concentration1": 1e-2, "concentration0": 1e4},
            {"concentration1": 1e4, "concentration0": 1e-2},
        ),
        points=UNIT,
    ),
    *pair(
        dist.ContinuousBernoulli,
        continuous_bernoulli,
        {"probs": 0.3},
        {"probs": [0.2, 0.9]},
        exact=lambda x, probs: exact_tilted(x, mp.log(probs) - mp.log(1 - probs)),
        extremes=({"probs": 0.5}, {"probs": 0.4999}, {"probs": 1e-10}, {"probs": 1e-30}, {"probs": 0.999}),
        points=(0.0, *UNIT, 1.0),
    ),
    *pair(
        dist.ContinuousBernoulli,
        continuous_bernoulli_logits,
        {"logits": -0.8},
        {"logits": [-2.0, 0.7]},
        exact=exact_tilted,
        extremes=({"logits": 0.0}, {"logits": 1e-5}, {"logits": 0.2001}, {"logits": -700.0}, {"logits": 1e4}),
        points=(0.0, *UNIT, 1.0),
        note="logits",
    ),
    *pair(
        dist.Uniform,
        scipy(lambda low, high: st.uniform(low, high - low)),
        {"low": -1.5, "high": 2.0},
        {"low": R, "high": [0.5, 7.0]},
        exact=lambda x, low, high: -mp.log(high - low),
        extremes=({"low": -1e10, "high": 1e10}, {"low": 0.0, "high": 1e-10}, {"low": 1.0, "high": 1.001}),
    ),
    *pair(
        dist.LogUniform,
        scipy(lambda low, high: st.loguniform(low, high)),
        {"low": 0.5, "high": 7.0},
        {"low": V, "high": [2.0, 7.0]},
        exact=lambda x, low, high: -mp.log(x) - mp.log(mp.log(high / low)),
        extremes=({"low": 1e-30, "high": 1e30}, {"low": 1.0, "high": 1.001}, {"low": 1e10, "high": 1e11}),
    ),
    *pair(
        dist.DoublyTruncatedPowerLaw,
        power_law,
        {"alpha": -2.3, "low": 0.5, "high": 7.0},
        {"alpha": [-2.3, 0.7], "low": V, "high": 7.0},
        exact=exact_power_law,
        extremes=(
            {"alpha": -1.0},
            {"alpha": -1.0001},
            {"alpha": 0.0},
            {"alpha": -100.0},
            {"alpha": 100.0},
            {"alpha": 1.5, "low": 1.0, "high": 1.001},
            {"alpha": -1.5, "low": 1e-20, "high": 1e20},
        ),
        points=(0.5001, 0.6, 1.0, 1.0005, 3.0, 6.9),
    ),
]
