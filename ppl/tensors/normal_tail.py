"""The standard normal's distribution function and its inverse, in log space far out in the tails."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ppl.tensors.special import log_ndtr

_SQRT_HALF = math.sqrt(0.5)
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_LOG_HALF = math.log(0.5)


def ndtr(z: Tensor) -> Tensor:
    """P(Z <= z), with small relative error also where it is tiny (torch.special.ndtr loses it below -5)."""
    return 0.5 * torch.erfc(-_SQRT_HALF * z)


def ndtri_exp(log_p: Tensor) -> Tensor:
    """The z at which log P(Z <= z) is `log_p`, for log_p from -1e30 to 0; differentiable any number of times."""
    return _NdtriExp.apply(log_p)  # type: ignore[no-any-return, no-untyped-call]


def _solve(log_p: Tensor) -> Tensor:
    """The inverse by torch's in the middle, and in the lower tail by Newton's method from the asymptotic expansion."""
    upper = log_p > _LOG_HALF
    middle = torch.where(upper, -torch.special.ndtri(-torch.expm1(log_p)), torch.special.ndtri(torch.exp(log_p)))
    tail = log_p < -5.0
    y = torch.where(tail, log_p, torch.full_like(log_p, -5.0))
    square = -2.0 * y - 2 * _HALF_LOG_2PI
    z = -torch.sqrt(square - torch.log(square))
    for _ in range(4):
        log_cdf = log_ndtr(z)
        z = z - (log_cdf - y) * torch.exp(log_cdf + 0.5 * z * z + _HALF_LOG_2PI)
    return torch.where(tail, torch.where(y == -torch.inf, y, z), middle)


class _NdtriExp(torch.autograd.Function):
    """dz / dlog p = P(Z <= z) / density(z), which the result itself gives: nothing is differentiated through."""

    generate_vmap_rule = True

    @staticmethod
    def forward(log_p: Tensor) -> Tensor:
        return _solve(log_p)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return grad * torch.exp(log_ndtr(z) + 0.5 * z * z + _HALF_LOG_2PI)
