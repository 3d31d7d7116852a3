"""Log-quadratic functions in information form: Gaussian densities, conditionals, and what products of them leave.

A precision may be rank deficient (a conditional density is flat along a subspace): only the dims that are integrated,
or drawn, need a positive definite block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from ppl.tensors.scan import Bundle, associative_reduce, associative_scan

_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, slots=True)
class Gaussian:
    """The function x -> log_normalizer + x·info_vec - ½ x·precision·x.

    Shapes: log_normalizer (*batch), info_vec (*batch, n), precision (*batch, n, n); their batch dims broadcast.
    """

    log_normalizer: Tensor
    info_vec: Tensor
    precision: Tensor

    @property
    def dim(self) -> int:
        """The number of entries of x."""
        return self.precision.shape[-1]

    @property
    def batch_shape(self) -> Size:
        """The shape of the functions in the batch."""
        shape: Size = torch.broadcast_shapes(
            self.log_normalizer.shape, self.info_vec.shape[:-1], self.precision.shape[:-2]
        )
        return shape

    def __add__(self, other: Gaussian | Tensor | float) -> Gaussian:
        """The sum of two functions (the product of two densities), or of a function and constants."""
        if isinstance(other, Gaussian):
            return Gaussian(
                self.log_normalizer + other.log_normalizer,
                self.info_vec + other.info_vec,
                self.precision + other.precision,
            )
        return Gaussian(self.log_normalizer + other, self.info_vec, self.precision)

    def expand(self, batch_shape: Sequence[int]) -> Gaussian:
        """The same functions repeated to a larger batch."""
        batch = tuple(batch_shape)
        return Gaussian(
            self.log_normalizer.expand(batch),
            self.info_vec.expand((*batch, self.dim)),
            self.precision.expand((*batch, self.dim, self.dim)),
        )

    def time(self, start: int, stop: int | None = None) -> Gaussian:
        """The functions between two indices of the last batch dim."""
        whole = self.expand(self.batch_shape)
        return Gaussian(
            whole.log_normalizer[..., start:stop],
            whole.info_vec[..., start:stop, :],
            whole.precision[..., start:stop, :, :],
        )

    def at(self, index: int) -> Gaussian:
        """The functions at an index of the last batch dim."""
        whole = self.expand(self.batch_shape)
        return Gaussian(
            whole.log_normalizer[..., index], whole.info_vec[..., index, :], whole.precision[..., index, :, :]
        )

    def pad(self, left: int = 0, right: int = 0) -> Gaussian:
        """The same function of a longer vector, flat in the entries added on the left and on the right."""
        side = (left, right)
        return Gaussian(
            self.log_normalizer,
            torch.nn.functional.pad(self.info_vec, side),
            torch.nn.functional.pad(self.precision, (*side, *side)),
        )

    def permute(self, order: Sequence[int]) -> Gaussian:
        """The function of a vector whose entry i is entry order[i] of this one's."""
        index = torch.as_tensor(order, device=self.precision.device)
        return Gaussian(
            self.log_normalizer,
            self.info_vec.index_select(-1, index),
            self.precision.index_select(-1, index).index_select(-2, index),
        )

    def log_density(self, value: Tensor) -> Tensor:
        """The function's value. Shapes: (*batch, n) -> (*batch)."""
        slope = self.info_vec - 0.5 * _matvec(self.precision, value)
        return self.log_normalizer + (value * slope).sum(-1)

    def condition(self, value: Tensor) -> Gaussian:
        """The function of the first entries where the last ones have a value. Shapes: value (*batch, k)."""
        k = self.dim - value.shape[-1]
        cross, corner = self.precision[..., :k, k:], self.precision[..., k:, k:]
        slope = self.info_vec[..., k:] - 0.5 * _matvec(corner, value)
        return Gaussian(
            self.log_normalizer + (value * slope).sum(-1),
            self.info_vec[..., :k] - _matvec(cross, value),
            self.precision[..., :k, :k],
        )

    def marginalize(self, left: int = 0, right: int = 0) -> Gaussian:
        """The log of the integral of exp of the function over its first and its last entries.

        Their block of the precision must be positive definite.
        """
        if left == right == 0:
            return self
        n = self.dim
        out = [*range(left), *range(n - right, n)]
        moved = self.permute([*range(left, n - right), *out]) if left else self
        k = n - left - right
        chol = torch.linalg.cholesky(moved.precision[..., k:, k:])
        cross = torch.linalg.solve_triangular(chol, moved.precision[..., k:, :k], upper=False)
        info = torch.linalg.solve_triangular(chol, moved.info_vec[..., k:, None], upper=False)
        constant = 0.5 * (info.square().sum((-1, -2)) + (n - k) * _LOG_2PI) - _log_diagonal(chol)
        return Gaussian(
            moved.log_normalizer + constant,
            moved.info_vec[..., :k] - (cross.mT @ info).squeeze(-1),
            moved.precision[..., :k, :k] - cross.mT @ cross,
        )

    def event_logsumexp(self) -> Tensor:
        """The log of the integral of exp of the function. Shapes: -> (*batch)."""
        return self.marginalize(right=self.dim).log_normalizer

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw from the normalised density, differentiably. Shapes: -> (*sample_shape, *batch, n)."""
        shape = (*sample_shape, *self.batch_shape, self.dim, 1)
        noise = torch.randn(shape, dtype=self.precision.dtype, device=self.precision.device)
        chol = torch.linalg.cholesky(self.precision)
        info = torch.linalg.solve_triangular(chol, self.info_vec[..., None], upper=False)
        drawn: Tensor = torch.linalg.solve_triangular(chol.mT, info + noise, upper=True)
        return drawn.squeeze(-1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the normalised density. Shapes: -> (*batch, n), (*batch, n, n)."""
        chol = torch.linalg.cholesky(self.precision)
        return torch.cholesky_solve(self.info_vec[..., None], chol).squeeze(-1), torch.cholesky_inverse(chol)


def moments_to_gaussian(loc: Tensor, covariance: Tensor) -> Gaussian:
    """The log density of a normal vector. Shapes: loc (*, n), covariance (*, n, n)."""
    return _normal(loc, torch.linalg.cholesky(covariance))


def _normal(loc: Tensor, chol: Tensor) -> Gaussian:
    precision = torch.cholesky_inverse(chol)
    info = _matvec(precision, loc)
    constant = -0.5 * (loc.shape[-1] * _LOG_2PI + (loc * info).sum(-1)) - _log_diagonal(chol)
    return Gaussian(constant, info, precision)


def mvn_to_gaussian(mvn: Any) -> Gaussian:
    """The log density of a `MultivariateNormal`, or of a `Normal` with its last batch dim as event, as a Gaussian."""
    if isinstance(mvn, MultivariateNormal):
        return _normal(mvn.loc, mvn.scale_tril)
    if isinstance(mvn, Independent) and isinstance(mvn.base_dist, Normal) and mvn.reinterpreted_batch_ndims == 1:
        return _normal(mvn.base_dist.loc, torch.diag_embed(mvn.base_dist.scale))
    raise ValueError(
        f"mvn_to_gaussian: expected a MultivariateNormal or a Normal(...).to_event(1), but got {type(mvn).__name__}."
    )


def matrix_and_mvn_to_gaussian(matrix: Tensor, mvn: Any) -> Gaussian:
    """The log density of y given x, where y = x @ matrix + noise, as a function of the vector (x, y).

    Shapes: matrix (*, m, n), `mvn` (the noise) of event shape (n,).
    """
    noise = mvn_to_gaussian(mvn)
    weighted = matrix @ noise.precision
    blocks = _blocks(weighted @ matrix.mT, -weighted, noise.precision)
    return Gaussian(noise.log_normalizer, _cat_last(-_matvec(matrix, noise.info_vec), noise.info_vec), blocks)


def gaussian_tensordot(x: Gaussian, y: Gaussian, dims: int = 0) -> Gaussian:
    """The log of the integral of exp(x + y) over the last `dims` entries of x, which are the first ones of y."""
    kept, n = x.dim - dims, y.dim - dims
    return (
        (x.pad(right=n) + y.pad(left=kept))
        .permute([*range(kept), *range(kept + dims, kept + dims + n), *range(kept, kept + dims)])
        .marginalize(right=dims)
    )


def sequential_gaussian_tensordot(chain: Gaussian) -> Gaussian:
    """Integrate out what lies between the ends of a chain of functions of neighbours, in O(log T) depth.

    Shapes: batch (*, T) -> (*), functions of 2n entries.
    """
    return _unbundle(associative_reduce(_contract, _bundle(chain), -3)).at(0)


def suffix_products(chain: Gaussian) -> Gaussian:
    """At t: functions t … T - 1 of a chain of functions of neighbours, with what lies between integrated out."""
    return _unbundle(associative_scan(_contract, _bundle(chain), -3, reverse=True))


def _contract(left: Bundle, right: Bundle) -> Bundle:
    x, y = _unbundle(left), _unbundle(right)
    return _bundle(gaussian_tensordot(x, y, x.dim // 2))


def _bundle(g: Gaussian) -> Bundle:
    """As tensors that have time at dim -3."""
    whole = g.expand(g.batch_shape)
    return whole.log_normalizer[..., None, None], whole.info_vec[..., None], whole.precision


def _unbundle(bundle: Bundle) -> Gaussian:
    constant, info, precision = bundle
    return Gaussian(constant[..., 0, 0], info[..., 0], precision)


def _blocks(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The symmetric matrix [[a, b], [bᵀ, c]]."""
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2], c.shape[:-2])
    a, b, c = (x.expand(batch + x.shape[-2:]) for x in (a, b, c))
    return torch.cat((torch.cat((a, b), -1), torch.cat((b.mT, c), -1)), -2)


def _cat_last(a: Tensor, b: Tensor) -> Tensor:
    batch = torch.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    return torch.cat((a.expand(batch + a.shape[-1:]), b.expand(batch + b.shape[-1:])), -1)


def _matvec(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None]).squeeze(-1)


def _log_diagonal(chol: Tensor) -> Tensor:
    return chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
