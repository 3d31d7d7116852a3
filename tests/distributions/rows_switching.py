"""Rows of switching linear Gaussian models: the reference sums the dense normal of a sequence over all paths of regimes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import scipy.special as sp
import scipy.stats as st
import torch
from case import Array, Case, rows

import ppl.distributions as dist


def path_moments(z: Any, loc: Array, cov: Array, f: Array, b: Array, q: Array, h: Array, a: Array, r: Array) -> Any:
    """Mean and covariance of all observations on a path z_1 … z_T; the parameters by step and regime (T, S, …).

    Each noise is followed to each later observation.
    """
    steps, d = len(z), h.shape[-1]
    chosen = [(f[t, k], b[t, k], q[t, k], h[t, k], a[t, k], r[t, k]) for t, k in enumerate(z)]
    mean, at = np.zeros((steps, d)), loc
    effects = np.zeros((steps + 1, len(loc), steps, d))  # of the noise that enters at step s on the observation at t
    for s in range(steps + 1):
        carried = np.eye(len(loc))
        for t in range(s - 1, steps):
            carried = carried @ chosen[t][0] if t >= s else carried
            if t >= 0:
                effects[s, :, t] = carried @ chosen[t][3]
    for t, (matrix, drift, _, out, offset, _) in enumerate(chosen):
        at = at @ matrix + drift
        mean[t] = at @ out + offset
    covariance = np.zeros((steps, d, steps, d))
    for s, source in enumerate([cov, *(noise for _, _, noise, _, _, _ in chosen)]):
        covariance += np.einsum("itd,ij,jue->tdue", effects[s], source, effects[s])
    for t, (*_, noise) in enumerate(chosen):
        covariance[t, :, t] += noise
    return mean.reshape(-1), covariance.reshape(steps * d, steps * d)


def paths(initial: Array, transition: Array, steps: int) -> Any:
    """All paths z_0 … z_T with their log probabilities; `transition` by step (T, S, S)."""
    start = initial - sp.logsumexp(initial)
    logs = transition - sp.logsumexp(transition, -1, keepdims=True)
    for z in itertools.product(range(len(start)), repeat=steps + 1):
        yield z, start[z[0]] + sum(logs[t, z[t], z[t + 1]] for t in range(steps))


def by_step(x: Array, steps: int) -> Array:
    """A parameter of all steps at each."""
    return np.broadcast_to(x, (steps, *x.shape))


def switching(x: Array, initial: Array, transition: Array, loc: Array, scale: Array, steps: Any) -> float:
    """`loc` and `scale` of the initial state by regime (S, n); `steps` the other parameters (T, S, …)."""
    found = []
    for z, weight in paths(initial, transition, len(x)):
        mean, covariance = path_moments(z[1:], loc[z[0]], np.diag(scale[z[0]] ** 2), *steps)
        found.append(weight + st.multivariate_normal(mean, covariance).logpdf(x.reshape(-1)))
    return float(sp.logsumexp(found))


@rows("(t,d),(s),(s,s),(n),(n),(s,n,n),(s,n),(s,n,d),(s,d),(s,d)->()")
def _switching(x: Array, initial: Array, transition: Array, loc: Array, scale: Array, *others: Array) -> Any:
    f, q, h, a, r = others
    size, length = len(initial), len(x)
    steps = [by_step(v, length) for v in (f, 0 * q, _squares(q), h, a, _squares(r))]
    start = (np.broadcast_to(v, (size, len(loc))) for v in (loc, scale))
    return switching(x, initial, by_step(transition, length), *start, steps)


def _squares(x: Array) -> Array:
    return np.stack([np.diag(v**2) for v in x])


def _build(exact: bool, steps: int) -> Any:
    def build(
        initial_logits: Any, transition_logits: Any, loc: Any, scale: Any, f: Any, q: Any, h: Any, a: Any, r: Any
    ) -> Any:
        return dist.SwitchingLinearHMM(
            initial_logits,
            dist.Normal(loc[..., None, :], scale).to_event(1),
            transition_logits,
            f,
            dist.Normal(torch.zeros_like(q), q).to_event(1),
            h,
            dist.Normal(a, r).to_event(1),
            exact=exact,
            duration=steps,
        )

    return build


_TWO = {
    "initial_logits": [0.3, -1.0],
    "transition_logits": [[1.0, 0.0], [0.2, 0.9]],
    "loc": [0.5, -1.0],
    "scale": [1.2, 0.7],
    "f": [[[0.9, 0.3], [-0.2, 0.7]], [[-0.5, 0.1], [0.4, 0.8]]],
    "q": [[0.8, 0.5], [0.3, 1.1]],
    "h": [[[1.0], [0.6]], [[0.2], [-1.1]]],
    "a": [[0.2], [-0.7]],
    "r": [[0.6], [0.9]],
}
_SHARED = {**_TWO, **{k: [_TWO[k][0]] * 2 for k in "fqhar"}}  # the regimes agree: nothing is lost
_ONE = {**_TWO, "initial_logits": [0.4], "transition_logits": [[0.1]], **{k: [_TWO[k][1]] for k in "fqhar"}}
_BATCH = {
    **_TWO,
    "loc": [[0.5, -1.0], [1.0, 0.0]],
    "h": [[[1.0, 0.2], [0.6, -1.1]]] * 2,
    "a": [[0.2, 0.0], [-0.5, 1.0]],
    "r": [[0.6, 1.3], [0.9, 0.4]],
}

CASES = [
    Case(dist.SwitchingLinearHMM, _TWO, _switching, (), (2, 1), build_from=_build(False, 2)),
    Case(dist.SwitchingLinearHMM, _BATCH, _switching, (2,), (2, 2), build_from=_build(False, 2)),
    Case(dist.SwitchingLinearHMM, _SHARED, _switching, (), (5, 1), build_from=_build(False, 5), note="agreeing"),
    Case(dist.SwitchingLinearHMM, _ONE, _switching, (), (5, 1), build_from=_build(False, 5), note="alone"),
    Case(dist.SwitchingLinearHMM, _TWO, _switching, (), (2, 1), build_from=_build(True, 2), note="exact"),
    Case(dist.SwitchingLinearHMM, _BATCH, _switching, (2,), (4, 2), build_from=_build(True, 4), note="exact"),
]
