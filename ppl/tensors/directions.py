"""Integrals and draws behind laws of directions and angles."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
#: Cells between 0 and pi in which `log_toroidal` and `draw_toroidal` look at a density.
_CELLS = 512


def log_projected_integral(t: Tensor, power: int) -> Tensor:
    """log of the integral of r^power exp(-(r - t)² / 2) over r > 0.

    For t >= 0 by the recursion I_(k+1) = t I_k + k I_(k-1), whose terms are positive there. For t < 0 it cancels, and
    the trapezoidal rule in log r, which converges geometrically, takes its place.
    """
    if power == 0:
        return _log_ndtr(t) + _HALF_LOG_2PI
    forward = t >= 0
    up = torch.where(forward, t, 0.0)
    log_phi = _log_ndtr(up)
    ratio = up + (-0.5 * up.square() - _HALF_LOG_2PI - log_phi).exp()
    total = log_phi + _HALF_LOG_2PI + ratio.log()
    for k in range(1, power):
        ratio = up + k / ratio
        total = total + ratio.log()
    down = torch.where(forward, 0.0, t)
    peak = 2 * (power + 1) / ((down.square() + 4 * (power + 1)).sqrt() - down).detach()
    width = math.sqrt(2 / (power + 1))  # of the integrand in log r, up to a small factor
    step = 26 * width / 160
    shift = torch.arange(-123, 38, dtype=t.dtype, device=t.device) * step
    r = peak.unsqueeze(-1) * shift.exp()
    exponent = (power + 1) * r.log() + r * (down.unsqueeze(-1) - 0.5 * r)
    below = exponent.logsumexp(-1) + math.log(step) - 0.5 * down.square()
    return torch.where(forward, total, below)


def _log_ndtr(t: Tensor) -> Tensor:
    log_phi: Tensor = torch.special.log_ndtr(t)
    return log_phi


def _first_accepted(candidates: Tensor, accepted: Tensor) -> Tensor:
    """The first accepted candidate along the first dim."""
    index = accepted.to(torch.uint8).argmax(0, keepdim=True)
    return candidates.gather(0, index).squeeze(0)


def _angles(k1: Tensor) -> tuple[Tensor, Tensor]:
    """Angles from 0 to pi, dense near 0 if the concentration is large, and the derivatives by equal steps in them."""
    half = torch.linspace(0.0, 0.5 * math.pi, _CELLS + 1, dtype=k1.dtype, device=k1.device)
    c = (10 * k1.detach().clamp(min=100.0).rsqrt()).unsqueeze(-1)
    sine, cosine = half.sin(), half.cos()
    return 2 * torch.atan2(c * sine, cosine), c / (cosine.square() + c.square() * sine.square())


def log_i0e(x: Tensor) -> Tensor:
    """log of the modified Bessel function I_0, without its factor exp(x)."""
    scaled: Tensor = torch.special.i0e(x)
    return scaled.log()


def _log_marginal(angle: Tensor, k1: Tensor, k2: Tensor, correlation: Tensor) -> Tensor:
    """k1 (cos(angle) - 1) + log I_0(s) - k2, where s² = k2² + correlation² sin²(angle)."""
    other = (correlation * angle.sin()).square()
    s = (k2.square() + other).sqrt()
    return log_i0e(s) - 2 * k1 * (0.5 * angle).sin().square() + other / (s + k2)


def log_toroidal(k1: Tensor, k2: Tensor, correlation: Tensor) -> Tensor:
    """log of the integral of exp(k1 (cos a - 1) + k2 (cos b - 1) + correlation sin a sin b) over two angles.

    One angle is integrated exactly, which leaves a Bessel function, and the other by the trapezoidal rule, which
    converges geometrically for periodic functions; a change of variable follows a peak at 0 of any sharpness. Where
    correlation² > k1 k2 the peaks lie beside 0, and digits are lost when the smaller concentration is above some 1e4.
    """
    small, large = (v.unsqueeze(-1) for v in (torch.minimum(k1, k2), torch.maximum(k1, k2)))
    angle, step = _angles(small.squeeze(-1))
    log_terms = _log_marginal(angle, small, large, correlation.unsqueeze(-1)) + step.log()
    weight = torch.full((_CELLS + 1,), 4 * math.pi**2 / _CELLS, dtype=k1.dtype, device=k1.device)
    ends = torch.nn.functional.pad(weight[2:], (1, 1), value=2 * math.pi**2 / _CELLS)
    return (log_terms + ends.log()).logsumexp(-1)


def draw_toroidal(k1: Tensor, k2: Tensor, correlation: Tensor, count: int, rounds: int = 40) -> Tensor:
    """The first of two angles with density proportional to exp(k1 cos a + k2 cos b + correlation sin a sin b).

    By rejection from a step function above its marginal density, all rounds at once. While the steps are finer than the
    peaks, most candidates are accepted, and the chance that none is below 1e-15.

    Shapes: parameters (*batch) -> (count, *batch).
    """
    k1, k2, correlation = (v.unsqueeze(-1) for v in (k1, k2, correlation))
    angle, _ = _angles(k1.squeeze(-1))
    log_density = _log_marginal(angle, k1, k2, correlation)
    low, high = angle[..., :-1], angle[..., 1:]
    bound = torch.maximum(log_density[..., :-1], log_density[..., 1:]) + _peak_within(angle, k1, k2, correlation)
    levels = (bound + (high - low).log()).softmax(-1).cumsum(-1)
    levels = levels / levels[..., -1:]
    shape = (*levels.shape[:-1], rounds * count)
    cell = torch.searchsorted(levels, torch.rand(shape, dtype=k1.dtype, device=k1.device), right=True)
    cell = cell.clamp(max=_CELLS - 1)
    start, end, ceiling = (v.expand(*shape[:-1], _CELLS).gather(-1, cell) for v in (low, high, bound))
    first = start + (end - start) * torch.rand_like(start)
    accept = torch.rand_like(start).log() < _log_marginal(first, k1, k2, correlation) - ceiling
    first, accept = (v.unflatten(-1, (rounds, count)).movedim((-2, -1), (0, 1)) for v in (first, accept))
    a = _first_accepted(first, accept)
    return torch.where(torch.rand_like(a) < 0.5, -a, a)  # the marginal is even


def _peak_within(angle: Tensor, k1: Tensor, k2: Tensor, correlation: Tensor) -> Tensor:
    """How far a peak inside each cell can rise above the cell's ends, from a bound of the second derivative."""
    square = correlation.square()
    s = (k2.square() + square * angle.sin().square()).sqrt()
    bessel = torch.special.i1e(s) / torch.special.i0e(s)
    slope = bessel * square * angle.cos() / s - k1  # over sin(angle), which is positive
    inside = (slope[..., :-1] > 0) & (slope[..., 1:] < 0)
    s = s[..., :-1]
    curvature = (
        k1 + square * (torch.minimum(0.5 * s.square(), torch.ones_like(s)) + torch.minimum(s * s, 2 * s)) / s.square()
    )
    return torch.where(inside, 0.125 * curvature * (angle[..., 1:] - angle[..., :-1]).square(), 0.0)
