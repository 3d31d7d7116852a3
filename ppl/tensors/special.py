"""Special functions without cancellation, for densities that must hold in the tails.

All of them work elementwise with broadcasting, keep dtype and device, never look at a value, and have gradients (and
gradients of gradients) in every floating point argument.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_HALF_SQRT_2 = math.sqrt(0.5)
_LOG_2 = math.log(2.0)
#: Of Stirling's series for lgamma: sum over k of c_k / x^(2k+1) (Abramowitz & Stegun 6.1.40).
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0, accurate near both ends (Mächler 2012)."""
    near = x > -_LOG_2
    close = torch.where(near, x, -1.0)
    far = torch.where(near, -1.0, x)
    return torch.where(near, (-torch.expm1(close)).log(), torch.log1p(-far.exp()))


def log_diff_exp(a: Tensor, b: Tensor) -> Tensor:
    """log(exp(a) - exp(b)) for a >= b; -inf where they are equal, two infinities of one sign included."""
    gap = b - a
    differ = gap < 0
    return torch.where(differ, a + log1mexp(torch.where(differ, gap, -1.0)), -torch.inf)


def stirling_error(x: Tensor) -> Tensor:
    """lgamma(x) - [(x - 1/2) log x - x + log(2 pi) / 2] for x > 0: what Stirling's formula leaves out.

    Source: Loader 2000, Fast and accurate computation of binomial probabilities.
    """
    wide = x.dtype == torch.float64
    start, terms = (16.0, 5) if wide else (8.0, 3)
    inverse = x.clamp(min=start).reciprocal()
    square = inverse * inverse
    series = square * _STIRLING[terms - 1] + _STIRLING[terms - 2]
    for coefficient in reversed(_STIRLING[: terms - 2]):
        series = series * square + coefficient
    low = x.clamp(max=start)
    direct = torch.addcmul(torch.lgamma(low) + low, low - 0.5, low.log(), value=-1) - HALF_LOG_2PI
    return torch.where(x < start, direct, series * inverse)


def factorial_excess(x: Tensor) -> Tensor:
    """lgamma(x + 1) - (x log x - x) for x >= 0, which grows no faster than log x; 0 at 0.

    Minus the log mass at x of a Poisson law with mean x. At 0 the derivative of x log x is taken to be 1 instead of
    minus infinity, as in `count_deviance`, so that derivatives of their sum are right.
    """
    low = x.clamp(max=1.0)
    direct = torch.lgamma(low + 1) + low - low * torch.where(x == 0, 1.0, low).log()
    high = x.clamp(min=1.0)
    return torch.where(x < 1, direct, stirling_error(high) + 0.5 * high.log() + HALF_LOG_2PI)


def deviance(x: Tensor, m: Tensor) -> Tensor:
    """x log(x / m) + m - x for x >= 0 and m > 0, without cancellation where the two are close.

    Minus the exponent of a saddle-point approximation: of a Poisson mass at x with mean m, for one (Loader's bd0).
    """
    v = (x - m) / (x + m)
    near = v.abs() < 0.1
    v = torch.where(near, v, 0.0)
    square = v * v
    terms = 8 if x.dtype == torch.float64 else 4
    series = torch.full_like(square, 1 / (2 * terms + 1))
    for k in range(terms - 1, 0, -1):
        series = series * square + 1 / (2 * k + 1)
    close = (x - m) * v + 2 * x * v * square * series
    far = times_log_ratio(x, m, ~near) + (m - x)
    return torch.where(near, close, far)


def times_log_ratio(x: Tensor, m: Tensor, where: Tensor) -> Tensor:
    """x log(x / m) for x >= 0 and m > 0 where the mask is true, 0 elsewhere; the ratio may under- and overflow."""
    used = where & (x > 0)
    x, top, bottom = torch.where(used, x, 0.0), torch.where(used, x, 1.0), torch.where(used, m, 1.0)
    gap = top.log() - bottom.log()
    ordinary = gap.abs() < 9
    ratio = torch.where(ordinary, top, 1.0) / torch.where(ordinary, bottom, 1.0)
    log_ratio = torch.where(ordinary, ratio.log(), gap)
    return x * log_ratio


def log_ratio(x: Tensor, m: Tensor) -> Tensor:
    """log(x / m) for x, m > 0, keeping all digits where the two are close."""
    gap = x - m
    near = gap.abs() < 0.5 * m
    return torch.where(near, torch.log1p(torch.where(near, gap, 0.0) / m), x.log() - m.log())


def log_beta(a: Tensor, b: Tensor) -> Tensor:
    """log B(a, b) for a, b > 0, however small, large or different they are."""
    ordered = a < b  # not minimum and maximum, whose derivatives are halved at equality
    small, large = torch.where(ordered, a, b), torch.where(ordered, b, a)
    total = small + large
    # with p = small / total: Stirling's three formulas taken together, so that what is large cancels on paper
    log_p = small.log() - total.log()
    main = (small - 0.5) * log_p + large * torch.log1p(-small / total) - 0.5 * large.log() + HALF_LOG_2PI
    return main + (stirling_error(small) + (stirling_error(large) - stirling_error(total)))


def log_binomial_coefficient(n: Tensor, k: Tensor) -> Tensor:
    """log of n! / (k! (n - k)!) for 0 <= k <= n, real arguments included; exactly 0 at k = 0 and k = n."""
    log_count = -torch.log1p(n) - log_beta(n - k + 1, k + 1)
    return torch.where((k == 0) | (k == n), log_count - log_count.detach(), log_count)  # gradients stay


def times_log(x: Tensor, y: Tensor) -> Tensor:
    """x log y for y >= 0, and 0 at x = y = 0 with gradients 0 there (torch's xlogy has NaN)."""
    return x * torch.where((x == 0) & (y == 0), 1.0, y).log()


def times_log1p(x: Tensor, y: Tensor) -> Tensor:
    """x log(1 + y) for y >= -1, and 0 at x = 0, y = -1 with gradients 0 there."""
    return x * torch.log1p(torch.where((x == 0) & (y == -1), 0.0, y))


def log_ndtr(x: Tensor) -> Tensor:
    """log of the normal distribution function (torch's has no rule for vmap)."""
    left = x < 0
    below, above = torch.where(left, x, 0.0) * _HALF_SQRT_2, torch.where(left, 0.0, x) * _HALF_SQRT_2
    tail = torch.special.erfcx(-below).log() - (below * below + _LOG_2)
    return torch.where(left, tail, torch.log1p(-0.5 * torch.erfc(above)))


def log_ndtr_diff(low: Tensor, high: Tensor) -> Tensor:
    """log(ndtr(high) - ndtr(low)) for low <= high, in either tail: the log probability of an interval."""
    flip = low > 0  # of the two tails, look at the one where probabilities are small
    upper, lower = torch.where(flip, -low, high), torch.where(flip, -high, low)
    return log_diff_exp(log_ndtr(upper), log_ndtr(lower))


def log_i0(x: Tensor) -> Tensor:
    """log of the modified Bessel function I_0."""
    scaled: Tensor = torch.special.i0e(x)
    return scaled.log() + x.abs()


def log_i1(x: Tensor) -> Tensor:
    """log of the modified Bessel function I_1, for x > 0."""
    scaled: Tensor = torch.special.i1e(x)
    return scaled.log() + x
