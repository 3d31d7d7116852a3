"""Rows of stable laws, discrete structures, coalescents and other special constructions."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import mpmath
import numpy as np
import scipy.special as sp
import scipy.stats as st
import torch
from case import Array, Case, pair, rows

import ppl.distributions as dist


@functools.cache
def _stable(alpha: float, beta: float, x: float) -> float:
    """The log density in S0 by the Fourier integral along a turned ray; for arguments of moderate size."""
    with mpmath.workdps(40):
        return float(stable_fourier(mpmath.mpf(x), mpmath.mpf(alpha), mpmath.mpf(beta)))


def stable_fourier(x: Any, stability: Any, skew: Any) -> Any:
    if stability == 1:

        def exponent(t: Any) -> Any:
            return -1j * x * t - t - 1j * skew * 2 / mpmath.pi * t * mpmath.log(t)

        turn = mpmath.sign(x) * mpmath.mpf("0.7") if skew * x >= 0 else mpmath.mpf(0)
    else:
        tangent = mpmath.tan(mpmath.pi * stability / 2)

        def exponent(t: Any) -> Any:
            return -1j * x * t - t**stability - 1j * skew * tangent * (t - t**stability)

        side = mpmath.sign(x + skew * tangent)
        bound = (mpmath.pi / 2 - side * mpmath.atan(skew * tangent)) / stability
        turn = side * min(bound, mpmath.pi / 2) / 2
    ray, digits = mpmath.expj(-turn), mpmath.mp.dps

    def integrand(u: Any) -> Any:
        t = mpmath.exp(u) * ray
        return mpmath.re(mpmath.exp(exponent(t) + u) * ray)

    end = mpmath.mpf(0)
    while mpmath.re(exponent(mpmath.exp(end) * ray)) > -2.4 * digits:
        end += mpmath.mpf("0.5")
    while mpmath.re(exponent(mpmath.exp(end) * ray)) < -2.8 * digits:
        end -= mpmath.mpf("0.1")
    points = [min(end, 0) - mpmath.mpf("2.35") * digits]
    while points[-1] < end:
        left = end - points[-1]
        points.append(min(end, points[-1] + (4 if left > 20 else 1 if left > 6 else mpmath.mpf("0.25"))))
    return mpmath.log(mpmath.quad(integrand, points, maxdegree=8) / mpmath.pi)


def _stable_log_density(x: Array, stability: Array, skew: Array, scale: Array, loc: Array, coords: str = "S0") -> Array:
    def one(v: float, a: float, b: float, c: float, m: float) -> float:
        if coords == "S":
            m = m + b * c * (np.tan(np.pi * a / 2) if a != 1 else 2 / np.pi * np.log(c))
        return _stable(a, b, (v - m) / c) - np.log(c)

    return np.vectorize(one, otypes=[float])(x, stability, skew, scale, loc)


def _stable_exact(x: Any, stability: Any, skew: Any, scale: Any, loc: Any, coords: str = "S0") -> Any:
    with mpmath.workdps(50):
        if coords == "S":
            loc = loc + skew * scale * mpmath.tan(mpmath.pi * stability / 2)
        return stable_fourier((x - loc) / scale, stability, skew) - mpmath.log(scale)


def polya_gamma(x: Any) -> Any:
    """The log density of PG(1, 0) below 2.5, by its first series with very many digits."""
    with mpmath.workdps(60):
        x = mpmath.mpf(x)
        count = int(mpmath.sqrt(8 * x * 150)) + 3
        terms = ((-1) ** n * (2 * n + 1) * mpmath.exp(-((2 * n + 1) ** 2) / (8 * x)) for n in range(count))
        density = mpmath.fsum(terms) / mpmath.sqrt(2 * mpmath.pi * x**3)
        beyond = mpmath.fsum(
            (-1) ** n * 4 / mpmath.pi * mpmath.exp(-((2 * n + 1) ** 2) * mpmath.pi**2 * 1.25) / (2 * n + 1)
            for n in range(4)
        )
        return mpmath.log(density) - mpmath.log(1 - beyond)


def _polya_gamma(x: Array, **_: Any) -> Array:
    return np.vectorize(lambda v: float(polya_gamma(v)), otypes=[float])(x)


@rows("(n),(g),(g),(n)->()")
def _grouped(x: Array, loc: Array, scale: Array, obs: Array) -> Any:
    same = np.equal.outer(GROUPS, GROUPS)
    cov = same * np.outer(scale[GROUPS], scale[GROUPS]) + np.diag(obs**2)
    return st.multivariate_normal(loc[GROUPS], cov).logpdf(x)


GROUPS = np.array([0, 1, 1])


def _is_tree(edges: Any, size: int) -> bool:
    part = list(range(size))
    for i, j in edges:
        if part[i] == part[j]:
            return False
        part = [part[i] if p == part[j] else p for p in part]
    return True


@rows("(k,t),(e)->()")
def _spanning_tree(x: Array, logits: Array) -> Any:
    size = x.shape[0] + 1
    edges = [(i, j) for j in range(size) for i in range(j)]
    trees = [tree for tree in itertools.combinations(edges, size - 1) if _is_tree(tree, size)]
    weights = [sum(logits[edges.index(e)] for e in tree) for tree in trees]
    return sum(logits[edges.index(tuple(int(v) for v in e))] for e in x) - sp.logsumexp(weights)


@rows("(s),(s,n)->()")
def _matching(x: Array, logits: Array) -> Any:
    sources, destinations = logits.shape
    full = np.repeat(np.arange(destinations), sources // destinations)
    ways = set(itertools.permutations(full.tolist()))
    weights = [sum(logits[i, j] for i, j in enumerate(way)) for way in ways]
    return sum(logits[i, int(j)] for i, j in enumerate(x)) - sp.logsumexp(weights)


def coalescent(coals: Array, leaves: Array, rate_at: Any) -> float:
    """Event by event, in small steps of time for the integral of the rate: breaks at whole times."""
    events = sorted([(t, 1) for t in leaves] + [(t, -1) for t in coals], key=lambda e: (-e[0], -e[1]))
    total, lineages, now = 0.0, 0, events[0][0]
    for time, change in events:
        pairs = lineages * (lineages - 1) / 2
        breaks = [now, *sorted((float(b) for b in range(-3, 9) if time < b < now), reverse=True), time]
        for late, early in itertools.pairwise(breaks):
            total -= pairs * rate_at((late + early) / 2) * (late - early)
        if change < 0:
            total += np.log(pairs * rate_at(time))
        lineages, now = lineages + change, time
    return total


@rows("(c),(n),()->()")
def _coalescent(x: Array, leaves: Array, rate: Array) -> Any:
    return coalescent(x, leaves, lambda t: float(rate))


@rows("(c),(n),(t)->()")
def _coalescent_grid(x: Array, leaves: Array, grid: Array) -> Any:
    return coalescent(x, leaves, lambda t: float(grid[int(np.clip(np.floor(t), 0, len(grid) - 1))]))


class Thinned:
    """The log probability exp(-tilt x) of accepting x > 0."""

    def __init__(self, tilt: torch.Tensor) -> None:
        self.tilt = tilt

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return -self.tilt * x


def _tilted(rate: torch.Tensor, tilt: torch.Tensor) -> dist.Rejector:
    # an exponential law of rate `rate`, thinned: exponential of rate + tilt
    return dist.Rejector(dist.Exponential(rate), Thinned(tilt), (rate / (rate + tilt)).log())


LOOPS = "rejection is a loop that looks at values"
PARTIAL = "a draw carries only a part of the gradient; test_rejector.py puts the parts together"
SLOW = "gigabytes of quadrature in quadrature; test_stable.py differentiates draws"
HEAVY = "the variance is infinite, and scipy's law takes minutes to say so"
JUMPS = "the density jumps at leaf times and where the rate does, which quadrature does not see"


COSTLY = ("test_integrates_to_one", "test_draws_fit", "test_mean", "test_variance", "test_entropy")


def _stable_rows(cls: type, skips: dict[str, str]) -> list[Case]:
    return [
        *pair(
            cls,
            _stable_log_density,
            {"stability": 1.7, "skew": 0.4, "scale": 1.3, "loc": 0.5},
            {"stability": [1.4, 0.8], "skew": [-0.6, 0.3], "scale": 0.7, "loc": [0.5, -1.0]},
            exact=_stable_exact,
            points=(-1e3, -20.0, -4.0, 0.0, 0.5, 3.0, 12.0, 1e4),
            skips=skips,
            extremes=(
                {"stability": 1.0, "skew": 0.0, "scale": 1.0, "loc": 0.0},
                {"stability": 1.0, "skew": 0.5, "scale": 2.0, "loc": 0.0},
                {"stability": 2.0, "skew": 0.0, "scale": 3.0, "loc": 0.0},
                {"stability": 0.3, "skew": -0.4, "scale": 1.0, "loc": 0.0},
                {"stability": 1.95, "skew": -0.9, "scale": 1.0, "loc": 0.0},
            ),
        )
    ]


TREE = [0.3, -1.0, 0.5, 2.0, 0.1, -0.4]
SQUARE = [[0.1, 0.2, 0.5], [0.3, -1.0, 0.2], [0.0, 0.4, 1.0]]
TALL = [[0.1, 0.2], [0.3, -1.0], [0.0, 0.5], [1.0, 2.0]]
LEAVES = [2.8, 3.5, 3.1]
CASES = [
    *_stable_rows(dist.Stable, {"test_pathwise_gradients": SLOW, "test_variance": HEAVY}),
    *_stable_rows(
        dist.StableWithLogProb,
        {"test_pathwise_gradients": SLOW} | dict.fromkeys(COSTLY, "the same methods as Stable's, and slow"),
    ),
    Case(
        dist.Stable,
        {"stability": 1.5, "skew": 0.5, "scale": 1.2, "loc": 0.3},
        _stable_log_density,
        options={"coords": "S"},
        skips={"test_pathwise_gradients": SLOW} | dict.fromkeys(COSTLY, "as in S0, and slow"),
        note="S",
    ),
    Case(
        dist.TruncatedPolyaGamma,
        {"prototype": 0.0},
        _polya_gamma,
        exact=lambda x, prototype: polya_gamma(x),
        points=(1e-3, 1e-2, 0.1, 0.1599, 0.1601, 0.5, 1.0, 2.4999),
        no_gradient=("prototype",),
    ),
    Case(
        dist.TruncatedPolyaGamma,
        {"prototype": 0.0},
        _polya_gamma,
        (2,),
        build_from=lambda prototype: dist.TruncatedPolyaGamma(prototype, batch_shape=(2,)),
        no_gradient=("prototype",),
    ),
    *pair(
        dist.GroupedNormalNormal,
        _grouped,
        {"prior_loc": [0.5, -0.3], "prior_scale": [2.0, 0.7], "obs_scale": [1.0, 2.0, 0.5]},
        {"prior_loc": [[0.5, -0.3], [1.0, 2.0]], "prior_scale": [2.0, 0.7], "obs_scale": [1.0, 2.0, 0.5]},
        event=(3,),
        build_from=lambda prior_loc, prior_scale, obs_scale: dist.GroupedNormalNormal(
            prior_loc, prior_scale, obs_scale, torch.tensor(GROUPS, device=prior_loc.device)
        ),
    ),
    *pair(
        dist.SpanningTree,
        _spanning_tree,
        {"edge_logits": TREE},
        {"edge_logits": [TREE, TREE[::-1]]},
        event=(3, 2),
    ),
    *pair(dist.OneOneMatching, _matching, {"logits": SQUARE}, {"logits": [SQUARE, SQUARE[::-1]]}, event=(3,)),
    *pair(dist.OneTwoMatching, _matching, {"logits": TALL}, {"logits": [TALL, TALL[::-1]]}, event=(4,)),
    *pair(
        dist.CoalescentTimes,
        _coalescent,
        {"leaf_times": LEAVES, "rate": 0.7},
        {"leaf_times": [LEAVES, [0.0, 0.5, 4.0]], "rate": 0.7},
        event=(2,),
        skips=dict.fromkeys(("test_pathwise_gradients", "test_integrates_to_one", "test_draws_fit"), JUMPS),
    ),
    *pair(
        dist.CoalescentTimesWithRate,
        _coalescent_grid,
        {"leaf_times": LEAVES, "rate_grid": [0.5, 0.4, 2.0, 1.0]},
        {"leaf_times": [LEAVES, [0.0, 0.5, 4.0]], "rate_grid": [0.5, 0.4, 2.0, 1.0]},
        event=(2,),
        skips=dict.fromkeys(("test_pathwise_gradients", "test_integrates_to_one", "test_draws_fit"), JUMPS),
    ),
    Case(
        dist.CoalescentTimes,
        {"rate": 0.7},
        lambda x, rate: _coalescent(x, leaves=np.array([3.0, 3.0, 3.0]), rate=rate),
        event=(2,),
        build_from=lambda rate: dist.CoalescentTimes(rate.new_tensor([3.0, 3.0, 3.0]), rate),
        note="at once",
    ),
    *pair(
        dist.Rejector,
        lambda x, rate, tilt: st.expon(scale=1 / (rate + tilt)).logpdf(x),
        {"rate": 1.5, "tilt": 0.7},
        {"rate": [1.5, 0.4], "tilt": 0.7},
        build_from=_tilted,
        skips={
            "test_score_parts": PARTIAL,
            "test_pathwise_gradients": PARTIAL,
            "test_sample_becomes_a_graph": LOOPS,
            "test_becomes_a_graph": LOOPS,
            "test_sample_has_its_shape": LOOPS,
        },
    ),
]
