"""Rows of mixtures, folded, censored, zero-inflated and hurdle distributions."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import scipy.special as sp
import scipy.stats as st
import torch
from case import P3, Array, Case, P, R, V, normalised, pair, scipy

import ppl.distributions as dist


def _nb2(mean: Any, concentration: Any) -> Any:
    return st.nbinom(concentration, concentration / (concentration + mean))


def _inflated(make: Any) -> Any:
    """A zero-inflated law by its plain definition."""

    def log_density(x: Array, gate: Array, **params: Any) -> Array:
        p = make(**params).logpmf(x)
        with np.errstate(divide="ignore"):
            return np.where(x == 0, np.logaddexp(np.log(gate), np.log1p(-gate) + p), np.log1p(-gate) + p)

    return log_density


def _inflated_by_logits(make: Any) -> Any:
    plain = _inflated(make)
    return lambda x, gate_logits, **params: plain(x, gate=sp.expit(gate_logits), **params)


def _over(make: Any, discrete: bool) -> Any:
    """A hurdle by its plain definition."""

    def log_density(x: Array, gate: Array, **params: Any) -> Array:
        law = make(**params)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = law.logpmf(x) - np.log1p(-law.pmf(0)) if discrete else law.logpdf(np.where(x > 0, x, 1.0))
            return np.where(x == 0, np.log(gate), np.log1p(-gate) + inside)

    return log_density


def _over_by_logits(make: Any, discrete: bool) -> Any:
    plain = _over(make, discrete)
    return lambda x, gate_logits, **params: plain(x, gate=sp.expit(gate_logits), **params)


def _poisson_exactly(x: Any, rate: Any) -> Any:
    return x * mp.log(rate) - rate - mp.loggamma(x + 1)


def _nb2_exactly(x: Any, mean: Any, concentration: Any) -> Any:
    c = concentration
    choose = mp.loggamma(x + c) - mp.loggamma(c) - mp.loggamma(x + 1)
    return choose + c * mp.log(c / (c + mean)) + x * mp.log(mean / (c + mean))


def _nb_exactly(x: Any, total_count: Any, probs: Any) -> Any:
    choose = mp.loggamma(x + total_count) - mp.loggamma(total_count) - mp.loggamma(x + 1)
    return choose + total_count * mp.log1p(-probs) + x * mp.log(probs)


def _gamma_exactly(x: Any, concentration: Any, rate: Any) -> Any:
    return concentration * mp.log(rate) + (concentration - 1) * mp.log(x) - rate * x - mp.loggamma(concentration)


def _log_normal_exactly(x: Any, loc: Any, scale: Any) -> Any:
    z = (mp.log(x) - loc) / scale
    return -z * z / 2 - mp.log(x * scale) - mp.log(2 * mp.pi) / 2


def _gates(gate: Any, gate_logits: Any) -> tuple[Any, Any]:
    if gate is None:
        return 1 / (1 + mp.exp(-gate_logits)), 1 / (1 + mp.exp(gate_logits))
    return gate, 1 - gate


def _log(x: Any) -> Any:
    return mp.log(x) if x else -mp.inf


def _inflated_exactly(base: Any) -> Any:
    def exact(x: Any, gate: Any = None, gate_logits: Any = None, **params: Any) -> Any:
        with mp.workdps(60):
            on, off = _gates(gate, gate_logits)
            p = mp.exp(base(x, **params))
            return _log(on + off * p) if x == 0 else _log(off) + base(x, **params)

    return exact


def _over_exactly(base: Any, discrete: bool) -> Any:
    def exact(x: Any, gate: Any = None, gate_logits: Any = None, **params: Any) -> Any:
        with mp.workdps(60):
            on, off = _gates(gate, gate_logits)
            if x == 0:
                return _log(on)
            return _log(off) + base(x, **params) - (mp.log(-mp.expm1(base(mp.mpf(0), **params))) if discrete else 0)

    return exact


def _mixture(x: Array, probs: Array, loc: Array, scale: Array) -> Array:
    return sp.logsumexp(np.log(normalised(probs)) + st.norm(loc, scale).logpdf(x[..., None]), -1)


def _normals_exactly(x: Any, probs: Any, loc: Any, scale: Any) -> Any:
    total = mp.fsum(probs)
    terms = [
        p / total * mp.exp(-(((x - m) / s) ** 2) / 2) / s / mp.sqrt(2 * mp.pi)
        for p, m, s in zip(probs, loc, scale, strict=True)
    ]
    return mp.log(mp.fsum(terms))


def _general(x: Array, probs: Array, loc: Array, scale: Array) -> Array:
    parts = [st.norm(loc, scale).logpdf(x), st.laplace(loc, 2 * scale).logpdf(x), st.norm(0.0, 3 * scale).logpdf(x)]
    return sp.logsumexp(np.log(normalised(probs)) + np.stack(np.broadcast_arrays(*parts), -1), -1)


def _general_exactly(x: Any, probs: Any, loc: Any, scale: Any) -> Any:
    z = x - loc
    parts = [
        mp.exp(-((z / scale) ** 2) / 2) / scale / mp.sqrt(2 * mp.pi),
        mp.exp(-abs(z) / (2 * scale)) / (4 * scale),
        mp.exp(-((x / scale / 3) ** 2) / 2) / (3 * scale) / mp.sqrt(2 * mp.pi),
    ]
    total = mp.fsum(probs)
    return mp.log(mp.fsum(p / total * q for p, q in zip(probs, parts, strict=True)))


def _folded(law: Any) -> Any:
    return lambda x, **params: np.logaddexp(law(**params).logpdf(x), law(**params).logpdf(-x))


def _folded_normal_exactly(x: Any, loc: Any, scale: Any) -> Any:
    parts = [mp.exp(-(((s * x - loc) / scale) ** 2) / 2) for s in (1, -1)]
    return mp.log(mp.fsum(parts)) - mp.log(scale * mp.sqrt(2 * mp.pi))


def _flag(value: bool, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(value, device=like.device)


def _two(like: torch.Tensor) -> torch.Tensor:
    return torch.tensor([True, False], device=like.device)


def _pairs(x: Array, loc: Array, scale: Array) -> Array:
    """Draws are exact pairs; an entry whose ends are both unknown says nothing."""
    return np.where([False, True], st.norm(loc, scale).logpdf(x[..., 0]), st.norm(loc, scale).logcdf(x[..., 1]))


_MIXED = {"loc": [0.5, -1.0, 2.0], "scale": [0.8, 1.2, 0.5]}


def _normals(probs: torch.Tensor, loc: torch.Tensor, scale: torch.Tensor) -> Any:
    return dist.MixtureSameFamily(dist.Categorical(probs.expand(loc.shape)), dist.Normal(loc, scale))


def _families(probs: torch.Tensor, loc: torch.Tensor, scale: torch.Tensor) -> Any:
    parts = [dist.Normal(loc, scale), dist.Laplace(loc, 2 * scale), dist.Normal(torch.zeros_like(scale), 3 * scale)]
    return dist.MixtureGeneral(dist.Categorical(probs), parts)


def _counts(probs: torch.Tensor, rate: torch.Tensor, p: torch.Tensor) -> Any:
    return dist.MixtureGeneral(dist.Categorical(probs), [dist.Poisson(rate), dist.NegativeBinomial(3 * p / p, 1 - p)])


def _choose(loc: torch.Tensor, scale: torch.Tensor) -> Any:
    return dist.MaskedMixture(_two(loc), dist.Normal(loc, scale), dist.Laplace(loc, 2 * scale))


_GATES = ({"gate": 1e-12}, {"gate": 1.0 - 2.0**-20}, {"gate": 0.0})
_LOGITS = ({"gate_logits": 50.0}, {"gate_logits": -50.0}, {"gate_logits": 0.3})


def _with(base: dict[str, Any], *others: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return tuple({**base, **other} for other in others)


_ZERO = (0.0, 1.0, 4.0, 30.0)
CASES = [
    *pair(
        dist.MixtureSameFamily,
        _mixture,
        {"probs": P3, **_MIXED},
        {"probs": P3, "loc": [_MIXED["loc"], [1.0, 2.0, 3.0]], "scale": _MIXED["scale"]},
        build_from=_normals,
        exact=_normals_exactly,
        points=(-30.0, -7.0, 0.0, 5.0, 40.0),
        extremes=(
            {"probs": [1e-12, 1.0, 1e-3], **_MIXED},
            {"probs": P3, "loc": [-1e3, 0.0, 1e3], "scale": [1e-2, 1e2, 1.0]},
        ),
    ),
    Case(
        dist.MixtureSameFamily,
        {"probs": P, "rate": V},
        lambda x, probs, rate: sp.logsumexp(np.log(normalised(probs)) + st.poisson(rate).logpmf(x[..., None]), -1),
        build_from=lambda probs, rate: dist.MixtureSameFamily(dist.Categorical(probs), dist.Poisson(rate)),
        note="discrete",
    ),
    Case(
        dist.MixtureSameFamily,
        {"probs": P, "inner": [P3, [0.5, 0.25, 0.25]]},
        lambda x, probs, inner: np.log((normalised(probs) @ normalised(inner))[x.astype(int)]),
        build_from=lambda probs, inner: dist.MixtureSameFamily(dist.Categorical(probs), dist.Categorical(inner)),
        skips={"test_mean": "categories have no mean", "test_variance": "categories have no variance"},
        note="finite",
    ),
    Case(
        dist.MixtureSameFamily,
        {"probs": P, "loc": [R, R[::-1]]},
        lambda x, probs, loc: sp.logsumexp(
            np.log(normalised(probs)) + st.norm(loc, 1).logpdf(x[..., None, :]).sum(-1), -1
        ),
        (),
        (2,),
        build_from=lambda probs, loc: dist.MixtureSameFamily(
            dist.Categorical(probs), dist.Normal(loc, 1.0).to_event(1)
        ),
        note="vector",
    ),
    *pair(
        dist.MixtureGeneral,
        _general,
        {"probs": P3, "loc": 0.5, "scale": 1.3},
        {"probs": P3, "loc": R, "scale": V},
        build_from=_families,
        exact=_general_exactly,
        points=(-1e4, -7.0, 0.0, 5.0, 1e6),
        extremes=({"probs": [1e-9, 1.0, 1e-12], "loc": 3.0, "scale": 1e-3},),
    ),
    Case(
        dist.MixtureGeneral,
        {"probs": P, "rate": 2.0, "p": 0.3},
        lambda x, probs, rate, p: sp.logsumexp(
            np.log(normalised(probs)) + np.stack([st.poisson(rate).logpmf(x), st.nbinom(3, p).logpmf(x)], -1), -1
        ),
        build_from=_counts,
        note="counts",
    ),
    Case(
        dist.MaskedMixture,
        {"loc": R, "scale": V},
        lambda x, loc, scale: np.where(
            [True, False], st.laplace(loc, 2 * scale).logpdf(x), st.norm(loc, scale).logpdf(x)
        ),
        (2,),
        build_from=_choose,
    ),
    Case(
        dist.MaskedMixture,
        {"loc": 0.5, "scale": 1.3},
        scipy(lambda loc, scale: st.laplace(loc, 2 * scale)),
        build_from=lambda loc, scale: dist.MaskedMixture(
            _flag(True, loc), dist.Normal(loc, scale), dist.Laplace(loc, 2 * scale)
        ),
        note="one",
    ),
    *pair(
        dist.FoldedDistribution,
        _folded(lambda loc, scale: st.norm(loc, scale)),
        {"loc": 0.5, "scale": 1.3},
        {"loc": R, "scale": V},
        build_from=lambda loc, scale: dist.FoldedDistribution(dist.Normal(loc, scale)),
        exact=_folded_normal_exactly,
        points=(0.0, 1e-9, 1.0, 9.0, 40.0),
        extremes=({"loc": -30.0, "scale": 1.0}, {"loc": 30.0, "scale": 0.5}),
    ),
    Case(
        dist.FoldedDistribution,
        {"loc": 0.5, "scale": 1.3},
        _folded(lambda loc, scale: st.cauchy(loc, scale)),
        build_from=lambda loc, scale: dist.FoldedDistribution(dist.Cauchy(loc, scale)),
        note="cauchy",
    ),
    Case(
        dist.FoldedDistribution,
        {"loc": 0.5},
        lambda x, loc: (
            st.uniform(loc - 2, 3).logpdf(x) * 0 + np.log(((x < loc + 1).astype(float) + (-x > loc - 2)) / 3.0)
        ),
        build_from=lambda loc: dist.FoldedDistribution(dist.Uniform(loc - 2, loc + 1)),
        no_gradient=("loc",),
        integrates=False,
        note="jump",
    ),
    Case(
        dist.LeftCensoredDistribution,
        {"loc": 0.5, "scale": 1.3},
        lambda x, loc, scale: st.norm(loc, scale).logcdf(x),
        build_from=lambda loc, scale: dist.LeftCensoredDistribution(dist.Normal(loc, scale), _flag(True, loc)),
        exact=lambda x, loc, scale: mp.log(mp.erfc((loc - x) / scale / mp.sqrt(2)) / 2),
        points=(-40.0, -7.0, 0.5, 8.0),
        integrates=False,
    ),
    Case(
        dist.LeftCensoredDistribution,
        {"loc": R, "scale": V},
        lambda x, loc, scale: np.where([True, False], st.norm(loc, scale).logcdf(x), st.norm(loc, scale).logpdf(x)),
        (2,),
        build_from=lambda loc, scale: dist.LeftCensoredDistribution(dist.Normal(loc, scale), _two(loc)),
        integrates=False,
    ),
    Case(
        dist.RightCensoredDistribution,
        {"loc": 0.5, "scale": 1.3},
        lambda x, loc, scale: st.norm(loc, scale).logsf(x),
        build_from=lambda loc, scale: dist.RightCensoredDistribution(dist.Normal(loc, scale), _flag(True, loc)),
        exact=lambda x, loc, scale: mp.log(mp.erfc((x - loc) / scale / mp.sqrt(2)) / 2),
        points=(-8.0, 0.5, 7.0, 60.0),
        integrates=False,
    ),
    Case(
        dist.RightCensoredDistribution,
        {"scale": V, "concentration": [1.7, 0.8]},
        lambda x, scale, concentration: np.where(
            [True, False],
            st.weibull_min(concentration, scale=scale).logsf(x),
            st.weibull_min(concentration, scale=scale).logpdf(x),
        ),
        (2,),
        build_from=lambda scale, concentration: dist.RightCensoredDistribution(
            dist.Weibull(scale, concentration), _two(scale)
        ),
        integrates=False,
    ),
    Case(
        dist.IntervalCensoredDistribution,
        {"loc": 0.5, "scale": 1.3},
        lambda x, loc, scale: st.norm(loc, scale).logpdf(x[..., 0]),
        (),
        (2,),
        build_from=lambda loc, scale: dist.IntervalCensoredDistribution(
            dist.Normal(loc, scale), _flag(False, loc), _flag(False, loc)
        ),
        integrates=False,
        skips={"test_gradient_of_the_value": "the two ends of a draw are one number"},
    ),
    Case(
        dist.IntervalCensoredDistribution,
        {"loc": R, "scale": V},
        _pairs,
        (2,),
        (2,),
        build_from=lambda loc, scale: dist.IntervalCensoredDistribution(
            dist.Normal(loc, scale), _two(loc), _flag(False, loc)
        ),
        integrates=False,
        skips={"test_gradient_of_the_value": "the two ends of a draw are one number"},
    ),
    *pair(
        dist.ZeroInflatedPoisson,
        _inflated(lambda rate: st.poisson(rate)),
        {"rate": 2.5, "gate": 0.3},
        {"rate": V, "gate": P},
        exact=_inflated_exactly(_poisson_exactly),
        points=_ZERO,
        extremes=(
            *_with({"rate": 2.5}, *_GATES),
            {"rate": 1e3, "gate": 1e-3},
            {"rate": 1e-9, "gate": 0.5},
            {"rate": 1e3, "gate": 0.0},
        ),
    ),
    Case(
        dist.ZeroInflatedPoisson,
        {"rate": 2.5, "gate_logits": 0.4},
        _inflated_by_logits(lambda rate: st.poisson(rate)),
        exact=_inflated_exactly(_poisson_exactly),
        points=_ZERO,
        extremes=_with({"rate": 2.5}, *_LOGITS),
        note="logits",
    ),
    *pair(
        dist.ZeroInflatedNegativeBinomial,
        _inflated(lambda total_count, probs: st.nbinom(total_count, 1 - probs)),
        {"total_count": 3.5, "probs": 0.4, "gate": 0.3},
        {"total_count": [3.0, 4.5], "probs": P, "gate": P},
        exact=_inflated_exactly(_nb_exactly),
        points=_ZERO,
        extremes=_with({"total_count": 3.5, "probs": 0.4}, *_GATES),
    ),
    *pair(
        dist.ZeroInflatedNegativeBinomial2,
        _inflated(_nb2),
        {"mean": 3.5, "concentration": 1.4, "gate": 0.3},
        {"mean": [3.0, 4.5], "concentration": V, "gate": P},
        exact=_inflated_exactly(_nb2_exactly),
        points=_ZERO,
        extremes=_with({"mean": 3.5, "concentration": 1.4}, *_GATES),
    ),
    Case(
        dist.ZeroInflatedDistribution,
        {"probs": 0.4, "gate": 0.3},
        lambda x, probs, gate: np.log(np.where(x == 0, gate + (1 - gate) * (1 - probs), (1 - gate) * probs)),
        build_from=lambda probs, gate: dist.ZeroInflatedDistribution(dist.Bernoulli(probs), gate),
        note="finite",
    ),
    Case(
        dist.ZeroInflatedDistribution,
        {"rate": V, "gate_logits": R},
        _inflated_by_logits(lambda rate: st.poisson(rate)),
        (2,),
        build_from=lambda rate, gate_logits: dist.ZeroInflatedDistribution(dist.Poisson(rate), gate_logits=gate_logits),
    ),
    *pair(
        dist.HurdlePoisson,
        _over(lambda rate: st.poisson(rate), True),
        {"gate": 0.3, "rate": 2.5},
        {"gate": P, "rate": V},
        exact=_over_exactly(_poisson_exactly, True),
        points=_ZERO,
        extremes=(*_with({"rate": 2.5}, *_GATES), {"rate": 1e-09, "gate": 0.5}, {"rate": 500.0, "gate": 0.5}),
    ),
    Case(
        dist.HurdlePoisson,
        {"gate_logits": 0.4, "rate": 2.5},
        _over_by_logits(lambda rate: st.poisson(rate), True),
        exact=_over_exactly(_poisson_exactly, True),
        points=_ZERO,
        extremes=_with({"rate": 2.5}, *_LOGITS),
        note="logits",
    ),
    *pair(
        dist.HurdleNegativeBinomial2,
        _over(_nb2, True),
        {"gate": 0.3, "mean": 3.5, "concentration": 1.4},
        {"gate": P, "mean": [3.0, 4.5], "concentration": V},
        exact=_over_exactly(_nb2_exactly, True),
        points=_ZERO,
        extremes=_with({"mean": 3.5, "concentration": 1.4}, *_GATES),
    ),
    *pair(
        dist.HurdleGamma,
        _over(lambda concentration, rate: st.gamma(concentration, scale=1 / rate), False),
        {"gate": 0.3, "concentration": 2.5, "rate": 1.5},
        {"gate": P, "concentration": [1.5, 4.0], "rate": V},
        exact=_over_exactly(_gamma_exactly, False),
        points=(0.0, 1e-9, 1.0, 30.0),
        extremes=_with({"concentration": 2.5, "rate": 1.5}, *_GATES),
        integrates=False,
        skips={"test_gradient_of_the_value": "an atom at 0"},
    ),
    *pair(
        dist.HurdleLogNormal,
        _over(lambda loc, scale: st.lognorm(scale, scale=np.exp(loc)), False),
        {"gate": 0.3, "loc": 0.5, "scale": 0.6},
        {"gate": P, "loc": R, "scale": V},
        exact=_over_exactly(_log_normal_exactly, False),
        points=(0.0, 1e-9, 1.0, 30.0),
        extremes=_with({"loc": 0.5, "scale": 0.6}, *_GATES),
        integrates=False,
        skips={"test_gradient_of_the_value": "an atom at 0"},
    ),
    Case(
        dist.HurdleDistribution,
        {"probs": [0.2, 0.5, 0.3], "gate": 0.3},
        lambda x, probs, gate: np.where(
            x == 0,
            np.log(gate),
            np.log1p(-gate) + np.log(probs / probs.sum())[x.astype(int)] - np.log1p(-probs[0] / probs.sum()),
        ),
        build_from=lambda probs, gate: dist.HurdleDistribution(dist.Categorical(probs), gate),
        skips={"test_mean": "categories have no mean", "test_variance": "categories have no variance"},
        note="finite",
    ),
    Case(
        dist.HurdleDistribution,
        {"rate": V, "gate_logits": R},
        _over_by_logits(lambda rate: st.expon(scale=1 / rate), False),
        (2,),
        build_from=lambda rate, gate_logits: dist.HurdleDistribution(dist.Exponential(rate), gate_logits=gate_logits),
        integrates=False,
        skips={"test_gradient_of_the_value": "an atom at 0"},
    ),
]
