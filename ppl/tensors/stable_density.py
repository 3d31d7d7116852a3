"""The density of the standard stable law in Nolan's parametrisation S0, with relative accuracy in both tails.

Zolotarev's integral (Nolan 1997, theorem 1) is the inverse Fourier integral along the path of steepest descent: its
integrand is positive, so nothing cancels however small the density. For x above the pivot ζ = -β tan(πα/2) (below it,
reflect x and β) it reads

    f(x) = α / (π |α - 1| (x - ζ)) ∫ h exp(-h) dφ,    0 < φ < R,
    log h = α / (α - 1) log(q sin ψ / sin αφ) - log cos A + log sin κ - log sin ψ

with A = atan(β tan(πα/2)), q = (x - ζ) cos A, αR = απ/2 + A, ψ = R - φ and κ = π - ψ - αφ. Written like this, everything
stays of order one as α goes through 1 where ζ is infinite, and each angle is kept together with its supplement, so that
no sine is taken of a small difference of large angles.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

#: Closer than this to stability 1, the log density is interpolated linearly in the stability: rounding errors grow with
#: the inverse square of the distance.
NEAR_ONE = 1e-4

# log(φ/ψ) reaches the smallest positive doubles.
_FURTHEST = 700.0
_NEWTON_STEPS = 22
# Panels end where h takes these values: below 1 as logarithms, above as distances from 1 (or from the least h)
_LOGS_BELOW = (-38.0, -26.0, -17.0, -11.0, -7.0, -4.2, -2.3, -1.1, -0.4)
_ABOVE = (0.0, 1.0, 2.8, 6.0, 11.0, 19.0, 32.0, 60.0, 110.0)
# ... and at these distances from where h = 1 and from the middle of the range of φ, in log(φ/ψ)
_STEPS = (-44.0, -28.0, -17.0, -10.0, -5.5, -2.5, 0.0)
_SERIES_TERMS = 6
_SERIES_RANGE = 1e-3

# Gauss-Legendre nodes and weights on (0, 1), of order 10
_NODES = (0.14887433898163122, 0.4333953941292472, 0.6794095682990244, 0.8650633666889845, 0.9739065285171717)
_WEIGHTS = (0.29552422471475287, 0.26926671930999635, 0.21908636251598204, 0.1494513491505806, 0.06667134430868814)


class _Angles(NamedTuple):
    """What log h depends on besides φ: each with relative accuracy."""

    alpha: Tensor
    epsilon: Tensor  # α - 1
    log_q: Tensor
    log_cos: Tensor  # log cos A
    range: Tensor  # R
    below: Tensor  # E = π - R
    above: Tensor  # D = π - αR


def log_density(x: Tensor, stability: Tensor, skew: Tensor) -> Tensor:
    """The log density at x of location 0 and scale 1, in double precision whatever the arguments' dtype.

    A fixed number of panels and nodes (650, twice), so it is a graph, differentiable in all three.

    Shapes: broadcast against one another.
    """
    x, stability, skew = torch.broadcast_tensors(x.double(), stability.double(), skew.double())
    near = (stability - 1).abs() < NEAR_ONE
    pair = torch.stack([torch.where(near, 1 - NEAR_ONE, stability), torch.where(near, 1 + NEAR_ONE, stability)])
    both = _log_density(x.expand(pair.shape), pair, skew.expand(pair.shape))
    upper = torch.where(near, (stability - 1 + NEAR_ONE) / (2 * NEAR_ONE), 0.5)
    return both[0] * (1 - upper) + both[1] * upper


def _log_density(x: Tensor, alpha: Tensor, skew: Tensor) -> Tensor:
    """The same, for stabilities that are not close to 1, in one shape."""
    epsilon = alpha - 1
    sine, cosine = ((1 - epsilon.abs()) * (math.pi / 2)).sin(), -(epsilon * (math.pi / 2)).sin()  # of πα/2, 0 at α = 2
    norm = (cosine * cosine + (skew * sine) ** 2).sqrt()
    cos_a = cosine.abs() / norm
    sin_a = skew * sine * cosine.sign() / norm  # of A, before the reflection
    side = torch.where(x * cos_a + sin_a >= 0, 1.0, -1.0).to(x)
    x, skew, sin_a = x * side, skew * side, sin_a * side

    finite = x.isfinite()
    empty = (epsilon < 0) & (skew <= -1)  # no mass on this side of the pivot
    q_minus_one = torch.where(
        sin_a > 0.5, x * cos_a - cos_a * cos_a / (1 + sin_a.clamp(min=0)), x * cos_a + (sin_a - 1)
    )
    # the power series around the pivot, of z = q (cos A)^(1/α - 1); the integral loses its gradient there
    q = q_minus_one.detach() + 1
    log_z_scale = torch.lgamma(2 / alpha) - torch.lgamma(1 / alpha) + (1 / alpha - 1) * cos_a.log()
    close = (q <= 0) | (q.clamp(min=1e-300).log() + log_z_scale.detach() < math.log(_SERIES_RANGE))

    odd = (1 + skew) * sine * cosine.abs()
    odd = torch.where(empty, torch.ones_like(odd), odd)
    even = (cosine * cosine - skew * sine * sine) * cosine.sign()
    alpha_range, above = torch.atan2(odd, even), torch.atan2(odd, -even)
    below_low = torch.atan2((1 - skew) * sine * cosine.abs(), cosine * cosine + skew * sine * sine)
    low = epsilon < 0
    below = torch.where(low, below_low, above + math.pi * epsilon) / alpha
    series = close & ~empty & (below > 1e-10)
    skipped = empty | ~finite | series | (q <= 0)
    log_q = torch.where(skipped, torch.zeros_like(x), q_minus_one).log1p()
    angles = _Angles(alpha, epsilon, log_q, cos_a.log(), alpha_range / alpha, below, above)
    integral = _log_integral(angles, low)
    log_f = alpha.log() - math.log(math.pi) - epsilon.abs().log() - log_q + cos_a.log() + integral
    near = _log_series(torch.where(series, q_minus_one + 1, 0.0), angles, series)
    impossible = empty | ~finite | ((q <= 0) & ~series)
    return torch.where(impossible, -torch.inf, torch.where(series, near, log_f))


def _log_series(q: Tensor, angles: _Angles, used: Tensor) -> Tensor:
    """log f close to the pivot: the Fourier integral of exp(-itq/cos A) term by term."""
    alpha = angles.alpha
    below = torch.where(used, angles.below, 1.0)
    log_cos = torch.where(used, angles.log_cos, 0.0)
    total = torch.zeros_like(q)
    first = torch.lgamma(1 / alpha)
    for k in range(_SERIES_TERMS):
        power = torch.ones_like(q) if k == 0 else q**k
        log_factor = torch.lgamma((k + 1) / alpha) - first - math.lgamma(k + 1) + ((k + 1) / alpha - k) * log_cos
        total = total + power * torch.where(used, log_factor, 0.0).exp() * ((k + 1) * below).sin()
    total = torch.where(used, total, 1.0)
    return total.log() + first - math.log(math.pi) - alpha.log()


def _log_integral(angles: _Angles, low: Tensor) -> Tensor:
    """log of ∫ h exp(-h) dφ, by Gauss-Legendre quadrature in s = log(φ/ψ), from where h = 0 to where it is infinite.

    Between the ends of the panels both s and log h change by a few units at most, and every structure of log h has a
    width of one unit in s or in log h. The ends move with the parameters, as h does: derivatives of the integrand at
    fixed nodes would be of order 1/(α - 1) and cancel.
    """
    wide = _Angles(*(field.unsqueeze(-1) for field in angles))
    up = torch.where(low, 1.0, -1.0).to(angles.alpha).unsqueeze(-1)  # h grows with `up * s`
    ends = _panel_ends(wide, up)
    start, width = ends[..., :-1], ends.diff(dim=-1)
    nodes = torch.tensor([*(-v for v in reversed(_NODES)), *_NODES], dtype=ends.dtype, device=ends.device)
    weights = torch.tensor([*reversed(_WEIGHTS), *_WEIGHTS], dtype=ends.dtype, device=ends.device) / 2
    s = start.unsqueeze(-1) + width.unsqueeze(-1) * (nodes + 1) / 2
    s = s.flatten(-2)
    log_h = _log_h(wide, up * s)
    log_terms = log_h - log_h.clamp(max=709.0).exp() + _log_speed(wide.range, s)
    weighted = (width.unsqueeze(-1) * weights).flatten(-2)
    top = log_terms.detach().amax(-1, keepdim=True)
    return ((log_terms - top).exp() * weighted).sum(-1).log() + top.squeeze(-1)


def _log_speed(range_: Tensor, s: Tensor) -> Tensor:
    """log dφ/ds."""
    return range_.log() + torch.nn.functional.logsigmoid(s) + torch.nn.functional.logsigmoid(-s)


def _split(angles: _Angles, s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """φ and ψ, and sines of ψ, αφ and κ, with κ."""
    phi, psi = angles.range * s.sigmoid(), angles.range * (-s).sigmoid()
    left = s < 0
    sin_psi = torch.where(left, angles.below + phi, psi).sin()
    sin_phi = torch.where(left, angles.alpha * phi, angles.above + angles.alpha * psi).sin()
    kappa = torch.where(angles.epsilon < 0, angles.below - angles.epsilon * phi, angles.above + angles.epsilon * psi)
    sin_kappa = torch.where(kappa < math.pi / 2, kappa, psi + angles.alpha * phi).sin()
    tiny = 1e-320
    return phi, psi, sin_psi.clamp(min=tiny), sin_phi.clamp(min=tiny), kappa, sin_kappa.clamp(min=tiny)


def _log_h(angles: _Angles, s: Tensor) -> Tensor:
    return _combine(angles, _split(angles, s))


def _combine(angles: _Angles, parts: tuple[Tensor, ...]) -> Tensor:
    _, psi, sin_psi, sin_phi, kappa, sin_kappa = parts
    # sin αφ / sin ψ = sin(ψ + κ) / sin ψ, close to 1 where κ is small
    log_sin_psi = sin_psi.log()
    excess = sin_kappa * psi.cos() / sin_psi - 2 * (kappa / 2).sin() ** 2
    is_close = excess.abs() < 0.5
    far = torch.where(is_close, 0.0, sin_phi.log() - log_sin_psi)
    log_ratio = torch.where(is_close, torch.where(is_close, excess, 0.0).log1p(), far)
    bracket = (angles.log_q - log_ratio) / angles.epsilon
    return angles.alpha * bracket - angles.log_cos + sin_kappa.log() - log_sin_psi


def _log_h_and_slope(angles: _Angles, s: Tensor) -> tuple[Tensor, Tensor]:
    """log h and d log h / ds."""
    parts = _split(angles, s)
    phi, psi, sin_psi, sin_phi, kappa, sin_kappa = parts
    cot_psi, cot_kappa = psi.cos() / sin_psi, kappa.cos() / sin_kappa
    cot_phi = (angles.alpha * phi).cos() / sin_phi
    inner = -(angles.alpha / angles.epsilon) * (cot_psi + angles.alpha * cot_phi)
    slope = phi * (-s).sigmoid() * (inner - angles.epsilon * cot_kappa + cot_psi)
    return _combine(angles, parts), slope


def _panel_ends(angles: _Angles, up: Tensor) -> Tensor:
    """Where panels end, in `up * s`, ascending; they follow the parameters with h fixed, or lie still."""
    like = angles.alpha
    with torch.no_grad():
        least = _log_h(angles, -_FURTHEST * up).exp().clamp(max=1e300)
        base = torch.where(least > 1, least, 1.0)
        above = torch.tensor(_ABOVE, dtype=like.dtype, device=like.device)
        below = torch.tensor(_LOGS_BELOW, dtype=like.dtype, device=like.device)
        levels = torch.cat([below + 0 * base, (base + above).log()], -1)
        found = _solve(angles, up, levels)
        slope = up * _log_h_and_slope(angles, up * found)[1]
        # an end that has run into the end of the range, or lies on a plateau, need not move
        moves = (found.abs() < _FURTHEST - 1) & (slope > 1e-3)
        one = found[..., len(_LOGS_BELOW)].unsqueeze(-1)
        middle = torch.where(one > -_FURTHEST + 1, one, 0.0).clamp(max=_FURTHEST)
        steps = torch.tensor([*_STEPS, *(-v for v in _STEPS[:-1])], dtype=like.dtype, device=like.device)
        fixed = torch.cat([middle + steps, (steps + 0 * middle)], -1)
        lower, upper = middle.clamp(max=0) - 44.0, middle.clamp(min=0) + 44.0
    miss = _log_h(angles, up * found) - levels
    miss = torch.where(moves, miss - miss.detach(), 0.0)
    ends = found - miss / torch.where(moves, slope, 1.0)
    # `fixed` ends that lean on where h = 1 go along with it
    shift = (ends - found)[..., len(_LOGS_BELOW)].unsqueeze(-1)
    fixed = fixed + torch.cat([shift.expand((*fixed.shape[:-1], len(steps))), 0 * shift + 0 * steps], -1)
    ends = torch.cat([ends, fixed], -1)
    ends = torch.maximum(torch.minimum(ends, upper), lower).clamp(-_FURTHEST, _FURTHEST)
    return ends.sort(-1).values


def _solve(angles: _Angles, up: Tensor, levels: Tensor) -> Tensor:
    """Where log h takes the given levels, in `up * s`: Newton's steps inside a bracket that shrinks."""
    low, high = torch.full_like(levels, -_FURTHEST), torch.full_like(levels, _FURTHEST)
    at = torch.zeros_like(levels)
    for _ in range(_NEWTON_STEPS):
        value, slope = _log_h_and_slope(angles, up * at)
        low, high = torch.where(value < levels, at, low), torch.where(value < levels, high, at)
        newton = at - (value - levels) / (up * slope)
        at = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
    return at
