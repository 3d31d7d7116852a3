"""The table of distributions: a row or more for each public one, which the tests in `test_all.py` run through.

A row says how to build the distribution, which shapes it must have, and what its log density is according to somebody
else (scipy, or a closed form in numpy).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.special as sp
import scipy.stats as st
import torch
from torch import Tensor

import ppl.distributions as dist
from ppl.distributions import transforms

Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """One row.

    `params` are numbers and nested lists that become tensors; `options` are passed as they are. `log_density` takes a
    value and the parameters (and options) as arrays.
    """

    cls: type
    params: Mapping[str, Any]
    log_density: Callable[..., Any]
    batch: tuple[int, ...] = ()
    event: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    build_from: Callable[..., Any] | None = None  # how to build it, for wrappers; the class itself otherwise
    integers: tuple[str, ...] = ()  # parameters of dtype int64
    no_gradient: tuple[str, ...] = ()  # parameters that log_prob is not differentiated by
    note: str = ""

    @property
    def name(self) -> str:
        kind = "x".join(map(str, self.batch)) or "scalar"
        return "-".join(filter(None, [self.cls.__name__, self.note, kind]))

    def tensors(self, dtype: torch.dtype = torch.float64, device: str = "cpu") -> dict[str, Tensor]:
        """The parameters."""
        return {
            k: torch.tensor(v, dtype=torch.int64 if k in self.integers else dtype, device=device)
            for k, v in self.params.items()
        }

    def of(self, **tensors: Any) -> Any:
        """The distribution with these parameters."""
        return (self.build_from or self.cls)(**tensors, **self.options)

    def build(self, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Any:
        """The distribution."""
        return self.of(**self.tensors(dtype, device))

    def reference(self, value: Tensor, dtype: torch.dtype = torch.float64) -> Array:
        """The log density at a value according to `log_density`, in double precision."""
        arrays = {k: v.double().numpy() for k, v in self.tensors(dtype).items()}
        return np.asarray(self.log_density(value.double().numpy(), **arrays, **self.options))


def rows(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function of single draws and parameters one of batches: `"(k),(k)->()"`."""

    def wrap(fn: Callable[..., Any]) -> Callable[..., Any]:
        inner = np.vectorize(fn, signature=signature, otypes=[float])

        @functools.wraps(fn)
        def outer(value: Array, **params: Any) -> Array:
            return inner(value, *params.values())

        return outer

    return wrap


def _logit(p: Array) -> Array:
    return np.log(p) - np.log1p(-p)


def _normalised(p: Array) -> Array:
    return p / p.sum(-1, keepdims=True)


def _relaxed_bernoulli(x: Array, temperature: Array, probs: Array) -> Array:
    t, a = temperature, np.exp(_logit(probs))  # Maddison, Mnih & Teh 2017, binary concrete
    kernel = np.log(t) + np.log(a) - (t + 1) * (np.log(x) + np.log1p(-x))
    return kernel - 2 * np.log(a * x**-t + (1 - x) ** -t)


def _relaxed_one_hot(x: Array, temperature: Array, probs: Array) -> Array:
    t, k, a = temperature[..., None], x.shape[-1], _normalised(probs)
    whole = (a * x**-t).sum(-1)
    terms = (np.log(a) - (t + 1) * np.log(x)).sum(-1)
    return sp.gammaln(k) + (k - 1) * np.log(temperature) + terms - k * np.log(whole)


def _continuous_bernoulli(x: Array, probs: Array) -> Array:
    norm = 2 * np.arctanh(1 - 2 * probs) / (1 - 2 * probs)
    return np.log(norm) + x * np.log(probs) + (1 - x) * np.log1p(-probs)


def _kumaraswamy(x: Array, concentration1: Array, concentration0: Array) -> Array:
    a, b = concentration1, concentration0
    return np.log(a) + np.log(b) + (a - 1) * np.log(x) + (b - 1) * np.log1p(-(x**a))


def _logistic_normal(x: Array, loc: Array, scale: Array) -> Array:
    # x_k = z_k · (what is left), logit z_k = y_k - log(K - k), y normal
    k = x.shape[-1]
    left = 1 - np.concatenate([np.zeros_like(x[..., :1]), np.cumsum(x[..., :-1], -1)], -1)
    z = x[..., :-1] / left[..., :-1]
    y = _logit(z) + np.log(np.arange(k - 1, 0, -1))
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
def _normal_vector(x: Array, loc: Array, covariance: Array) -> Any:
    return st.multivariate_normal(loc, covariance).logpdf(x)


@rows("(k),(k)->()")
def _dirichlet(x: Array, concentration: Array) -> Any:
    return st.dirichlet(concentration).logpdf(_normalised(x))


def _multinomial(x: Array, probs: Array, total_count: int) -> Array:
    return st.multinomial(total_count, _normalised(probs)).logpmf(x)


@rows("(k,k),(),(k,k)->()")
def _wishart(x: Array, df: Array, covariance: Array) -> Any:
    return st.wishart(df, covariance).logpdf((x + x.T) / 2)


def _categorical(x: Array, probs: Array) -> Array:
    logs = np.broadcast_to(
        np.log(_normalised(probs)), (*np.broadcast_shapes(x.shape, probs.shape[:-1]), probs.shape[-1])
    )
    return np.take_along_axis(logs, x.astype(int)[..., None], -1)[..., 0]


def _empirical(x: Array, samples: Array, log_weights: Array) -> Array:
    extra = samples.ndim - log_weights.ndim
    same = np.expand_dims(x, x.ndim - extra) == samples
    hit = same.all(tuple(range(-extra, 0))) if extra else same
    with np.errstate(divide="ignore"):
        return np.log((hit * sp.softmax(log_weights, -1)).sum(-1))


def _point(x: Array, v: Array, log_density: Any = 0.0, event_dim: int = 0) -> Array:
    here = x == v
    return np.where(here.all(tuple(range(-event_dim, 0))) if event_dim else here, 0.0, -np.inf) + log_density


def _mixture(x: Array, probs: Array, loc: Array, scale: Array) -> Array:
    return sp.logsumexp(np.log(_normalised(probs)) + st.norm(loc, scale).logpdf(x[..., None]), -1)


def scipy(make: Callable[..., Any], discrete: bool = False) -> Callable[..., Any]:
    """The log density of what `make(**params)` returns."""
    return lambda value, **params: getattr(make(**params), "logpmf" if discrete else "logpdf")(value)


V = [0.3, 1.4]  # a batch of positive parameters
R = [-0.7, 2.5]  # a batch of real parameters
P = [0.2, 0.7]  # a batch of probabilities
P3 = [0.2, 0.3, 0.5]
P23 = [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]
COV = [[1.3, 0.4, -0.2], [0.4, 0.9, 0.1], [-0.2, 0.1, 0.6]]
TRIL = [[1.1, 0.0, 0.0], [0.4, 0.8, 0.0], [-0.3, 0.2, 0.5]]
LOC3 = [0.5, -1.0, 2.0]


def _pair(
    cls: type, log_density: Callable[..., Any], one: dict[str, Any], two: dict[str, Any], **kwargs: Any
) -> list[Case]:
    """An unbatched row and one of batch shape (2,)."""
    return [Case(cls, one, log_density, **kwargs), Case(cls, two, log_density, (2,), **kwargs)]


CONTINUOUS = [
    *_pair(
        dist.Beta,
        scipy(lambda concentration1, concentration0: st.beta(concentration1, concentration0)),
        {"concentration1": 1.7, "concentration0": 2.2},
        {"concentration1": [1.7, 3.0], "concentration0": 2.2},
    ),
    *_pair(
        dist.Cauchy, scipy(lambda loc, scale: st.cauchy(loc, scale)), {"loc": 0.5, "scale": 1.2}, {"loc": R, "scale": V}
    ),
    *_pair(dist.Chi2, scipy(lambda df: st.chi2(df)), {"df": 3.5}, {"df": [2.5, 7.0]}),
    *_pair(dist.ContinuousBernoulli, _continuous_bernoulli, {"probs": 0.3}, {"probs": [0.2, 0.9]}),
    *_pair(dist.Exponential, scipy(lambda rate: st.expon(scale=1 / rate)), {"rate": 1.5}, {"rate": V}),
    *_pair(
        dist.FisherSnedecor,
        scipy(lambda df1, df2: st.f(df1, df2)),
        {"df1": 3.0, "df2": 5.0},
        {"df1": [3.0, 4.5], "df2": 5.0},
    ),
    *_pair(
        dist.Gamma,
        scipy(lambda concentration, rate: st.gamma(concentration, scale=1 / rate)),
        {"concentration": 2.5, "rate": 1.5},
        {"concentration": [1.5, 4.0], "rate": V},
    ),
    *_pair(
        dist.GeneralizedPareto,
        scipy(lambda loc, scale, concentration: st.genpareto(concentration, loc, scale)),
        {"loc": 0.5, "scale": 1.5, "concentration": 0.3},
        {"loc": R, "scale": V, "concentration": [0.4, -0.3]},
    ),
    *_pair(
        dist.Gumbel,
        scipy(lambda loc, scale: st.gumbel_r(loc, scale)),
        {"loc": 0.5, "scale": 1.2},
        {"loc": R, "scale": V},
    ),
    *_pair(dist.HalfCauchy, scipy(lambda scale: st.halfcauchy(scale=scale)), {"scale": 1.2}, {"scale": V}),
    *_pair(dist.HalfNormal, scipy(lambda scale: st.halfnorm(scale=scale)), {"scale": 1.2}, {"scale": V}),
    *_pair(
        dist.InverseGamma,
        scipy(lambda concentration, rate: st.invgamma(concentration, scale=rate)),
        {"concentration": 2.5, "rate": 1.5},
        {"concentration": [2.5, 4.0], "rate": V},
    ),
    *_pair(
        dist.Kumaraswamy,
        _kumaraswamy,
        {"concentration1": 1.7, "concentration0": 2.2},
        {"concentration1": [1.7, 3.0], "concentration0": 2.2},
    ),
    *_pair(
        dist.Laplace,
        scipy(lambda loc, scale: st.laplace(loc, scale)),
        {"loc": 0.5, "scale": 1.2},
        {"loc": R, "scale": V},
    ),
    *_pair(
        dist.LogNormal,
        scipy(lambda loc, scale: st.lognorm(s=scale, scale=np.exp(loc))),
        {"loc": 0.5, "scale": 0.8},
        {"loc": R, "scale": V},
    ),
    *_pair(
        dist.Normal, scipy(lambda loc, scale: st.norm(loc, scale)), {"loc": 0.5, "scale": 1.2}, {"loc": R, "scale": V}
    ),
    Case(
        dist.Normal, {"loc": [[0.5], [1.0], [-2.0]], "scale": V}, scipy(lambda loc, scale: st.norm(loc, scale)), (3, 2)
    ),
    *_pair(
        dist.Pareto,
        scipy(lambda scale, alpha: st.pareto(alpha, scale=scale)),
        {"scale": 1.5, "alpha": 2.5},
        {"scale": V, "alpha": [2.5, 3.5]},
    ),
    *_pair(
        dist.RelaxedBernoulli,
        _relaxed_bernoulli,
        {"temperature": 0.8, "probs": 0.3},
        {"temperature": 0.8, "probs": P},
    ),
    *_pair(
        dist.StudentT,
        scipy(lambda df, loc, scale: st.t(df, loc, scale)),
        {"df": 3.5, "loc": 0.5, "scale": 1.2},
        {"df": 3.5, "loc": R, "scale": V},
    ),
    *_pair(
        dist.Uniform,
        scipy(lambda low, high: st.uniform(low, high - low)),
        {"low": -1.5, "high": 2.0},
        {"low": R, "high": [0.5, 7.0]},
    ),
    *_pair(
        dist.VonMises,
        scipy(lambda loc, concentration: st.vonmises(concentration, loc)),
        {"loc": 0.5, "concentration": 2.5},
        {"loc": [-0.7, 1.5], "concentration": [0.4, 5.0]},
    ),
    *_pair(
        dist.Weibull,
        scipy(lambda scale, concentration: st.weibull_min(concentration, scale=scale)),
        {"scale": 1.5, "concentration": 2.5},
        {"scale": V, "concentration": [0.8, 2.5]},
    ),
]

DISCRETE = [
    *_pair(dist.Bernoulli, scipy(lambda probs: st.bernoulli(probs), True), {"probs": 0.3}, {"probs": P}),
    Case(
        dist.Bernoulli, {"logits": R}, scipy(lambda logits: st.bernoulli(sp.expit(logits)), True), (2,), note="logits"
    ),
    *_pair(
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
    *_pair(dist.Categorical, _categorical, {"probs": P3}, {"probs": P23}),
    Case(
        dist.Categorical,
        {"logits": [[0.3, -1.0, 2.0, 0.0]] * 2},
        lambda x, logits: _categorical(x, sp.softmax(logits, -1)),
        (2,),
        note="logits",
    ),
    *_pair(dist.Geometric, scipy(lambda probs: st.geom(probs, loc=-1), True), {"probs": 0.3}, {"probs": P}),
    *_pair(dist.Multinomial, _multinomial, {"probs": P3}, {"probs": P23}, event=(3,), options={"total_count": 6}),
    *_pair(
        dist.NegativeBinomial,
        scipy(lambda probs, total_count: st.nbinom(total_count, 1 - probs), True),
        {"total_count": 4.0, "probs": 0.3},
        {"total_count": [4.0, 2.5], "probs": P},
    ),
    *_pair(
        dist.OneHotCategorical,
        lambda x, probs: _categorical(x.argmax(-1), probs),
        {"probs": P3},
        {"probs": P23},
        event=(3,),
    ),
    *_pair(
        dist.OneHotCategoricalStraightThrough,
        lambda x, probs: _categorical(x.argmax(-1), probs),
        {"probs": P3},
        {"probs": P23},
        event=(3,),
    ),
    *_pair(dist.Poisson, scipy(lambda rate: st.poisson(rate), True), {"rate": 3.5}, {"rate": V}),
]

MULTIVARIATE = [
    *_pair(
        dist.Dirichlet,
        _dirichlet,
        {"concentration": [1.5, 2.0, 3.0]},
        {"concentration": [[1.5, 2.0, 3.0], [4.0, 2.0, 2.5]]},
        event=(3,),
    ),
    *_pair(
        dist.LKJCholesky,
        _lkj_cholesky,
        {"concentration": 1.5},
        {"concentration": [1.0, 3.0]},
        event=(3, 3),
        options={"dim": 3},
    ),
    *_pair(
        dist.LogisticNormal,
        _logistic_normal,
        {"loc": [0.5, -1.0], "scale": [0.8, 0.4]},
        {"loc": [[0.5, -1.0], [0.2, 0.1]], "scale": [0.8, 0.4]},
        event=(3,),
    ),
    *_pair(
        dist.LowRankMultivariateNormal,
        _low_rank,
        {"loc": LOC3, "cov_factor": [[1.0], [0.5], [-0.5]], "cov_diag": [0.5, 1.0, 0.7]},
        {"loc": [LOC3, LOC3], "cov_factor": [[1.0], [0.5], [-0.5]], "cov_diag": [0.5, 1.0, 0.7]},
        event=(3,),
    ),
    *_pair(
        dist.MultivariateNormal,
        _normal_vector,
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
    *_pair(
        dist.RelaxedOneHotCategorical,
        _relaxed_one_hot,
        {"temperature": 0.8, "probs": P3},
        {"temperature": 0.8, "probs": P23},
        event=(3,),
    ),
    *_pair(
        dist.Wishart,
        _wishart,
        {"df": 4.5, "covariance_matrix": COV},
        {"df": [4.5, 6.0], "covariance_matrix": COV},
        event=(3, 3),
    ),
]

_MIXED = {"loc": [0.5, -1.0, 2.0], "scale": [0.8, 1.2, 0.5]}
WRAPPERS = [
    *_pair(dist.Delta, _point, {"v": 0.5}, {"v": R, "log_density": [0.3, -0.2]}, no_gradient=("v",)),
    Case(dist.Delta, {"v": [R, R, R]}, _point, (3,), (2,), options={"event_dim": 1}, no_gradient=("v",), note="vector"),
    Case(dist.Delta, {"v": [2, 5]}, _point, (2,), integers=("v",), no_gradient=("v",), note="integer"),
    Case(dist.Unit, {"log_factor": 0.7}, lambda x, log_factor: np.broadcast_to(log_factor, x.shape[:-1]), (), (0,)),
    Case(dist.Unit, {"log_factor": R}, lambda x, log_factor: np.broadcast_to(log_factor, x.shape[:-1]), (2,), (0,)),
    Case(
        dist.Empirical,
        {"samples": [0.5, 1.5, -1.0], "log_weights": [0.3, 1.0, -2.0]},
        _empirical,
        no_gradient=("samples",),
    ),
    Case(
        dist.Empirical,
        {"samples": [[[0.5, 1.0], [1.5, 0.0], [-1.0, 0.3]]] * 2, "log_weights": [[0.3, 1.0, -2.0], [0.0, 0.0, 1.0]]},
        _empirical,
        (2,),
        (2,),
        no_gradient=("samples",),
        note="vector",
    ),
    Case(
        dist.Empirical,
        {"samples": [3, 5, 4], "log_weights": [0.3, 1.0, -2.0]},
        _empirical,
        integers=("samples",),
        no_gradient=("samples",),
        note="integer",
    ),
    *_pair(
        dist.MixtureSameFamily,
        _mixture,
        {"probs": P3, **_MIXED},
        {"probs": P3, "loc": [_MIXED["loc"], [1.0, 2.0, 3.0]], "scale": _MIXED["scale"]},
        build_from=lambda probs, loc, scale: dist.MixtureSameFamily(
            dist.Categorical(probs.expand(loc.shape)), dist.Normal(loc, scale)
        ),
    ),
    Case(
        dist.MixtureSameFamily,
        {"probs": P, "rate": V},
        lambda x, probs, rate: sp.logsumexp(np.log(_normalised(probs)) + st.poisson(rate).logpmf(x[..., None]), -1),
        build_from=lambda probs, rate: dist.MixtureSameFamily(dist.Categorical(probs), dist.Poisson(rate)),
        note="discrete",
    ),
    *_pair(
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
        lambda x, probs: _categorical(x, probs).sum((-1, -2)),
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
        _categorical,
        (4, 2),
        build_from=lambda probs: dist.ExpandedDistribution(dist.Categorical(probs), (4, 2)),
        note="categorical",
    ),
    Case(
        dist.ExpandedDistribution,
        {"loc": LOC3, "covariance_matrix": COV},
        _normal_vector,
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
        lambda x, concentration: np.where([[True], [False]], _dirichlet(x, concentration=concentration), 0.0),
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
        note="all",
    ),
]

CASES = [*CONTINUOUS, *DISCRETE, *MULTIVARIATE, *WRAPPERS]

#: Exported, but nothing to build.
ABSTRACT = {dist.Distribution, dist.ExponentialFamily}

__all__ = ["ABSTRACT", "CASES", "Case"]
