"""Splines with learnable knots, entry by entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ppl.distributions import constraints
from ppl.distributions.transforms.conditional import ConditionalTransformModule
from ppl.distributions.transforms.module import TransformModule
from ppl.distributions.transforms.networks import DenseNN, calmed
from ppl.distributions.transforms.spline_family import SplineFamily
from ppl.distributions.transforms.transform import Transform


class SplineMap(Transform):
    """Splines with given knots, entry by entry: what `Spline` is, and `ConditionalSpline` at a context.

    Shapes: unnormalized_widths and _heights (*, D, count_bins), _derivatives (*, D, count_bins - 1), and for order
    "linear" _lambdas (*, D, count_bins); the identity at zero.
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True
    sign = 1
    family: SplineFamily
    unnormalized_widths: Tensor
    unnormalized_heights: Tensor
    unnormalized_derivatives: Tensor
    unnormalized_lambdas: Tensor | None

    def __init__(
        self,
        family: SplineFamily,
        unnormalized_widths: Tensor,
        unnormalized_heights: Tensor,
        unnormalized_derivatives: Tensor,
        unnormalized_lambdas: Tensor | None = None,
    ) -> None:
        super().__init__(cache_size=1)
        self.family = family
        self.unnormalized_widths = unnormalized_widths
        self.unnormalized_heights = unnormalized_heights
        self.unnormalized_derivatives = unnormalized_derivatives
        self.unnormalized_lambdas = unnormalized_lambdas

    def _params(self) -> list[Tensor]:
        params = [self.unnormalized_widths, self.unnormalized_heights, self.unnormalized_derivatives]
        if self.unnormalized_lambdas is not None:
            params.append(self.unnormalized_lambdas)
        return [p.mT for p in params]

    def _call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.family.forward(x, *self._params())

    def _inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        params = self._params()
        x = self.family.inverse(y, *params)
        return x, self.family.forward(x, *params)[1]


class Spline(SplineMap, TransformModule):
    """A spline with learnable knots for each of `input_dim` entries; the identity outside the bound, and at first.

    Elementwise: `log_abs_det_jacobian` has the shape of x, whose last dim is input_dim.

    Args:   count_bins, between -bound and bound; order, "linear" or "quadratic" (rational pieces).
    Source: Durkan et al. 2019 (quadratic); Dolatabadi et al. 2020 (linear).
    """

    def __init__(self, input_dim: int, count_bins: int = 8, bound: float = 3.0, order: str = "linear") -> None:
        TransformModule.__init__(self, cache_size=1)
        self.input_dim = input_dim
        self.family = SplineFamily(count_bins, bound, order)
        self.unnormalized_widths = nn.Parameter(torch.zeros(input_dim, count_bins))
        self.unnormalized_heights = nn.Parameter(torch.zeros(input_dim, count_bins))
        self.unnormalized_derivatives = nn.Parameter(torch.zeros(input_dim, count_bins - 1))
        self.unnormalized_lambdas = nn.Parameter(torch.zeros(input_dim, count_bins)) if order == "linear" else None


class ConditionalSpline(ConditionalTransformModule):
    """A spline for each of `input_dim` entries, with knots from a network of a context.

    Args: nn, a `DenseNN` of the context with outputs of input_dim * (count_bins, count_bins, count_bins - 1), and a
          fourth of count_bins for order "linear".
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True
    value_dim = 1  # the last dim of a value is input_dim, though entry by entry

    def __init__(
        self, nn: nn.Module, input_dim: int, count_bins: int, bound: float = 3.0, order: str = "linear"
    ) -> None:
        super().__init__()
        self.nn = nn
        self.input_dim = input_dim
        self.family = SplineFamily(count_bins, bound, order)

    def condition(self, context: Tensor) -> SplineMap:
        """The transform of this context."""
        params = [p.unflatten(-1, (self.input_dim, -1)) for p in self.nn(context)]
        return SplineMap(self.family, *params)


def spline(input_dim: int, **kwargs: Any) -> Spline:
    """A `Spline`."""
    return Spline(input_dim, **kwargs)


def conditional_spline(
    input_dim: int,
    context_dim: int,
    hidden_dims: Sequence[int] | None = None,
    count_bins: int = 8,
    bound: float = 3.0,
    order: str = "linear",
) -> ConditionalSpline:
    """A `ConditionalSpline` with a network of its own: by default two layers of 10 units a variable."""
    hidden = [10 * input_dim] * 2 if hidden_dims is None else hidden_dims
    param_dims = [input_dim * p for p in SplineFamily(count_bins, bound, order).param_dims]
    return ConditionalSpline(calmed(DenseNN(context_dim, hidden, param_dims)), input_dim, count_bins, bound, order)
