"""Gaussian paths that are seen without noise: vector autoregressions and random walks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import lazy_property

from ppl.distributions.distribution import ShapeLike, broadcast_shape
from ppl.distributions.family import Family
from ppl.tensors.kalman import affine_path, noisy_path_moments

_LOG_2PI = math.log(2 * math.pi)
_FORMS = ("covariance_matrix", "precision_matrix", "scale_tril")


class GaussianStateSpace(Family):
    """Paths z_t = A z_{t-1} + ε_t for t = 1 … num_steps, with z_0 = `initial_value` (0 by default) and ε_t ~ N(0, Σ).

    States are columns here: A = `transition_matrix` stands on their left.

    Args: covariance_matrix, precision_matrix or scale_tril, exactly one of them, of the noise ε_t.
    Shapes: transition_matrix (*batch, n, n), the noise's matrix (*batch, n, n), initial_value (*batch, n); a draw
        (*batch, | num_steps, n).
    """

    arg_constraints = {
        "transition_matrix": constraints.independent(constraints.real, 2),
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
        "initial_value": constraints.real_vector,
    }
    support = constraints.independent(constraints.real, 2)
    has_rsample = True
    transition_matrix: Tensor
    initial_value: Tensor | None = None
    _tril: Tensor

    def __init__(
        self,
        num_steps: int,
        transition_matrix: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        initial_value: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        forms = zip(_FORMS, (covariance_matrix, precision_matrix, scale_tril), strict=True)
        given = {k: v for k, v in forms if v is not None}
        if len(given) != 1:
            raise ValueError(
                f"GaussianStateSpace: pass exactly one of {', '.join(_FORMS)}, but got {', '.join(given) or 'none'}."
            )
        ((form, matrix),) = given.items()
        n = transition_matrix.shape[-1]
        expected = {"transition_matrix": (n, n), form: (n, n), "initial_value": (n,)}
        arguments: dict[str, Any] = {
            "transition_matrix": transition_matrix,
            form: matrix,
            "initial_value": initial_value,
        }
        for name, shape in expected.items():
            tensor = arguments[name]
            if tensor is not None and tuple(tensor.shape[-len(shape) :]) != shape:
                raise ValueError(
                    f"GaussianStateSpace: argument '{name}' must have a shape that ends in {shape}, but it is "
                    f"{tuple(tensor.shape)}."
                )
        self.num_steps = num_steps
        self._take(arguments, (num_steps, n), validate_args)
        tril = matrix if form == "scale_tril" else _tril_of(form, matrix)
        self._keep("_tril", tril, 2)

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The Cholesky factor of the noise's covariance."""
        return self._tril

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The noise's covariance."""
        return self._tril @ self._tril.mT

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the noise's covariance."""
        return torch.cholesky_inverse(self._tril)

    def _start(self) -> Tensor:
        n = self.event_shape[-1]
        return self._tril.new_zeros((*self.batch_shape, n)) if self.initial_value is None else self.initial_value

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw, differentiably, in O(log num_steps) parallel steps."""
        noise = torch.randn((*self.shape(sample_shape), 1), dtype=self._tril.dtype, device=self._tril.device)
        noise = (self._tril[..., None, :, :] @ noise).squeeze(-1)
        return affine_path(self.transition_matrix.mT[..., None, :, :], noise, self._start())

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density. Shapes: (*sample, *batch, T, n) -> (*sample, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        t, n = self.event_shape
        batch = torch.broadcast_shapes(value.shape[:-2], self.batch_shape)
        value = value.expand((*batch, t, n))
        before = torch.cat((self._start().expand((*batch, n))[..., None, :], value[..., :-1, :]), -2)[..., :t, :]
        residual = value - before @ self.transition_matrix.mT
        white = torch.linalg.solve_triangular(self._tril, residual.mT, upper=False)
        log_det = self._tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        square: Tensor = white.square().sum((-1, -2))
        return -0.5 * (square + t * n * _LOG_2PI) - t * log_det

    @property
    def mean(self) -> Tensor:
        zero = self._tril.new_zeros(self.shape())
        return affine_path(self.transition_matrix.mT[..., None, :, :], zero, self._start())

    @property
    def variance(self) -> Tensor:
        _, covariance = noisy_path_moments(
            self.transition_matrix[..., None, :, :], self.covariance_matrix[..., None, :, :], self.num_steps
        )
        return covariance.diagonal(dim1=-2, dim2=-1).expand(self.shape())

    def entropy(self) -> Tensor:
        """Expected -log density."""
        t, n = self.event_shape
        return t * (0.5 * n * (1 + _LOG_2PI) + self._tril.diagonal(dim1=-2, dim2=-1).log().sum(-1))

    @classmethod
    def infer_shapes(cls, **arg_shapes: Any) -> tuple[Size, Size]:
        """Batch and event shape from the arguments' shapes; `num_steps` is the number itself."""
        steps = int(arg_shapes.pop("num_steps"))
        matrices = [Size(s)[:-2] for k, s in arg_shapes.items() if k != "initial_value"]
        starts = [Size(s)[:-1] for k, s in arg_shapes.items() if k == "initial_value"]
        return broadcast_shape(*matrices, *starts), Size((steps, arg_shapes["transition_matrix"][-1]))


class GaussianRandomWalk(Family):
    """Sums x_t = ε_1 + … + ε_t of independent normal increments ε_t ~ N(0, scale²), for t = 1 … num_steps.

    Shapes: scale (*batch); a draw (*batch, | num_steps).
    """

    arg_constraints = {"scale": constraints.positive}
    support = constraints.real_vector
    has_rsample = True
    scale: Tensor

    def __init__(self, scale: Tensor | float = 1.0, num_steps: int = 1, validate_args: bool | None = None) -> None:
        if num_steps < 1:
            raise ValueError(f"GaussianRandomWalk: argument 'num_steps' must be at least 1, but got {num_steps}.")
        self.num_steps = num_steps
        self._take({"scale": scale}, (num_steps,), validate_args)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw, differentiably."""
        noise = torch.randn(self.shape(sample_shape), dtype=self.scale.dtype, device=self.scale.device)
        return noise.cumsum(-1) * self.scale[..., None]

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density. Shapes: (*sample, *batch, T) -> (*sample, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        z = torch.cat((value[..., :1], value.diff(dim=-1)), -1) / self.scale[..., None]
        return -0.5 * z.square().sum(-1) - self.num_steps * (self.scale.log() + 0.5 * _LOG_2PI)

    @property
    def mean(self) -> Tensor:
        return self.scale.new_zeros(self.shape())

    @property
    def variance(self) -> Tensor:
        steps = torch.arange(1, self.num_steps + 1, dtype=self.scale.dtype, device=self.scale.device)
        spread: Tensor = self.scale.square()[..., None] * steps
        return spread

    def entropy(self) -> Tensor:
        """Expected -log density."""
        return (self.scale.log() + 0.5 * (1 + _LOG_2PI)) * self.num_steps

    @classmethod
    def infer_shapes(cls, **arg_shapes: Any) -> tuple[Size, Size]:
        """Batch and event shape from the scale's shape; `num_steps` is the number itself."""
        return Size(arg_shapes.get("scale", ())), Size((int(arg_shapes.get("num_steps", 1)),))


def _tril_of(form: str, matrix: Tensor) -> Tensor:
    """The Cholesky factor of a covariance that is given itself or by its inverse."""
    if form == "covariance_matrix":
        tril: Tensor = torch.linalg.cholesky(matrix)
        return tril
    # P = U Uᵀ with U upper triangular, by turning rows and columns around; then P⁻¹ = U⁻ᵀ U⁻¹
    upper = torch.linalg.cholesky(matrix.flip((-2, -1))).flip((-2, -1))
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    lower: Tensor = torch.linalg.solve_triangular(upper.mT, one, upper=False)
    return lower
