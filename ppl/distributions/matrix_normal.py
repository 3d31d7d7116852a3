"""Normal matrices with correlated rows and columns."""

from __future__ import annotations

import torch
from torch import Size, Tensor

from ppl.distributions import constraints, noise
from ppl.distributions.distribution import ShapeLike
from ppl.distributions.family import Family
from ppl.distributions.multivariate_normal import LOG_2PI
from ppl.tensors import triangular


class MatrixNormal(Family):
    """A normal matrix: `loc + scale_tril_row @ Z @ scale_tril_column.T` with independent standard normal Z.

    Its columns are correlated among their n rows by `scale_tril_row`, its rows among the p columns by
    `scale_tril_column`: the covariance of the flattened matrix is the Kronecker product of the two squares.

    Shapes: loc (*batch, n, p) or a number, scale_tril_row (*batch, n, n), scale_tril_column (*batch, p, p) -> event (n, p).
    Source: Gupta & Nagar 1999, Matrix Variate Distributions, chapter 2.
    """

    arg_constraints = {
        "loc": constraints.real_matrix,
        "scale_tril_row": constraints.lower_cholesky,
        "scale_tril_column": constraints.lower_cholesky,
    }
    support = constraints.real_matrix
    has_rsample = True
    loc: Tensor
    scale_tril_row: Tensor
    scale_tril_column: Tensor

    def __init__(
        self,
        loc: Tensor | float,
        scale_tril_row: Tensor,
        scale_tril_column: Tensor,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(loc, Tensor):
            size = scale_tril_row.shape[-1], scale_tril_column.shape[-1]
            loc = torch.full(size, float(loc), dtype=scale_tril_row.dtype, device=scale_tril_row.device)
        n, p = loc.shape[-2:] if loc.dim() > 1 else (None, None)
        if n is None or scale_tril_row.shape[-2:] != (n, n) or scale_tril_column.shape[-2:] != (p, p):
            raise ValueError(
                "MatrixNormal: loc (*batch, n, p) needs scale_tril_row (*batch, n, n) and scale_tril_column "
                f"(*batch, p, p), but their shapes are {tuple(loc.shape)}, {tuple(scale_tril_row.shape)}, "
                f"{tuple(scale_tril_column.shape)}."
            )
        arguments = {"loc": loc, "scale_tril_row": scale_tril_row, "scale_tril_column": scale_tril_column}
        self._take(arguments, loc.shape[-2:], validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        rows, columns = (s.square().sum(-1) for s in (self.scale_tril_row, self.scale_tril_column))
        return rows.unsqueeze(-1) * columns.unsqueeze(-2)

    def entropy(self) -> Tensor:
        return 0.5 * self.event_shape.numel() * (1 + LOG_2PI) + self._log_scale()

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        z = noise.normal_of(self.loc, self.shape(sample_shape))
        return self.loc + self.scale_tril_row @ z @ self.scale_tril_column.mT

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        x = value - self.loc
        half = triangular.solve_matrix(self.scale_tril_row, x)
        z = triangular.solve_matrix(self.scale_tril_column, half.mT)
        return -0.5 * (z.square().sum((-1, -2)) + self.event_shape.numel() * LOG_2PI) - self._log_scale()

    def _log_scale(self) -> Tensor:
        """Half the log determinant of the covariance of the flattened matrix."""
        n, p = self.event_shape
        return p * triangular.log_diagonal(self.scale_tril_row) + n * triangular.log_diagonal(self.scale_tril_column)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        batch, _ = super().infer_shapes(**arg_shapes)
        return batch, Size(arg_shapes["loc"])[-2:]
