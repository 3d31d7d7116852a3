"""Coupling transforms: one part of the variables goes through increasing maps that depend on the other part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Size, Tensor, nn

from ppl.distributions import constraints
from ppl.distributions.transforms.conditional import ConditionalTransformModule
from ppl.distributions.transforms.elementwise_spline import Spline
from ppl.distributions.transforms.increasing import AffineFamily, Increasing
from ppl.distributions.transforms.module import TransformModule
from ppl.distributions.transforms.networks import ConditionalDenseNN, DenseNN, calmed
from ppl.distributions.transforms.spline_family import SplineFamily


class Coupling(TransformModule):
    """y = (x₁, f(x₂; network(x₁))) with f increasing: the base of the coupling transforms.

    Both directions take one pass of the network.

    Args: split_dim, the size of the first part; hypernet, its network; family, the maps f; dim, the event dim that is
          split, with all dims to its right in the event; context, of a network that takes one.
    """

    bijective = True

    def __init__(
        self, split_dim: int, hypernet: nn.Module, family: Increasing, dim: int = -1, context: Tensor | None = None
    ) -> None:
        if dim >= 0:
            raise ValueError(f"{type(self).__name__}: dim counts event dims from the right and is negative, got {dim}.")
        super().__init__(cache_size=1)
        self.split_dim, self.dim = split_dim, dim
        self.hypernet = hypernet
        self.family = family
        self.context = context

    @property
    def domain(self) -> Any:  # type: ignore[override]
        """Real, with -dim event dims."""
        return constraints.independent(constraints.real, -self.dim)

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        """Real, with -dim event dims."""
        return constraints.independent(constraints.real, -self.dim)

    def _split(self, value: Tensor) -> tuple[Tensor, Tensor]:
        size = value.shape[self.dim]
        if not 0 < self.split_dim < size:
            raise ValueError(
                f"{type(self).__name__}: split_dim {self.split_dim} leaves nothing on one side of a dim of size {size}."
            )
        first, second = value.split([self.split_dim, size - self.split_dim], self.dim)
        return first, second

    def _parameters_of(self, first: Tensor, count: int) -> list[Tensor]:
        """The parameters of the maps of `count` variables, by the network."""
        flat = first.flatten(self.dim)
        found = self.hypernet(flat) if self.context is None else self.hypernet(flat, self.context)
        found = (found,) if isinstance(found, Tensor) else found
        return [self._shaped(p, count) for p in found]

    def _shaped(self, param: Tensor, count: int) -> Tensor:
        return param

    def _joined(self, first: Tensor, second: Tensor, shape: Size) -> Tensor:
        second = second.reshape(*second.shape[:-1], *shape[self.dim :])
        batch = torch.broadcast_shapes(first.shape[: self.dim], second.shape[: self.dim])
        return torch.cat(
            [first.expand(*batch, *first.shape[self.dim :]), second.expand(*batch, *shape[self.dim :])], self.dim
        )

    def _call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self._split(x)
        flat = second.flatten(self.dim)
        y, log_slope = self.family.forward(flat, *self._parameters_of(first, flat.shape[-1]))
        return self._joined(first, y, second.shape), log_slope.sum(-1)

    def _inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self._split(y)
        flat = second.flatten(self.dim)
        params = self._parameters_of(first, flat.shape[-1])
        x = self.family.inverse(flat, *params)
        return self._joined(first, x, second.shape), self.family.forward(x, *params)[1].sum(-1)


class AffineCoupling(Coupling):
    """x₂ is scaled and shifted by a network's function of x₁.

    Args:   split_dim, the size of x₁; hypernet, a `DenseNN` with as many inputs as x₁ has entries and two outputs of as
            many as x₂ has; dim, the event dim that is split; log_scale_min_clip and log_scale_max_clip, bounds of the
            log scale.
    Source: Real NVP, Dinh et al. 2017, equations 4 and 5.
    """

    def __init__(
        self,
        split_dim: int,
        hypernet: nn.Module,
        *,
        dim: int = -1,
        log_scale_min_clip: float = -5.0,
        log_scale_max_clip: float = 3.0,
        context: Tensor | None = None,
    ) -> None:
        super().__init__(split_dim, hypernet, AffineFamily(log_scale_min_clip, log_scale_max_clip), dim, context)


class SplineCoupling(Coupling):
    """x₂ goes through splines with knots from a network's function of x₁, and x₁ through splines with knots of its own.

    Args:   split_dim, the size of x₁; hypernet, a `DenseNN` with split_dim inputs and outputs of (input_dim - split_dim)
            * (count_bins, count_bins, count_bins - 1), and a fourth of count_bins for order "linear"; bound, of the
            knots, on both sides; order, "linear" or "quadratic"; identity, leave x₁ as it is.
    Source: Durkan et al. 2019 (quadratic); Dolatabadi et al. 2020 (linear).
    """

    def __init__(
        self,
        input_dim: int,
        split_dim: int,
        hypernet: nn.Module,
        count_bins: int = 8,
        bound: float = 3.0,
        order: str = "linear",
        identity: bool = False,
        context: Tensor | None = None,
        lower_spline: Spline | None = None,
    ) -> None:
        super().__init__(split_dim, hypernet, SplineFamily(count_bins, bound, order), -1, context)
        if lower_spline is None and not identity:
            lower_spline = Spline(split_dim, count_bins, bound, order)
        self.lower_spline = lower_spline

    def _shaped(self, param: Tensor, count: int) -> Tensor:
        shaped: Tensor = param.unflatten(-1, (-1, count))
        return shaped

    def _call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = super()._call_and_log_det(x)
        if self.lower_spline is None:
            return y, log_det
        first, log_slope = self.lower_spline._call_and_log_det(x[..., : self.split_dim])
        return self._joined(first, y[..., self.split_dim :], y[..., self.split_dim :].shape), log_det + log_slope.sum(
            -1
        )

    def _inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.lower_spline is None:
            return super()._inverse_and_log_det(y)
        first, log_slope = self.lower_spline._inverse_and_log_det(y[..., : self.split_dim])
        x, log_det = super()._inverse_and_log_det(torch.cat([first, y[..., self.split_dim :]], -1))
        return x, log_det + log_slope.sum(-1)


class ConditionalAffineCoupling(ConditionalTransformModule):
    """`AffineCoupling` with a network that also reads a context; takes its arguments by keyword."""

    bijective = True

    def __init__(self, split_dim: int, hypernet: nn.Module, **kwargs: Any) -> None:
        super().__init__()
        self.split_dim, self.hypernet, self.kwargs = split_dim, hypernet, kwargs
        self.domain = self.codomain = constraints.independent(constraints.real, -kwargs.get("dim", -1))

    def condition(self, context: Tensor) -> AffineCoupling:
        """The transform of this context."""
        return AffineCoupling(self.split_dim, self.hypernet, context=context, **self.kwargs)


class ConditionalSplineCoupling(ConditionalTransformModule):
    """`SplineCoupling` with a network that also reads a context; takes its arguments by keyword.

    The splines of the first part, where it is not left alone, are the same for all contexts.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(
        self, input_dim: int, split_dim: int, hypernet: nn.Module, identity: bool = False, **kwargs: Any
    ) -> None:
        super().__init__()
        self.input_dim, self.split_dim, self.hypernet, self.kwargs = input_dim, split_dim, hypernet, kwargs
        self.lower_spline = None if identity else Spline(split_dim, **kwargs)

    def condition(self, context: Tensor) -> SplineCoupling:
        """The transform of this context."""
        return SplineCoupling(
            self.input_dim,
            self.split_dim,
            self.hypernet,
            identity=self.lower_spline is None,
            context=context,
            lower_spline=self.lower_spline,
            **self.kwargs,
        )


def affine_coupling(
    input_dim: int | Sequence[int],
    hidden_dims: Sequence[int] | None = None,
    split_dim: int | None = None,
    dim: int = -1,
    **kwargs: Any,
) -> AffineCoupling:
    """An `AffineCoupling` with a network of its own: by default one layer of 10 units a variable, split in the middle.

    Args: input_dim, the size of the last dim, or the event shape (its dims from `dim` on count).
    """
    split, before, after, hidden = _sizes(input_dim, hidden_dims, split_dim, dim, 1)
    return AffineCoupling(split, calmed(DenseNN(before, hidden, (after, after))), dim=dim, **kwargs)


def conditional_affine_coupling(
    input_dim: int | Sequence[int],
    context_dim: int,
    hidden_dims: Sequence[int] | None = None,
    split_dim: int | None = None,
    dim: int = -1,
    **kwargs: Any,
) -> ConditionalAffineCoupling:
    """A `ConditionalAffineCoupling` with a network of its own; arguments as of `affine_coupling`."""
    split, before, after, hidden = _sizes(input_dim, hidden_dims, split_dim, dim, 1)
    network = calmed(ConditionalDenseNN(before, context_dim, hidden, (after, after)))
    return ConditionalAffineCoupling(split, network, dim=dim, **kwargs)


def spline_coupling(
    input_dim: int,
    split_dim: int | None = None,
    hidden_dims: Sequence[int] | None = None,
    count_bins: int = 8,
    bound: float = 3.0,
    order: str = "linear",
    identity: bool = False,
) -> SplineCoupling:
    """A `SplineCoupling` with a network of its own: by default two layers of 10 units a variable, split in the middle."""
    split, before, after, hidden = _sizes(input_dim, hidden_dims, split_dim, -1, 2)
    param_dims = [after * p for p in SplineFamily(count_bins, bound, order).param_dims]
    network = calmed(DenseNN(before, hidden, param_dims))
    return SplineCoupling(input_dim, split, network, count_bins, bound, order, identity)


def conditional_spline_coupling(
    input_dim: int,
    context_dim: int,
    split_dim: int | None = None,
    hidden_dims: Sequence[int] | None = None,
    count_bins: int = 8,
    bound: float = 3.0,
    order: str = "linear",
    identity: bool = False,
) -> ConditionalSplineCoupling:
    """A `ConditionalSplineCoupling` with a network of its own; arguments as of `spline_coupling`."""
    split, before, after, hidden = _sizes(input_dim, hidden_dims, split_dim, -1, 2)
    param_dims = [after * p for p in SplineFamily(count_bins, bound, order).param_dims]
    network = calmed(ConditionalDenseNN(before, context_dim, hidden, param_dims))
    return ConditionalSplineCoupling(
        input_dim, split, network, identity=identity, count_bins=count_bins, bound=bound, order=order
    )


def _sizes(
    input_dim: int | Sequence[int], hidden_dims: Sequence[int] | None, split_dim: int | None, dim: int, layers: int
) -> tuple[int, int, int, Sequence[int]]:
    """Where to split, the entries before and after, and the hidden layers."""
    shape = (input_dim,) if isinstance(input_dim, int) else tuple(input_dim)
    if len(shape) < -dim:
        raise ValueError(f"dim {dim} needs an event shape of {-dim} dims, but input_dim is {input_dim}.")
    size, rest = shape[dim], math.prod(shape[len(shape) + dim + 1 :])
    split = size // 2 if split_dim is None else split_dim
    if not 0 < split < size:
        raise ValueError(f"a coupling needs two parts, but split_dim {split} of {size} leaves nothing on one side.")
    hidden = [10 * size * rest] * layers if hidden_dims is None else hidden_dims
    return split, split * rest, (size - split) * rest, hidden
