"""Rows of continuous univariate families."""

from __future__ import annotations

import numpy as np
from case import Array, P, logit, pair

import ppl.distributions as dist


def _relaxed_bernoulli(x: Array, temperature: Array, probs: Array) -> Array:
    t, a = temperature, np.exp(logit(probs))  # Maddison, Mnih & Teh 2017, binary concrete
    kernel = np.log(t) + np.log(a) - (t + 1) * (np.log(x) + np.log1p(-x))
    return kernel - 2 * np.log(a * x**-t + (1 - x) ** -t)


CASES = [
    *pair(
        dist.RelaxedBernoulli,
        _relaxed_bernoulli,
        {"temperature": 0.8, "probs": 0.3},
        {"temperature": 0.8, "probs": P},
    ),
]
