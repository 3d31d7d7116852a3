"""Rows of sequences: hidden Markov models, random walks, paths of stochastic differential equations.

The references work out the joint normal of a whole sequence, or sum over all paths of states.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special as sp
import scipy.stats as st
import torch
from case import Array, Case, R, V, pair, rows

import ppl.distributions as dist


def joint(steps: int, initial: Any, transition: Any, observation: Any) -> tuple[Array, Array]:
    """Mean and covariance of all observations, by hand: each noise's effect on each later observation.

    `initial` (mean, covariance), `transition` (matrix, mean, covariance), `observation` (matrix, mean, covariance).
    """
    (m0, p0), (f, b, q), (h, a, r) = initial, transition, observation
    n, d = h.shape
    sources = [p0, *([q] * steps)]
    effects = np.zeros((steps + 1, n, steps, d))  # of the noise that enters at step s on the observation at t
    mean, at = np.zeros((steps, d)), m0
    for t in range(steps):
        at = at @ f + b
        mean[t] = at @ h + a
        for s in range(t + 2):
            effects[s, :, t] = np.linalg.matrix_power(f, t + 1 - s) @ h
    covariance = np.zeros((steps, d, steps, d))
    for s, source in enumerate(sources):
        covariance += np.einsum("itd,ij,jue->tdue", effects[s], source, effects[s])
    for t in range(steps):
        covariance[t, :, t] += r
    return mean.reshape(-1), covariance.reshape(steps * d, steps * d)


def _model(steps: int, loc: Array, scale: Array, f: Array, q: Array, h: Array, a: Array, r: Array) -> Any:
    zero = np.zeros(len(loc))
    return joint(steps, (loc, np.diag(scale**2)), (f, zero, q @ q.T), (h, a, np.diag(r**2)))


@rows("(t,d),(n),(n),(n,n),(n,n),(n,d),(d),(d)->()")
def _gaussian_hmm(x: Array, *model: Array) -> Any:
    mean, covariance = _model(len(x), *model)
    return st.multivariate_normal(mean, covariance).logpdf(x.reshape(-1))


@rows("(t,d),(),(),(n),(n),(n,n),(n,n),(n,d),(d),(d)->()")
def _gamma_gaussian_hmm(x: Array, a: Array, b: Array, *model: Array) -> Any:
    mean, covariance = _model(len(x), *model)
    return st.multivariate_t(mean, covariance * b / a, df=2 * a).logpdf(x.reshape(-1))


@rows("(t,d),(n),(n),(n,n),(n,n),(n,d),(d),(d)->()")
def _log_linear_hmm(x: Array, *model: Array) -> Any:
    mean, covariance = _model(len(x), *model)
    return st.multivariate_normal(mean, covariance).logpdf(np.log(x).reshape(-1)) - np.log(x).sum()


def _independent_hmm(x: Array, loc: Array, scale: Array, f: Array, q: Array, h: Array, a: Array, r: Array) -> Array:
    apart = np.swapaxes(x, -1, -2)[..., None]
    return _gaussian_hmm(apart, loc=loc, scale=scale, f=f, q=q, h=h, a=a, r=r).sum(-1)


@rows("(t,d),(n),(n,n),(m),(m,m),(k),(k,k)->()")
def _gaussian_mrf(x: Array, loc: Array, tril: Array, m: Array, q: Array, a: Array, r: Array) -> Any:
    (steps, d), n = x.shape, len(loc)
    size = (steps + 1) * n + steps * d
    precision, info = np.zeros((size, size)), np.zeros(size)

    def add(mean: Array, root: Array, where: list[int]) -> None:
        p = np.linalg.inv(root @ root.T)
        precision[np.ix_(where, where)] += p
        info[where] += p @ mean

    add(loc, tril, list(range(n)))
    first = (steps + 1) * n
    for t in range(steps):
        state = list(range((t + 1) * n, (t + 2) * n))
        add(m, q, [*range(t * n, (t + 1) * n), *state])
        add(a, r, [*state, *range(first + t * d, first + (t + 1) * d)])
    covariance = np.linalg.inv(precision)
    mean = covariance @ info
    return st.multivariate_normal(mean[first:], covariance[first:, first:]).logpdf(x.reshape(-1))


def paths(initial: Array, transition: Array, likelihood: Array) -> dict[tuple[int, ...], float]:
    """The log density of each path of states, z_0 included, together with the observations."""
    steps, k = likelihood.shape
    logs = transition - sp.logsumexp(transition, -1, keepdims=True)
    start = initial - sp.logsumexp(initial)
    return {
        z: start[z[0]] + sum(logs[z[t], z[t + 1]] + likelihood[t, z[t + 1]] for t in range(steps))
        for z in itertools.product(range(k), repeat=steps + 1)
    }


@rows("(t),(k),(k,k),(k)->()")
def _discrete_hmm(x: Array, initial: Array, transition: Array, loc: Array) -> Any:
    likelihood = st.norm(loc, 0.7).logpdf(x[:, None])
    return sp.logsumexp(list(paths(initial, transition, likelihood).values()))


@rows("(t),(k),(k,k),(k)->()")
def _poisson_hmm(x: Array, initial: Array, transition: Array, rate: Array) -> Any:
    return sp.logsumexp(list(paths(initial, transition, st.poisson(rate).logpmf(x[:, None])).values()))


@rows("(t,n),(n,n),(n,n),(n)->()")
def _tril_path(x: Array, f: Array, tril: Array, initial: Array) -> Any:
    before = np.vstack([initial, x[:-1]])
    return st.multivariate_normal(np.zeros(len(f)), tril @ tril.T).logpdf(x - before @ f.T).sum()


def _state_space(x: Array, num_steps: int, transition_matrix: Array, initial_value: Any = None, **form: Array) -> Array:
    ((name, matrix),) = form.items()
    if name == "precision_matrix":
        matrix = np.linalg.inv(matrix)
    tril = matrix if name == "scale_tril" else np.linalg.cholesky(matrix)
    initial = np.zeros(transition_matrix.shape[-1]) if initial_value is None else initial_value
    return _tril_path(x, f=transition_matrix, tril=tril, initial=initial)


@rows("(t),()->()")
def _walk(x: Array, scale: Array) -> Any:
    steps = np.arange(1, len(x) + 1)
    covariance = scale**2 * np.minimum(steps[:, None], steps)
    return st.multivariate_normal(np.zeros(len(x)), covariance).logpdf(x)


@rows("(t),(t),(),(),()->()")
def _ornstein_uhlenbeck(x: Array, t: Array, speed: Array, level: Array, noise: Array) -> Any:
    dt = np.diff(t)
    steps = st.norm(x[:-1] + speed * (level - x[:-1]) * dt, noise * np.sqrt(dt)).logpdf(x[1:])
    return st.norm(0.3, 1.1).logpdf(x[0]) + steps.sum()


@rows("(t,k),(t),()->()")
def _plane(x: Array, t: Array, omega: Array) -> Any:
    dt = np.diff(t)[:, None]
    drift = omega * np.stack([-x[:-1, 1], x[:-1, 0]], -1)
    noise = 0.5 + x[:-1] ** 2
    return st.norm().logpdf(x[0]).sum() + st.norm(x[:-1] + drift * dt, noise * np.sqrt(dt)).logpdf(x[1:]).sum()


def _gaussian(kind: Any, steps: int) -> Any:
    def build(loc: Any, scale: Any, f: Any, q: Any, h: Any, a: Any, r: Any, **more: Any) -> Any:
        zero = torch.zeros_like(loc)[..., None, :]
        return kind(
            dist.Normal(loc, scale).to_event(1),
            f[..., None, :, :],
            dist.MultivariateNormal(zero, scale_tril=q[..., None, :, :]),
            h[..., None, :, :],
            dist.Normal(a[..., None, :], r[..., None, :]).to_event(1),
            duration=steps,
            **more,
        )

    return build


def _gamma_gaussian(a0: Any, b0: Any, **params: Any) -> Any:
    return _gaussian(lambda *args, **kwargs: dist.GammaGaussianHMM(dist.Gamma(a0, b0), *args, **kwargs), 2)(**params)


def _log_linear(loc: Any, scale: Any, f: Any, q: Any, h: Any, a: Any, r: Any) -> Any:
    zero = torch.zeros_like(loc)[..., None, :]
    return dist.LinearHMM(
        dist.Normal(loc, scale).to_event(1),
        f[..., None, :, :],
        dist.MultivariateNormal(zero, scale_tril=q[..., None, :, :]),
        h[..., None, :, :],
        dist.LogNormal(a[..., None, :], r[..., None, :]).to_event(1),
        duration=2,
    )


def _mrf(loc: Any, tril: Any, m: Any, q: Any, a: Any, r: Any) -> Any:
    return dist.GaussianMRF(
        dist.MultivariateNormal(loc, scale_tril=tril),
        dist.MultivariateNormal(m[..., None, :], scale_tril=q[..., None, :, :]),
        dist.MultivariateNormal(a[..., None, :], scale_tril=r[..., None, :, :]),
        duration=2,
    )


@dataclass
class Return:
    """The coefficients of an Ornstein-Uhlenbeck process; a class, because closures cannot be pickled."""

    speed: Any
    level: Any
    noise: Any

    def __call__(self, x: Any, t: Any) -> Any:
        return self.speed * (self.level - x), self.noise


@dataclass
class Turn:
    """A rotation of the plane, with noise that grows outwards."""

    omega: Any

    def __call__(self, x: Any, t: Any) -> Any:
        return self.omega[..., None] * torch.stack([-x[..., 1], x[..., 0]], -1), 0.5 + x**2


def _euler(t: Any, speed: Any, level: Any, noise: Any) -> Any:
    start = dist.Normal(torch.full_like(speed, 0.3), 1.1)
    return dist.EulerMaruyama(t, Return(speed, level, noise), start)


def _euler_plane(t: Any, omega: Any) -> Any:
    start = dist.Normal(torch.zeros((*omega.shape, 2), dtype=t.dtype, device=t.device), 1.0)
    return dist.EulerMaruyama(t, Turn(omega), start.to_event(1))


_STATE = {
    "loc": [0.5, -1.0],
    "scale": [1.2, 0.7],
    "f": [[0.9, 0.3], [-0.2, 0.7]],
    "q": [[0.8, 0.0], [0.3, 0.5]],
    "h": [[1.0], [0.6]],
    "a": [0.2],
    "r": [0.6],
}
_BATCH = {
    **_STATE,
    "loc": [[0.5, -1.0], [1.0, 0.0]],
    "h": [[1.0, 0.2], [0.6, -1.1]],
    "a": [[0.2, 0.0], [-0.5, 1.0]],
    "r": [0.6, 1.3],
}
_SIDE = {**_STATE, "loc": [[0.5, -1.0], [1.0, 0.0]], "a": [[0.2], [-0.7]]}
_SIDES = {**_STATE, "loc": [[[0.5, -1.0], [1.0, 0.0], [0.0, 0.0]]] * 2, "a": [[[0.2]], [[-0.7]]]}
_FACTORS = {
    "loc": [0.5],
    "tril": [[1.2]],
    "m": [0.3, -0.4],
    "q": [[1.1, 0.0], [0.6, 0.8]],
    "a": [0.1, 0.9],
    "r": [[0.9, 0.0], [-0.5, 0.7]],
}
_CHAIN = {
    "initial_logits": [0.3, -1.0, 0.5],
    "transition_logits": [[1.0, 0.0, -1.0], [0.2, 0.9, 0.1], [-2.0, 0.0, 1.5]],
}
_NORMAL_CHAIN = {**_CHAIN, "loc": [-1.0, 0.0, 2.5]}
_POISSON_CHAIN = {**_CHAIN, "rate": [0.5, 3.0, 7.0]}


def _normal_chain(initial_logits: Any, transition_logits: Any, loc: Any, steps: int = 2) -> Any:
    emission = dist.Normal(loc[..., None, :], 0.7)
    return dist.DiscreteHMM(initial_logits, transition_logits[..., None, :, :], emission, duration=steps)


def _poisson_chain(initial_logits: Any, transition_logits: Any, rate: Any) -> Any:
    emission = dist.Poisson(rate[..., None, :])
    return dist.DiscreteHMM(initial_logits, transition_logits[..., None, :, :], emission, duration=3)


def _two(params: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {**params, **changed}


_MATRIX = [[0.9, 0.3], [-0.2, 0.7]]
_COV2 = [[1.3, 0.4], [0.4, 0.9]]
CASES = [
    Case(dist.GaussianHMM, _STATE, _gaussian_hmm, (), (2, 1), build_from=_gaussian(dist.GaussianHMM, 2)),
    Case(dist.GaussianHMM, _BATCH, _gaussian_hmm, (2,), (5, 2), build_from=_gaussian(dist.GaussianHMM, 5)),
    Case(
        dist.GammaGaussianHMM,
        {"a0": 2.5, "b0": 1.4, **_STATE},
        _gamma_gaussian_hmm,
        (),
        (2, 1),
        build_from=_gamma_gaussian,
    ),
    Case(
        dist.GammaGaussianHMM,
        {"a0": [2.5, 4.0], "b0": [1.4, 0.7], **_BATCH},
        _gamma_gaussian_hmm,
        (2,),
        (2, 2),
        build_from=_gamma_gaussian,
    ),
    Case(dist.LinearHMM, _STATE, _log_linear_hmm, (), (2, 1), build_from=_log_linear),
    Case(dist.LinearHMM, _BATCH, _log_linear_hmm, (2,), (2, 2), build_from=_log_linear),
    Case(
        dist.IndependentHMM,
        _SIDE,
        _independent_hmm,
        (),
        (4, 2),
        build_from=lambda **params: dist.IndependentHMM(_gaussian(dist.GaussianHMM, 4)(**params)),
    ),
    Case(
        dist.IndependentHMM,
        _SIDES,
        _independent_hmm,
        (2,),
        (3, 3),
        build_from=lambda **params: dist.IndependentHMM(_gaussian(dist.GaussianHMM, 3)(**params)),
    ),
    Case(dist.GaussianMRF, _FACTORS, _gaussian_mrf, (), (2, 1), build_from=_mrf),
    Case(
        dist.GaussianMRF,
        _two(_FACTORS, loc=[[0.5], [1.5]], a=[[0.1, 0.9], [2.0, 0.0]]),
        _gaussian_mrf,
        (2,),
        (2, 1),
        build_from=_mrf,
    ),
    Case(dist.DiscreteHMM, _NORMAL_CHAIN, _discrete_hmm, (), (2,), build_from=_normal_chain),
    Case(
        dist.DiscreteHMM,
        _two(_NORMAL_CHAIN, loc=[[-1.0, 0.0, 2.5], [0.0, 3.0, 6.0]]),
        _discrete_hmm,
        (2,),
        (2,),
        build_from=_normal_chain,
    ),
    Case(dist.DiscreteHMM, _POISSON_CHAIN, _poisson_hmm, (), (3,), build_from=_poisson_chain, note="counts"),
    Case(
        dist.GaussianStateSpace,
        {"transition_matrix": [[0.8]], "covariance_matrix": [[1.3]]},
        _state_space,
        (),
        (2, 1),
        options={"num_steps": 2},
    ),
    Case(
        dist.GaussianStateSpace,
        {"transition_matrix": _MATRIX, "precision_matrix": _COV2, "initial_value": [[0.5, 1.0], [0.0, -2.0]]},
        _state_space,
        (2,),
        (4, 2),
        options={"num_steps": 4},
        note="precision",
    ),
    Case(
        dist.GaussianStateSpace,
        {"transition_matrix": [_MATRIX, _COV2], "scale_tril": [[0.9, 0.0], [0.3, 0.4]]},
        _state_space,
        (2,),
        (3, 2),
        options={"num_steps": 3},
        note="tril",
    ),
    *(
        Case(
            dist.GaussianRandomWalk,
            {"scale": scale},
            lambda x, scale, num_steps: _walk(x, scale=scale),
            b,
            (n,),
            {"num_steps": n},
            note=str(n),
        )
        for scale, b, n in ((1.4, (), 1), (1.4, (), 2), (V, (2,), 5))
    ),
    Case(
        dist.EulerMaruyama,
        {"t": [0.0, 0.4], "speed": 1.5, "level": 0.5, "noise": 0.8},
        _ornstein_uhlenbeck,
        (),
        (2,),
        build_from=_euler,
        no_gradient=("t",),
    ),
    Case(
        dist.EulerMaruyama,
        {"t": [0.0, 0.4, 0.5, 1.5], "speed": V, "level": R, "noise": 0.8},
        _ornstein_uhlenbeck,
        (2,),
        (4,),
        build_from=_euler,
    ),
    Case(
        dist.EulerMaruyama,
        {"t": [[0.0, 0.4, 0.7], [0.0, 0.1, 0.5]], "omega": R},
        _plane,
        (2,),
        (3, 2),
        build_from=_euler_plane,
        note="vector",
    ),
]
__all__ = ["CASES", "joint", "pair", "paths"]
