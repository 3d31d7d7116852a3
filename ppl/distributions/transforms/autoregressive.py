"""Autoregressive transforms: each variable goes through an increasing map that depends on the variables before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ppl.distributions import constraints
from ppl.distributions.transforms.conditional import ConditionalTransformModule
from ppl.distributions.transforms.increasing import (
    AffineFamily,
    GatedFamily,
    Increasing,
    NeuralFamily,
    PolynomialFamily,
)
from ppl.distributions.transforms.module import TransformModule
from ppl.distributions.transforms.networks import AutoRegressiveNN, ConditionalAutoRegressiveNN, calmed
from ppl.distributions.transforms.spline_family import SplineFamily


class Autoregressive(TransformModule):
    """y_i = f(x_i; network(x_before_i)) with f increasing: the base of the autoregressive transforms.

    Forward takes one pass of the network, the inverse one for each variable, in the order of the network's
    `permutation`. What was made by the one is remembered for the other.

    Args: autoregressive_nn, an `AutoRegressiveNN` or a module like it; family, the maps f; context, of a network that
          takes one.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, autoregressive_nn: nn.Module, family: Increasing, context: Tensor | None = None) -> None:
        super().__init__(cache_size=1)
        self.autoregressive_nn = autoregressive_nn
        self.family = family
        self.context = context

    def _parameters_of(self, x: Tensor) -> Sequence[Tensor]:
        """The parameters of the maps, by the network."""
        found = self.autoregressive_nn(x) if self.context is None else self.autoregressive_nn(x, self.context)
        return (found,) if isinstance(found, Tensor) else found

    def _call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_slope = self.family.forward(x, *self._parameters_of(x))
        return y, log_slope.sum(-1)

    def _inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        order: Any = self.autoregressive_nn.permutation
        x = torch.zeros_like(y)
        variables = torch.arange(y.shape[-1], device=y.device)
        params: Sequence[Tensor] = ()
        for place in range(y.shape[-1]):
            which = order[place : place + 1]
            params = self._parameters_of(x)
            column = self.family.inverse(y.index_select(-1, which), *(p.index_select(-1, which) for p in params))
            x = torch.where(variables == which, column, x)
        return x, self.family.forward(x, *params)[1].sum(-1)  # the last variable is no network's input


class AffineAutoregressive(Autoregressive):
    """y = loc + exp(log_scale) x, where loc and log scale depend on the variables before.

    Args:   autoregressive_nn, with param_dims (1, 1); log_scale_min_clip and log_scale_max_clip, bounds of the log
            scale; stable, use y = g x + (1 - g) loc with g = sigmoid(logit + sigmoid_bias) instead.
    Source: inverse autoregressive flow, Kingma et al. 2016, equations 10 and (stable) 14; its inverse is the masked
            autoregressive flow of Papamakarios et al. 2017.
    """

    def __init__(
        self,
        autoregressive_nn: nn.Module,
        log_scale_min_clip: float = -5.0,
        log_scale_max_clip: float = 3.0,
        sigmoid_bias: float = 2.0,
        stable: bool = False,
        context: Tensor | None = None,
    ) -> None:
        affine = AffineFamily(log_scale_min_clip, log_scale_max_clip)
        super().__init__(autoregressive_nn, GatedFamily(sigmoid_bias) if stable else affine, context)


class NeuralAutoregressive(Autoregressive):
    """Each variable goes through a small increasing network, whose weights depend on the variables before.

    The inverse takes one pass of the autoregressive network for each variable, and for each a search
    through the small one (10 evaluations at 16 points at once, 3 at one); it is exact to rounding, with gradients.

    Args:   autoregressive_nn, with param_dims (hidden_units,) * 3; activation, "sigmoid", "ELU" or "leaky_relu".
    Source: deep sigmoidal flow, Huang et al. 2018.
    """

    def __init__(
        self,
        autoregressive_nn: nn.Module,
        hidden_units: int = 16,
        activation: str = "sigmoid",
        context: Tensor | None = None,
    ) -> None:
        self._check_units(autoregressive_nn, hidden_units)
        super().__init__(autoregressive_nn, NeuralFamily(activation), context)

    def _check_units(self, network: Any, hidden_units: int) -> None:
        dims = getattr(network, "param_dims", (hidden_units,) * 3)
        if tuple(dims) != (hidden_units,) * 3:
            raise ValueError(
                f"{type(self).__name__}: with hidden_units={hidden_units} the network needs param_dims "
                f"{(hidden_units,) * 3}, but it has {tuple(dims)}."
            )


class SplineAutoregressive(Autoregressive):
    """Each variable goes through a spline, whose knots depend on the variables before; the identity outside the bound.

    Args:   autoregressive_nn, with param_dims (count_bins, count_bins, count_bins - 1), and a fourth of count_bins for
            order "linear"; bound, of the knots, on both sides; order, "linear" or "quadratic" (rational pieces).
    Source: Durkan et al. 2019 (quadratic); Dolatabadi et al. 2020 (linear).
    """

    def __init__(
        self,
        input_dim: int,
        autoregressive_nn: nn.Module,
        count_bins: int = 8,
        bound: float = 3.0,
        order: str = "linear",
        context: Tensor | None = None,
    ) -> None:
        super().__init__(autoregressive_nn, SplineFamily(count_bins, bound, order), context)


class Polynomial(Autoregressive):
    """Each variable goes through a polynomial that increases, whose coefficients depend on the variables before.

    The inverse takes one pass of the autoregressive network for each variable, and for each a search
    on the polynomial (10 evaluations at 16 points at once, 3 at one); it is exact to rounding, with gradients.

    Args:   autoregressive_nn, with param_dims ((count_degree + 1) * count_sum,); count_degree and count_sum, of the
            polynomials whose squares are summed to the slope.
    Source: sum-of-squares flow, Jaini et al. 2019.
    """

    def __init__(
        self,
        autoregressive_nn: nn.Module,
        input_dim: int,
        count_degree: int,
        count_sum: int,
        context: Tensor | None = None,
    ) -> None:
        super().__init__(autoregressive_nn, PolynomialFamily(count_degree, count_sum), context)
        self.c = nn.Parameter(torch.zeros(input_dim))

    def _call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = super()._call_and_log_det(x)
        return y + self.c, log_det

    def _inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return super()._inverse_and_log_det(y - self.c)


class ConditionalAutoregressive(ConditionalTransformModule):
    """The base of the autoregressive transforms whose network also reads a context."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True
    kind: type[Autoregressive]  # what it is at a context

    def __init__(self, autoregressive_nn: nn.Module, **kwargs: Any) -> None:
        super().__init__()
        self.autoregressive_nn = autoregressive_nn
        self.kwargs = kwargs

    def condition(self, context: Tensor) -> Autoregressive:
        """The transform of this context."""
        return self.kind(autoregressive_nn=self.autoregressive_nn, context=context, **self.kwargs)


class ConditionalAffineAutoregressive(ConditionalAutoregressive):
    """`AffineAutoregressive` with a network that also reads a context; takes its arguments by keyword."""

    kind = AffineAutoregressive


class ConditionalNeuralAutoregressive(ConditionalAutoregressive):
    """`NeuralAutoregressive` with a network that also reads a context; takes its arguments by keyword."""

    kind = NeuralAutoregressive


class ConditionalSplineAutoregressive(ConditionalAutoregressive):
    """`SplineAutoregressive` with a network that also reads a context; takes its arguments by keyword."""

    kind = SplineAutoregressive

    def __init__(self, input_dim: int, autoregressive_nn: nn.Module, **kwargs: Any) -> None:
        super().__init__(autoregressive_nn, input_dim=input_dim, **kwargs)


def affine_autoregressive(
    input_dim: int, hidden_dims: Sequence[int] | None = None, **kwargs: Any
) -> AffineAutoregressive:
    """An `AffineAutoregressive` with a network of its own: by default one layer of 10 units a variable."""
    network = AutoRegressiveNN(input_dim, _dims(hidden_dims, input_dim, 1))
    return AffineAutoregressive(calmed(network), **kwargs)


def conditional_affine_autoregressive(
    input_dim: int, context_dim: int, hidden_dims: Sequence[int] | None = None, **kwargs: Any
) -> ConditionalAffineAutoregressive:
    """A `ConditionalAffineAutoregressive` with a network of its own: by default one layer of 10 units a variable."""
    network = ConditionalAutoRegressiveNN(input_dim, context_dim, _dims(hidden_dims, input_dim, 1))
    return ConditionalAffineAutoregressive(calmed(network), **kwargs)


def neural_autoregressive(
    input_dim: int, hidden_dims: Sequence[int] | None = None, activation: str = "sigmoid", width: int = 16
) -> NeuralAutoregressive:
    """A `NeuralAutoregressive` with a network of its own: by default one layer of 10 units a variable."""
    network = AutoRegressiveNN(input_dim, _dims(hidden_dims, input_dim, 1), (width,) * 3)
    return NeuralAutoregressive(_varied(network), width, activation)


def conditional_neural_autoregressive(
    input_dim: int,
    context_dim: int,
    hidden_dims: Sequence[int] | None = None,
    activation: str = "sigmoid",
    width: int = 16,
) -> ConditionalNeuralAutoregressive:
    """A `ConditionalNeuralAutoregressive` with a network of its own: by default one layer of 10 units a variable."""
    network = ConditionalAutoRegressiveNN(input_dim, context_dim, _dims(hidden_dims, input_dim, 1), (width,) * 3)
    return ConditionalNeuralAutoregressive(_varied(network), hidden_units=width, activation=activation)


def spline_autoregressive(
    input_dim: int,
    hidden_dims: Sequence[int] | None = None,
    count_bins: int = 8,
    bound: float = 3.0,
    order: str = "linear",
) -> SplineAutoregressive:
    """A `SplineAutoregressive` with a network of its own: by default two layers of 10 units a variable."""
    param_dims = SplineFamily(count_bins, bound, order).param_dims
    network = AutoRegressiveNN(input_dim, _dims(hidden_dims, input_dim, 2), param_dims)
    return SplineAutoregressive(input_dim, calmed(network), count_bins, bound, order)


def conditional_spline_autoregressive(
    input_dim: int,
    context_dim: int,
    hidden_dims: Sequence[int] | None = None,
    count_bins: int = 8,
    bound: float = 3.0,
    order: str = "linear",
) -> ConditionalSplineAutoregressive:
    """A `ConditionalSplineAutoregressive` with a network of its own: by default two layers of 10 units a variable."""
    param_dims = SplineFamily(count_bins, bound, order).param_dims
    network = ConditionalAutoRegressiveNN(input_dim, context_dim, _dims(hidden_dims, input_dim, 2), param_dims)
    return ConditionalSplineAutoregressive(input_dim, calmed(network), count_bins=count_bins, bound=bound, order=order)


def polynomial(input_dim: int, hidden_dims: Sequence[int] | None = None) -> Polynomial:
    """A `Polynomial` of three squares of degree 4 with a network of its own: by default one layer of 10 units a variable."""
    count_degree, count_sum = 4, 3
    param_dims = ((count_degree + 1) * count_sum,)
    network = AutoRegressiveNN(input_dim, _dims(hidden_dims, input_dim, 1), param_dims)
    return Polynomial(calmed(network), input_dim, count_degree, count_sum)


def _dims(hidden_dims: Sequence[int] | None, input_dim: int, count: int) -> Sequence[int]:
    return [10 * input_dim] * count if hidden_dims is None else hidden_dims


def _varied(network: Any) -> Any:
    """A calmed network whose hidden units, which begin as the identity, are not all alike: the shifts are spread."""
    calmed(network)
    width, input_dim = network.param_dims[0], network.input_dim
    with torch.no_grad():
        shifts = network.layers[-1].bias.view(3, width, input_dim)[1]
        shifts += torch.linspace(-1, 1, width)[:, None].to(shifts)
    return network
