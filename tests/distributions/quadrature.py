"""Integrals of densities with one or two free dims, through the bijection from the reals to the support.

The trapezoid rule in t with u = centre + width · sinh(t) converges exponentially for smooth densities and reaches far
into heavy tails.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

import ppl.distributions as dist

FREE_DIMS = 2
_POINTS = {1: 6001, 2: 241}
_REACH = {1: 26.0, 2: 9.0}
_LARGEST = 200_000


@dataclass(frozen=True)
class Grid:
    """Points of the support, and what turns a density there into probabilities: log_weights + log_prob."""

    points: Tensor  # (N, *event)
    log_weights: Tensor  # (N,)
    axes: tuple[Tensor, ...] = ()  # the free coordinates, one grid each
    transform: Any = None

    def probabilities(self, d: Any) -> Tensor:
        """The probability of each cell."""
        with dist.validation_enabled(False):
            log_prob = d.log_prob(self.points)
        return (log_prob + self.log_weights).exp()

    def expectation(self, d: Any, f: Callable[[Tensor], Tensor]) -> Tensor:
        """The integral of f times the density; far out, where there is no mass, nothing is asked of gradients."""
        kept = self.probabilities(d).detach() > 1e-40
        p = Grid(self.points[kept], self.log_weights[kept]).probabilities(d)
        values = f(self.points[kept])
        return (p.reshape(p.shape + (1,) * (values.dim() - 1)) * values).sum(0)

    def free(self, x: Tensor) -> Tensor:
        """The free coordinates of values, flat: (N, dims)."""
        u = self.transform.inv(x)
        return u.reshape(len(x), -1)


def is_integrable(d: Any) -> bool:
    """Whether `grid` can be asked for."""
    if d.batch_shape:
        return False
    if d.is_discrete:
        return _discrete_points(d) is not None
    transform = _bijection(d)
    return transform is not None and 1 <= transform.inverse_shape(d.event_shape).numel() <= FREE_DIMS


def _bijection(d: Any) -> Any:
    try:
        return dist.biject_to(d.support)
    except (NotImplementedError, ValueError):
        return None


def grid(d: Any) -> Grid:
    """Points over the support of an unbatched distribution."""
    if d.is_discrete:
        points = _discrete_points(d)
        assert points is not None
        return Grid(points, torch.zeros(len(points), dtype=torch.float64))
    transform = _bijection(d)
    centre, width = _where(d, transform)
    return around(transform, d.event_shape, centre, width)


def around(transform: Any, event_shape: torch.Size, centre: Tensor, width: Tensor) -> Grid:
    """Points over the image of a transform, densest around a centre."""
    shape = transform.inverse_shape(event_shape)
    n = shape.numel()
    t = torch.linspace(-_REACH[n], _REACH[n], _POINTS[n], dtype=torch.float64)
    axes = [c + w * t.sinh() for c, w in zip(centre, width, strict=True)]
    logs = [(w * t.cosh() * (t[1] - t[0])).log() for w in width]
    u = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape((-1, *shape))
    log_weights = sum(torch.meshgrid(*logs, indexing="ij")).reshape(-1)
    with dist.validation_enabled(False):
        points = transform(u)
        jacobian = transform.log_abs_det_jacobian(u, points)
        back = transform.inv(points)
    log_weights = log_weights + jacobian.reshape(len(u), -1).sum(1)
    # where the transform saturates (an edge, an overflow) there is no mass that doubles can tell
    lost = ~((back - u).abs() <= 1e-3 * (1 + u.abs())).reshape(len(u), -1).all(1) | ~log_weights.isfinite()
    log_weights = log_weights.masked_fill(lost, -torch.inf)
    inside = points[len(points) // 2]
    points = torch.where(lost.reshape((-1,) + (1,) * inside.dim()), inside, points)
    return Grid(points, log_weights, tuple(axes), transform)


def _where(d: Any, transform: Any) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    with dist.validation_enabled(False):
        try:
            x = d.sample((400,))
            u = transform.inv(x).reshape(400, -1).detach()
        except NotImplementedError:  # no sampler: around the image of 0
            n = transform.inverse_shape(d.event_shape).numel()
            return torch.zeros(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64)
    centre = u.median(0).values
    width = (u - centre).abs().median(0).values
    return centre, torch.where(width > 0, width, torch.ones_like(width))


def _discrete_points(d: Any) -> Tensor | None:
    try:
        return d.enumerate_support(expand=False)
    except (ValueError, NotImplementedError):
        pass
    support = d.support
    if isinstance(support, constraints.multinomial):
        total = int(support.upper_bound)
        size = d.event_shape[-1]
        counts = [c for c in itertools.product(range(total + 1), repeat=size) if sum(c) == total]
        return torch.tensor(counts, dtype=torch.float64)
    if d.event_shape or not support.is_discrete:
        return None
    torch.manual_seed(0)
    draws = d.sample((1000,)).double()
    low, high = float(draws.min()), float(draws.max())
    top = min(high * 20 + 200, _LARGEST)
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    bottom = getattr(support, "lower_bound", None)
    start = float(bottom) if bottom is not None else low - (top - low)
    return torch.arange(start, top + 1, dtype=torch.float64)


def binned(grid: Grid, d: Any, x: Tensor, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """How many of the draws x fall into each bin, and how many should; about `bins` bins along each free dim."""
    p = grid.probabilities(d).detach()
    if not grid.axes:
        return _binned_by_value(grid.points, p, x)
    shape = tuple(len(axis) for axis in grid.axes)
    p = p.reshape(shape)
    free = grid.free(x)
    expected, index = p, []
    for dim, axis in enumerate(grid.axes):
        others = tuple(i for i in range(len(shape)) if i != dim)
        cdf = (p.sum(others) if others else p).cumsum(0)
        cuts = torch.searchsorted(cdf / cdf[-1], torch.arange(1, bins, dtype=torch.float64) / bins).unique()
        # a cut lies midway, in t, between two points of the grid
        edges = (axis[cuts] + axis[(cuts + 1).clamp(max=len(axis) - 1)]) / 2
        index.append(torch.bucketize(free[:, dim].contiguous(), edges))
        cell = torch.bucketize(torch.arange(len(axis)), cuts)
        collected = torch.zeros(*expected.shape[:dim], len(cuts) + 1, *expected.shape[dim + 1 :], dtype=p.dtype)
        expected = collected.index_add(dim, cell, expected)
    flat = index[0] if len(index) == 1 else index[0] * expected.shape[1] + index[1]
    counts = torch.bincount(flat, minlength=expected.numel())
    return counts.numpy(), (expected.reshape(-1) * len(x)).numpy()


def _binned_by_value(points: Tensor, p: Tensor, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Values of a discrete support, each a bin, the rare ones together."""
    x, points = x.double().reshape(len(x), -1), points.double().reshape(len(points), -1)
    known, place = torch.cat([points, x]).unique(dim=0, return_inverse=True)
    counts = torch.bincount(place[len(points) :], minlength=len(known))
    expected = torch.zeros(len(known), dtype=torch.float64).index_add(0, place[: len(points)], p * len(x))
    rare = expected < 5
    both = [torch.cat([v[~rare].double(), v[rare].sum().reshape(1).double()]) for v in (counts, expected)]
    return both[0].numpy(), both[1].numpy()


__all__ = ["Grid", "around", "binned", "grid", "is_integrable"]
