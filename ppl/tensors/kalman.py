"""Filtering, smoothing and simulation of linear Gaussian state space models in O(log T) depth.

The model, for t = 1 … T, with states and observations as rows as its users write them:

    z_t = z_{t-1} @ transition + N(transition_loc, transition_cov)
    x_t = z_t @ observation + N(observation_loc, observation_cov)

Source: Särkkä & García-Fernández (2021), "Temporal parallelization of Bayesian smoothers", equations 10 to 20. Its
elements hold covariances of states and precisions of likelihoods, so that neither a vague prior nor a small noise is
ever inverted; covariances are updated in Joseph's form, as sums of positive parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ppl.tensors.scan import Bundle, associative_scan

LOG_2PI = math.log(2 * math.pi)
_TIME = -3


@dataclass(frozen=True, slots=True)
class StateSpace:
    """A linear Gaussian state space model of states of size n and observations of size d.

    `observed` is false where an observation is missing; None where there are all. Batch dims broadcast; T may be 1 in
    any of the parameters.

    Shapes: initial_loc (*batch, n), initial_cov (*batch, n, n), transition (*batch, T, n, n), transition_loc
    (*batch, T, n), transition_cov (*batch, T, n, n), observation (*batch, T, n, d), observation_loc (*batch, T, d),
    observation_cov (*batch, T, d, d), observed (*batch, T, d).
    """

    initial_loc: Tensor
    initial_cov: Tensor
    transition: Tensor
    transition_loc: Tensor
    transition_cov: Tensor
    observation: Tensor
    observation_loc: Tensor
    observation_cov: Tensor
    observed: Tensor | None = None

    def over(self, length: int) -> StateSpace:
        """The same model with all parameters repeated to `length` steps."""

        def along(x: Tensor, dim: int) -> Tensor:
            shape = list(x.shape)
            shape[dim] = length
            return x.expand(shape)

        return StateSpace(
            self.initial_loc,
            self.initial_cov,
            along(self.transition, -3),
            along(self.transition_loc, -2),
            along(self.transition_cov, -3),
            along(self.observation, -3),
            along(self.observation_loc, -2),
            along(self.observation_cov, -3),
            None if self.observed is None else along(self.observed, -2),
        )


@dataclass(frozen=True, slots=True)
class Filtered:
    """What the observations up to each step say.

    Shapes: loc (*batch, T, n) and cov (*batch, T, n, n) of the state at t given the observations 1 … t;
    log_det, square, count (*batch, T): log determinant, squared Mahalanobis distance and number of entries of the
    prediction of observation t, so that its log density is -½ (log_det + square + count · log 2π).
    """

    loc: Tensor
    cov: Tensor
    log_det: Tensor
    square: Tensor
    count: Tensor

    def log_density(self) -> Tensor:
        """The log density of all observations. Shapes: -> (*batch)."""
        return -0.5 * (self.log_det + self.square + self.count * LOG_2PI).sum(-1)


def kalman_filter(model: StateSpace, value: Tensor) -> Filtered:
    """Filter observations. Shapes: value (*batch, T, d), T at least 1."""
    model = model.over(value.shape[-2])
    f = model.transition.mT
    y, h, r, count = seen(model, value)
    y, q, b = y[..., None], model.transition_cov, model.transition_loc[..., None]
    loc, cov = _filter_states(model, f, b, q, h, r, y)
    # every observation given those before it
    loc_before = _append(model.initial_loc[..., None, :, None], loc[..., :-1, :, :])
    cov_before = _append(model.initial_cov[..., None, :, :], cov[..., :-1, :, :])
    predicted_cov = f @ cov_before @ f.mT + q
    residual = y - h @ (f @ loc_before + b)
    chol = torch.linalg.cholesky(symmetric(h @ predicted_cov @ h.mT + r))
    white = torch.linalg.solve_triangular(chol, residual, upper=False)
    log_det = 2 * chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return Filtered(loc.squeeze(-1), cov, log_det, white.square().sum((-1, -2)), count.sum(-1))


def seen(model: StateSpace, value: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Observations less their noise's mean, their matrix (states in columns), noise covariance, and 1 where one counts.

    A missing entry becomes one that is 0, known to be, and tells of nothing else.

    Shapes: value (*batch, T, d) -> (*batch, T, d), (*batch, T, d, n), (*batch, T, d, d), (*batch, T, d).
    """
    h, r = model.observation.mT, model.observation_cov
    y = value - model.observation_loc
    if model.observed is None:
        return y, h, r, torch.full_like(y, 1.0)
    keep = model.observed
    y = torch.where(keep, y, torch.zeros_like(y))
    h = torch.where(keep[..., None], h, torch.zeros_like(h))
    one = torch.eye(r.shape[-1], dtype=r.dtype, device=r.device)
    r = torch.where(keep[..., None] & keep[..., None, :], r, one)
    return y, h, r, keep.to(y.dtype).expand(y.shape)


def _filter_states(
    model: StateSpace, f: Tensor, b: Tensor, q: Tensor, h: Tensor, r: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Means and covariances of the states given the observations so far."""
    # the first state's prior stands in for the noise of the first step
    p = f[..., :1, :, :] @ model.initial_cov[..., None, :, :] @ f[..., :1, :, :].mT + q[..., :1, :, :]
    q = _replace_first(q, symmetric(p))
    b = _replace_first(b, f[..., :1, :, :] @ model.initial_loc[..., None, :, None] + b[..., :1, :, :])
    f = _replace_first(f, torch.zeros_like(f[..., :1, :, :]))
    _, loc, cov, _, _ = associative_scan(_combine, _elements(f, b, q, h, r, y), _TIME)
    return loc, cov


def _elements(f: Tensor, b: Tensor, q: Tensor, h: Tensor, r: Tensor, y: Tensor) -> Bundle:
    """What each step says: p(z_t | z_{t-1}, x_t) = N(a z_{t-1} + b, c), p(x_t | z_{t-1}) ∝ exp(z·eta - ½ z·j z)."""
    hq = h @ q
    chol = torch.linalg.cholesky(symmetric(hq @ h.mT + r))
    gain = torch.cholesky_solve(hq, chol).mT
    residual = y - h @ b
    rest = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device) - gain @ h
    hf = h @ f
    pulled = torch.cholesky_solve(hf, chol).mT  # fᵀ hᵀ s⁻¹
    return (
        rest @ f,
        b + gain @ residual,
        symmetric(rest @ q @ rest.mT + gain @ r @ gain.mT),
        pulled @ residual,
        symmetric(pulled @ hf),
    )


def _combine(left: Bundle, right: Bundle) -> Bundle:
    a1, b1, c1, eta1, j1 = left
    a2, b2, c2, eta2, j2 = right
    one = torch.eye(c1.shape[-1], dtype=c1.dtype, device=c1.device)
    lu, pivots = torch.linalg.lu_factor(one + c1 @ j2)
    a = torch.linalg.lu_solve(lu, pivots, a1)
    c = torch.linalg.lu_solve(lu, pivots, c1)
    v = b1 + c1 @ eta2  # with sample dims of its own; torch's lu_solve broadcasts wrongly under vmap (2.13)
    batch = torch.broadcast_shapes(v.shape[:-2], lu.shape[:-2])
    lu, pivots = lu.expand(batch + lu.shape[-2:]), pivots.expand(batch + pivots.shape[-1:])
    b = torch.linalg.lu_solve(lu, pivots, v.expand(batch + v.shape[-2:]))
    return (
        a2 @ a,
        a2 @ b + b2,
        symmetric(a2 @ c @ a2.mT + c2),
        a.mT @ (eta2 - j2 @ b1) + eta1,
        symmetric(a.mT @ j2 @ a1 + j1),
    )


@dataclass(frozen=True, slots=True)
class Backward:
    """The states backwards in time: z_t = gain_t z_{t+1} + N(loc_t, cov_t), where the last gain is 0.

    Shapes: gain (*batch, T, n, n), loc (*batch, T, n, 1), cov (*batch, T, n, n).
    """

    gain: Tensor
    loc: Tensor
    cov: Tensor

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of each state. Shapes: -> (*batch, T, n), (*batch, T, n, n)."""
        _, loc, cov = associative_scan(_compose_moments, (self.gain, self.loc, self.cov), _TIME, reverse=True)
        return loc.squeeze(-1), cov

    def rsample(self, sample_shape: tuple[int, ...]) -> Tensor:
        """Draw paths of states, differentiably. Shapes: -> (*sample_shape, *batch, T, n)."""
        batch = torch.broadcast_shapes(self.loc.shape[:-2], self.cov.shape[:-2])
        noise = torch.randn(
            (*sample_shape, *batch, self.loc.shape[-2], 1), dtype=self.loc.dtype, device=self.loc.device
        )
        drawn = self.loc + _root(self.cov) @ noise
        return associative_scan(_compose, (self.gain, drawn), _TIME, reverse=True)[1].squeeze(-1)


def smoother(model: StateSpace, filtered: Filtered) -> Backward:
    """The states given all observations, as a chain backwards in time."""
    model = model.over(filtered.loc.shape[-2])
    loc, cov = filtered.loc[..., None], filtered.cov
    f = model.transition.mT[..., 1:, :, :]
    q, b = model.transition_cov[..., 1:, :, :], model.transition_loc[..., 1:, :, None]
    here, spread = loc[..., :-1, :, :], cov[..., :-1, :, :]
    chol = torch.linalg.cholesky(symmetric(f @ spread @ f.mT + q))
    gain = torch.cholesky_solve(f @ spread, chol).mT
    rest = torch.eye(f.shape[-1], dtype=f.dtype, device=f.device) - gain @ f
    shift = here - gain @ (f @ here + b)
    noise = symmetric(rest @ spread @ rest.mT + gain @ q @ gain.mT)
    return Backward(
        _append(gain, torch.zeros_like(cov[..., -1:, :, :])),
        _append(shift, loc[..., -1:, :, :]),
        _append(noise, cov[..., -1:, :, :]),
    )


def absorb(model: StateSpace, value: Tensor, noise_cov: Tensor) -> tuple[StateSpace, Tensor]:
    """Weigh the sequences of a model by normal densities around given values, one for each step.

    Returns the model whose density is p(x) ∏_t N(x_t; value_t, noise_cov_t), normalised, and the log of its integral.
    Its states run forwards again: each transition takes up what all later values say.

    Shapes: value (*batch, T, d), noise_cov (*batch, T, d, d), T at least 1, nothing missing.
    """
    model = model.over(value.shape[-2])
    f, h = model.transition.mT, model.observation.mT
    q, r, m = model.transition_cov, model.observation_cov, model.observation_loc[..., None]
    b, y = model.transition_loc[..., None], value[..., None]
    both = r + noise_cov
    chol = torch.linalg.cholesky(both)
    # states: what the values at t and later say, as likelihoods exp(z·eta - ½ z·j z) of z_t
    *_, eta, j = associative_scan(_combine, _elements(f, b, q, h, both, y - m), _TIME, reverse=True)
    pulled = torch.cholesky_solve(h, chol).mT
    last_eta, last_j = torch.zeros_like(eta[..., :1, :, :]), torch.zeros_like(j[..., :1, :, :])
    eta_here = _append(eta[..., 1:, :, :], last_eta) + pulled @ (y - m)
    j_here = _append(j[..., 1:, :, :], last_j) + symmetric(pulled @ h)
    a, b, q = _weigh(f, b, q, eta_here, j_here)
    start = model.initial_loc[..., None]
    _, start, cov = _weigh(start, start, model.initial_cov, eta[..., 0, :, :], j[..., 0, :, :])
    # observations: between the model's mean and the value
    gain = torch.cholesky_solve(r, chol).mT
    rest = torch.eye(r.shape[-1], dtype=r.dtype, device=r.device) - gain
    absorbed = StateSpace(
        start.squeeze(-1),
        cov,
        a.mT,
        b.squeeze(-1),
        q,
        (rest @ h).mT,
        (rest @ m + gain @ y).squeeze(-1),
        symmetric(rest @ r @ rest.mT + gain @ noise_cov @ gain.mT),
    )
    return absorbed, kalman_filter(replace(model, observation_cov=both), value).log_density()


def _weigh(f: Tensor, b: Tensor, q: Tensor, eta: Tensor, j: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The normal N(f z + b, q) of a state, weighed by a likelihood of it: matrix, offset and covariance."""
    lu, pivots = torch.linalg.lu_factor(torch.eye(q.shape[-1], dtype=q.dtype, device=q.device) + q @ j)

    def solve(x: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(x.shape[:-2], lu.shape[:-2])  # see _combine
        wide = lu.expand(batch + lu.shape[-2:]), pivots.expand(batch + pivots.shape[-1:])
        solved: Tensor = torch.linalg.lu_solve(*wide, x.expand(batch + x.shape[-2:]))
        return solved

    return solve(f), solve(b + q @ eta), symmetric(solve(q))


def affine_path(transition: Tensor, noise: Tensor, initial: Tensor) -> Tensor:
    """The states z_t = z_{t-1} @ transition_t + noise_t that follow an initial one.

    Shapes: transition (*batch, T, n, n), noise (*batch, T, n), initial (*batch, n) -> (*batch, T, n).
    """
    f, u = transition.mT, noise[..., None]
    if u.shape[-3] == 0:
        return noise
    f = f.expand((*f.shape[:-3], u.shape[-3], *f.shape[-2:]))
    u = _replace_first(u, f[..., :1, :, :] @ initial[..., None, :, None] + u[..., :1, :, :])
    _, path = associative_scan(lambda left, right: _compose(right, left), (f, u), _TIME)
    return path.squeeze(-1)


def affine_moments(model: StateSpace, length: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance of every state before anything is observed. Shapes: -> (*batch, T, n), (*batch, T, n, n)."""
    model = model.over(length)
    f, q, b = model.transition.mT, model.transition_cov, model.transition_loc[..., None]
    first = f[..., :1, :, :]
    b = _replace_first(b, first @ model.initial_loc[..., None, :, None] + b[..., :1, :, :])
    q = _replace_first(q, first @ model.initial_cov[..., None, :, :] @ first.mT + q[..., :1, :, :])
    _, loc, cov = associative_scan(lambda left, right: _compose_moments(right, left), (f, b, q), _TIME)
    return loc.squeeze(-1), cov


def noisy_path_moments(transition: Tensor, noise_cov: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Powers and covariances of z_t = z_{t-1} @ transition.mT + N(0, noise_cov) from z_0 = 0: the state in columns.

    Shapes: transition, noise_cov (*batch, 1 or T, n, n) -> twice (*batch, T, n, n).
    """
    batch = torch.broadcast_shapes(transition.shape[:-3], noise_cov.shape[:-3])
    f, q = (x.expand((*batch, length, *x.shape[-2:])) for x in (transition, noise_cov))
    zero = q[..., :1] * 0
    f, _, cov = associative_scan(lambda left, right: _compose_moments(right, left), (f, zero, q), _TIME)
    return f, cov


def _compose(outer: Bundle, inner: Bundle) -> Bundle:
    """The affine map that applies `inner` first."""
    (a, u), (c, v) = outer, inner
    return a @ c, a @ v + u


def _compose_moments(outer: Bundle, inner: Bundle) -> Bundle:
    """The same with Gaussian noise in both."""
    (a, u, p), (c, v, r) = outer, inner
    return a @ c, a @ v + u, symmetric(a @ r @ a.mT + p)


def _replace_first(x: Tensor, first: Tensor) -> Tensor:
    return _append(first, x[..., 1:, :, :])


def _append(x: Tensor, last: Tensor) -> Tensor:
    """One after the other in time."""
    batch = torch.broadcast_shapes(x.shape[:-3], last.shape[:-3])
    return torch.cat((x.expand(batch + x.shape[-3:]), last.expand(batch + last.shape[-3:])), _TIME)


def _root(cov: Tensor) -> Tensor:
    """A Cholesky factor, also where rounding has left a covariance a little less than positive definite."""
    slack = 16 * cov.shape[-1] * torch.finfo(cov.dtype).eps
    root: Tensor = torch.linalg.cholesky(cov + slack * torch.diag_embed(cov.diagonal(dim1=-2, dim2=-1)))
    return root


def symmetric(x: Tensor) -> Tensor:
    return 0.5 * (x + x.mT)
