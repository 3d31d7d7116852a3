"""Rows of discrete families."""

from __future__ import annotations

import scipy.special as sp
import scipy.stats as st
from case import P3, P23, Array, Case, P, R, V, categorical, normalised, pair, scipy

import ppl.distributions as dist


def _multinomial(x: Array, probs: Array, total_count: int) -> Array:
    return st.multinomial(total_count, normalised(probs)).logpmf(x)


CASES = [
    *pair(dist.Bernoulli, scipy(lambda probs: st.bernoulli(probs), True), {"probs": 0.3}, {"probs": P}),
    Case(
        dist.Bernoulli, {"logits": R}, scipy(lambda logits: st.bernoulli(sp.expit(logits)), True), (2,), note="logits"
    ),
    *pair(
        dist.Binomial,
        scipy(lambda probs, total_count: st.binom(total_count, probs), True),
        {"probs": 0.3},
        {"probs": P},
        options={"total_count": 7},
    ),
    Case(
        dist.Binomial,
        {"total_count": [3.0, 6.0], "probs": P},
        scipy(lambda probs, total_count: st.binom(total_count, probs), True),
        (2,),
        no_gradient=("total_count",),
        note="counts",
    ),
    *pair(dist.Categorical, categorical, {"probs": P3}, {"probs": P23}),
    Case(
        dist.Categorical,
        {"logits": [[0.3, -1.0, 2.0, 0.0]] * 2},
        lambda x, logits: categorical(x, sp.softmax(logits, -1)),
        (2,),
        note="logits",
    ),
    *pair(dist.Geometric, scipy(lambda probs: st.geom(probs, loc=-1), True), {"probs": 0.3}, {"probs": P}),
    *pair(dist.Multinomial, _multinomial, {"probs": P3}, {"probs": P23}, event=(3,), options={"total_count": 6}),
    *pair(
        dist.NegativeBinomial,
        scipy(lambda probs, total_count: st.nbinom(total_count, 1 - probs), True),
        {"total_count": 4.0, "probs": 0.3},
        {"total_count": [4.0, 2.5], "probs": P},
    ),
    *pair(
        dist.OneHotCategorical,
        lambda x, probs: categorical(x.argmax(-1), probs),
        {"probs": P3},
        {"probs": P23},
        event=(3,),
    ),
    *pair(
        dist.OneHotCategoricalStraightThrough,
        lambda x, probs: categorical(x.argmax(-1), probs),
        {"probs": P3},
        {"probs": P23},
        event=(3,),
    ),
    *pair(dist.Poisson, scipy(lambda rate: st.poisson(rate), True), {"rate": 3.5}, {"rate": V}),
]
