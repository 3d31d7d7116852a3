"""Random positive definite matrices whose inverses are Wishart, and their Cholesky factors."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from ppl.distributions import constraints
from ppl.distributions.bartlett import LOG_2, Concentrated
from ppl.distributions.distribution import ShapeLike
from ppl.tensors import triangular
from ppl.tensors.precision import widened
from ppl.tensors.special import log_beta


class InverseWishart(Concentrated):
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
        return self._entropy_of_inverse().to(self.concentration.dtype)


class InverseWishartCholesky(Concentrated):
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
        mean = (log_beta(safe - 0.5, torch.full_like(safe, 0.5)) - 0.5 * math.log(2 * math.pi)).exp()
        return self.scale_tril * torch.where(exists, mean, torch.nan).unsqueeze(-2)

    def entropy(self) -> Tensor:
        chi = torch.digamma(widened(self._chi_shapes(reverse=True))) + LOG_2
        logs = widened(self._factor).diagonal(dim1=-2, dim2=-1).log() - 0.5 * chi
        return (self._entropy_of_inverse() - self._mean_log_jacobian(logs)).to(self.concentration.dtype)


def _over(factor: Tensor, lower: Tensor) -> Tensor:
    """F A⁻¹ of lower triangular matrices."""
    return triangular.solve_matrix(lower.mT, factor.mT, upper=True).mT
