"""Normal vectors over the nodes of a graph."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import ShapeLike
from ppl.distributions.family import Family


class CAR(Family):
    """Conditional autoregression: each node is normal around a weighted mean of its neighbours.

    With adjacency A, D = diag(A 1), correlation ρ and conditional precision τ, the precision is τ (D - ρ A).

    Args: correlation, between -1 and 1. adj_matrix, symmetric and nonnegative, where every node has a neighbour; with
        is_sparse=True a torch sparse matrix without batch dims, whose zeros are then not multiplied by. Its eigenvalues
        are worked out when the object is made; it is not differentiated by.
    Shapes: loc (*batch, n), correlation and conditional_precision (*batch), adj_matrix (*batch, n, n); a draw
        (*batch, | n).
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "correlation": constraints.interval(-1.0, 1.0),
        "conditional_precision": constraints.positive,
        "adj_matrix": constraints.dependent(is_discrete=False, event_dim=2),
    }
    support = constraints.real_vector
    has_rsample = True
    loc: Tensor
    correlation: Tensor
    conditional_precision: Tensor
    adj_matrix: Tensor
    _eigenvalues: Tensor
    _degree: Tensor

    def __init__(
        self,
        loc: Tensor | float,
        correlation: Tensor | float,
        conditional_precision: Tensor | float,
        adj_matrix: Tensor,
        is_sparse: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        self.is_sparse = is_sparse
        dense = (adj_matrix.to_dense() if is_sparse else adj_matrix).detach()
        n = dense.shape[-1]
        if dense.dim() < 2 or dense.shape[-2] != n or (is_sparse and dense.dim() > 2):
            raise ValueError(
                f"CAR: argument 'adj_matrix' must be a square matrix{' without batch dims' if is_sparse else ''}, but its "
                f"shape is {tuple(dense.shape)}."
            )
        dtype = dense.dtype if dense.is_floating_point() else torch.get_default_dtype()
        loc = loc if isinstance(loc, Tensor) else torch.full((n,), float(loc), dtype=dtype, device=dense.device)
        if loc.dim() == 0 or loc.shape[-1] == 1:
            loc = loc.reshape(loc.shape or (1,)).expand((*loc.shape[:-1], n))
        if loc.shape[-1] != n:
            raise ValueError(
                f"CAR: argument 'loc' must have {n} entries, one for each node of adj_matrix, but its shape is "
                f"{tuple(loc.shape)}."
            )
        dense = dense.to(loc.dtype)
        arguments: dict[str, Any] = {
            "loc": loc,
            "correlation": correlation,
            "conditional_precision": conditional_precision,
            "adj_matrix": dense,
        }
        self._take(arguments, (n,), validate_args)
        degree = dense.sum(-1)
        if self._validate_args:
            _check_graph(dense, degree)
        root = degree.rsqrt()
        self._sparse = adj_matrix.to(loc.dtype) if is_sparse else None
        self._keep("_degree", degree, 1)
        self._keep("_eigenvalues", torch.linalg.eigvalsh(root[..., None] * dense * root[..., None, :]), 1)

    @property
    def precision_matrix(self) -> Tensor:
        """The precision τ (D - ρ A). Shapes: (*batch, n, n)."""
        inside = torch.diag_embed(self._degree) - self.correlation[..., None, None] * self.adj_matrix
        return self.conditional_precision[..., None, None] * inside

    @property
    def covariance_matrix(self) -> Tensor:
        """The inverse of the precision. Shapes: (*batch, n, n)."""
        return torch.cholesky_inverse(torch.linalg.cholesky(self.precision_matrix))

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.covariance_matrix.diagonal(dim1=-2, dim2=-1)

    def _log_det(self) -> Tensor:
        """Of the precision: D - ρ A = D^½ (I - ρ D^-½ A D^-½) D^½."""
        inside = torch.log1p(-self.correlation[..., None] * self._eigenvalues) + self._degree.log()
        return self.event_shape[0] * self.conditional_precision.log() + inside.sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density. Shapes: (*sample, *batch, n) -> (*sample, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        x = value - self.loc
        square = (self._degree * x.square()).sum(-1) - self.correlation * (x * self._neighbours(x)).sum(-1)
        constant = self.event_shape[0] * math.log(2 * math.pi)
        return 0.5 * (self._log_det() - constant - self.conditional_precision * square)

    def _neighbours(self, x: Tensor) -> Tensor:
        """A x, for each x of a batch."""
        if self._sparse is None:
            return (self.adj_matrix @ x[..., None]).squeeze(-1)
        return (self._sparse @ x.reshape(-1, x.shape[-1]).mT).mT.reshape(x.shape)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw, differentiably, by a Cholesky factor of the precision."""
        noise = torch.randn((*self.shape(sample_shape), 1), dtype=self.loc.dtype, device=self.loc.device)
        chol = torch.linalg.cholesky(self.precision_matrix)
        spread: Tensor = torch.linalg.solve_triangular(chol.mT, noise, upper=True)
        return self.loc + spread.squeeze(-1)

    def entropy(self) -> Tensor:
        """Expected -log density."""
        return 0.5 * (self.event_shape[0] * (1 + math.log(2 * math.pi)) - self._log_det())


def _check_graph(adj_matrix: Tensor, degree: Tensor) -> None:
    if not torch.equal(adj_matrix, adj_matrix.mT) or bool((adj_matrix < 0).any()):
        raise ValueError("CAR: argument 'adj_matrix' must be symmetric and nonnegative; write (A + A.mT) / 2.")
    if not bool((degree > 0).all()):
        raise ValueError("CAR: argument 'adj_matrix' has a node without neighbours; leave such nodes out.")
