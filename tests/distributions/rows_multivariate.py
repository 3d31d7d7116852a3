"""Rows of families over vectors and matrices."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import scipy.special as sp
import scipy.stats as st
from case import COV, LOC3, TRIL, Array, Case, logit, normalised, pair, rows, scipy

import ppl.distributions as dist


def _logistic_normal(x: Array, loc: Array, scale: Array) -> Array:
    # x_k = z_k · (what is left), logit z_k = y_k - log(K - k), y normal
    k = x.shape[-1]
    left = 1 - np.concatenate([np.zeros_like(x[..., :1]), np.cumsum(x[..., :-1], -1)], -1)
    z = x[..., :-1] / left[..., :-1]
    y = logit(z) + np.log(np.arange(k - 1, 0, -1))
    jacobian = np.log(z) + np.log1p(-z) + np.log(left[..., :-1])  # dx_k / dy_k
    return (st.norm(loc, scale).logpdf(y) - jacobian).sum(-1)


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


@rows("(k),(),(k),(k,k)->()")
def _student(x: Array, df: Array, loc: Array, tril: Array) -> Any:
    return st.multivariate_t(loc, tril @ tril.T, df).logpdf(x)


@rows("(k),(n,k),(n,k),(n)->()")
def _mixture(x: Array, locs: Array, scale: Array, logits: Array) -> Any:
    return sp.logsumexp(sp.log_softmax(logits) + st.norm(locs, scale).logpdf(x).sum(-1))


def _shared(x: Array, locs: Array, coord_scale: Array, component_logits: Array) -> Array:
    scale = np.broadcast_to(coord_scale[..., None, :], locs.shape)
    return _mixture(x, locs=locs, scale=scale, logits=component_logits)


def _scale_mixture(x: Array, coord_scale: Array, component_logits: Array, component_scale: Array) -> Array:
    scale = component_scale[..., None] * coord_scale[..., None, :]
    return _mixture(x, locs=0 * scale, scale=scale, logits=component_logits)


def _exact_dirichlet(x: Any, concentration: Any) -> Any:
    kernel = sum((a - 1) * mpmath.log(v) for a, v in zip(concentration, x, strict=True) if a != 1)
    return kernel + mpmath.loggamma(sum(concentration)) - sum(mpmath.loggamma(a) for a in concentration)


def _exact_logistic_normal(x: Any, loc: Any, scale: Any) -> Any:
    total = mpmath.mpf(0)
    for k, (m, s) in enumerate(zip(loc, scale, strict=True)):
        left, after = sum(x[k:]), sum(x[k + 1 :])
        y = mpmath.log(x[k]) - mpmath.log(after) + mpmath.log(len(loc) - k)
        jacobian = mpmath.log(x[k]) + mpmath.log(after) - mpmath.log(left)
        total += -((y - m) ** 2) / (2 * s**2) - mpmath.log(s * mpmath.sqrt(2 * mpmath.pi)) - jacobian
    return total


def _exact_normal(x: Any, loc: Any, matrix: Any) -> Any:
    """By the covariance, as an mpmath matrix."""
    with mpmath.workdps(90):
        d = mpmath.matrix([a - b for a, b in zip(x, loc, strict=True)])
        distance = (d.T * mpmath.lu_solve(matrix, d))[0]
        return -(distance + mpmath.log(mpmath.det(matrix)) + len(x) * mpmath.log(2 * mpmath.pi)) / 2


def _square(tril: Any) -> Any:
    with mpmath.workdps(90):
        return mpmath.matrix(tril) * mpmath.matrix(tril).T


def _exact_low_rank(x: Any, loc: Any, cov_factor: Any, cov_diag: Any) -> Any:
    return _exact_normal(x, loc, _square(cov_factor) + mpmath.diag(cov_diag))


def _exact_student(x: Any, df: Any, loc: Any, scale_tril: Any) -> Any:
    k, square = len(x), _square(scale_tril)
    with mpmath.workdps(90):
        d = mpmath.matrix([a - b for a, b in zip(x, loc, strict=True)])
        distance = (d.T * mpmath.lu_solve(square, d))[0]
        height = mpmath.loggamma((df + k) / 2) - mpmath.loggamma(df / 2)
        height -= (k * mpmath.log(df * mpmath.pi) + mpmath.log(mpmath.det(square))) / 2
        return height - (df + k) / 2 * mpmath.log1p(distance / df)


def _exact_mixture(x: Any, locs: Any, coord_scale: Any, component_logits: Any) -> Any:
    whole = sum(mpmath.exp(v) for v in component_logits)
    total = mpmath.mpf(0)
    for loc, scale, logit_ in zip(locs, coord_scale, component_logits, strict=True):
        term = mpmath.exp(logit_) / whole
        for v, m, s in zip(x, loc, scale, strict=True):
            term *= mpmath.npdf(v, m, s)
        total += term
    return mpmath.log(total)


def _full(x: Array, locs: Array, coord_scale: Array, component_logits: Array) -> Array:
    return _mixture(x, locs=locs, scale=coord_scale, logits=component_logits)


def _avf_normal(x: Array, loc: Array, scale_tril: Array, control_var: Array) -> Array:
    return _tril_normal(x, loc=loc, tril=scale_tril)


LOCS = [[0.5, -1.0], [2.0, 1.5], [-1.0, 0.3]]
SCALES = [[0.5, 1.2], [1.0, 0.7], [0.6, 0.9]]
LOGITS = [0.3, -0.5, 0.1]
TRIL2 = [[1.1, 0.0], [0.4, 0.8]]
CONTROL = [[[0.3, -0.2]], [[0.5, 0.4]]]
NAN = {"test_value_that_is_nan": "NaN is a value that is missing"}
ILL = [[1.0, 0.0], [1.0, 1e-5]]  # a covariance of condition 4e10

CASES = [
    *pair(
        dist.Dirichlet,
        dirichlet,
        {"concentration": [1.5, 2.0, 3.0]},
        {"concentration": [[1.5, 2.0, 3.0], [4.0, 2.0, 2.5]]},
        event=(3,),
        exact=_exact_dirichlet,
        points=(
            [0.2, 0.3, 0.5],
            [1e-12, 0.5, 0.5],
            [1e-30, 1e-20, 1.0],
            [0.25, 0.25, 0.5],
            [1 / 3, 1 / 3, 1 / 3],
            [0.999, 1e-3, 1e-9],
        ),
        extremes=(
            {"concentration": [1e5, 1e5, 2e5]},
            {"concentration": [1e-3, 1e-2, 0.1]},
            {"concentration": [1.0, 1.0, 1.0]},
            {"concentration": [1e6, 1.0, 1e-6]},
        ),
    ),
    Case(dist.Dirichlet, {"concentration": [2.0, 0.6]}, dirichlet, (), (2,), note="two"),
    *pair(
        dist.LogisticNormal,
        _logistic_normal,
        {"loc": [0.5, -1.0], "scale": [0.8, 0.4]},
        {"loc": [[0.5, -1.0], [0.2, 0.1]], "scale": [0.8, 0.4]},
        event=(3,),
        exact=_exact_logistic_normal,
        points=(
            [0.2, 0.3, 0.5],
            [1 - 1e-9, 5e-10, 5e-10],
            [1e-12, 1 - 1e-12, 1e-14],
            [1e-30, 1e-20, 1.0],
            [0.25, 0.25, 0.5],
        ),
        extremes=({"scale": [20.0, 0.05]}, {"loc": [30.0, -30.0]}),
    ),
    *pair(
        dist.LowRankMultivariateNormal,
        _low_rank,
        {"loc": LOC3, "cov_factor": [[1.0], [0.5], [-0.5]], "cov_diag": [0.5, 1.0, 0.7]},
        {"loc": [LOC3, LOC3], "cov_factor": [[1.0], [0.5], [-0.5]], "cov_diag": [0.5, 1.0, 0.7]},
        event=(3,),
        exact=_exact_low_rank,
        points=([0.5, -1.0, 2.0], [1.5, -0.5, 1.5], [10.0, 20.0, -30.0], [1e3, 2e3, -3e3]),
        extremes=(
            {"loc": [0.0, 0.0, 0.0], "cov_factor": [[1e5], [5e4], [-5e4]]},
            {"cov_factor": [[1e-5], [1e-6], [0.0]]},
        ),
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
        {"loc": [0.3, -0.5], "scale_tril": TRIL2},
        _tril_normal,
        (),
        (2,),
        note="tril",
        exact=lambda x, loc, scale_tril: _exact_normal(x, loc, _square(scale_tril)),
        points=([0.3, -0.5], [1.0, 1.0], [8.0, -8.0], [1e6, -1e6], [1.0, 1.00001]),
        extremes=({"loc": [0.0, 0.0], "scale_tril": ILL}, {"scale_tril": [[1e-8, 0.0], [3.0, 1e8]]}),
    ),
    Case(
        dist.MultivariateNormal,
        {"loc": [0.3, -0.5], "covariance_matrix": [[1.3, 0.4], [0.4, 0.9]]},
        normal_vector,
        (),
        (2,),
        note="two",
        exact=lambda x, loc, covariance_matrix: _exact_normal(x, loc, mpmath.matrix(covariance_matrix)),
        points=([0.3, -0.5], [1.0, 1.0], [8.0, -8.0], [1e6, -1e6]),
        extremes=(
            {"covariance_matrix": [[1e-10, 0.0], [0.0, 1e10]]},
            {"covariance_matrix": [[2.0, 1.9375], [1.9375, 2.0]]},
        ),
    ),
    Case(
        dist.MultivariateNormal,
        {"loc": [0.3, -0.5], "precision_matrix": [[1.3, 0.4], [0.4, 0.9]]},
        _precision_normal,
        (),
        (2,),
        note="precision",
        exact=lambda x, loc, precision_matrix: _exact_normal(x, loc, mpmath.matrix(precision_matrix) ** -1),
        points=([0.3, -0.5], [1.0, 1.0], [8.0, -8.0], [1e6, -1e6]),
        extremes=({"precision_matrix": [[1e-10, 0.0], [0.0, 1e10]]},),
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
        dist.MultivariateNormal, {"loc": LOC3, "precision_matrix": COV}, _precision_normal, (), (3,), note="precision3"
    ),
    *pair(
        dist.MultivariateStudentT,
        _student,
        {"df": 3.5, "loc": [0.3, -0.5], "scale_tril": TRIL2},
        {"df": [3.5, 7.0], "loc": [0.3, -0.5], "scale_tril": TRIL2},
        event=(2,),
        exact=_exact_student,
        points=([0.3, -0.5], [1.0, 1.0], [8.0, -8.0], [1e6, -1e6], [1e15, 1e10]),
        extremes=({"df": 1e-3}, {"df": 1e6}, {"df": 1e12}, {"scale_tril": ILL, "loc": [0.0, 0.0]}),
    ),
    *pair(
        dist.OMTMultivariateNormal,
        _tril_normal,
        {"loc": [0.3, -0.5], "scale_tril": TRIL2},
        {"loc": [[0.3, -0.5], [1.0, 2.0]], "scale_tril": TRIL2},
        event=(2,),
    ),
    *pair(
        dist.AVFMultivariateNormal,
        _avf_normal,
        {"loc": [0.3, -0.5], "scale_tril": TRIL2, "control_var": CONTROL},
        {"loc": [[0.3, -0.5], [1.0, 2.0]], "scale_tril": TRIL2, "control_var": CONTROL},
        event=(2,),
        no_gradient=("control_var",),
    ),
    *pair(
        dist.NanMaskedMultivariateNormal,
        normal_vector,
        {"loc": [0.3, -0.5], "covariance_matrix": [[1.3, 0.4], [0.4, 0.9]]},
        {"loc": [[0.3, -0.5], [1.0, 2.0]], "covariance_matrix": [[1.3, 0.4], [0.4, 0.9]]},
        event=(2,),
        skips=NAN,
    ),
    *pair(
        dist.NanMaskedNormal,
        scipy(lambda loc, scale: st.norm(loc, scale)),
        {"loc": 0.5, "scale": 1.2},
        {"loc": [-0.7, 2.5], "scale": [0.3, 1.4]},
        exact=lambda x, loc, scale: -(((x - loc) / scale) ** 2) / 2 - mpmath.log(scale * mpmath.sqrt(2 * mpmath.pi)),
        extremes=({"scale": 1e-10}, {"scale": 1e10}),
        skips=NAN,
    ),
    *pair(
        dist.MixtureOfDiagNormals,
        _full,
        {"locs": LOCS, "coord_scale": SCALES, "component_logits": LOGITS},
        {"locs": [LOCS, SCALES], "coord_scale": SCALES, "component_logits": LOGITS},
        event=(2,),
        exact=_exact_mixture,
        points=([0.5, -1.0], [1.0, 1.0], [-15.0, 20.0], [300.0, 200.0]),
        extremes=(
            {"component_logits": [0.0, -700.0, 700.0]},
            {"coord_scale": [[1e-3, 1e3], [1.0, 1e-2], [1e2, 1.0]]},
        ),
    ),
    *pair(
        dist.MixtureOfDiagNormalsSharedCovariance,
        _shared,
        {"locs": LOCS, "coord_scale": [0.5, 1.2], "component_logits": LOGITS},
        {"locs": [LOCS, SCALES], "coord_scale": [0.5, 1.2], "component_logits": LOGITS},
        event=(2,),
    ),
    *pair(
        dist.GaussianScaleMixture,
        _scale_mixture,
        {"coord_scale": [0.5, 1.2], "component_logits": LOGITS, "component_scale": [0.5, 1.0, 2.5]},
        {"coord_scale": [0.5, 1.2], "component_logits": [LOGITS, LOGITS], "component_scale": [0.5, 1.0, 2.5]},
        event=(2,),
    ),
]
