"""Rows of distributions made of others."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special as sp
import scipy.stats as st
import torch
from case import COV, LOC3, P3, P23, Array, Case, R, V, categorical, pair, scipy
from rows_multivariate import dirichlet, normal_vector

import ppl.distributions as dist
from ppl.distributions import transforms


def _empirical(x: Array, samples: Array, log_weights: Array) -> Array:
    extra = samples.ndim - log_weights.ndim
    same = np.expand_dims(x, x.ndim - extra) == samples
    hit = same.all(tuple(range(-extra, 0))) if extra else same
    with np.errstate(divide="ignore"):
        return np.log((hit * sp.softmax(log_weights, -1)).sum(-1))


def _point(x: Array, v: Array, log_density: Any = 0.0, event_dim: int = 0) -> Array:
    here = x == v
    return np.where(here.all(tuple(range(-event_dim, 0))) if event_dim else here, 0.0, -np.inf) + log_density


EMPTY = {"test_rsample_where_there_is_none": "its draw is empty", "test_default_dtype_for_numbers": "takes a tensor"}
CASES = [
    *pair(dist.Delta, _point, {"v": 0.5}, {"v": R, "log_density": [0.3, -0.2]}, no_gradient=("v",), integrates=False),
    Case(
        dist.Delta,
        {"v": [R, R, R]},
        _point,
        (3,),
        (2,),
        options={"event_dim": 1},
        no_gradient=("v",),
        integrates=False,
        note="vector",
    ),
    Case(
        dist.Delta, {"v": [2, 5]}, _point, (2,), integers=("v",), no_gradient=("v",), integrates=False, note="integer"
    ),
    Case(
        dist.Unit,
        {"log_factor": 0.7},
        lambda x, log_factor: np.broadcast_to(log_factor, x.shape[:-1]),
        (),
        (0,),
        skips=EMPTY,
    ),
    Case(
        dist.Unit,
        {"log_factor": R},
        lambda x, log_factor: np.broadcast_to(log_factor, x.shape[:-1]),
        (2,),
        (0,),
        skips=EMPTY,
    ),
    Case(
        dist.Empirical,
        {"samples": [0.5, 1.5, -1.0], "log_weights": [0.3, 1.0, -2.0]},
        _empirical,
        no_gradient=("samples",),
        integrates=False,
    ),
    Case(
        dist.Empirical,
        {"samples": [[[0.5, 1.0], [1.5, 0.0], [-1.0, 0.3]]] * 2, "log_weights": [[0.3, 1.0, -2.0], [0.0, 0.0, 1.0]]},
        _empirical,
        (2,),
        (2,),
        no_gradient=("samples",),
        integrates=False,
        note="vector",
    ),
    Case(
        dist.Empirical,
        {"samples": [3, 5, 4], "log_weights": [0.3, 1.0, -2.0]},
        _empirical,
        integers=("samples",),
        no_gradient=("samples",),
        integrates=False,
        note="integer",
    ),
    *pair(
        dist.TransformedDistribution,
        scipy(lambda loc, scale: st.lognorm(s=2 * scale, scale=np.exp(1 + 2 * loc))),
        {"loc": 0.5, "scale": 0.4},
        {"loc": R, "scale": V},
        build_from=lambda loc, scale: dist.TransformedDistribution(
            dist.Normal(loc, scale), [transforms.AffineTransform(1.0, 2.0), transforms.ExpTransform()]
        ),
    ),
    Case(
        dist.Independent,
        {"loc": [R, R, R], "scale": V},
        lambda x, loc, scale: st.norm(loc, scale).logpdf(x).sum(-1),
        (3,),
        (2,),
        build_from=lambda loc, scale: dist.Independent(dist.Normal(loc, scale), 1),
    ),
    Case(
        dist.Independent,
        {"probs": [P23, P23]},
        lambda x, probs: categorical(x, probs).sum((-1, -2)),
        (),
        (2, 2),
        build_from=lambda probs: dist.Categorical(probs).to_event(2),
        note="categorical",
    ),
    Case(
        dist.ExpandedDistribution,
        {"loc": [[0.5], [-1.0]], "scale": 1.2},
        scipy(lambda loc, scale: st.norm(loc, scale)),
        (4, 2, 3),
        build_from=lambda loc, scale: dist.ExpandedDistribution(dist.Normal(loc, scale), (4, 2, 3)),
    ),
    Case(
        dist.ExpandedDistribution,
        {"probs": [[P3]]},
        categorical,
        (4, 2),
        build_from=lambda probs: dist.ExpandedDistribution(dist.Categorical(probs), (4, 2)),
        note="categorical",
    ),
    Case(
        dist.ExpandedDistribution,
        {"loc": LOC3, "covariance_matrix": COV},
        normal_vector,
        (2,),
        (3,),
        build_from=lambda loc, covariance_matrix: dist.ExpandedDistribution(
            dist.MultivariateNormal(loc, covariance_matrix), (2,)
        ),
        note="vector",
    ),
    Case(
        dist.MaskedDistribution,
        {"loc": R, "scale": V},
        lambda x, loc, scale: np.where([True, False], st.norm(loc, scale).logpdf(x), 0.0),
        (2,),
        build_from=lambda loc, scale: dist.MaskedDistribution(
            dist.Normal(loc, scale), torch.tensor([True, False], device=loc.device)
        ),
    ),
    Case(
        dist.MaskedDistribution,
        {"concentration": [1.5, 2.0, 3.0]},
        lambda x, concentration: np.where([[True], [False]], dirichlet(x, concentration=concentration), 0.0),
        (2, 1),
        (3,),
        build_from=lambda concentration: dist.Dirichlet(concentration).mask(
            torch.tensor([[True], [False]], device=concentration.device)
        ),
        note="vector",
    ),
    Case(
        dist.MaskedDistribution,
        {"rate": 2.0},
        lambda x, rate: np.zeros_like(x),
        build_from=lambda rate: dist.Poisson(rate).mask(False),
        no_gradient=("rate",),
        note="all",
        integrates=False,
        skips={"test_minus_infinity_outside": "nothing counts"},
    ),
]
