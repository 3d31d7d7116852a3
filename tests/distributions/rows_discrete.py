"""Rows of categorical families: coins, one of K, and counts of K."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import scipy.special as sp
import scipy.stats as st
from case import P3, P23, Array, Case, P, R, categorical, normalised, pair, rows, scipy

import ppl.distributions as dist

INTERPOLATES = {
    "test_minus_infinity_outside": "with validation off, fractions are scored by cross entropy; see test_discrete.py"
}
UNORDERED = {"test_mean": "categories are no numbers: torch says NaN", "test_variance": "as the mean"}


def _bernoulli(x: mp.mpf, probs: mp.mpf) -> mp.mpf:
    return mp.log(probs) if x == 1 else mp.log1p(-probs)


def _bernoulli_logits(x: mp.mpf, logits: mp.mpf) -> mp.mpf:
    return -mp.log1p(mp.exp(-logits if x == 1 else logits))


def _categorical(x: mp.mpf, probs: list[mp.mpf]) -> mp.mpf:
    return mp.log(probs[int(x)] / sum(probs))


def _categorical_logits(x: mp.mpf, logits: list[mp.mpf]) -> mp.mpf:
    return logits[int(x)] - mp.log(sum(mp.exp(v) for v in logits))


def _one_hot(x: list[mp.mpf], probs: list[mp.mpf]) -> mp.mpf:
    return _categorical(x.index(1), probs)


@rows("(k),(k),()->()")
def _multinomial(x: Array, probs: Array, total_count: Array) -> float:
    return st.multinomial(int(total_count), normalised(probs)).logpmf(x)


def _multinomial_exact(x: list[mp.mpf], probs: list[mp.mpf], total_count: int) -> mp.mpf:
    logs = [v * mp.log(p / sum(probs)) if v else 0 for v, p in zip(x, probs, strict=True)]
    return mp.loggamma(sum(x) + 1) - sum(mp.loggamma(v + 1) for v in x) + sum(logs)


@rows("(k),(k),()->()")
def _dirichlet_multinomial(x: Array, concentration: Array, total_count: Array) -> float:
    return st.dirichlet_multinomial(concentration, int(total_count)).logpmf(x.astype(int))


def _sparse_dirichlet_multinomial(x: Array, concentration: Array, total_count: Array, is_sparse: bool) -> Array:
    return _dirichlet_multinomial(x, concentration=concentration, total_count=total_count)


def _dirichlet_multinomial_exact(x: list[mp.mpf], concentration: list[mp.mpf], total_count: int, **_: bool) -> mp.mpf:
    n, a = sum(x), sum(concentration)
    each = [mp.loggamma(v + c) - mp.loggamma(c) - mp.loggamma(v + 1) for v, c in zip(x, concentration, strict=True)]
    return mp.loggamma(n + 1) + mp.loggamma(a) - mp.loggamma(n + a) + sum(each)


def _ordered(x: Array, predictor: Array, cutpoints: Array) -> Array:
    below = sp.expit(cutpoints - predictor[..., None])
    ends = np.concatenate([np.zeros_like(below[..., :1]), below, np.ones_like(below[..., :1])], -1)
    return categorical(x, np.diff(ends))


def _ordered_exact(x: mp.mpf, predictor: mp.mpf, cutpoints: list[mp.mpf]) -> mp.mpf:
    with mp.workdps(150):  # the formula has no cancellation to fear with enough digits
        below = [mp.mpf(0), *(1 / (1 + mp.exp(predictor - c)) for c in cutpoints), mp.mpf(1)]
        return mp.log(below[int(x) + 1] - below[int(x)])


def _relaxed_bernoulli(x: Array, temperature: Array, probs: Array) -> Array:
    z = sp.logit(x)
    u = sp.logit(probs) - temperature * z
    return np.log(temperature) + u - 2 * np.logaddexp(0, u) - np.log(x) - np.log1p(-x)


def _relaxed_bernoulli_exact(x: mp.mpf, temperature: mp.mpf, probs: mp.mpf) -> mp.mpf:
    return _relaxed_bernoulli_logits(x, temperature, mp.log(probs) - mp.log1p(-probs))


def _relaxed_bernoulli_logits(x: mp.mpf, temperature: mp.mpf, logits: mp.mpf) -> mp.mpf:
    odds, y, z = mp.exp(logits), x**temperature, (1 - x) ** temperature
    return mp.log(temperature) + logits + mp.log(y * z / (x * (1 - x))) - 2 * mp.log(odds * z + y)


@rows("(k),(),(k)->()")
def _relaxed_one_hot(x: Array, temperature: float, probs: Array) -> float:
    k = len(probs)
    weights = normalised(probs) * x**-temperature
    return math.lgamma(k) + (k - 1) * math.log(temperature) + np.log(weights / x).sum() - k * np.log(weights.sum())


def _relaxed_one_hot_exact(x: list[mp.mpf], temperature: mp.mpf, probs: list[mp.mpf]) -> mp.mpf:
    k = len(probs)
    weights = [p * v**-temperature for p, v in zip(probs, x, strict=True)]
    logs = sum(mp.log(w / v) for w, v in zip(weights, x, strict=True))
    return mp.loggamma(k) + (k - 1) * mp.log(temperature) + logs - k * mp.log(sum(weights))


COIN = scipy(lambda probs: st.bernoulli(probs), True)
ENDS = (0.0, 1.0)
#: Probabilities near the ends, which float32 can hold.
NEAR_ENDS = ({"probs": 1e-10}, {"probs": 1e-30}, {"probs": 0.9999999}, {"probs": 0.5})
FAR_LOGITS = tuple({"logits": v} for v in (-300.0, -50.0, -20.0, 0.0, 20.0, 50.0, 300.0))
SKEWED = ({"probs": [1e-30, 1e-10, 1.0]}, {"probs": [3e10, 1.0, 4e-20]}, {"probs": [0.0, 0.0, 1.0]})
FAR = ({"logits": [-300.0, 50.0, 0.0, 49.0]}, {"logits": [1e4, -1e4, 1e4, 0.0]})

CASES = [
    *pair(
        dist.Bernoulli,
        COIN,
        {"probs": 0.3},
        {"probs": P},
        exact=_bernoulli,
        points=ENDS,
        extremes=NEAR_ENDS,
        skips=INTERPOLATES,
    ),
    *pair(
        dist.Bernoulli,
        scipy(lambda logits: st.bernoulli(sp.expit(logits)), True),
        {"logits": -0.7},
        {"logits": R},
        note="logits",
        exact=_bernoulli_logits,
        points=ENDS,
        extremes=FAR_LOGITS,
        skips=INTERPOLATES,
    ),
    *pair(
        dist.Categorical,
        categorical,
        {"probs": P3},
        {"probs": P23},
        exact=_categorical,
        points=(0.0, 1.0, 2.0),
        extremes=SKEWED[:2],
        skips=UNORDERED,
    ),
    *pair(
        dist.Categorical,
        lambda x, logits: categorical(x, sp.softmax(logits, -1)),
        {"logits": [0.3, -1.0, 2.0, 0.0]},
        {"logits": [[0.3, -1.0, 2.0, 0.0]] * 2},
        note="logits",
        exact=_categorical_logits,
        points=(0.0, 1.0, 2.0, 3.0),
        extremes=FAR,
        skips=UNORDERED,
    ),
    *(
        case
        for cls in (dist.OneHotCategorical, dist.OneHotCategoricalStraightThrough)
        for case in pair(
            cls,
            lambda x, probs: categorical(x.argmax(-1), probs),
            {"probs": P3},
            {"probs": P23},
            event=(3,),
            exact=_one_hot,
            points=([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]),
            extremes=SKEWED[:2],
        )
    ),
    *pair(
        dist.OrderedLogistic,
        _ordered,
        {"predictor": 0.4, "cutpoints": [-1.0, 0.5, 2.0]},
        {"predictor": R, "cutpoints": [-1.0, 0.5, 2.0]},
        exact=_ordered_exact,
        points=(0.0, 1.0, 2.0, 3.0),
        extremes=(
            {"predictor": 50.0},
            {"predictor": -90.0},
            {"cutpoints": [-1e-6, 0.0, 1e-6]},
            {"cutpoints": [-60.0, 0.0, 60.0]},
        ),
        skips=UNORDERED,
    ),
    *pair(
        dist.Multinomial,
        _multinomial,
        {"probs": P3},
        {"probs": P23},
        event=(3,),
        options={"total_count": 6},
        exact=_multinomial_exact,
        points=([6.0, 0.0, 0.0], [2.0, 2.0, 2.0], [0.0, 1.0, 5.0]),
        extremes=({"probs": [1e-30, 1e-10, 1.0]}, {"probs": [0.9999999, 1e-7, 1e-20]}),
    ),
    Case(
        dist.Multinomial,
        {"total_count": [6.0, 2.0], "probs": P3},
        lambda x, total_count, probs: _multinomial(x, probs=probs, total_count=total_count),
        (2,),
        (3,),
        no_gradient=("total_count",),
        note="counts",
    ),
    Case(
        dist.Multinomial,
        {"probs": P3},
        _multinomial,
        (),
        (3,),
        options={"total_count": 2_000_000},
        note="millions",
        integrates=False,
        exact=_multinomial_exact,
        points=([4e5, 6e5, 1e6], [400_100.0, 599_000.0, 1_000_900.0], [0.0, 1.0, 1_999_999.0]),
        extremes=({"probs": [0.2, 0.8, 1e-10]}, {"probs": [1e-5, 1e-3, 1.0]}),
    ),
    *pair(
        dist.DirichletMultinomial,
        _dirichlet_multinomial,
        {"concentration": [0.7, 2.0, 3.5]},
        {"concentration": [[0.7, 2.0, 3.5], [4.0, 0.2, 1.0]]},
        event=(3,),
        options={"total_count": 6},
        exact=_dirichlet_multinomial_exact,
        points=([6.0, 0.0, 0.0], [2.0, 2.0, 2.0], [0.0, 1.0, 5.0]),
        extremes=(
            {"concentration": [1e-6, 1e-3, 1.0]},
            {"concentration": [1e6, 1e8, 2e7]},
            {"concentration": [1e-6, 1e6, 1.0]},
        ),
    ),
    Case(
        dist.DirichletMultinomial,
        {"concentration": [0.7, 2.0, 3.5], "total_count": [6.0, 2.0]},
        _dirichlet_multinomial,
        (2,),
        (3,),
        no_gradient=("total_count",),
        note="counts",
    ),
    Case(
        dist.DirichletMultinomial,
        {"concentration": [0.7, 2.0, 3.5]},
        _sparse_dirichlet_multinomial,
        (),
        (3,),
        options={"total_count": 1_000_000, "is_sparse": True},
        note="sparse",
        integrates=False,
        exact=_dirichlet_multinomial_exact,
        points=([1e5, 3e5, 6e5], [0.0, 0.0, 1e6], [3e5, 0.0, 7e5]),
        extremes=({"concentration": [1e-3, 1e5, 1e5]},),
        skips={
            "test_maps_over_parameters": "a sparse value is looked at",
            "test_log_prob_has_its_shape": "a sparse value is looked at",
            "test_log_prob_becomes_a_graph": "the graph is for as many zeros",
        },
    ),
    *pair(
        dist.RelaxedBernoulli,
        _relaxed_bernoulli,
        {"temperature": 0.8, "probs": 0.3},
        {"temperature": 0.8, "probs": P},
        exact=_relaxed_bernoulli_exact,
        points=(1e-30, 1e-12, 1e-6, 1e-3, 0.1, 0.5, 0.9, 0.9999),
        extremes=(
            {"temperature": 0.05},
            {"temperature": 1.0},
            {"temperature": 30.0},
            {"probs": 1e-20},
            {"probs": 0.999999},
        ),
    ),
    Case(
        dist.RelaxedBernoulli,
        {"temperature": 1.7, "logits": -0.7},
        lambda x, temperature, logits: _relaxed_bernoulli(x, temperature, sp.expit(logits)),
        note="logits",
        exact=_relaxed_bernoulli_logits,
        points=(1e-30, 1e-6, 0.1, 0.5, 0.9999),
        extremes=({"logits": 50.0}, {"logits": -200.0}),
    ),
    *pair(
        dist.RelaxedBernoulliStraightThrough,
        scipy(lambda temperature, probs: st.bernoulli(probs), True),
        {"temperature": 0.8, "probs": 0.3},
        {"temperature": 0.8, "probs": P},
        no_gradient=("temperature",),
        exact=lambda x, temperature, probs: _bernoulli(x, probs),
        points=ENDS,
        extremes=NEAR_ENDS,
    ),
    *pair(
        dist.RelaxedOneHotCategorical,
        _relaxed_one_hot,
        {"temperature": 0.8, "probs": P3},
        {"temperature": 0.8, "probs": P23},
        event=(3,),
        exact=_relaxed_one_hot_exact,
        points=([0.2, 0.3, 0.5], [1e-6, 1e-12, 1.0], [0.99, 0.005, 0.005]),
        extremes=({"temperature": 0.05}, {"temperature": 20.0}, {"probs": [1e-20, 1e-5, 1.0]}),
    ),
    *pair(
        dist.RelaxedOneHotCategoricalStraightThrough,
        lambda x, temperature, probs: categorical(x.argmax(-1), probs),
        {"temperature": 0.8, "probs": P3},
        {"temperature": 0.8, "probs": P23},
        event=(3,),
        no_gradient=("temperature",),
        exact=lambda x, temperature, probs: _one_hot(x, probs),
        points=([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]),
        extremes=SKEWED[:2],
    ),
]
