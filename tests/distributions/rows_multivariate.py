"""Rows of families over vectors and matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special as sp
import scipy.stats as st
from case import COV, LOC3, TRIL, Array, Case, logit, normalised, pair, rows

import ppl.distributions as dist


def _relaxed_one_hot(x: Array, temperature: Array, probs: Array) -> Array:
    t, k, a = temperature[..., None], x.shape[-1], normalised(probs)
    whole = (a * x**-t).sum(-1)
    terms = (np.log(a) - (t + 1) * np.log(x)).sum(-1)
    return sp.gammaln(k) + (k - 1) * np.log(temperature) + terms - k * np.log(whole)


def _logistic_normal(x: Array, loc: Array, scale: Array) -> Array:
    # x_k = z_k · (what is left), logit z_k = y_k - log(K - k), y normal
    k = x.shape[-1]
    left = 1 - np.concatenate([np.zeros_like(x[..., :1]), np.cumsum(x[..., :-1], -1)], -1)
    z = x[..., :-1] / left[..., :-1]
    y = logit(z) + np.log(np.arange(k - 1, 0, -1))
    jacobian = np.log(z) + np.log1p(-z) + np.log(left[..., :-1])  # dx_k / dy_k
    return (st.norm(loc, scale).logpdf(y) - jacobian).sum(-1)


def _lkj_cholesky(x: Array, concentration: Array, dim: int) -> Array:
    # Stan's reference manual: prod of L_kk^(K - k + 2η - 2), times the Jacobian-free constant of LKJ (2009), eq. 16
    k = np.arange(2, dim + 1)
    diagonal = np.diagonal(x, axis1=-2, axis2=-1)[..., 1:]
    eta = concentration[..., None]
    kernel = ((dim - k + 2 * eta - 2) * np.log(diagonal)).sum(-1)
    j = np.arange(1, dim)
    constant = (j / 2 * np.log(np.pi) + sp.gammaln(eta + (dim - 1 - j) / 2) - sp.gammaln(eta + (dim - 1) / 2)).sum(-1)
    return kernel - constant


@rows("(k),(k),(k,r),(k)->()")
def _low_rank(x: Array, loc: Array, factor: Array, diag: Array) -> Any:
    return st.multivariate_normal(loc, factor @ factor.T + np.diag(diag)).logpdf(x)


@rows("(k),(k),(k,k)->()")
def _precision_normal(x: Array, loc: Array, precision: Array) -> Any:
    return st.multivariate_normal(loc, np.linalg.inv(precision)).logpdf(x)


@rows("(k),(k),(k,k)->()")
def _tril_normal(x: Array, loc: Array, tril: Array) -> Any:
    return st.multivariate_normal(loc, tril @ tril.T).logpdf(x)


@rows("(k),(k),(k,k)->()")
def normal_vector(x: Array, loc: Array, covariance: Array) -> Any:
    return st.multivariate_normal(loc, covariance).logpdf(x)


@rows("(k),(k)->()")
def dirichlet(x: Array, concentration: Array) -> Any:
    return st.dirichlet(concentration).logpdf(normalised(x))


@rows("(k,k),(),(k,k)->()")
def _wishart(x: Array, df: Array, covariance: Array) -> Any:
    return st.wishart(df, covariance).logpdf((x + x.T) / 2)


CASES = [
    *pair(
        dist.Dirichlet,
        dirichlet,
        {"concentration": [1.5, 2.0, 3.0]},
        {"concentration": [[1.5, 2.0, 3.0], [4.0, 2.0, 2.5]]},
        event=(3,),
    ),
    *pair(
        dist.LKJCholesky,
        _lkj_cholesky,
        {"concentration": 1.5},
        {"concentration": [1.0, 3.0]},
        event=(3, 3),
        options={"dim": 3},
    ),
    *pair(
        dist.LogisticNormal,
        _logistic_normal,
        {"loc": [0.5, -1.0], "scale": [0.8, 0.4]},
        {"loc": [[0.5, -1.0], [0.2, 0.1]], "scale": [0.8, 0.4]},
        event=(3,),
    ),
    *pair(
        dist.LowRankMultivariateNormal,
        _low_rank,
        {"loc": LOC3, "cov_factor": [[1.0], [0.5], [-0.5]], "cov_diag": [0.5, 1.0, 0.7]},
        {"loc": [LOC3, LOC3], "cov_factor": [[1.0], [0.5], [-0.5]], "cov_diag": [0.5, 1.0, 0.7]},
        event=(3,),
    ),
    *pair(
        dist.MultivariateNormal,
        normal_vector,
        {"loc": LOC3, "covariance_matrix": COV},
        {"loc": [LOC3, [1.0, 1.5, -0.3]], "covariance_matrix": COV},
        event=(3,),
    ),
    Case(
        dist.MultivariateNormal,
        {"loc": LOC3, "scale_tril": [TRIL, TRIL]},
        _tril_normal,
        (2,),
        (3,),
        note="tril",
    ),
    Case(
        dist.MultivariateNormal, {"loc": LOC3, "precision_matrix": COV}, _precision_normal, (), (3,), note="precision"
    ),
    *pair(
        dist.Wishart,
        _wishart,
        {"df": 4.5, "covariance_matrix": COV},
        {"df": [4.5, 6.0], "covariance_matrix": COV},
        event=(3, 3),
    ),
]
