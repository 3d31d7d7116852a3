"""Normal vectors whose covariance is a few directions and a diagonal."""

from __future__ import annotations

import torch
from torch import Size, Tensor

from ppl.distributions import noise
from ppl.distributions.distribution import ShapeLike, broadcast_shape
from ppl.distributions.family import Family, derived
from ppl.distributions.multivariate_normal import LOG_2PI, as_vector
from ppl.tensors import triangular


class LowRankMultivariateNormal(Family, torch.distributions.LowRankMultivariateNormal):
    """A normal vector whose covariance is `cov_factor @ cov_factor.T + diag(cov_diag)`.

    The Mahalanobis distance is the residual of a regularised least squares problem, solved by QR: a sum of squares,
    which keeps its digits where the factor is much larger than the diagonal (Woodbury's difference does not).

    Shapes: loc (*batch, k) or a number, cov_factor (*batch, k, r), cov_diag (*batch, k) -> event (k,).
    """

    loc: Tensor
    cov_factor: Tensor
    cov_diag: Tensor
    _basis: Tensor  # of the whitened factor's columns
    _capacitance_tril: Tensor
    _unbroadcasted_cov_factor: Tensor
    _unbroadcasted_cov_diag: Tensor

    def __init__(
        self, loc: Tensor | float, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None
    ) -> None:
        loc = as_vector(loc, cov_factor)
        if cov_factor.shape[-2:-1] != loc.shape[-1:] or cov_diag.shape[-1:] != loc.shape[-1:]:
            raise ValueError(
                "LowRankMultivariateNormal: loc (*batch, k), cov_factor (*batch, k, r) and cov_diag (*batch, k) must "
                f"agree in k, but their shapes are {tuple(loc.shape)}, {tuple(cov_factor.shape)}, "
                f"{tuple(cov_diag.shape)}."
            )
        arguments = {"loc": loc, "cov_factor": cov_factor, "cov_diag": cov_diag}
        self._take(arguments, loc.shape[-1:], validate_args)
        self._unbroadcasted_cov_factor = cov_factor
        self._unbroadcasted_cov_diag = cov_diag
        rank = cov_factor.shape[-1]
        eye = torch.eye(rank, dtype=cov_factor.dtype, device=cov_factor.device)
        scaled = cov_factor / cov_diag.sqrt().unsqueeze(-1)
        stacked = torch.cat([scaled, eye.expand(*scaled.shape[:-2], rank, rank)], -2)
        q, r = torch.linalg.qr(stacked)
        sign = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(r.dtype)
        self._basis = q[..., : loc.shape[-1], :] * sign.unsqueeze(-2)
        self._capacitance_tril = (r * sign.unsqueeze(-1)).mT  # of I + Wᵀ D⁻¹ W; torch's divergences look for it

    @derived
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        return triangular.cholesky(self.covariance_matrix)

    @derived
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        return self.cov_factor @ self.cov_factor.mT + torch.diag_embed(self.cov_diag)

    @derived
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        scale = self.cov_diag.rsqrt().unsqueeze(-1)
        eye = torch.eye(self.event_shape[0], dtype=self.loc.dtype, device=self.loc.device)
        return scale * (eye - self._basis @ self._basis.mT) * scale.mT

    @derived
    def variance(self) -> Tensor:
        """The diagonal of the covariance."""
        return self.cov_factor.square().sum(-1) + self.cov_diag

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    def entropy(self) -> Tensor:
        return (0.5 * self.event_shape[0] * (1 + LOG_2PI) + self._log_scale()).expand(self.batch_shape)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        shape = self.shape(sample_shape)
        along = noise.normal_of(self.loc, shape[:-1] + self.cov_factor.shape[-1:])
        alone = noise.normal_of(self.loc, shape) * self._unbroadcasted_cov_diag.sqrt()
        return self.loc + triangular.multiply(self._unbroadcasted_cov_factor, along) + alone

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        root = self._unbroadcasted_cov_diag.sqrt()
        b = (value - self.loc) / root
        best = triangular.solve_transposed(self._capacitance_tril, triangular.multiply(self._basis.mT, b))
        residual = b - triangular.multiply(self._unbroadcasted_cov_factor, best) / root
        distance = residual.square().sum(-1) + best.square().sum(-1)
        return -self._log_scale() - 0.5 * (distance + self.event_shape[0] * LOG_2PI)

    def _log_scale(self) -> Tensor:
        """Half the log determinant of the covariance."""
        return triangular.log_diagonal(self._capacitance_tril) + 0.5 * self._unbroadcasted_cov_diag.log().sum(-1)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        loc, factor = Size(arg_shapes["loc"]), Size(arg_shapes["cov_factor"])
        diag = Size(arg_shapes["cov_diag"])
        return broadcast_shape(loc[:-1], factor[:-2], diag[:-1]), loc[-1:]
