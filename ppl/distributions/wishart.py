"""Random positive definite matrices made of outer products of normal vectors, and their Cholesky factors."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from ppl.distributions import constraints
from ppl.distributions.bartlett import LOG_2, Concentrated, Scaled
from ppl.distributions.distribution import ShapeLike
from ppl.distributions.family import derived
from ppl.tensors import triangular
from ppl.tensors.precision import widened
from ppl.tensors.special import log_beta


class Wishart(Scaled, torch.distributions.Wishart):
    """Positive definite matrices: for a whole `df`, sums of `df` outer products of normal vectors.

    The covariance of the vectors is given as it is, by its inverse, or by its lower Cholesky factor. NumPyro's names
    `concentration`, `scale_matrix` and `rate_matrix` are taken for `df`, `covariance_matrix` and `precision_matrix`.

    Shapes: df (*batch) > p - 1, matrices (*batch, p, p) -> event (p, p).
    Raises: ValueError where not exactly one matrix is given.
    """

    arg_constraints = {
        "df": constraints.greater_than(0),
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.positive_definite
    has_rsample = True
    _degrees = "df"
    _matrices = ("covariance_matrix", "precision_matrix")
    df: Tensor

    def __init__(
        self,
        df: Tensor | float | None = None,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
        *,
        concentration: Tensor | float | None = None,
        scale_matrix: Tensor | None = None,
        rate_matrix: Tensor | None = None,
    ) -> None:
        doubled = {"df": (df, concentration), "covariance_matrix": (covariance_matrix, scale_matrix)}
        for name, (ours, theirs) in {**doubled, "precision_matrix": (precision_matrix, rate_matrix)}.items():
            if ours is not None and theirs is not None:
                raise ValueError(f"Wishart: '{name}' was given by both of its names.")
        self._take_scaled(
            concentration if df is None else df,
            scale_matrix if covariance_matrix is None else covariance_matrix,
            rate_matrix if precision_matrix is None else precision_matrix,
            scale_tril,
            validate_args,
        )

    @derived
    def _unbroadcasted_scale_tril(self) -> Tensor:  # torch's divergences look for it
        return self._factor

    scale_tril = derived(Scaled._scale_tril)
    covariance_matrix = derived(Scaled._scale_matrix)
    precision_matrix = derived(Scaled._rate_matrix)
    concentration = property(lambda self: self.df, doc="The degrees of freedom.")
    scale_matrix = property(lambda self: self.covariance_matrix, doc="The covariance of the normal vectors.")
    rate_matrix = property(lambda self: self.precision_matrix, doc="The inverse of the scale matrix.")

    @property
    def mean(self) -> Tensor:
        return self.df[..., None, None] * self.covariance_matrix

    @property
    def mode(self) -> Tensor:
        factor = self.df - self.event_shape[-1] - 1
        return torch.where(factor > 0, factor, torch.nan)[..., None, None] * self.covariance_matrix

    @property
    def variance(self) -> Tensor:
        scale = self.covariance_matrix
        diagonal = scale.diagonal(dim1=-2, dim2=-1)
        return self.df[..., None, None] * (scale.square() + diagonal.unsqueeze(-1) * diagonal.unsqueeze(-2))

    def entropy(self) -> Tensor:
        log_scale = triangular.log_diagonal(widened(self._factor))
        return self._entropy_of_wishart(log_scale).to(self.df.dtype)

    def rsample(self, sample_shape: ShapeLike = Size(), max_try_correction: int | None = None) -> Tensor:
        """Draw by Bartlett's decomposition; `max_try_correction`, a count of torch's, is not needed."""
        factor = self._factor @ self._bartlett(sample_shape)
        return factor @ factor.mT

    def log_prob(self, value: Tensor) -> Tensor:
        return self._at_matrix(value, inverse=False)


class WishartCholesky(Concentrated):
    """Lower Cholesky factors of Wishart matrices with `concentration` degrees of freedom.

    Shapes: concentration (*batch) > p - 1, one of scale_matrix, rate_matrix (its inverse) and scale_tril (*batch, p, p)
    -> event (p, p).
    """

    support = constraints.lower_cholesky

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self._factor @ self._bartlett(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self._at_factor(value, inverse=False)

    def _chi_mean(self) -> Tensor:
        shapes = self._chi_shapes()
        half = torch.full_like(shapes, 0.5)
        return (0.5 * math.log(2 * math.pi) - log_beta(shapes, half)).exp()

    @property
    def mean(self) -> Tensor:
        return self.scale_tril * self._chi_mean().unsqueeze(-2)

    @property
    def variance(self) -> Tensor:
        squares = self.scale_tril.square()
        beyond = squares.sum(-1, keepdim=True) - squares.cumsum(-1)  # of the columns to the right
        below = beyond.tril(-1)
        return below + squares * (2 * self._chi_shapes() - self._chi_mean().square()).unsqueeze(-2)

    def entropy(self) -> Tensor:
        scale = widened(self._factor)
        logs = scale.diagonal(dim1=-2, dim2=-1).log() + 0.5 * (torch.digamma(widened(self._chi_shapes())) + LOG_2)
        whole = self._entropy_of_wishart(triangular.log_diagonal(scale))
        return (whole - self._mean_log_jacobian(logs)).to(self.concentration.dtype)
