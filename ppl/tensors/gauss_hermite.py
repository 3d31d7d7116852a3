"""Gauss-Hermite quadrature: expectations under a normal law."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor


@functools.lru_cache
def _rule(num_points: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # Golub & Welsch 1969: nodes are the eigenvalues of the recurrence's matrix. Polished by Newton steps on the
    # orthonormal polynomial, whose values also give the weights, down to far smaller ones than eigenvectors do.
    off = torch.arange(1, num_points, dtype=torch.float64).sqrt()
    nodes = torch.linalg.eigvalsh(torch.diag(off, 1) + torch.diag(off, -1)).tolist()
    log_weights = []
    for i, x in enumerate(nodes):
        for _ in range(3):
            before, now = _hermite(num_points, x)
            x -= now / (math.sqrt(num_points) * before)
        before, _ = _hermite(num_points, x)
        nodes[i] = x
        log_weights.append(-math.log(num_points) - 2 * math.log(abs(before)))
    return tuple(nodes), tuple(log_weights)


def _hermite(degree: int, x: float) -> tuple[float, float]:
    """The orthonormal Hermite polynomials (of the standard normal) of degree - 1 and degree."""
    before, now = 0.0, 1.0
    for k in range(degree):
        before, now = now, (x * now - math.sqrt(k) * before) / math.sqrt(k + 1)
    return before, now


def gauss_hermite(num_points: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes z and log weights with E[f(Z)] = sum of exp(log weight) f(z) for a standard normal Z.

    Exact for polynomials of degree up to 2 num_points - 1.

    Shapes: both (num_points,), of the dtype and device of `like`.
    """
    nodes, log_weights = _rule(num_points)
    return (
        torch.tensor(nodes, dtype=like.dtype, device=like.device),
        torch.tensor(log_weights, dtype=like.dtype, device=like.device),
    )
