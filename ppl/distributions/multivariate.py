"""Distributions of torch over vectors and matrices, and its combinators, extended."""

from __future__ import annotations

import torch.distributions as td
from torch import Size, Tensor

from ppl.distributions.composed import Composed
from ppl.distributions.distribution import Distribution, ShapeLike, broadcast_shape


class Dirichlet(td.Dirichlet, Distribution):
    """Probability vectors, with one `concentration` a category."""


class LKJCholesky(td.LKJCholesky, Distribution):
    """Cholesky factors of correlation matrices of size `dim`."""

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        raise ValueError("LKJCholesky: the event shape (dim, dim) follows from a number, not from a shape.")


class LogisticNormal(Composed, td.LogisticNormal, Distribution):
    """Probability vectors of one more entry than the normal vector behind them."""

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        shape = broadcast_shape(*(Size(s) for s in arg_shapes.values()))
        return shape[:-1], Size((shape[-1] + 1,))


class LowRankMultivariateNormal(td.LowRankMultivariateNormal, Distribution):
    """A normal vector whose covariance is `cov_factor @ cov_factor.T + diag(cov_diag)`."""

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        loc, factor = Size(arg_shapes["loc"]), Size(arg_shapes["cov_factor"])
        diag = Size(arg_shapes["cov_diag"])
        return broadcast_shape(loc[:-1], factor[:-2], diag[:-1]), loc[-1:]


class MultivariateNormal(td.MultivariateNormal, Distribution):
    """A normal vector with mean `loc` and one of covariance, precision or Cholesky factor."""


class Wishart(td.Wishart, Distribution):
    """Positive definite matrices: sums of `df` outer products of normal vectors."""

    def rsample(self, sample_shape: ShapeLike = Size(), max_try_correction: int | None = None) -> Tensor:
        # torch draws again, and warns, where a draw is *not* singular (its check is the wrong way round)
        draw: Tensor = self._bartlett_sampling(Size(sample_shape))  # type: ignore[no-untyped-call]
        return draw

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        df = Size(arg_shapes.pop("df"))
        (matrix,) = (Size(s) for s in arg_shapes.values())
        return broadcast_shape(df, matrix[:-2]), matrix[-2:]


class MixtureSameFamily(td.MixtureSameFamily, Distribution):
    """A mixture along the last batch dim of `component_distribution`."""
