"""Log densities whose terms are large and cancel: the standard gamma and the beta.

In float32 the plain formula is worked out in double precision, which is quickest and good up to parameters of 1e9. In
double precision, and where the device has none, Stirling's formula is taken apart so that what is large cancels on
paper (Loader 2000). Nothing here looks at a value; arguments broadcast, and the result has their dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ppl.tensors.special import HALF_LOG_2PI, deviance, stirling_error, times_log

_WITHOUT_DOUBLE = {"mps"}


def log_gamma_density(a: Tensor, x: Tensor) -> Tensor:
    """(a - 1) log x - x - lgamma(a), for a > 0 and x >= 0: the standard gamma log density."""
    if _has_wider(x):
        wide, x64 = a.double(), x.double()
        return (times_log(wide - 1, x64) - x64 - torch.lgamma(wide)).to(x.dtype)
    inside = x > 0
    t = torch.where(inside, x, 1.0)
    main = 0.5 * a.log() - HALF_LOG_2PI - t.log() - deviance(a, t) - stirling_error(a)
    return torch.where(inside, main, times_log(a - 1, x) - x - torch.lgamma(a))


def log_beta_density(a: Tensor, b: Tensor, x: Tensor, complement: Tensor | None = None) -> Tensor:
    """(a - 1) log x + (b - 1) log(1 - x) - log B(a, b), for a, b > 0 and 0 <= x <= 1: the beta log density.

    Args: complement, 1 - x, when the caller knows it better than a subtraction does.
    """
    if _has_wider(x):
        a, b, x64 = a.double(), b.double(), x.double()
        if complement is None:
            y64 = 1 - x64
        else:  # the smaller of the two is the accurate one; together they must be 1
            first, y64 = x <= complement, complement.double()
            x64, y64 = torch.where(first, x64, 1 - y64), torch.where(first, 1 - x64, y64)
        kernel = times_log(a - 1, x64) + times_log(b - 1, y64)
        return (kernel + torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)).to(x.dtype)
    y = 1 - x if complement is None else complement
    inside = (x > 0) & (y > 0)
    s, t = torch.where(inside, x, 0.5), torch.where(inside, y, 0.5)
    n = a + b
    main = -deviance(a, n * s) - deviance(b, n * t) - s.log() - t.log() - HALF_LOG_2PI
    main = main + 0.5 * (a.log() + (b.log() - n.log())) + (stirling_error(n) - stirling_error(a) - stirling_error(b))
    edge = times_log(a - 1, x) + times_log(b - 1, y) + torch.lgamma(n) - torch.lgamma(a) - torch.lgamma(b)
    return torch.where(inside, main, edge)


def _has_wider(x: Tensor) -> bool:
    return x.dtype != torch.float64 and x.device.type not in _WITHOUT_DOUBLE
