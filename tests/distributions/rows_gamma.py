"""Rows of the gamma family and of Student's."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import scipy.stats as st
from case import Case, R, V, pair, scipy

import ppl.distributions as dist


def exact_gamma(x: Any, concentration: Any, rate: Any) -> Any:
    return concentration * mp.log(rate) + (concentration - 1) * mp.log(x) - rate * x - mp.loggamma(concentration)


def exact_inverse_gamma(x: Any, concentration: Any, rate: Any) -> Any:
    return concentration * mp.log(rate) - (concentration + 1) * mp.log(x) - rate / x - mp.loggamma(concentration)


def exact_student(x: Any, df: Any, loc: Any, scale: Any) -> Any:
    norm = mp.loggamma((df + 1) / 2) - mp.loggamma(df / 2) - mp.log(mp.pi * df) / 2 - mp.log(scale)
    return norm - (df + 1) / 2 * mp.log1p(((x - loc) / scale) ** 2 / df)


def exact_fisher(x: Any, df1: Any, df2: Any) -> Any:
    a, b = df1 / 2, df2 / 2
    log_beta = mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b)
    return a * mp.log(df1 / df2) + (a - 1) * mp.log(x) - (a + b) * mp.log1p(df1 * x / df2) - log_beta


GAMMA_ENDS: tuple[dict[str, Any], ...] = (
    {"concentration": 1e-3},
    {"concentration": 1e-6, "rate": 1.0},
    {"concentration": 1.0, "rate": 2.0},
    {"concentration": 50.0},
    {"concentration": 1e6},
    {"concentration": 1e6, "rate": 1e6},
    {"concentration": 1e9, "rate": 1e3},
    {"rate": 1e-10},
    {"rate": 1e10},
)

CASES: list[Case] = [
    *pair(
        dist.Gamma,
        scipy(lambda concentration, rate: st.gamma(concentration, scale=1 / rate)),
        {"concentration": 2.5, "rate": 1.5},
        {"concentration": [1.5, 4.0], "rate": V},
        exact=exact_gamma,
        extremes=GAMMA_ENDS,
        points=(1e-30, 1e-6, 1.0, 100.0),
    ),
    Case(
        dist.Gamma,
        {"concentration": 0.7, "rate": 1.5},
        scipy(lambda concentration, rate: st.gamma(concentration, scale=1 / rate)),
        exact=exact_gamma,
        note="below-1",
    ),
    *pair(
        dist.Chi2,
        scipy(lambda df: st.chi2(df)),
        {"df": 3.5},
        {"df": [2.5, 7.0]},
        exact=lambda x, df: exact_gamma(x, df / 2, mp.mpf(1) / 2),
        extremes=({"df": 1e-2}, {"df": 2.0}, {"df": 1e6}),
    ),
    *pair(
        dist.InverseGamma,
        scipy(lambda concentration, rate: st.invgamma(concentration, scale=rate)),
        {"concentration": 2.5, "rate": 1.5},
        {"concentration": [2.5, 4.0], "rate": V},
        exact=exact_inverse_gamma,
        extremes=(
            {"concentration": 0.1},
            {"concentration": 1e-3},
            {"concentration": 1e6},
            {"concentration": 1e6, "rate": 1e6},
            {"rate": 1e-10},
            {"rate": 1e10},
        ),
        points=(1e-2, 1.0, 1e10),
    ),
    *pair(
        dist.Exponential,
        scipy(lambda rate: st.expon(scale=1 / rate)),
        {"rate": 1.5},
        {"rate": V},
        exact=lambda x, rate: mp.log(rate) - rate * x,
        extremes=({"rate": 1e-10}, {"rate": 1e10}),
        points=(0.0, 1e3),
    ),
    *pair(
        dist.StudentT,
        scipy(lambda df, loc, scale: st.t(df, loc, scale)),
        {"df": 3.5, "loc": 0.5, "scale": 1.2},
        {"df": 3.5, "loc": R, "scale": V},
        exact=exact_student,
        extremes=({"df": 0.1}, {"df": 1.0}, {"df": 1e3}, {"df": 1e8}, {"scale": 1e-10}, {"scale": 1e10}),
        points=(-1e10, 0.5, 1e25),
    ),
    Case(
        dist.StudentT,
        {"df": 1.5, "loc": 0.5, "scale": 1.2},
        scipy(lambda df, loc, scale: st.t(df, loc, scale)),
        exact=exact_student,
        note="infinite-variance",
    ),
    *pair(
        dist.FisherSnedecor,
        scipy(lambda df1, df2: st.f(df1, df2)),
        {"df1": 3.0, "df2": 5.0},
        {"df1": [3.0, 4.5], "df2": 5.0},
        exact=exact_fisher,
        extremes=({"df1": 0.1}, {"df2": 0.5}, {"df1": 1e6, "df2": 1e6}, {"df1": 2.0, "df2": 1e8}, {"df1": 1e6}),
        points=(1e-20, 1.0, 1e20),
    ),
]
