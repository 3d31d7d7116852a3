"""Rows of families over matrices."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import scipy.special as sp
import scipy.stats as st
from case import COV, TRIL, Array, Case, pair, rows

import ppl.distributions as dist


def _lkj_constant(eta: Array, dim: int) -> Array:
    # LKJ (2009), eq. 16
    j = np.arange(1, dim)
    terms = j / 2 * np.log(np.pi) + sp.gammaln(eta[..., None] + (dim - 1 - j) / 2)
    return (terms - sp.gammaln(eta[..., None] + (dim - 1) / 2)).sum(-1)


def _lkj_cholesky(x: Array, concentration: Array, dim: int, sample_method: str = "") -> Array:
    # Stan's reference manual: prod of L_kk^(K - k + 2η - 2), times the Jacobian-free constant
    k = np.arange(2, dim + 1)
    diagonal = np.diagonal(x, axis1=-2, axis2=-1)[..., 1:]
    kernel = ((dim - k + 2 * concentration[..., None] - 2) * np.log(diagonal)).sum(-1)
    return kernel - _lkj_constant(concentration, dim)


def _lkj(x: Array, concentration: Array, dim: int, sample_method: str = "") -> Array:
    return (concentration - 1) * np.linalg.slogdet(x)[1] - _lkj_constant(concentration, dim)


def _exact_constant(eta: Any, dim: int) -> Any:
    with mpmath.workdps(60):
        return sum(
            mpmath.mpf(j) / 2 * mpmath.log(mpmath.pi)
            + mpmath.loggamma(eta + mpmath.mpf(dim - 1 - j) / 2)
            - mpmath.loggamma(eta + mpmath.mpf(dim - 1) / 2)
            for j in range(1, dim)
        )


def _exact_lkj(x: Any, concentration: Any, dim: int) -> Any:
    determinant = mpmath.det(mpmath.matrix(x))
    return (concentration - 1) * mpmath.log(determinant) - _exact_constant(concentration, dim)


def _exact_lkj_cholesky(x: Any, concentration: Any, dim: int) -> Any:
    kernel = sum((dim - k + 2 * concentration - 2) * mpmath.log(x[k - 1][k - 1]) for k in range(2, dim + 1))
    return kernel - _exact_constant(concentration, dim)


@rows("(k,k),(),(k,k)->()")
def _wishart(x: Array, df: Array, covariance: Array) -> Any:
    return st.wishart(df, covariance).logpdf((x + x.T) / 2)


@rows("(k,k),(),(k,k)->()")
def _wishart_rate(x: Array, df: Array, precision: Array) -> Any:
    return st.wishart(df, np.linalg.inv(precision)).logpdf((x + x.T) / 2)


@rows("(k,k),(),(k,k)->()")
def _wishart_tril(x: Array, df: Array, tril: Array) -> Any:
    return st.wishart(df, tril @ tril.T).logpdf((x + x.T) / 2)


@rows("(k,k),(),(k,k)->()")
def _inverse_wishart(x: Array, df: Array, scale: Array) -> Any:
    return st.invwishart(df, scale).logpdf((x + x.T) / 2)


@rows("(k,k),(),(k,k)->()")
def _inverse_wishart_rate(x: Array, df: Array, rate: Array) -> Any:
    return st.invwishart(df, np.linalg.inv(rate)).logpdf((x + x.T) / 2)


def _jacobian(x: Array) -> Array:
    """log of |d(L Lᵀ) / dL|."""
    size = x.shape[-1]
    diagonal = np.diagonal(x, axis1=-2, axis2=-1)
    return size * np.log(2) + (np.arange(size, 0, -1) * np.log(diagonal)).sum(-1)


def _square(x: Array) -> Array:
    return x @ np.swapaxes(x, -1, -2)


def _wishart_cholesky(x: Array, concentration: Array, scale_matrix: Array) -> Array:
    return _wishart(_square(x), df=concentration, covariance=scale_matrix) + _jacobian(x)


def _wishart_cholesky_tril(x: Array, concentration: Array, scale_tril: Array) -> Array:
    return _wishart_cholesky(x, concentration, _square(scale_tril))


def _inverse_wishart_cholesky(x: Array, concentration: Array, scale_matrix: Array) -> Array:
    return _inverse_wishart(_square(x), df=concentration, scale=scale_matrix) + _jacobian(x)


def _inverse_wishart_cholesky_tril(x: Array, concentration: Array, scale_tril: Array) -> Array:
    return _inverse_wishart_cholesky(x, concentration, _square(scale_tril))


@rows("(n,p),(n,p),(n,n),(p,p)->()")
def _matrix_normal(x: Array, loc: Array, row: Array, column: Array) -> Any:
    return st.matrix_normal(loc, row @ row.T, column @ column.T).logpdf(x)


def _exact_wishart(x: Any, df: Any, covariance_matrix: Any) -> Any:
    x, v, p = mpmath.matrix(x), mpmath.matrix(covariance_matrix), len(x)
    trace = sum((v**-1 * x)[i, i] for i in range(p))
    log_gamma = mpmath.mpf(p * (p - 1)) / 4 * mpmath.log(mpmath.pi)
    log_gamma += sum(mpmath.loggamma((df - j) / 2) for j in range(p))
    kernel = (df - p - 1) / 2 * mpmath.log(mpmath.det(x)) - trace / 2
    return kernel - df * p / 2 * mpmath.log(2) - df / 2 * mpmath.log(mpmath.det(v)) - log_gamma


COV2 = [[1.3, 0.4], [0.4, 0.9]]
NUMBER = [[0.8]]  # a matrix of one entry: a chi-squared law
COLUMN = [[0.9, 0.0], [0.3, 0.7]]
FACTOR = [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.28, 0.96]]
CASES = [
    *pair(
        dist.LKJ,
        _lkj,
        {"concentration": 1.5},
        {"concentration": [1.0, 3.0]},
        event=(3, 3),
        options={"dim": 3},
        exact=_exact_lkj,
        points=(
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            [[1.0, 0.5, 0.25], [0.5, 1.0, -0.25], [0.25, -0.25, 1.0]],
            [[1.0, 0.999, 0.0], [0.999, 1.0, 0.0], [0.0, 0.0, 1.0]],
        ),
        extremes=({"concentration": 1e-3}, {"concentration": 1e5}, {"concentration": 1e10}),
    ),
    Case(dist.LKJ, {"concentration": 2.0}, _lkj, (), (2, 2), options={"dim": 2, "sample_method": "cvine"}, note="two"),
    Case(
        dist.LKJ,
        {"concentration": [2.0, 0.5]},
        _lkj,
        (2,),
        (4, 4),
        options={"dim": 4, "sample_method": "cvine"},
        note="four",
    ),
    *pair(
        dist.LKJCholesky,
        _lkj_cholesky,
        {"concentration": 1.5},
        {"concentration": [1.0, 3.0]},
        event=(3, 3),
        options={"dim": 3},
        exact=_exact_lkj_cholesky,
        points=([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], FACTOR),
        extremes=({"concentration": 1e-3}, {"concentration": 1e5}, {"concentration": 1e10}),
    ),
    Case(dist.LKJCholesky, {"concentration": 2.0}, _lkj_cholesky, (), (2, 2), options={"dim": 2}, note="two"),
    Case(
        dist.LKJCholesky,
        {"concentration": 0.7},
        _lkj_cholesky,
        (),
        (2, 2),
        options={"dim": 2, "sample_method": "cvine"},
        note="cvine",
    ),
    *pair(
        dist.MatrixNormal,
        _matrix_normal,
        {"loc": [[0.5, -0.3]], "scale_tril_row": NUMBER, "scale_tril_column": COLUMN},
        {"loc": [[[0.5, -0.3], [1.0, 0.2], [0.0, 2.0]]] * 2, "scale_tril_row": TRIL, "scale_tril_column": COLUMN},
        event=(1, 2),
    )[:1],
    Case(
        dist.MatrixNormal,
        {"loc": [[[0.5, -0.3], [1.0, 0.2], [0.0, 2.0]]] * 2, "scale_tril_row": TRIL, "scale_tril_column": COLUMN},
        _matrix_normal,
        (2,),
        (3, 2),
    ),
    *pair(
        dist.Wishart,
        _wishart,
        {"df": 4.5, "covariance_matrix": COV},
        {"df": [4.5, 6.0], "covariance_matrix": COV},
        event=(3, 3),
    ),
    Case(dist.Wishart, {"df": [4.5, 3.0], "precision_matrix": COV}, _wishart_rate, (2,), (3, 3), note="precision"),
    Case(dist.Wishart, {"df": 5.0, "scale_tril": TRIL}, _wishart_tril, (), (3, 3), note="tril"),
    Case(dist.Wishart, {"df": 2.5, "scale_tril": NUMBER}, _wishart_tril, (), (1, 1), note="one"),
    Case(
        dist.Wishart,
        {"df": 4.5, "covariance_matrix": COV2},
        _wishart,
        (),
        (2, 2),
        note="two",
        exact=_exact_wishart,
        points=([[4.0, 1.0], [1.0, 3.0]], [[1e-8, 0.0], [0.0, 1e8]], [[1.0, 0.99], [0.99, 1.0]]),
        extremes=({"df": 1.0625}, {"df": 1e5}, {"covariance_matrix": [[1e-6, 0.0], [0.0, 1e6]]}),
    ),
    *pair(
        dist.WishartCholesky,
        _wishart_cholesky,
        {"concentration": 4.5, "scale_matrix": COV},
        {"concentration": [4.5, 6.0], "scale_matrix": COV},
        event=(3, 3),
    ),
    Case(
        dist.WishartCholesky,
        {"concentration": 2.5, "scale_tril": NUMBER},
        _wishart_cholesky_tril,
        (),
        (1, 1),
        note="one",
    ),
    *pair(
        dist.InverseWishart,
        _inverse_wishart,
        {"concentration": 7.5, "scale_matrix": COV},
        {"concentration": [4.5, 6.0], "scale_matrix": COV},
        event=(3, 3),
    ),
    Case(
        dist.InverseWishart, {"concentration": 7.5, "rate_matrix": COV}, _inverse_wishart_rate, (), (3, 3), note="rate"
    ),
    Case(dist.InverseWishart, {"concentration": 6.5, "scale_matrix": NUMBER}, _inverse_wishart, (), (1, 1), note="one"),
    *pair(
        dist.InverseWishartCholesky,
        _inverse_wishart_cholesky,
        {"concentration": 4.5, "scale_matrix": COV},
        {"concentration": [4.5, 6.0], "scale_matrix": COV},
        event=(3, 3),
    ),
    Case(
        dist.InverseWishartCholesky,
        {"concentration": 6.5, "scale_tril": NUMBER},
        _inverse_wishart_cholesky_tril,
        (),
        (1, 1),
        note="one",
    ),
]
