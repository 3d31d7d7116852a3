"""Student's t over vectors."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from ppl.distributions import constraints, noise
from ppl.distributions.distribution import ShapeLike
from ppl.distributions.family import Family, derived
from ppl.distributions.multivariate_normal import as_vector, check_sizes, exactly_one
from ppl.tensors import triangular
from ppl.tensors.precision import widened
from ppl.tensors.special import log_beta


class MultivariateStudentT(Family):
    """Student's t over vectors: a normal vector with Cholesky factor `scale_tril`, divided by sqrt(chi²(df) / df).

    Density: Γ((df+k)/2) / (Γ(df/2) (df π)^(k/2) |L|) · (1 + |L⁻¹(x - loc)|²/df)^(-(df+k)/2).
    Shapes: df (*batch), loc (*batch, k) or a number, scale_tril (*batch, k, k) -> event (k,).
    """

    arg_constraints = {
        "df": constraints.positive,
        "loc": constraints.real_vector,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector
    has_rsample = True
    df: Tensor
    loc: Tensor
    scale_tril: Tensor

    def __init__(
        self,
        df: Tensor | float,
        loc: Tensor | float = 0.0,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        _, scale_tril = exactly_one(self, scale_tril=scale_tril)
        loc = as_vector(loc, scale_tril)
        check_sizes(self, loc, scale_tril=scale_tril)
        self._take({"df": df, "loc": loc, "scale_tril": scale_tril}, loc.shape[-1:], validate_args)
        self._factor = scale_tril

    @derived
    def covariance_matrix(self) -> Tensor:
        """The covariance: df / (df - 2) times the square of the factor; infinite on the diagonal up to df = 2."""
        return _over(self.df[..., None, None], self.scale_tril @ self.scale_tril.mT)

    @derived
    def precision_matrix(self) -> Tensor:
        """The inverse of the square of the factor."""
        return triangular.inverse_of_square(self.scale_tril)

    @property
    def mean(self) -> Tensor:
        return torch.where((self.df > 1).unsqueeze(-1), self.loc, torch.nan)

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return _over(self.df.unsqueeze(-1), self.scale_tril.square().sum(-1))

    def entropy(self) -> Tensor:
        half, k = 0.5 * self.df, self.event_shape[0]
        spread = torch.digamma(half + 0.5 * k) - torch.digamma(half)
        return (half + 0.5 * k) * spread - self._log_height()

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        shape = self.shape(sample_shape)
        z = noise.normal_of(self.loc, shape)
        half = (0.5 * self.df).expand(shape[:-1])
        mixing = (torch._standard_gamma(half) / half).clamp(min=torch.finfo(half.dtype).tiny)
        return self.loc + triangular.multiply(self._factor, z) * mixing.rsqrt().unsqueeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        k = self.event_shape[0]
        z = triangular.solve(self._factor, value - self.loc)
        # the norm first and its square by the root of df: neither over- nor underflows where the density does not
        ratio = torch.linalg.vector_norm(widened(z), dim=-1) * self.df.rsqrt()
        large = ratio > 1e4
        squared = torch.where(large, 1.0, ratio).square()
        safe = torch.where(large, ratio, 1.0)
        growth = torch.where(large, 2 * safe.log() + safe.pow(-2).log1p(), squared.log1p())
        return self._log_height() - (0.5 * (self.df + k) * growth).to(self.df.dtype)

    def _log_height(self) -> Tensor:
        """The log density at the mode."""
        k = self.event_shape[0]
        if k == 0:
            return torch.zeros_like(self.df)
        half = 0.5 * self.df
        constant = math.lgamma(0.5 * k) - 0.5 * k * math.log(math.pi)
        return (
            constant
            - log_beta(half, torch.full_like(half, 0.5 * k))
            - 0.5 * k * self.df.log()
            - (triangular.log_diagonal(self._factor))
        )


def _over(df: Tensor, square: Tensor) -> Tensor:
    """df / (df - 2) times a square; infinite up to df = 2, undefined (NaN) up to 1."""
    finite = df > 2
    scale = torch.where(finite, df / torch.where(finite, df - 2, 1.0), 1.0)
    return torch.where(finite, scale * square, torch.where(df > 1, torch.inf, torch.nan))
