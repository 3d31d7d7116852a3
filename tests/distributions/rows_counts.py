"""Rows of univariate counts."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import scipy.special as sp
import scipy.stats as st
from case import Array, Case, P, R, V, pair, rows, scipy

import ppl.distributions as dist


def _beta(a: mp.mpf, b: mp.mpf) -> mp.mpf:
    return mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b)


def _times(x: mp.mpf, log: mp.mpf) -> mp.mpf:
    return x * log if x else mp.mpf(0)


def _choose(n: mp.mpf, k: mp.mpf) -> mp.mpf:
    return mp.loggamma(n + 1) - mp.loggamma(k + 1) - mp.loggamma(n - k + 1)


def _log_odds(logits: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
    return -mp.log1p(mp.exp(-logits)), -mp.log1p(mp.exp(logits))


def _geometric(x: mp.mpf, probs: mp.mpf) -> mp.mpf:
    return mp.log(probs) + _times(x, mp.log1p(-probs))


def _geometric_logits(x: mp.mpf, logits: mp.mpf) -> mp.mpf:
    log_p, log_q = _log_odds(logits)
    return log_p + x * log_q


def _binomial(x: mp.mpf, probs: mp.mpf, total_count: mp.mpf) -> mp.mpf:
    n = mp.mpf(total_count)
    return _choose(n, x) + _times(x, mp.log(probs)) + _times(n - x, mp.log1p(-probs))


def _binomial_logits(x: mp.mpf, logits: mp.mpf, total_count: mp.mpf) -> mp.mpf:
    n, (log_p, log_q) = mp.mpf(total_count), _log_odds(logits)
    return _choose(n, x) + x * log_p + (n - x) * log_q


def _poisson(x: mp.mpf, rate: mp.mpf, **_: bool) -> mp.mpf:
    return _times(x, mp.log(rate)) - rate - mp.loggamma(x + 1)


def _negative(x: mp.mpf, r: mp.mpf, log_p: mp.mpf, log_q: mp.mpf) -> mp.mpf:
    with mp.workdps(120):  # for counts of 1e40
        return mp.loggamma(x + r) - mp.loggamma(r) - mp.loggamma(x + 1) + x * log_p + r * log_q


def _negative_probs(x: mp.mpf, total_count: mp.mpf, probs: mp.mpf) -> mp.mpf:
    return _negative(x, total_count, mp.log(probs), mp.log1p(-probs))


def _negative_logits(x: mp.mpf, total_count: mp.mpf, logits: mp.mpf) -> mp.mpf:
    with mp.workdps(120):
        return _negative(x, total_count, *_log_odds(logits))


def _gamma_poisson(x: mp.mpf, concentration: mp.mpf, rate: mp.mpf) -> mp.mpf:
    return _negative(x, concentration, -mp.log1p(rate), mp.log(rate) - mp.log1p(rate))


def _negative2(x: mp.mpf, mean: mp.mpf, concentration: mp.mpf) -> mp.mpf:
    both = mp.log(mean + concentration)
    return _negative(x, concentration, mp.log(mean) - both, mp.log(concentration) - both)


def _beta_binomial(x: mp.mpf, concentration1: mp.mpf, concentration0: mp.mpf, total_count: mp.mpf) -> mp.mpf:
    n = mp.mpf(total_count)
    return _choose(n, x) + _beta(x + concentration1, n - x + concentration0) - _beta(concentration1, concentration0)


def _beta_negative(x: mp.mpf, concentration1: mp.mpf, concentration0: mp.mpf, n: mp.mpf) -> mp.mpf:
    first = mp.loggamma(n + x) - mp.loggamma(n) - mp.loggamma(x + 1)
    return first + _beta(concentration1 + x, concentration0 + n) - _beta(concentration1, concentration0)


def _beta_binomial_numpy(x: Array, concentration1: Array, concentration0: Array, total_count: Array) -> Array:
    # scipy looks for quantiles by trying, which takes minutes in heavy tails: none here
    return st.betabinom(total_count, concentration1, concentration0).logpmf(x)


def _beta_negative_numpy(x: Array, concentration1: Array, concentration0: Array, n: Array) -> Array:
    first = sp.gammaln(n + x) - sp.gammaln(n) - sp.gammaln(x + 1)
    return first + sp.betaln(concentration1 + x, concentration0 + n) - sp.betaln(concentration1, concentration0)


@rows("(),(),(),()->()")
def _noisy(x: float, total_count: float, logits: float, multiplicative_noise_scale: float) -> float:
    noise = np.linspace(-12, 12, 4001)
    odds = logits + multiplicative_noise_scale * noise
    mass = st.nbinom(total_count, sp.expit(-odds)).pmf(x) * st.norm.pdf(noise)
    return np.log(np.trapezoid(mass, noise))


def _noisy_exact(x: mp.mpf, total_count: mp.mpf, logits: mp.mpf, multiplicative_noise_scale: mp.mpf) -> mp.mpf:
    r = total_count
    front = mp.loggamma(x + r) - mp.loggamma(r) - mp.loggamma(x + 1)

    def integrand(e: mp.mpf) -> mp.mpf:
        odds = logits + multiplicative_noise_scale * e
        return mp.exp(x * odds - (x + r) * mp.log1p(mp.exp(odds)) - e * e / 2)

    step = mp.mpf(1) / 20  # the trapezoid rule converges exponentially for analytic integrands
    return front + mp.log(step / mp.sqrt(2 * mp.pi) * sum(integrand(step * i) for i in range(-260, 261)))


def _uniform(x: Array, low: Array, high: Array) -> Array:
    return st.randint(low, high + 1).logpmf(x)


_uniform.law = lambda low, high: st.randint(low, high + 1)  # type: ignore[attr-defined]

BINOMIAL = scipy(lambda probs, total_count: st.binom(total_count, probs), True)
NEGATIVE = scipy(lambda total_count, probs: st.nbinom(total_count, 1 - probs), True)
NEGATIVE2 = scipy(lambda mean, concentration: st.nbinom(concentration, concentration / (mean + concentration)), True)
NEAR_ENDS = ({"probs": 1e-10}, {"probs": 1e-4}, {"probs": 0.5}, {"probs": 0.99999})
FAR_LOGITS = tuple({"logits": v} for v in (-100.0, -50.0, -20.0, 0.0, 20.0, 50.0, 100.0))
MILLION = (0.0, 1.0, 7.0, 1000.0, 300_000.0, 301_000.0, 500_000.0, 999_999.0, 1_000_000.0)
EXTENDED = {
    "test_minus_infinity_outside": "counts outside the total are declared inside the support",
    "test_gradients_outside_are_no_nan": "only fractions are outside",
}

CASES = [
    *pair(
        dist.Geometric,
        scipy(lambda probs: st.geom(probs, loc=-1), True),
        {"probs": 0.3},
        {"probs": P},
        exact=_geometric,
        extremes=NEAR_ENDS,
    ),
    Case(
        dist.Geometric,
        {"logits": -0.7},
        scipy(lambda logits: st.geom(sp.expit(logits), loc=-1), True),
        note="logits",
        exact=_geometric_logits,
        points=(0.0, 1.0, 1e6),
        extremes=FAR_LOGITS,
    ),
    *pair(
        dist.Binomial,
        BINOMIAL,
        {"probs": 0.3},
        {"probs": P},
        options={"total_count": 7},
        exact=_binomial,
        points=(0.0, 3.0, 7.0),
        extremes=NEAR_ENDS,
    ),
    Case(
        dist.Binomial,
        {"logits": -0.7},
        scipy(lambda logits, total_count: st.binom(total_count, sp.expit(logits)), True),
        options={"total_count": 7},
        note="logits",
        exact=_binomial_logits,
        points=(0.0, 3.0, 7.0),
        extremes=FAR_LOGITS,
    ),
    Case(
        dist.Binomial,
        {"total_count": [3.0, 6.0], "probs": P},
        BINOMIAL,
        (2,),
        note="counts",
        no_gradient=("total_count",),
    ),
    Case(
        dist.Binomial,
        {"probs": 0.3},
        BINOMIAL,
        options={"total_count": 1_000_000},
        note="millions",
        integrates=False,
        exact=_binomial,
        points=MILLION,
        extremes=NEAR_ENDS,
        skips={"test_enumerate_support": "a million values"},
    ),
    *pair(
        dist.ExtendedBinomial,
        BINOMIAL,
        {"probs": 0.3},
        {"probs": P},
        options={"total_count": 7},
        exact=_binomial,
        points=(0.0, 3.0, 7.0),
        extremes=NEAR_ENDS,
        skips=EXTENDED,
    ),
    *pair(
        dist.BetaBinomial,
        _beta_binomial_numpy,
        {"concentration1": 0.7, "concentration0": 2.5},
        {"concentration1": V, "concentration0": [2.5, 0.6]},
        options={"total_count": 7},
        exact=_beta_binomial,
        points=(0.0, 3.0, 7.0),
        extremes=(
            {"concentration1": 1e-6, "concentration0": 1e-6},
            {"concentration1": 1e6, "concentration0": 3e6},
            {"concentration1": 1e-6, "concentration0": 1e6},
        ),
    ),
    Case(
        dist.BetaBinomial,
        {"concentration1": V, "concentration0": [2.5, 0.6], "total_count": [3.0, 6.0]},
        _beta_binomial_numpy,
        (2,),
        note="counts",
        no_gradient=("total_count",),
    ),
    Case(
        dist.BetaBinomial,
        {"concentration1": 0.7, "concentration0": 2.5},
        _beta_binomial_numpy,
        options={"total_count": 1_000_000},
        note="millions",
        integrates=False,
        exact=_beta_binomial,
        points=MILLION,
        extremes=({"concentration1": 1e5, "concentration0": 3e5}, {"concentration1": 1e-5, "concentration0": 100.0}),
        skips={"test_enumerate_support": "a million values"},
    ),
    *pair(
        dist.ExtendedBetaBinomial,
        _beta_binomial_numpy,
        {"concentration1": 0.7, "concentration0": 2.5},
        {"concentration1": V, "concentration0": [2.5, 0.6]},
        options={"total_count": 7},
        exact=_beta_binomial,
        points=(0.0, 3.0, 7.0),
        extremes=({"concentration1": 1e-6, "concentration0": 1e6},),
        skips=EXTENDED,
    ),
    *pair(
        dist.BetaNegativeBinomial,
        _beta_negative_numpy,
        {"concentration1": 1.5, "concentration0": 9.0, "n": 4.0},
        {"concentration1": V, "concentration0": [9.0, 6.0], "n": [4.0, 0.5]},
        exact=_beta_negative,
        points=(0.0, 1.0, 10.0, 1e3, 1e6),
        extremes=(
            {"concentration1": 1e-4, "concentration0": 1e-4, "n": 1e-4},
            {"concentration1": 1e6, "concentration0": 1e6, "n": 1e6},
            {"concentration1": 0.1, "concentration0": 2000.0, "n": 1e6},
        ),
    ),
    *pair(
        dist.NegativeBinomial,
        NEGATIVE,
        {"total_count": 4.0, "probs": 0.3},
        {"total_count": [4.0, 2.5], "probs": P},
        exact=_negative_probs,
        points=(0.0, 1.0, 100.0, 1e6),
        extremes=(*NEAR_ENDS, {"total_count": 1e-6}, {"total_count": 1e6}, {"total_count": 1e6, "probs": 1e-6}),
    ),
    Case(
        dist.NegativeBinomial,
        {"total_count": 4.0, "logits": -0.7},
        scipy(lambda total_count, logits: st.nbinom(total_count, sp.expit(-logits)), True),
        note="logits",
        exact=_negative_logits,
        points=(0.0, 1.0, 100.0, 1e6),
        extremes=FAR_LOGITS,
    ),
    *pair(
        dist.NegativeBinomial2,
        NEGATIVE2,
        {"mean": 3.0, "concentration": 4.0},
        {"mean": V, "concentration": [4.0, 0.5]},
        exact=_negative2,
        points=(0.0, 1.0, 100.0, 1e6),
        extremes=(
            {"mean": 1e6, "concentration": 1e-2},
            {"mean": 1e6, "concentration": 1e6},
            {"mean": 1e-10, "concentration": 1e-3},
            {"mean": 3.0, "concentration": 1e10},
            {"mean": 1e6, "concentration": 1e12},
        ),
    ),
    *pair(
        dist.GammaPoisson,
        scipy(lambda concentration, rate: st.nbinom(concentration, rate / (1 + rate)), True),
        {"concentration": 2.5, "rate": 0.7},
        {"concentration": V, "rate": [0.7, 3.0]},
        exact=_gamma_poisson,
        points=(0.0, 1.0, 100.0, 1e6),
        extremes=(
            {"concentration": 1e6, "rate": 1.0},
            {"concentration": 1e6, "rate": 1e10},
            {"concentration": 1e-4, "rate": 1e-6},
            {"concentration": 0.5, "rate": 1e-10},
        ),
    ),
    *pair(
        dist.Poisson,
        scipy(lambda rate: st.poisson(rate), True),
        {"rate": 3.5},
        {"rate": V},
        exact=_poisson,
        points=(0.0, 1.0, 100.0, 1e6),
        extremes=({"rate": 1e-30}, {"rate": 1e-10}, {"rate": 100.0}, {"rate": 1e6}, {"rate": 1e7}),
    ),
    *pair(
        dist.Poisson,
        scipy(lambda rate, is_sparse: st.poisson(rate), True),
        {"rate": 3.5},
        {"rate": V},
        options={"is_sparse": True},
        note="sparse",
        exact=_poisson,
        extremes=({"rate": 1e-10}, {"rate": 1e6}),
        skips={
            "test_maps_over_parameters": "a sparse value is looked at",
            "test_log_prob_has_its_shape": "a sparse value is looked at",
            "test_log_prob_becomes_a_graph": "the graph is for as many zeros",
        },
    ),
    *pair(
        dist.LogNormalNegativeBinomial,
        _noisy,
        {"total_count": 4.0, "logits": -0.7, "multiplicative_noise_scale": 0.6},
        {"total_count": 4.0, "logits": R, "multiplicative_noise_scale": [0.6, 0.2]},
        exact=_noisy_exact,
        points=(0.0, 1.0, 10.0, 200.0),
        extremes=(
            {"multiplicative_noise_scale": 1e-3},
            {"multiplicative_noise_scale": 2.0},
            {"total_count": 100.0, "logits": 2.0},
            {"total_count": 1e-3},
        ),
    ),
    Case(
        dist.DiscreteUniform,
        {"low": -2.0, "high": 4.0},
        _uniform,
        no_gradient=("low", "high"),
        exact=lambda x, low, high: -mp.log(high - low + 1),
        points=(-2.0, 0.0, 4.0),
        extremes=({"low": -1e6, "high": 1e6}, {"low": 3.0, "high": 3.0}),
    ),
    Case(
        dist.DiscreteUniform,
        {"low": -2.0, "high": [4.0, -1.0]},
        _uniform,
        (2,),
        note="counts",
        no_gradient=("low", "high"),
    ),
]
