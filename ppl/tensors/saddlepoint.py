"""Log densities whose terms are large and cancel: the standard gamma and the beta.

In float32 the plain formula is worked out in double precision, which is quickest and good up to parameters of 1e9. In
double precision, and where the device has none, Stirling's formula is taken apart so that what is large cancels on
paper (Loader 2000). Nothing here looks at a value; arguments broadcast, and the result has their dtype.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ppl.tensors.special import HALF_LOG_2PI, deviance, log_beta, stirling_error, times_log

_WITHOUT_DOUBLE = {"mps"}


def log_gamma_density(a: Tensor, x: Tensor, rate: Tensor | None = None) -> Tensor:
    """log rate + (a - 1) log t - t - lgamma(a), t = rate x, for a > 0 and x >= 0: the gamma log density."""
    if has_wider(x):
        wide, t = a.double(), x.double()
        norm = -torch.lgamma(wide)
        if rate is not None:
            wide_rate = rate.double()
            t, norm = t * wide_rate, norm + wide_rate.log()
        log_t = _log(t)
        return (torch.addcmul(norm, wide, log_t) - (log_t + t)).to(x.dtype)
    inside = x > 0
    y = torch.where(inside, x, 1.0)
    t = (y if rate is None else y * rate).clamp(max=torch.finfo(x.dtype).max / 4)
    main = 0.5 * a.log() - HALF_LOG_2PI - y.log() - deviance(a, t) - stirling_error(a)
    edge = times_log(a - 1, x) - torch.lgamma(a)
    edge = edge - x if rate is None else edge - x * rate + a * rate.log()
    return torch.where(inside, main, edge)


def log_inverse_gamma_density(a: Tensor, x: Tensor, rate: Tensor) -> Tensor:
    """a log rate - (a + 1) log x - rate / x - lgamma(a), for a, x > 0: the log density of a gamma draw's reciprocal."""
    if has_wider(x):
        wide, x64, wide_rate = a.double(), x.double(), rate.double()
        return (wide * wide_rate.log() - (wide + 1) * x64.log() - wide_rate / x64 - torch.lgamma(wide)).to(x.dtype)
    t = (rate / x).clamp(max=torch.finfo(x.dtype).max / 4)
    return 0.5 * a.log() - HALF_LOG_2PI - x.log() - deviance(a, t) - stirling_error(a)


def log_beta_density(a: Tensor, b: Tensor, x: Tensor, complement: Tensor | None = None) -> Tensor:
    """(a - 1) log x + (b - 1) log(1 - x) - log B(a, b), for a, b > 0 and 0 <= x <= 1: the beta log density.

    Args: complement, 1 - x, when the caller knows it better than a subtraction does.
    """
    if has_wider(x):
        a, b, x64 = a.double(), b.double(), x.double()
        if complement is None:
            y64 = 1 - x64
        else:  # the smaller of the two is the accurate one; together they must be 1
            first, y64 = x <= complement, complement.double()
            x64, y64 = torch.where(first, x64, 1 - y64), torch.where(first, 1 - x64, y64)
        log_x, log_y = _log(x64), _log(y64)
        norm = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
        return ((a * log_x - log_x) + (b * log_y - log_y) + norm).to(x.dtype)
    y = 1 - x if complement is None else complement
    inside = (x > 0) & (y > 0)
    s, t = torch.where(inside, x, 0.5), torch.where(inside, y, 0.5)
    n = a + b
    main = -deviance(a, n * s) - deviance(b, n * t) - s.log() - t.log() - HALF_LOG_2PI
    main = main + 0.5 * (a.log() + (b.log() - n.log())) + (stirling_error(n) - stirling_error(a) - stirling_error(b))
    edge = times_log(a - 1, x) + times_log(b - 1, y) + torch.lgamma(n) - torch.lgamma(a) - torch.lgamma(b)
    return torch.where(inside, main, edge)


def log_beta_function(a: Tensor, b: Tensor) -> Tensor:
    """log B(a, b), in double precision where that is quicker."""
    if has_wider(a):
        a64, b64 = a.double(), b.double()
        return (torch.lgamma(a64) + torch.lgamma(b64) - torch.lgamma(a64 + b64)).to(a.dtype)
    return log_beta(a, b)


def widened(function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """A function worked out in double precision where the device has it, in the arguments' dtype."""
    first = arguments[0]
    if not has_wider(first):
        return function(*arguments)
    return function(*(a.double() for a in arguments)).to(first.dtype)


def has_wider(x: Tensor) -> bool:
    """Whether double precision is more than what a tensor has, and its device knows it."""
    return x.dtype != torch.float64 and x.device.type not in _WITHOUT_DOUBLE


def _log(x: Tensor) -> Tensor:
    """log x; at 0 minus the largest double, which 0 times is 0, and which rounded to fewer bits is infinite."""
    info = torch.finfo(torch.float64)
    return x.clamp(min=info.tiny).log().masked_fill(x == 0, -info.max)
