"""Incomplete gamma and beta functions and their logs in the tails, differentiable in all arguments.

On a logarithmic (for the beta: logistic) scale both integrands are log-concave, and each tail is the integrand at its
boundary times the integral of exp(-phi(u)) over u > 0, with phi convex, rising from 0. That integral is taken by the
double exponential rule for decaying functions, u = c exp(s - exp(-s)) on a fixed grid in s, with the scale c of phi
(Takahasi & Mori 1974). It has no cancellation and works at any size of the parameters; derivatives follow from the same
nodes. A parameter is first raised by one, which adds a positive term, so that phi has one scale only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ppl.tensors.saddlepoint import log_beta_density, log_gamma_density
from ppl.tensors.special import log1mexp

_LOW, _HIGH = -3.75, 3.9  # of the grid: exp(s - exp(-s)) from 1e-20 to 48
_EULER = 0.5772156649015329


def _log_integral(phi: Callable[[Tensor], Tensor], slope: Tensor, curvature: Tensor) -> Tensor:
    """log of the integral of exp(-phi(u)) over u > 0, given the first two derivatives of phi at 0."""
    count = 96 if slope.dtype == torch.float64 else 48
    s = torch.linspace(_LOW, _HIGH, count, dtype=slope.dtype, device=slope.device)
    u, weight = (s - (-s).exp()).exp(), (1 + (-s).exp()) * ((_HIGH - _LOW) / (count - 1))
    slope, curvature = slope.detach(), curvature.detach()
    scale = (2 / (slope + (slope * slope + 2 * curvature).sqrt())).unsqueeze(-1)
    return torch.logsumexp(((u * weight).log() + scale.log()) - phi(scale * u), -1)


def log_gamma_tails(a: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """log of the regularised incomplete gamma functions P(a, x) and Q(a, x), for a > 0 and x >= 0."""
    a, x = torch.broadcast_tensors(a, x.clamp(max=torch.finfo(x.dtype).max / 4))
    tiny = torch.finfo(x.dtype).tiny
    is_low, is_high = x <= a + 1, x > a.clamp(min=0.7)  # the upper integral has two scales where x is small
    t = torch.where(is_low, x.clamp(min=tiny), 0.5 * a)
    top, inner = a + 1, t.unsqueeze(-1)
    slope = (top - t).unsqueeze(-1)
    integral = _log_integral(lambda u: slope * u + inner * (u + torch.expm1(-u)), top - t, t)
    low = log_gamma_density(a, t) + t.log() - a.log() + torch.log1p((integral + t.log()).exp())
    t = torch.where(is_high, x, a + 1)
    less, inner = (a - 1).unsqueeze(-1), t.unsqueeze(-1)
    slope = 1 - (a - 1) / t
    curvature = (a - 1).clamp(min=0) / (t * t)
    integral = _log_integral(lambda u: u - less * torch.log1p(u / inner), slope, curvature)
    high = log_gamma_density(a, t) + integral
    log_p = torch.where(is_low, low, log1mexp(high.clamp(max=0)))
    log_q = torch.where(is_high, high, log1mexp(low.clamp(max=0)))
    return torch.where(x > 0, log_p, -torch.inf), torch.where(x > 0, log_q, 0.0)


def log_gammainc(a: Tensor, x: Tensor) -> Tensor:
    """log of the lower regularised incomplete gamma function P(a, x)."""
    return log_gamma_tails(a, x)[0]


def log_gammaincc(a: Tensor, x: Tensor) -> Tensor:
    """log of the upper regularised incomplete gamma function Q(a, x)."""
    return log_gamma_tails(a, x)[1]


def gammainc(a: Tensor, x: Tensor) -> Tensor:
    """The lower regularised incomplete gamma function P(a, x)."""
    return log_gammainc(a, x).exp()


def gammaincc(a: Tensor, x: Tensor) -> Tensor:
    """The upper regularised incomplete gamma function Q(a, x)."""
    return log_gammaincc(a, x).exp()


def scaled_exp1(x: Tensor) -> Tensor:
    """exp(x) times the exponential integral E_1(x), for x > 0."""
    low = x.clamp(max=1.0)
    series, power = torch.zeros_like(x), torch.ones_like(x)
    for k in range(1, 20):  # Abramowitz & Stegun 5.1.11
        power = power * (-low / k)
        series = series - power / k
    high = x.clamp(min=1.0)
    slope = 1 / torch.log1p(1 / high)
    integral = _log_integral(lambda u: high.unsqueeze(-1) * torch.expm1(u), slope, torch.zeros_like(x)).exp()
    return torch.where(x < 1, low.exp() * (series - low.log() - _EULER), integral)


def log_beta_tails(a: Tensor, b: Tensor, x: Tensor, complement: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """log of the regularised incomplete beta functions I_x(a, b) and 1 - I_x(a, b).

    Args: complement, 1 - x, when the caller knows it better than a subtraction does.
    """
    y = 1 - x if complement is None else complement
    a, b, x, y = torch.broadcast_tensors(a, b, x, y)
    total = a + b + 1
    # either way, not where the integral would have two scales
    is_low = (x * total <= a + 1) & (y * total > 0.45)
    is_high = (y * total <= b + 1) & (x * total > 0.45)
    low = _log_beta_tail(a, b, x, y, is_low)
    high = _log_beta_tail(b, a, y, x, is_high)
    log_p = torch.where(is_low, low, log1mexp(high.clamp(max=0)))
    log_q = torch.where(is_high, high, log1mexp(low.clamp(max=0)))
    minus_infinity = torch.full_like(x, -torch.inf)
    log_p = torch.where(x <= 0, minus_infinity, torch.where(y <= 0, 0.0, log_p))
    return log_p, torch.where(y <= 0, minus_infinity, torch.where(x <= 0, 0.0, log_q))


def _log_beta_tail(a: Tensor, b: Tensor, x: Tensor, y: Tensor, used: Tensor) -> Tensor:
    """log I_x(a, b) where `used` says that x lies below its mean or not far above; anything finite elsewhere."""
    used = used & (x > 0) & (y > 0)
    half = 0.5 * a / (a + b)
    x, y = torch.where(used, x, half), torch.where(used, y, 1 - half)
    top, total = a + 1, a + b + 1
    slope = top * y - b * x
    power, inner, rise = total.unsqueeze(-1), x.unsqueeze(-1), top.unsqueeze(-1)
    integral = _log_integral(
        lambda u: rise * u + power * torch.log1p(inner * torch.expm1(-u)), slope.clamp(min=0), total * x * y
    )
    # I_x(a, b) = x^a y^b / (a B(a, b)) + I_x(a + 1, b), and B(a + 1, b) = B(a, b) a / (a + b)
    first = log_beta_density(a, b, x, y) + x.log() + y.log() - a.log()
    return first + torch.log1p((integral + x.log() + (a + b).log()).exp())


def log_betainc(a: Tensor, b: Tensor, x: Tensor, complement: Tensor | None = None) -> Tensor:
    """log of the regularised incomplete beta function I_x(a, b)."""
    return log_beta_tails(a, b, x, complement)[0]


def log_betaincc(a: Tensor, b: Tensor, x: Tensor, complement: Tensor | None = None) -> Tensor:
    """log of the complement of the regularised incomplete beta function, log(1 - I_x(a, b))."""
    return log_beta_tails(a, b, x, complement)[1]


def betainc(a: Tensor, b: Tensor, x: Tensor, complement: Tensor | None = None) -> Tensor:
    """The regularised incomplete beta function I_x(a, b)."""
    return log_betainc(a, b, x, complement).exp()
