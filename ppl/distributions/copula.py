"""Given marginals, tied together by a normal vector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.beta import Beta
from ppl.distributions.distribution import Distribution, ShapeLike, broadcast_shape, expanded
from ppl.distributions.family import derived
from ppl.distributions.prototype import like, unchecked
from ppl.tensors.normal_tail import ndtri_exp
from ppl.tensors.special import log_ndtr


class GaussianCopula(Distribution):
    """A vector whose entries have given marginals, and whose dependence is that of a normal vector with correlations.

    With z the normal quantiles of the marginals' probabilities, and R the correlations, the density is the product of the
    marginals' times N(z; 0, R) / N(z; 0, I). Quantiles go through log probabilities, on the side where they are small.

    Shapes: marginal_dist (*batch, D) of univariate continuous draws; correlations (*batch, D, D); draws (*batch, D).
    Args: exactly one of correlation_matrix and correlation_cholesky (its lower Cholesky factor).
    Raises: ValueError where shapes do not fit, for a discrete marginal, and unless one of the two is given.
    """

    arg_constraints = {
        "correlation_matrix": constraints.positive_definite,
        "correlation_cholesky": constraints.corr_cholesky,
    }
    expands_without_init = True

    def __init__(
        self,
        marginal_dist: torch.distributions.Distribution,
        correlation_matrix: Tensor | None = None,
        correlation_cholesky: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        family = type(self).__name__
        if (correlation_matrix is None) == (correlation_cholesky is None):
            raise ValueError(f"{family}: give either correlation_matrix or correlation_cholesky, not both or neither.")
        marginal = unchecked(marginal_dist)
        if marginal.event_shape or not marginal.batch_shape or marginal.is_discrete:
            raise ValueError(
                f"{family}: marginal_dist must be continuous and univariate with the entries in its last batch dim, but "
                f"{type(marginal_dist).__name__} has batch shape {tuple(marginal.batch_shape)} and event shape "
                f"{tuple(marginal.event_shape)}."
            )
        given = correlation_matrix if correlation_cholesky is None else correlation_cholesky
        assert given is not None
        size = marginal.batch_shape[-1]
        if given.dim() < 2 or given.shape[-2:] != (size, size):
            raise ValueError(
                f"{family}: the correlations must be of shape (…, {size}, {size}) for {size} marginals, but their shape is "
                f"{tuple(given.shape)}."
            )
        try:
            batch = broadcast_shape(marginal.batch_shape[:-1], given.shape[:-2])
        except RuntimeError:
            raise ValueError(
                f"{family}: the marginals' batch shape {tuple(marginal.batch_shape[:-1])} and that of the correlations, "
                f"{tuple(given.shape[:-2])}, do not broadcast."
            ) from None
        self.marginal_dist: Distribution = expanded(marginal, Size((*batch, size)))
        self._given = "correlation_matrix" if correlation_cholesky is None else "correlation_cholesky"
        vars(self)[self._given] = given.expand((*batch, size, size))
        super().__init__(batch, Size((size,)), validate_args)

    @derived
    def correlation_matrix(self) -> Tensor:
        """The correlations of the normal vector."""
        return self.correlation_cholesky @ self.correlation_cholesky.mT

    @derived
    def correlation_cholesky(self) -> Tensor:
        """The lower Cholesky factor of the correlations."""
        return torch.linalg.cholesky_ex(self.correlation_matrix).L  # type: ignore[no-any-return]

    @property
    def support(self) -> Any:
        return constraints.independent(self.marginal_dist.support, 1)

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        shape = Size(batch_shape)
        fields = vars(new)
        fields.update(vars(self))
        fields["marginal_dist"] = expanded(self.marginal_dist, Size((*shape, *self.event_shape)))
        given: Tensor = fields[self._given]
        fields[self._given] = given.expand((*shape, *given.shape[-2:]))
        fields["_batch_shape"] = shape
        return new

    def _quantiles(self, value: Tensor) -> Tensor:
        below, above = self.marginal_dist.log_cdf(value), self.marginal_dist.log_survival(value)
        lower = below < above
        z = ndtri_exp(torch.where(lower, below, above))
        return torch.where(lower, z, -z)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_prob = self.marginal_dist.log_prob(value)
        inside = (log_prob > -torch.inf).all(-1)
        z = self._quantiles(value)
        z = torch.where(z.isfinite(), z, torch.zeros_like(z))
        factor = self.correlation_cholesky
        white = torch.linalg.solve_triangular(factor, z.unsqueeze(-1), upper=False).squeeze(-1)
        dependence = 0.5 * (z * z - white * white).sum(-1) - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_prob = log_prob.sum(-1) + dependence
        return torch.where(inside, log_prob, torch.full_like(log_prob, -torch.inf))

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        source = like(self)
        with torch.no_grad():
            noise = torch.randn((*self.shape(sample_shape), 1), dtype=source.dtype, device=source.device)
            z = (self.correlation_cholesky @ noise).squeeze(-1)
            lower = z < 0
            log_p = log_ndtr(-z.abs())
            below, above = self.marginal_dist.inverse_log_cdf(log_p), self.marginal_dist.inverse_log_survival(log_p)
            return torch.where(lower, below, above)

    @property
    def mean(self) -> Tensor:
        return self.marginal_dist.mean

    @property
    def variance(self) -> Tensor:
        return self.marginal_dist.variance

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.marginal_dist})"


class GaussianCopulaBeta(GaussianCopula):
    """Beta marginals, tied together by a normal vector with correlations.

    Shapes: concentration1, concentration0 (*batch, D); correlations (*batch, D, D); draws (*batch, D).
    """

    arg_constraints = {
        **GaussianCopula.arg_constraints,
        "concentration1": constraints.independent(constraints.positive, 1),
        "concentration0": constraints.independent(constraints.positive, 1),
    }

    def __init__(
        self,
        concentration1: Tensor,
        concentration0: Tensor,
        correlation_matrix: Tensor | None = None,
        correlation_cholesky: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        try:
            marginal: Any = Beta(concentration1, concentration0, validate_args=False)
        except ValueError as error:  # of shapes; the arguments are checked by their names here
            raise ValueError(f"GaussianCopulaBeta: {error}") from None
        super().__init__(marginal, correlation_matrix, correlation_cholesky, validate_args)

    concentration1 = property(lambda self: self.marginal_dist.concentration1, doc="The weight of ones.")
    concentration0 = property(lambda self: self.marginal_dist.concentration0, doc="The weight of zeros.")

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        vectors = [Size(arg_shapes[k]) for k in ("concentration1", "concentration0")]
        matrices = [Size(v)[:-1] for k, v in arg_shapes.items() if k.startswith("correlation")]
        shape = broadcast_shape(*vectors, *matrices)
        return shape[:-1], shape[-1:]
