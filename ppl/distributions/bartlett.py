"""What the Wishart kin share: degrees of freedom, a scale given in one of three ways, Bartlett's factors."""

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

LOG_2 = math.log(2.0)


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
        """log of 2^(ν p / 2) Γ_p(ν / 2), with the multivariate gamma function."""
        size = self.event_shape[-1]
        half = 0.5 * widened(self._degrees_of_freedom())
        log_gamma = torch.lgamma(widened(self._chi_shapes())).sum(-1) + 0.25 * size * (size - 1) * math.log(math.pi)
        return size * half * LOG_2 + log_gamma

    def _mean_log_det(self) -> Tensor:
        """The expected log determinant of a Wishart matrix of unit scale."""
        return torch.digamma(widened(self._chi_shapes())).sum(-1) + self.event_shape[-1] * LOG_2

    def _mean_log_jacobian(self, log_diagonal: Tensor) -> Tensor:
        """What `_log_cholesky` is on average, from the expected logarithms of the diagonal entries."""
        size = self.event_shape[-1]
        powers = torch.arange(size, 0, -1, dtype=log_diagonal.dtype, device=log_diagonal.device)
        return size * LOG_2 + (powers * log_diagonal).sum(-1)

    def _entropy_of_wishart(self, log_scale: Tensor) -> Tensor:
        """The entropy of a Wishart matrix whose scale has a factor of this log determinant."""
        degrees, size = widened(self._degrees_of_freedom()), self.event_shape[-1]
        expected = self._mean_log_det()
        normaliser = self._log_normaliser()
        return normaliser - 0.5 * (degrees - size - 1) * expected + 0.5 * degrees * size + (size + 1) * log_scale

    def _entropy_of_inverse(self) -> Tensor:
        """The entropy of an inverse Wishart matrix: that of its inverse, plus the mean log Jacobian of inverting."""
        log_scale = triangular.log_diagonal(widened(self._factor))
        size = self.event_shape[-1]
        return self._entropy_of_wishart(-log_scale) - (size + 1) * (self._mean_log_det() - 2 * log_scale)

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
        return self._mean_log_jacobian(factor.diagonal(dim1=-2, dim2=-1).log())

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


class Concentrated(Scaled):
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
