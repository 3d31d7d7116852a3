"""Random positive definite matrices made of outer products of normal vectors, and their Cholesky factors."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Size, Tensor

from ppl.distributions import constraints, noise
from ppl.distributions.distribution import ShapeLike, broadcast_shape
from ppl.distributions.family import Family, derived
from ppl.distributions.multivariate_normal import exactly_one
from ppl.tensors import triangular
from ppl.tensors.precision import widened

_LOG_2 = math.log(2.0)


class Scaled(Family):
    """What the Wishart kin share: degrees of freedom, and a scale given in one of three ways.

    A subclass takes `self._factor`, lower triangular in its own batch shape, with scale matrix F Fᵀ.
    """

    has_rsample = True
    _degrees: str  # the name of the argument of the degrees of freedom
    _matrices: tuple[str, str]  # the names of the scale matrix and of its inverse
    _factor: Tensor

    def _take_scaled(
        self, degrees: Tensor | float | None, scale: Tensor | None, rate: Tensor | None, tril: Tensor | None, check: Any
    ) -> None:
        if degrees is None:
            raise ValueError(f"{type(self).__name__}: '{self._degrees}' (the degrees of freedom) is missing.")
        scale_name, rate_name = self._matrices
        name, matrix = exactly_one(self, **{scale_name: scale, rate_name: rate, "scale_tril": tril})
        size = matrix.shape[-1]
        if matrix.shape[-2] != size or size == 0:
            raise ValueError(f"{type(self).__name__}: '{name}' must be square, but its shape is {tuple(matrix.shape)}.")
        of_class = cast(dict[str, Any], type(self).arg_constraints)
        vars(self)["arg_constraints"] = {**of_class, self._degrees: constraints.greater_than(size - 1)}
        self._take({self._degrees: degrees, name: matrix}, Size((size, size)), check)
        if name == rate_name:  # rate = Gᵀ G, scale = G⁻¹ G⁻ᵀ
            self._factor = triangular.inverse(triangular.upper_factor(matrix).mT)
        else:
            self._factor = triangular.cholesky(matrix) if name == scale_name else matrix

    def _scale_tril(self) -> Tensor:
        return self._factor.expand(self.batch_shape + self._factor.shape[-2:])

    def _scale_matrix(self) -> Tensor:
        lower = self._scale_tril()
        return lower @ lower.mT

    def _rate_matrix(self) -> Tensor:
        return triangular.inverse_of_square(self._scale_tril())

    def _degrees_of_freedom(self) -> Tensor:
        degrees: Tensor = getattr(self, self._degrees)
        return degrees

    def _chi_shapes(self, reverse: bool = False) -> Tensor:
        """Half the degrees of freedom of the squared diagonal entries of a Bartlett factor."""
        degrees, size = self._degrees_of_freedom(), self.event_shape[-1]
        lost = torch.arange(size, dtype=degrees.dtype, device=degrees.device)
        return 0.5 * (degrees.unsqueeze(-1) - (lost.flip(-1) if reverse else lost))

    def _bartlett(self, sample_shape: ShapeLike, reverse: bool = False) -> Tensor:
        """A lower triangular draw A with A Aᵀ (reversed: Aᵀ A) Wishart of unit scale."""
        shape = self.shape(sample_shape)
        shapes = self._chi_shapes(reverse).expand(shape[:-1])
        chi = (2 * torch._standard_gamma(shapes)).clamp(min=torch.finfo(shapes.dtype).tiny).sqrt()
        return noise.normal_of(self._factor, shape).tril(-1) + torch.diag_embed(chi)

    def _log_normaliser(self) -> Tensor:
        """log of 2^(ν p / 2) Γ_p(ν / 2)."""
        size = self.event_shape[-1]
        half = 0.5 * widened(self._degrees_of_freedom())
        log_gamma: Tensor = torch.special.multigammaln(half, size)
        return size * half * _LOG_2 + log_gamma

    def _mean_log_det(self) -> Tensor:
        """The expected log determinant of a Wishart matrix of unit scale."""
        return torch.digamma(widened(self._chi_shapes())).sum(-1) + self.event_shape[-1] * _LOG_2

    def _entropy_of_wishart(self, log_scale: Tensor) -> Tensor:
        """The entropy of a Wishart matrix whose scale has a factor of this log determinant."""
        degrees, size = widened(self._degrees_of_freedom()), self.event_shape[-1]
        expected = self._mean_log_det()
        normaliser = self._log_normaliser()
        return normaliser - 0.5 * (degrees - size - 1) * expected + 0.5 * degrees * size + (size + 1) * log_scale

    def _log_wishart(self, factor: Tensor) -> Tensor:
        """The log density of the Wishart law at the square of a lower triangular matrix."""
        degrees, size = widened(self._degrees_of_freedom()), self.event_shape[-1]
        scale = widened(self._factor)
        trace = triangular.solve_matrix(scale, factor).square().sum((-1, -2))
        spread = triangular.log_diagonal(factor)
        return (
            (degrees - size - 1) * spread
            - 0.5 * trace
            - degrees * triangular.log_diagonal(scale)
            - self._log_normaliser()
        )

    def _log_inverse_wishart(self, factor: Tensor) -> Tensor:
        """The log density of the inverse Wishart law at the square of a lower triangular matrix."""
        degrees, size = widened(self._degrees_of_freedom()), self.event_shape[-1]
        scale = widened(self._factor)
        trace = triangular.solve_matrix(factor, scale).square().sum((-1, -2))
        spread = triangular.log_diagonal(factor)
        return (
            -(degrees + size + 1) * spread
            - 0.5 * trace
            + degrees * triangular.log_diagonal(scale)
            - self._log_normaliser()
        )

    def _log_cholesky(self, factor: Tensor) -> Tensor:
        """The log Jacobian of squaring a lower triangular matrix: 2^p times the product of L_ii^(p - i), i from 0."""
        size = factor.shape[-1]
        powers = torch.arange(size, 0, -1, dtype=factor.dtype, device=factor.device)
        return size * _LOG_2 + (powers * factor.diagonal(dim1=-2, dim2=-1).log()).sum(-1)

    def _at_matrix(self, value: Tensor, inverse: bool) -> Tensor:
        """The log density at a positive definite matrix; -inf at any other."""
        if self._validate_args:
            self._validate_sample(value)
        factor, inside = triangular.guarded_cholesky(widened(value))
        total = self._log_inverse_wishart(factor) if inverse else self._log_wishart(factor)
        return torch.where(inside, total.to(self._factor.dtype), -torch.inf)

    def _at_factor(self, value: Tensor, inverse: bool) -> Tensor:
        """The log density at a lower Cholesky factor; -inf at any other matrix."""
        if self._validate_args:
            self._validate_sample(value)
        inside = triangular.is_cholesky_factor(value)
        eye = torch.eye(value.shape[-1], dtype=value.dtype, device=value.device)
        factor = widened(torch.where(inside[..., None, None], value, eye))
        total = self._log_inverse_wishart(factor) if inverse else self._log_wishart(factor)
        return torch.where(inside, (total + self._log_cholesky(factor)).to(self._factor.dtype), -torch.inf)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        shapes = {k: Size(s) for k, s in arg_shapes.items()}
        degrees = next((shapes.pop(k) for k in ("df", "concentration") if k in shapes), Size())
        known = {"covariance_matrix", "precision_matrix", "scale_matrix", "rate_matrix", "scale_tril"}
        if len(shapes) != 1 or not set(shapes) <= known:
            raise ValueError(
                f"{cls.__name__}: give the shapes of '{cls._degrees}' and of one of {', '.join(cls._matrices)}, "
                f"scale_tril, but got {', '.join(arg_shapes)}."
            )
        (matrix,) = shapes.values()
        return broadcast_shape(degrees, matrix[:-2]), matrix[-2:]


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


class _Concentrated(Scaled):
    """The constructor and the parameters of those named by `concentration` and a scale or rate matrix."""

    arg_constraints = {
        "concentration": constraints.greater_than(0),
        "scale_matrix": constraints.positive_definite,
        "rate_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    _degrees = "concentration"
    _matrices = ("scale_matrix", "rate_matrix")
    concentration: Tensor
    scale_tril = derived(Scaled._scale_tril)
    scale_matrix = derived(Scaled._scale_matrix)
    rate_matrix = derived(Scaled._rate_matrix)

    def __init__(
        self,
        concentration: Tensor | float,
        scale_matrix: Tensor | None = None,
        rate_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._take_scaled(concentration, scale_matrix, rate_matrix, scale_tril, validate_args)


class WishartCholesky(_Concentrated):
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
        return (torch.lgamma(shapes + 0.5) - torch.lgamma(shapes) + 0.5 * _LOG_2).exp()

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
        size = self.event_shape[-1]
        logs = scale.diagonal(dim1=-2, dim2=-1).log() + 0.5 * (torch.digamma(widened(self._chi_shapes())) + _LOG_2)
        powers = torch.arange(size, 0, -1, dtype=logs.dtype, device=logs.device)
        jacobian = size * _LOG_2 + (powers * logs).sum(-1)
        whole = self._entropy_of_wishart(triangular.log_diagonal(scale))
        return (whole - jacobian).to(self.concentration.dtype)


class InverseWishart(_Concentrated):
    """Positive definite matrices whose inverse is Wishart with scale matrix `scale_matrix`⁻¹.

    Density: proportional to |X|^(-(ν + p + 1)/2) exp(-tr(scale_matrix X⁻¹)/2) for ν = `concentration`.
    Shapes: concentration (*batch) > p - 1, one of scale_matrix, rate_matrix (its inverse) and scale_tril (*batch, p, p)
    -> event (p, p).
    """

    support = constraints.positive_definite

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        factor = _over(self._factor, self._bartlett(sample_shape, reverse=True))
        return factor @ factor.mT

    def log_prob(self, value: Tensor) -> Tensor:
        return self._at_matrix(value, inverse=True)

    @property
    def mean(self) -> Tensor:
        factor = self.concentration - self.event_shape[-1] - 1
        exists = factor > 0
        return torch.where(exists, torch.where(exists, factor, 1.0).reciprocal(), torch.nan)[..., None, None] * (
            self.scale_matrix
        )

    @property
    def mode(self) -> Tensor:
        return self.scale_matrix / (self.concentration + self.event_shape[-1] + 1)[..., None, None]

    @property
    def variance(self) -> Tensor:
        scale, d = self.scale_matrix, (self.concentration - self.event_shape[-1])[..., None, None]
        diagonal = scale.diagonal(dim1=-2, dim2=-1)
        top = (d + 1) * scale.square() + (d - 1) * diagonal.unsqueeze(-1) * diagonal.unsqueeze(-2)
        exists = d > 3
        return torch.where(exists, top / torch.where(exists, d * (d - 1).square() * (d - 3), 1.0), torch.nan)

    def entropy(self) -> Tensor:
        return self._entropy().to(self.concentration.dtype)

    def _entropy(self) -> Tensor:
        log_scale = triangular.log_diagonal(widened(self._factor))
        size = self.event_shape[-1]
        # of the inverse, plus the expected log Jacobian of inverting
        return self._entropy_of_wishart(-log_scale) - (size + 1) * (self._mean_log_det() - 2 * log_scale)


class InverseWishartCholesky(_Concentrated):
    """Lower Cholesky factors of inverse Wishart matrices; parameters as those of `InverseWishart`."""

    support = constraints.lower_cholesky

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return _over(self._factor, self._bartlett(sample_shape, reverse=True))

    def log_prob(self, value: Tensor) -> Tensor:
        return self._at_factor(value, inverse=True)

    @property
    def mean(self) -> Tensor:
        shapes = self._chi_shapes(reverse=True)
        exists = shapes > 0.5
        safe = torch.where(exists, shapes, 1.0)
        mean = (torch.lgamma(safe - 0.5) - torch.lgamma(safe) - 0.5 * _LOG_2).exp()
        return self.scale_tril * torch.where(exists, mean, torch.nan).unsqueeze(-2)

    def entropy(self) -> Tensor:
        scale = widened(self._factor)
        size = self.event_shape[-1]
        log_scale = triangular.log_diagonal(scale)
        whole = self._entropy_of_wishart(-log_scale) - (size + 1) * (self._mean_log_det() - 2 * log_scale)
        chi = torch.digamma(widened(self._chi_shapes(reverse=True))) + _LOG_2
        logs = scale.diagonal(dim1=-2, dim2=-1).log() - 0.5 * chi
        powers = torch.arange(size, 0, -1, dtype=logs.dtype, device=logs.device)
        jacobian = size * _LOG_2 + (powers * logs).sum(-1)
        return (whole - jacobian).to(self.concentration.dtype)


def _over(factor: Tensor, lower: Tensor) -> Tensor:
    """F A⁻¹ of lower triangular matrices."""
    return triangular.solve_matrix(lower.mT, factor.mT, upper=True).mT
