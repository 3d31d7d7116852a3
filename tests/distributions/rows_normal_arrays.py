"""Rows of normal vectors with structure: graphs, circles, sums that are zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg as sl
import scipy.stats as st
from case import Array, Case, V, rows

import ppl.distributions as dist


@rows("(n),(n),(),(),(n,n)->()")
def _car(x: Array, loc: Array, correlation: Array, precision: Array, a: Array) -> Any:
    matrix = precision * (np.diag(a.sum(-1)) - correlation * a)
    return st.multivariate_normal(loc, np.linalg.inv(matrix)).logpdf(x)


@rows("(n),(n),(n)->()")
def _circulant(x: Array, loc: Array, row: Array) -> Any:
    return st.multivariate_normal(loc, sl.circulant(row)).logpdf(x)


@rows("(n),(n),(k)->()")
def _circulant_spectrum(x: Array, loc: Array, spectrum: Array) -> Any:
    return st.multivariate_normal(loc, sl.circulant(np.fft.irfft(spectrum, len(loc)))).logpdf(x)


def _zero_sum(x: Array, scale: Array, event_shape: tuple[int, ...]) -> Array:
    # coordinates along an orthonormal basis of the subspace
    basis = np.ones((1, 1))
    for n in event_shape:
        basis = np.kron(basis, sl.null_space(np.ones((1, n))))
    u = x.reshape(*x.shape[: x.ndim - len(event_shape)], -1) @ basis
    return st.norm(0, scale[..., None]).logpdf(u).sum(-1)


_RING = [[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]]
_EDGE = [[0.0, 1.0], [1.0, 0.0]]
_CAR = {"loc": [0.5, -1.0], "correlation": 0.7, "conditional_precision": 1.6, "adj_matrix": _EDGE}
CASES = [
    Case(dist.CAR, _CAR, _car, (), (2,), no_gradient=("adj_matrix",)),
    Case(
        dist.CAR,
        {"loc": [0.5, -1.0, 0.0, 2.0], "correlation": [0.7, -0.4], "conditional_precision": V, "adj_matrix": _RING},
        _car,
        (2,),
        (4,),
        no_gradient=("adj_matrix",),
    ),
    Case(dist.CirculantNormal, {"loc": [0.5, -1.0], "covariance_row": [1.5, 0.4]}, _circulant, (), (2,)),
    Case(
        dist.CirculantNormal,
        {"loc": [0.5, -1.0], "covariance_rfft": [1.5, 0.4]},
        _circulant_spectrum,
        (),
        (2,),
        note="rfft",
    ),
    Case(
        dist.CirculantNormal,
        {"loc": [[0.5, -1.0, 0.0], [1.0, 2.0, 3.0]], "covariance_row": [1.5, 0.4, 0.4]},
        _circulant,
        (2,),
        (3,),
        no_gradient=("covariance_row",),
        note="odd",
    ),
    Case(dist.ZeroSumNormal, {"scale": 1.3}, _zero_sum, (), (3,), options={"event_shape": (3,)}),
    Case(dist.ZeroSumNormal, {"scale": V}, _zero_sum, (2,), (2, 3), options={"event_shape": (2, 3)}),
]
