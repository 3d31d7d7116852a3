"""The uniform law on [0, 1] tilted to a density proportional to exp(c v): smooth through c = 0, right for any c."""

from __future__ import annotations

import torch
from torch import Tensor

_NEAR = 0.2


def _split(c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where c is near 0; c there, 0 elsewhere; c elsewhere, 1 there."""
    near = c.abs() < _NEAR
    return near, torch.where(near, c, 0.0), torch.where(near, 1.0, c)


def log_normaliser(c: Tensor) -> Tensor:
    """log((exp(c) - 1) / c), 0 at 0."""
    near, small, large = _split(c)
    square = small * small
    series = small / 2 + square * (1 / 24 - square * (1 / 2880 - square * (1 / 181440 - square / 9676800)))
    size = large.abs()
    far = large.clamp(min=0) + (-torch.expm1(-size)).log() - size.log()
    return torch.where(near, series, far)


def mean(c: Tensor) -> Tensor:
    """The mean, from 0 to 1: 1/2 at c = 0."""
    near, small, large = _split(c)
    square = small * small
    series = 0.5 + small * (1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600)))
    size = large.abs()
    below = 1 / size - 1 / torch.expm1(size)  # of the law tilted to the left
    return torch.where(near, series, torch.where(large < 0, below, 1 - below))


def variance(c: Tensor) -> Tensor:
    """The variance: 1/12 at c = 0."""
    near, small, large = _split(c)
    square = small * small
    series = 1 / 12 - square * (1 / 240 - square * (1 / 6048 - square * (1 / 172800 - square / 5322240)))
    size = large.abs()
    tail = (-size).exp() / torch.expm1(-size).square()
    return torch.where(near, series, 1 / (size * size) - tail)


def log_cdf(v: Tensor, c: Tensor) -> Tensor:
    """log of the distribution function at 0 < v <= 1."""
    return v.log() + log_normaliser(c * v) - log_normaliser(c)


def log_survival(v: Tensor, c: Tensor) -> Tensor:
    """log of 1 minus the distribution function at 0 <= v < 1: turned round, the law is tilted by -c."""
    return log_cdf(1 - v, -c)


def icdf(q: Tensor, c: Tensor) -> Tensor:
    """The quantile: log(1 + q (exp(c) - 1)) / c."""
    near = c.abs() < 1e-4
    small, large = torch.where(near, c, 0.0), torch.where(near, 1.0, c)
    p = 1 - q
    series = q + q * p * small / 2 * (1 + (p - q) * small / 3)
    size = large.abs()
    first, second = torch.where(large < 0, p, q), torch.where(large < 0, q, p)  # of the steep end, and of the other
    weak = size < 1  # where the sum is near 1, and otherwise near 0 at most
    rise = torch.log1p(second * torch.expm1(-torch.where(weak, size, 1.0)))
    log_sum = torch.where(weak, rise, (first + second * (-size).exp()).log())
    return torch.where(near, series, torch.where(large < 0, -log_sum / size, 1 + log_sum / size))
