"""Linear maps by matrix exponentials: always invertible, with the trace as log determinant."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ppl.distributions import constraints
from ppl.distributions.transforms.conditional import ConditionalTransformModule
from ppl.distributions.transforms.module import TransformModule
from ppl.distributions.transforms.networks import DenseNN, calmed
from ppl.distributions.transforms.transform import Transform


class MatrixExponentialMap(Transform):
    """y = exp(W) x with a given W (*, D, D): what `MatrixExponential` is, or its conditional twin at a context."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True
    weights: Tensor

    def __init__(self, weights: Tensor, normalization: str = "none", bound: float | None = None) -> None:
        super().__init__(cache_size=1)
        self.weights = weights
        self._bind(normalization, bound)

    def _bind(self, normalization: str, bound: float | None) -> None:
        if normalization not in ("none", "weight", "spectral"):
            raise ValueError(
                f"{type(self).__name__}: normalization must be 'none', 'weight' or 'spectral', but got {normalization!r}."
            )
        if normalization != "none" and not (bound is not None and bound > 0):
            raise ValueError(
                f"{type(self).__name__}: normalization {normalization!r} needs a positive bound, but got {bound}."
            )
        self.normalization, self.bound = normalization, bound

    def _weights(self) -> Tensor:
        """W, scaled down where its norm exceeds the bound."""
        if self.bound is None or self.normalization == "none":
            return self.weights
        order = 2 if self.normalization == "spectral" else "fro"
        norm = torch.linalg.matrix_norm(self.weights, order)
        scale: Tensor = self.bound / norm.clamp_min(self.bound)
        return self.weights * scale[..., None, None]

    def _transformed(self, x: Tensor, weights: Tensor, sign: float) -> tuple[Tensor, Tensor]:
        y = (torch.matrix_exp(sign * weights) @ x.unsqueeze(-1)).squeeze(-1)
        return y, weights.diagonal(dim1=-2, dim2=-1).sum(-1).expand(y.shape[:-1])

    def _call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._transformed(x, self._weights(), 1.0)

    def _inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._transformed(y, self._weights(), -1.0)


class MatrixExponential(MatrixExponentialMap, TransformModule):
    """y = exp(W) x. Near the identity at first.

    Args:   iterations, of the power series by which others compute the exponential; without effect here, where it is
            exact to rounding; normalization, "none", or "weight" or "spectral" to keep that norm of W (Frobenius, or the
            largest singular value) within `bound`.
    Source: Hoogeboom et al. 2020, section 3.
    """

    def __init__(
        self, input_dim: int, iterations: int = 8, normalization: str = "none", bound: float | None = None
    ) -> None:
        TransformModule.__init__(self, cache_size=1)
        self.input_dim, self.iterations = input_dim, iterations
        self._bind(normalization, bound)
        self.weights = nn.Parameter(0.01 * torch.randn(input_dim, input_dim))


class ConditionalMatrixExponential(ConditionalTransformModule):
    """`MatrixExponential` with W from a network of a context.

    Args: nn, a `DenseNN` of the context with one output of input_dim².
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(
        self,
        input_dim: int,
        nn: nn.Module,
        iterations: int = 8,
        normalization: str = "none",
        bound: float | None = None,
    ) -> None:
        super().__init__()
        MatrixExponentialMap(torch.empty(0), normalization, bound)  # for its errors
        self.input_dim, self.nn, self.iterations = input_dim, nn, iterations
        self.normalization, self.bound = normalization, bound

    def condition(self, context: Tensor) -> MatrixExponentialMap:
        """The transform of this context."""
        weights = self.nn(context).unflatten(-1, (self.input_dim, self.input_dim))
        return MatrixExponentialMap(weights, self.normalization, self.bound)


def matrix_exponential(
    input_dim: int, iterations: int = 8, normalization: str = "none", bound: float | None = None
) -> MatrixExponential:
    """A `MatrixExponential`."""
    return MatrixExponential(input_dim, iterations, normalization, bound)


def conditional_matrix_exponential(
    input_dim: int,
    context_dim: int,
    hidden_dims: Sequence[int] | None = None,
    iterations: int = 8,
    normalization: str = "none",
    bound: float | None = None,
) -> ConditionalMatrixExponential:
    """A `ConditionalMatrixExponential` with a network of its own: by default two layers of 10 units a variable."""
    hidden = [10 * input_dim] * 2 if hidden_dims is None else hidden_dims
    network = calmed(DenseNN(context_dim, hidden, (input_dim * input_dim,)))
    return ConditionalMatrixExponential(input_dim, network, iterations, normalization, bound)
