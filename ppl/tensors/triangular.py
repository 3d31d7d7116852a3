"""Algebra of positive definite matrices through their lower triangular factors."""

from __future__ import annotations

import torch
from torch import Tensor


def cholesky(matrix: Tensor) -> Tensor:
    """The lower Cholesky factor; NaN where the matrix is not positive definite (without looking at values)."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    return torch.where((info == 0)[..., None, None], factor, torch.nan)


def upper_factor(matrix: Tensor) -> Tensor:
    """The upper triangular U with U Uᵀ = matrix: Cholesky from the last row upwards."""
    return cholesky(matrix.flip(-2, -1)).flip(-2, -1)


def inverse(lower: Tensor) -> Tensor:
    """The inverse of a lower triangular matrix."""
    eye = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    return solve_matrix(lower, eye)


def inverse_of_square(lower: Tensor) -> Tensor:
    """(L Lᵀ)⁻¹."""
    inverted = inverse(lower)
    return inverted.mT @ inverted


def log_diagonal(lower: Tensor) -> Tensor:
    """The sum of the logarithms of the diagonal: half the log determinant of L Lᵀ."""
    return lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def solve_matrix(lower: Tensor, x: Tensor, upper: bool = False) -> Tensor:
    """L⁻¹ X for matrices (U⁻¹ X for an upper triangular one)."""
    if is_wide(x):
        turned: Tensor = torch.linalg.solve_triangular(lower.mT, x.mT, upper=not upper, left=False)
        return turned.mT
    solved: Tensor = torch.linalg.solve_triangular(lower, x, upper=upper)
    return solved


def is_wide(x: Tensor) -> bool:
    """Whether L⁻¹ X is faster worked out as the transpose of Xᵀ L⁻ᵀ: up to four times, where X has many columns.

    LAPACK takes columns one after another, but many rows at once. Columns that lie in memory one after another gain nothing
    in double precision.
    """
    rows, columns = x.shape[-2:]
    return columns > rows and rows * columns >= 1024 and (x.stride(-1) == 1 or x.dtype == torch.float32)


def solve(lower: Tensor, x: Tensor) -> Tensor:
    """L⁻¹ x for vectors in the last dim, without a copy of L for each sample.

    Shapes: lower (*batch, k, k), x (*sample, *batch, k) -> (*sample, *batch, k); batch dims broadcast.
    """
    return _columns(lower, x, upper=False)


def solve_transposed(lower: Tensor, x: Tensor) -> Tensor:
    """L⁻ᵀ x for vectors in the last dim; shapes as in `solve`."""
    return _columns(lower.mT, x, upper=True)


def multiply(matrix: Tensor, x: Tensor) -> Tensor:
    """A x for vectors in the last dim; shapes as in `solve`."""
    if _is_one(matrix):
        return x @ matrix.reshape(matrix.shape[-2:]).mT
    return (matrix @ x.unsqueeze(-1)).squeeze(-1)


def _is_one(matrix: Tensor) -> bool:
    """Whether there is only one matrix for all vectors."""
    return all(size == 1 for size in matrix.shape[:-2])


def _columns(matrix: Tensor, x: Tensor, upper: bool) -> Tensor:
    size = matrix.shape[-1]
    if size == 0:
        return x
    if _is_one(matrix):  # all vectors are columns of one right hand side
        one = matrix.reshape(size, size)
        shape = torch.broadcast_shapes(x.shape, (*matrix.shape[:-2], size))
        solved = solve_matrix(one, x.reshape(-1, size).mT, upper)
        return solved.mT.reshape(x.shape).expand(shape)
    batch = torch.broadcast_shapes(matrix.shape[:-2], x.shape[max(x.dim() - matrix.dim() + 1, 0) : -1])
    sample = x.shape[: max(x.dim() - 1 - len(batch), 0)]
    count = 1
    for length in sample:
        count *= length
    rows = x.expand((*sample, *batch, size)).reshape(count, *batch, size)
    solved = solve_matrix(matrix, rows.movedim(0, -1), upper)
    return solved.movedim(-1, 0).reshape(*sample, *batch, size)


def is_cholesky_factor(matrix: Tensor) -> Tensor:
    """Whether a matrix is lower triangular with a positive diagonal."""
    lower = (matrix == matrix.tril()).flatten(-2).all(-1)
    return lower & (matrix.diagonal(dim1=-2, dim2=-1) > 0).all(-1)


def guarded_cholesky(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The lower Cholesky factor, and whether the matrix is symmetric positive definite; the identity's where not."""
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    symmetric = torch.isclose(matrix, matrix.mT, atol=1e-6).flatten(-2).all(-1)
    _, info = torch.linalg.cholesky_ex(matrix.detach())
    inside = symmetric & (info == 0)
    factor, _ = torch.linalg.cholesky_ex(torch.where(inside[..., None, None], matrix, eye))
    return factor, inside
