"""Maps to triangular, positive definite and correlation matrices.

"Packed" is a matrix whose free entries stand in a vector: those below the diagonal row by row, then the diagonal's, if
they are free, too. Maps of packed entries are bijective. Log determinants are with respect to the free entries: those of
the lower triangle, without the diagonal where it is fixed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import transforms as torchs
from torch.nn.functional import logsigmoid, pad

from ppl.distributions import constraints
from ppl.distributions.distribution import broadcast_shape
from ppl.distributions.transforms.elementwise import log_sech2, shape_of, softplus, softplus_inverse
from ppl.distributions.transforms.transform import Transform


def fill_lower(vector: Tensor, size: int) -> Tensor:
    """The square matrix with these entries below its diagonal, row by row, and 0 elsewhere."""
    count = size * (size - 1) // 2
    row = torch.arange(size, device=vector.device).unsqueeze(-1)
    column = torch.arange(size, device=vector.device)
    source = torch.where(column < row, row * (row - 1) // 2 + column, count)
    padded = pad(vector, (0, 1))
    return padded.index_select(-1, source.flatten()).reshape((*vector.shape[:-1], size, size))


def read_lower(matrix: Tensor) -> Tensor:
    """The entries below the diagonal, row by row: the inverse of `fill_lower`."""
    size = matrix.shape[-1]
    row, column = torch.tril_indices(size, size, -1, device=matrix.device).unbind(0)
    return matrix.reshape((*matrix.shape[:-2], size * size)).index_select(-1, row * size + column)


def diagonal(matrix: Tensor) -> Tensor:
    """The diagonal of the last two dims."""
    return matrix.diagonal(dim1=-2, dim2=-1)


class Triangular(Transform):
    """The base of maps to lower triangular matrices: entries below the diagonal as they are, the diagonal by `_to`.

    Args: packed, whether the entries stand in a vector of length n (n + 1) / 2 instead of an n by n matrix, of which
        those above the diagonal are not used.
    """

    def __init__(self, packed: bool = False, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.packed = packed
        self.domain = constraints.real_vector if packed else constraints.real_matrix

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return self.packed

    def _to(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _from(self, y: Tensor) -> Tensor:
        raise NotImplementedError

    def _log_slope(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The strictly lower matrix and the diagonal before its map."""
        if not self.packed:
            return x.tril(-1), diagonal(x)
        size = packed_size(type(self).__name__, x.shape[-1], 1)
        lower, diag = x.split([x.shape[-1] - size, size], -1)
        return fill_lower(lower, size), diag

    def _join(self, lower: Tensor, diag: Tensor) -> Tensor:
        if not self.packed:
            return lower.tril(-1) + diag.diag_embed()
        return torch.cat([read_lower(lower), diag], -1)

    def _call(self, x: Tensor) -> Tensor:
        lower, diag = self._split(x)
        return lower + self._to(diag).diag_embed()

    def _inverse(self, y: Tensor) -> Tensor:
        return self._join(y, self._from(diagonal(y)))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self._log_slope(self._split(x)[1]).sum(-1)

    def forward_shape(self, shape: Size) -> Size:
        if not self.packed:
            return _square(self, shape)
        size = packed_size(type(self).__name__, shape[-1] if shape else 0, 1)
        return Size((*shape[:-1], size, size))

    def inverse_shape(self, shape: Size) -> Size:
        shape = _square(self, shape)
        return Size((*shape[:-2], shape[-1] * (shape[-1] + 1) // 2)) if self.packed else shape

    def __repr__(self) -> str:
        return f"{type(self).__name__}(packed={self.packed})"


class LowerCholeskyTransform(Triangular, torchs.LowerCholeskyTransform):
    """A lower triangular matrix of positive diagonal, by exp."""

    codomain = constraints.lower_cholesky

    def _to(self, x: Tensor) -> Tensor:
        return x.exp()

    def _from(self, y: Tensor) -> Tensor:
        return y.log()

    def _log_slope(self, x: Tensor) -> Tensor:
        return x


class SoftplusLowerCholeskyTransform(Triangular):
    """A lower triangular matrix of positive diagonal, by softplus."""

    codomain = constraints.softplus_lower_cholesky

    def _to(self, x: Tensor) -> Tensor:
        return softplus(x)

    def _from(self, y: Tensor) -> Tensor:
        return softplus_inverse(y)

    def _log_slope(self, x: Tensor) -> Tensor:
        return logsigmoid(x)


class ScaledUnitLowerCholeskyTransform(Triangular):
    """A lower triangular matrix of ones on the diagonal, times a diagonal matrix that softplus makes positive."""

    codomain = constraints.scaled_unit_lower_cholesky

    def __init__(self, packed: bool = True, cache_size: int = 0) -> None:
        super().__init__(packed, cache_size)

    def _call(self, x: Tensor) -> Tensor:
        lower, diag = self._split(x)
        scale = softplus(diag)
        return lower * scale.unsqueeze(-2) + scale.diag_embed()

    def _inverse(self, y: Tensor) -> Tensor:
        scale = diagonal(y)
        return self._join(y / scale.unsqueeze(-2), softplus_inverse(scale))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        diag = self._split(x)[1]
        below = torch.arange(diag.shape[-1] - 1, -1, -1, dtype=x.dtype, device=x.device)
        return (below * softplus(diag).log() + logsigmoid(diag)).sum(-1)


class UnitLowerCholeskyTransform(Transform):
    """A lower triangular matrix with ones on its diagonal.

    Args: packed, whether the entries stand in a vector of length n (n - 1) / 2 instead of an n by n matrix.
    """

    codomain = constraints.unit_lower_cholesky

    def __init__(self, packed: bool = False, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.packed = packed
        self.domain = constraints.real_vector if packed else constraints.real_matrix

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return self.packed

    def _call(self, x: Tensor) -> Tensor:
        lower = fill_lower(x, packed_size(type(self).__name__, x.shape[-1], -1)) if self.packed else x.tril(-1)
        return lower + torch.ones_like(diagonal(lower)).diag_embed()

    def _inverse(self, y: Tensor) -> Tensor:
        return read_lower(y) if self.packed else y.tril(-1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return y.new_zeros(y.shape[:-2])

    def forward_shape(self, shape: Size) -> Size:
        return _packed_forward_shape(self, shape) if self.packed else _square(self, shape)

    def inverse_shape(self, shape: Size) -> Size:
        return _packed_inverse_shape(self, shape) if self.packed else _square(self, shape)

    def __repr__(self) -> str:
        return f"UnitLowerCholeskyTransform(packed={self.packed})"


class CorrCholeskyTransform(Transform, torchs.CorrCholeskyTransform):
    """The Cholesky factor of a correlation matrix from its n (n - 1) / 2 canonical partial correlations' atanh.

    Entry j of a row is tanh(x_j) of what the entries before have left of the row's length 1. Worked out with logarithms:
    small diagonal entries are as accurate as large ones.

    Source: Lewandowski, Kurowicka & Joe, Generating random correlation matrices (2009).
    """

    domain = constraints.real_vector
    codomain = constraints.corr_cholesky
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        size = packed_size(type(self).__name__, x.shape[-1], -1)
        partial = fill_lower(x.tanh(), size)
        log_rest = fill_lower(0.5 * log_sech2(x), size).cumsum(-1)
        rest = pad(log_rest, (1, 0))[..., :-1].exp().tril()
        return partial * rest + diagonal(rest).diag_embed()

    def _inverse(self, y: Tensor) -> Tensor:
        squares = y.tril() ** 2
        rest = squares.flip(-1).cumsum(-1).flip(-1)[..., 1:].clamp(min=torch.finfo(y.dtype).tiny)
        return read_lower(pad((y[..., :-1] / rest.sqrt()).asinh(), (0, 1)))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor, intermediates: None = None) -> Tensor:
        row, column = torch.tril_indices(y.shape[-1], y.shape[-1], -1, device=x.device).unbind(0)
        weight = 1 + 0.5 * (row - 1 - column).to(x.dtype)
        return (weight * log_sech2(x)).sum(-1)

    def forward_shape(self, shape: Size) -> Size:
        return _packed_forward_shape(self, shape)

    def inverse_shape(self, shape: Size) -> Size:
        return _packed_inverse_shape(self, shape)


class CholeskyTransform(Transform):
    """The Cholesky factor of a positive definite matrix."""

    domain: Any = constraints.positive_definite
    codomain: Any = constraints.lower_cholesky
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        return torch.linalg.cholesky(x)  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return y @ y.mT

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        size = y.shape[-1]
        powers = torch.arange(size, 0, -1, dtype=y.dtype, device=y.device)
        return -(powers * diagonal(y).log()).sum(-1) - size * math.log(2)

    def forward_shape(self, shape: Size) -> Size:
        return _square(self, shape)

    def inverse_shape(self, shape: Size) -> Size:
        return _square(self, shape)


class CorrMatrixCholeskyTransform(CholeskyTransform):
    """The Cholesky factor of a correlation matrix."""

    domain = constraints.corr_matrix
    codomain = constraints.corr_cholesky

    def _inverse(self, y: Tensor) -> Tensor:
        product = y @ y.mT
        return product.tril(-1) + product.triu(1) + torch.ones_like(diagonal(y)).diag_embed()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        powers = torch.arange(y.shape[-1] - 1, -1, -1, dtype=y.dtype, device=y.device)
        return -(powers * diagonal(y).log()).sum(-1)


class PositiveDefiniteTransform(Transform, torchs.PositiveDefiniteTransform):
    """A positive definite matrix: the square of a lower triangular one. Entries above the diagonal are not used."""

    domain = constraints.real_matrix
    codomain = constraints.positive_definite

    def _call(self, x: Tensor) -> Tensor:
        factor = LowerCholeskyTransform()(x)
        return factor @ factor.mT

    def _inverse(self, y: Tensor) -> Tensor:
        x: Tensor = LowerCholeskyTransform().inv(torch.linalg.cholesky(y))
        return x

    def forward_shape(self, shape: Size) -> Size:
        return _square(self, shape)

    def inverse_shape(self, shape: Size) -> Size:
        return _square(self, shape)


class LowerCholeskyAffine(Transform):
    """y = loc + scale_tril @ x, of vectors.

    Shapes: loc (*batch, n), scale_tril (*batch, n, n), lower triangular with a positive diagonal.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, loc: Tensor, scale_tril: Tensor, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        if scale_tril.dim() < 2 or scale_tril.shape[-1] != scale_tril.shape[-2]:
            raise ValueError(
                f"LowerCholeskyAffine: scale_tril must be square, got the shape {tuple(scale_tril.shape)}."
            )
        if loc.shape[-1:] not in (scale_tril.shape[-1:], Size((1,)), Size()):
            raise ValueError(
                f"LowerCholeskyAffine: loc must have the size {scale_tril.shape[-1]} of scale_tril in its last dim, got "
                f"the shape {tuple(loc.shape)}."
            )
        self.loc = loc
        self.scale_tril = scale_tril

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + (self.scale_tril @ x.unsqueeze(-1)).squeeze(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        centred = (y - self.loc).unsqueeze(-1)
        x: Tensor = torch.linalg.solve_triangular(self.scale_tril, centred, upper=False)
        return x.squeeze(-1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        batch = broadcast_shape(x.shape[:-1], self.scale_tril.shape[:-2], self.loc.shape[:-1])
        return diagonal(self.scale_tril).abs().log().sum(-1).expand(batch)

    def forward_shape(self, shape: Size) -> Size:
        return broadcast_shape(shape, shape_of(self.loc), self.scale_tril.shape[:-1])

    def inverse_shape(self, shape: Size) -> Size:
        return self.forward_shape(shape)


def packed_size(name: str, length: int, sign: int) -> int:
    """n, of an n by n matrix with n (n + sign) / 2 free entries."""
    size = round((math.sqrt(8 * length + 1) - sign) / 2)
    if size * (size + sign) // 2 != length:
        formula = "n (n + 1) / 2" if sign > 0 else "n (n - 1) / 2"
        raise ValueError(f"{name}: a vector of {length} entries fills no triangle; the length must be {formula}.")
    return size


def _square(transform: Transform, shape: Size) -> Size:
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ValueError(f"{type(transform).__name__}: the last two dims must be square, got the shape {tuple(shape)}.")
    return shape


def _packed_forward_shape(transform: Transform, shape: Size) -> Size:
    size = packed_size(type(transform).__name__, shape[-1] if shape else -1, -1)
    return Size((*shape[:-1], size, size))


def _packed_inverse_shape(transform: Transform, shape: Size) -> Size:
    shape = _square(transform, shape)
    return Size((*shape[:-2], shape[-1] * (shape[-1] - 1) // 2))
