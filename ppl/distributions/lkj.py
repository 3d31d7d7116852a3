"""Random correlation matrices, and their Cholesky factors."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions import constraints, noise
from ppl.distributions.distribution import ShapeLike
from ppl.distributions.family import Family
from ppl.tensors import triangular
from ppl.tensors.precision import widened
from ppl.tensors.special import log_beta


class _OverCorrelations(Family):
    """What the two laws share: the parameters, the factor's sampler, the normaliser.

    With b_i = concentration + (dim - 1 - i) / 2, row i = 1, 2, … of the factor has a squared diagonal entry that is
    Beta(b_i, i / 2), and a uniform direction, independent of the other rows.
    """

    arg_constraints = {"concentration": constraints.positive}
    has_rsample = True
    concentration: Tensor

    def __init__(
        self,
        dim: int | None = None,
        concentration: Tensor | float = 1.0,
        sample_method: str = "onion",
        validate_args: bool | None = None,
        *,
        dimension: int | None = None,
    ) -> None:
        name = type(self).__name__
        size = dim if dimension is None else dimension
        if (dim is None) == (dimension is None) or isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(
                f"{name}: 'dim' (or 'dimension') must be one whole number of at least 1, but got dim={dim!r}, "
                f"dimension={dimension!r}."
            )
        if sample_method not in ("onion", "cvine"):
            raise ValueError(f"{name}: 'sample_method' must be 'onion' or 'cvine', but got {sample_method!r}.")
        self.dim, self.sample_method = size, sample_method
        self._take({"concentration": concentration}, Size((size, size)), validate_args)

    @property
    def dimension(self) -> int:
        """The number of rows; `dim` by its other name."""
        return self.dim

    def _draw_factor(self, sample_shape: ShapeLike) -> Tensor:
        """Draw a factor; a diagonal entry too small for its dtype is the smallest normal number."""
        draw = self._onion if self.sample_method == "onion" else self._cvine
        factor: Tensor = draw(Size(sample_shape) + self.batch_shape)
        return factor

    def _rows(self) -> Tensor:
        """1, …, dim - 1."""
        return torch.arange(1, self.dim, dtype=self.concentration.dtype, device=self.concentration.device)

    def _shapes(self) -> Tensor:
        """b_i of rows 1, …, dim - 1."""
        return self.concentration.unsqueeze(-1) + 0.5 * (self.dim - 1 - self._rows())

    def _onion(self, shape: Size) -> Tensor:
        """Row by row: a normal vector below the diagonal, divided by its length together with a gamma draw."""
        size, tiny = self.dim, torch.finfo(self.concentration.dtype).tiny
        below = noise.normal_of(self.concentration, (*shape, size, size)).tril(-1)
        gamma = torch._standard_gamma(self._shapes().expand(*shape, size - 1)).clamp(min=tiny)
        diagonal = torch.nn.functional.pad((2 * gamma).sqrt(), (1, 0), value=1.0)
        length = (below.square().sum(-1) + diagonal.square()).sqrt()
        on = (diagonal / length).clamp(min=tiny)
        return below / length.unsqueeze(-1) + torch.diag_embed(on)

    def _cvine(self, shape: Size) -> Tensor:
        """Partial correlations of the columns of a C-vine, independent and symmetric beta, then sticks broken by them."""
        size, dtype = self.dim, self.concentration.dtype
        row, column = torch.tril_indices(size, size, -1, device=self.concentration.device)
        shapes = self.concentration.unsqueeze(-1) + 0.5 * (size - 2 - column).to(dtype)
        tiny = torch.finfo(dtype).tiny
        first, second = (noise.log_gamma(shapes.expand(*shape, len(row))) for _ in range(2))
        half_logit = 0.5 * (first - second)
        partial = half_logit.tanh()
        # log of 1 - partial², without the difference
        distance = half_logit.abs()
        log_rest = math.log(4.0) - 2 * (distance + torch.nn.functional.softplus(-2 * distance))
        flat = self.concentration.new_zeros((*shape, size * size))
        index = (row * size + column).expand(*shape, -1)
        partials = flat.scatter(-1, index, partial).unflatten(-1, (size, size))
        logs = flat.scatter(-1, index, 0.5 * log_rest).unflatten(-1, (size, size))
        left = (
            torch.nn.functional.pad(logs.cumsum(-1)[..., :-1], (1, 0)).exp().clamp(min=tiny)
        )  # of the stick, before each column
        eye = torch.eye(size, dtype=dtype, device=self.concentration.device)
        factor: Tensor = (partials + eye) * left.tril()
        return factor

    def _log_normaliser(self) -> Tensor:
        """The log of the integral of the determinant to the power concentration - 1 (Lewandowski et al. 2009)."""
        if self.dim == 1:
            return torch.zeros_like(self.concentration)
        half = 0.5 * widened(self._rows())
        shapes = widened(self._shapes())
        # π^(i/2) Γ(b) / Γ(b + i/2) = π^(i/2) B(b, i/2) / Γ(i/2)
        terms: Tensor = half * math.log(math.pi) + log_beta(shapes, half.expand_as(shapes)) - torch.lgamma(half)
        return terms.sum(-1)

    def _mean_log_square(self) -> Tensor:
        """The expected log of the squared diagonal entries of rows 1, …, dim - 1."""
        shapes = widened(self._shapes())
        return torch.digamma(shapes) - torch.digamma(shapes + 0.5 * widened(self._rows()))

    @classmethod
    def infer_shapes(cls, **arg_shapes: Any) -> tuple[Size, Size]:
        """Batch and event shape; `dim` is the number itself, since a shape cannot tell it."""
        size = arg_shapes.pop("dimension", arg_shapes.pop("dim", None))
        if not isinstance(size, int):
            raise ValueError(
                f"{cls.__name__}: the event shape follows from a number; write infer_shapes(dim=3, concentration=(2,))."
            )
        arg_shapes.pop("sample_method", None)
        batch, _ = super().infer_shapes(**arg_shapes)
        return batch, Size((size, size))


class LKJCholesky(_OverCorrelations):
    """Lower Cholesky factors of LKJ correlation matrices of size `dim`.

    Density: proportional to the product over rows i = 1, 2, … (the first is 0) of L_ii^(dim - 1 - i + 2 (η - 1)), for a
    concentration η > 0. Draws are reparameterised.

    Args: sample_method, "onion" (a row at a time) or "cvine" (a partial correlation at a time): the same law.
    Shapes: concentration (*batch) -> event (dim, dim).
    Source: Lewandowski, Kurowicka & Joe 2009, Generating random correlation matrices based on vines and extended onion.
    """

    support = constraints.corr_cholesky

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self._draw_factor(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        inside = triangular.is_cholesky_factor(value) & (
            (widened(value).square().sum(-1) - 1).abs() < 20 * self.dim * torch.finfo(value.dtype).eps
        ).all(-1)
        diagonal = widened(value).diagonal(dim1=-2, dim2=-1)[..., 1:]
        logs = torch.where(inside.unsqueeze(-1), diagonal, 1.0).log()
        total = (self._powers() * logs).sum(-1) - self._log_normaliser()
        return torch.where(inside, total.to(self.concentration.dtype), -torch.inf)

    def _powers(self) -> Tensor:
        """The powers of the diagonal entries after the first."""
        return self.dim - 1 - widened(self._rows()) + 2 * (widened(self.concentration).unsqueeze(-1) - 1)

    @property
    def mean(self) -> Tensor:
        shapes, half = self._shapes(), 0.5 * self._rows().expand(*self.batch_shape, -1)
        a_half = torch.full_like(half, 0.5)
        return torch.diag_embed(
            torch.nn.functional.pad((log_beta(shapes, a_half) - log_beta(shapes + half, a_half)), (1, 0)).neg().exp()
        )

    @property
    def variance(self) -> Tensor:
        spread = 1 / (2 * self.concentration + (self.dim - 1))
        below = spread[..., None, None].expand(self.shape()).tril(-1)
        squares = torch.nn.functional.pad(self._shapes() / (self._shapes() + 0.5 * self._rows()), (1, 0), value=1.0)
        return below + torch.diag_embed(squares - self.mean.diagonal(dim1=-2, dim2=-1).square())

    def entropy(self) -> Tensor:
        expected = (self._powers() * 0.5 * self._mean_log_square()).sum(-1)
        return (self._log_normaliser() - expected).to(self.concentration.dtype)


class LKJ(_OverCorrelations):
    """Correlation matrices of size `dim` with density proportional to the determinant to the power concentration - 1.

    At concentration 1 all correlation matrices are alike; above, the identity is preferred. Each entry off the diagonal
    is 2 Beta(b, b) - 1 with b = concentration - 1 + dim / 2. Draws are reparameterised.

    Args: sample_method, "onion" (a row at a time) or "cvine" (a partial correlation at a time): the same law.
    Shapes: concentration (*batch) -> event (dim, dim).
    Source: Lewandowski, Kurowicka & Joe 2009, Generating random correlation matrices based on vines and extended onion.
    """

    support = constraints.corr_matrix

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        factor = self._draw_factor(sample_shape)
        square = factor @ factor.mT
        eye = torch.eye(self.dim, dtype=torch.bool, device=factor.device)
        return torch.where(eye, 1.0, square)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        factor, inside = triangular.guarded_cholesky(widened(value))
        inside = inside & ((value.diagonal(dim1=-2, dim2=-1) - 1).abs() < 1e-6).all(-1)
        power = widened(self.concentration) - 1
        total = 2 * power * triangular.log_diagonal(factor) - self._log_normaliser()
        return torch.where(inside, total.to(self.concentration.dtype), -torch.inf)

    @property
    def mean(self) -> Tensor:
        eye = torch.eye(self.dim, dtype=self.concentration.dtype, device=self.concentration.device)
        return eye.expand(self.shape())

    @property
    def mode(self) -> Tensor:
        eye = self.mean
        return torch.where((self.concentration > 1)[..., None, None], eye, torch.nan)

    @property
    def variance(self) -> Tensor:
        spread = 1 / (2 * self.concentration + (self.dim - 1))
        return spread[..., None, None] * (1 - self.mean)

    def entropy(self) -> Tensor:
        expected = (widened(self.concentration) - 1) * self._mean_log_square().sum(-1)
        return (self._log_normaliser() - expected).to(self.concentration.dtype)
