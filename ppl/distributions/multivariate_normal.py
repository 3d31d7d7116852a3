"""Normal vectors with a full covariance, given in one of three ways."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from ppl.distributions import noise
from ppl.distributions.distribution import ShapeLike
from ppl.distributions.family import Family, derived
from ppl.tensors import triangular

LOG_2PI = math.log(2 * math.pi)


def as_vector(loc: Tensor | float, matrix: Tensor) -> Tensor:
    """A number in place of a vector stands for the vector of that number, as long as the matrix has rows."""
    if isinstance(loc, Tensor) and loc.dim():
        return loc
    size = matrix.shape[-2:-1]
    if isinstance(loc, Tensor):
        return loc.expand(size)
    return torch.full(size, float(loc), dtype=matrix.dtype, device=matrix.device)


def check_sizes(owner: object, loc: Tensor, **matrices: Tensor) -> None:
    """Whether square matrices are as large as a vector is long.

    Raises: ValueError naming the matrix, both shapes and what was expected.
    """
    size = loc.shape[-1]
    for name, matrix in matrices.items():
        if matrix.shape[-2:] != (size, size):
            raise ValueError(
                f"{type(owner).__name__}: loc has {size} entries (shape {tuple(loc.shape)}), so '{name}' must be "
                f"{size} x {size}, but its shape is {tuple(matrix.shape)}."
            )


def exactly_one(owner: object, **choices: Tensor | None) -> tuple[str, Tensor]:
    """The one argument that was given of several that say the same.

    Raises: ValueError naming the choices where none or more than one was given.
    """
    given = {k: v for k, v in choices.items() if v is not None}
    if len(given) != 1:
        raise ValueError(
            f"{type(owner).__name__}: give exactly one of {', '.join(choices)}, but got {', '.join(given) or 'none'}."
        )
    ((name, matrix),) = given.items()
    if not isinstance(matrix, Tensor) or matrix.dim() < 2:
        shape = f"shape {tuple(matrix.shape)}" if isinstance(matrix, Tensor) else repr(matrix)
        raise ValueError(f"{type(owner).__name__}: '{name}' must be a tensor of at least two dims, but got {shape}.")
    return name, matrix


class MultivariateNormal(Family, torch.distributions.MultivariateNormal):
    """A normal vector with mean `loc` and one of covariance, precision or lower Cholesky factor of the covariance.

    A precision matrix is kept as it is: densities and draws come from its own factor, without an inversion.

    Shapes: loc (*batch, k) or a number, matrices (*batch, k, k) -> event (k,).
    Raises: ValueError where not exactly one matrix is given, or sizes differ.
    """

    _factor: Tensor  # lower triangular F in its own batch shape: covariance F Fᵀ, or precision Fᵀ F
    _by_precision: bool

    def __init__(
        self,
        loc: Tensor | float = 0.0,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        name, matrix = exactly_one(
            self, covariance_matrix=covariance_matrix, precision_matrix=precision_matrix, scale_tril=scale_tril
        )
        loc = as_vector(loc, matrix)
        check_sizes(self, loc, **{name: matrix})
        self._take({"loc": loc, name: matrix}, loc.shape[-1:], validate_args)
        self._by_precision = name == "precision_matrix"
        if self._by_precision:
            self._factor = triangular.upper_factor(matrix).mT
        else:
            self._factor = triangular.cholesky(matrix) if name == "covariance_matrix" else matrix

    @derived
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        lower = self._unbroadcasted_scale_tril
        return lower.expand(self.batch_shape + lower.shape[-2:])

    @derived
    def _unbroadcasted_scale_tril(self) -> Tensor:  # torch's divergences look for it
        return triangular.inverse(self._factor) if self._by_precision else self._factor

    @derived
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        lower = self.scale_tril
        return lower @ lower.mT

    @derived
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        return triangular.inverse_of_square(self.scale_tril)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale_tril.square().sum(-1)

    def entropy(self) -> Tensor:
        return (0.5 * self.event_shape[0] * (1 + LOG_2PI) - self._log_factor()).expand(self.batch_shape)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        z = noise.normal_of(self.loc, self.shape(sample_shape))
        if self._by_precision:
            return self.loc + triangular.solve(self._factor, z)
        return self.loc + triangular.multiply(self._factor, z)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        z = self._whiten(value - self.loc)
        return self._log_factor() - 0.5 * (z.square().sum(-1) + self.event_shape[0] * LOG_2PI)

    def _whiten(self, x: Tensor) -> Tensor:
        """A centred draw made standard normal."""
        return triangular.multiply(self._factor, x) if self._by_precision else triangular.solve(self._factor, x)

    def _log_factor(self) -> Tensor:
        """Half the log determinant of the precision."""
        half = triangular.log_diagonal(self._factor)
        return half if self._by_precision else -half
