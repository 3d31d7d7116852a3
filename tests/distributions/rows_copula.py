"""Rows of copulas and of functions as distributions."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import scipy.stats as st
import torch
from case import Array, Case, R, V, pair, scipy

import ppl.distributions as dist

CORRELATION = [[1.0, 0.6], [0.6, 1.0]]
FACTOR = [[1.0, 0.0], [0.6, 0.8]]


def _copula(x: Array, law: Any, correlation: Array) -> Array:
    """The product of the marginals times the ratio of two normal densities."""
    z = st.norm.ppf(law.cdf(x))
    ratio = st.multivariate_normal(np.zeros(2), correlation).logpdf(z) - st.norm.logpdf(z).sum(-1)
    return law.logpdf(x).sum(-1) + ratio


def _normals(x: Array, loc: Array, scale: Array, correlation_matrix: Array) -> Array:
    loc, scale = np.broadcast_arrays(loc, scale)
    z = (x - loc) / scale
    return st.multivariate_normal(np.zeros(2), correlation_matrix).logpdf(z) - np.log(scale).sum(-1)


def _betas(x: Array, concentration1: Array, concentration0: Array, **correlations: Array) -> Array:
    (matrix,) = correlations.values()
    matrix = matrix @ matrix.T if "correlation_cholesky" in correlations else matrix
    return _copula(x, st.beta(concentration1, concentration0), matrix)


class Quartic:
    """exp(-x⁴ / s⁴), without its constant."""

    def __init__(self, scale: torch.Tensor) -> None:
        self.scale = scale

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return -((x / self.scale) ** 4)

    def normalizer(self) -> torch.Tensor:
        return np.log(2) + torch.lgamma(torch.full_like(self.scale, 1.25)) + self.scale.log()

    def draw(self, sample_shape: torch.Size) -> torch.Tensor:
        shape = (*sample_shape, *self.scale.shape)
        power = torch._standard_gamma(self.scale.new_full(shape, 0.25))
        return self.scale * power**0.25 * torch.where(torch.rand_like(power) < 0.5, -1.0, 1.0).to(power)


def _quartic(scale: torch.Tensor) -> dist.LogDensity:
    q = Quartic(scale)
    return dist.LogDensity(q, batch_shape=scale.shape, sampler=q.draw, log_normalizer=q.normalizer(), has_rsample=True)


def _quartic_exactly(x: Any, scale: Any) -> Any:
    return -((x / scale) ** 4) - mp.log(2 * scale * mp.gamma(mp.mpf(5) / 4))


class Simplex:
    """A Dirichlet by hand."""

    def __init__(self, concentration: torch.Tensor) -> None:
        self.law = torch.distributions.Dirichlet(concentration, validate_args=False)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return ((self.law.concentration - 1) * x.log()).sum(-1)

    def normalizer(self) -> torch.Tensor:
        a = self.law.concentration
        return a.lgamma().sum(-1) - a.sum(-1).lgamma()

    def draw(self, sample_shape: torch.Size) -> torch.Tensor:
        return self.law.sample(sample_shape)


def _simplex(concentration: torch.Tensor) -> dist.LogDensity:
    s = Simplex(concentration)
    return dist.LogDensity(
        s,
        support=dist.constraints.simplex,
        event_shape=concentration.shape[-1:],
        batch_shape=concentration.shape[:-1],
        sampler=s.draw,
        log_normalizer=s.normalizer(),
    )


CASES = [
    *pair(
        dist.LogDensity,
        scipy(lambda scale: st.gennorm(4, scale=scale)),
        {"scale": 1.3},
        {"scale": V},
        build_from=_quartic,
        exact=_quartic_exactly,
        extremes=({"scale": 1e-3}, {"scale": 1e6}),
        points=(-3.0, 0.0, 1e-3),
        skips={"test_sample_has_its_shape": "the test's own sampler draws gammas, for which torch has no meta kernel"},
    ),
    Case(
        dist.LogDensity,
        {"concentration": [1.5, 2.5, 2.0]},
        lambda x, concentration: st.dirichlet(concentration).logpdf(x.T / x.T.sum(0)),
        (),
        (3,),
        build_from=_simplex,
        note="simplex",
        skips={"test_sample_has_its_shape": "the test's own sampler draws gammas, for which torch has no meta kernel"},
    ),
    Case(
        dist.GaussianCopula,
        {"loc": R, "scale": V, "correlation_matrix": CORRELATION},
        _normals,
        (),
        (2,),
        build_from=lambda loc, scale, correlation_matrix: dist.GaussianCopula(
            dist.Normal(loc, scale), correlation_matrix
        ),
    ),
    Case(
        dist.GaussianCopula,
        {"loc": [R, R, R], "scale": V, "correlation_matrix": CORRELATION},
        _normals,
        (3,),
        (2,),
        build_from=lambda loc, scale, correlation_matrix: dist.GaussianCopula(
            dist.Normal(loc, scale), correlation_matrix
        ),
    ),
    Case(
        dist.GaussianCopulaBeta,
        {"concentration1": [2.5, 1.5], "concentration0": [1.5, 3.0], "correlation_matrix": CORRELATION},
        _betas,
        (),
        (2,),
    ),
    Case(
        dist.GaussianCopulaBeta,
        {"concentration1": [[2.5, 1.5]] * 2, "concentration0": [1.5, 3.0], "correlation_cholesky": FACTOR},
        _betas,
        (2,),
        (2,),
        no_gradient=("correlation_cholesky",),
        note="cholesky",
    ),
]
