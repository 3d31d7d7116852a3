"""Planar and radial transforms: one bend of space, along a direction or around a point."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppl.distributions import constraints
from ppl.distributions.transforms.conditional import ConditionalTransformModule
from ppl.distributions.transforms.module import TransformModule
from ppl.distributions.transforms.networks import DenseNN, calmed, inverse_softplus
from ppl.distributions.transforms.root import increasing_root
from ppl.distributions.transforms.transform import Transform


class PlanarMap(Transform):
    """y = x + û tanh(w·x + b), with given parameters: what `Planar` is, and `ConditionalPlanar` at a context.

    Shapes: bias (*, 1), u and w (*, D).
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True
    bias: Tensor
    u: Tensor
    w: Tensor

    def __init__(self, bias: Tensor, u: Tensor, w: Tensor) -> None:
        super().__init__(cache_size=1)
        self.bias, self.u, self.w = bias, u, w

    def _bend(self) -> tuple[Tensor, Tensor]:
        """û, which is u with w·û kept above -1, and 1 + w·û; û is 0 where u is."""
        along = (self.w * self.u).sum(-1, keepdim=True)
        above = functional.softplus(along + inverse_softplus(1.0))
        size = (self.w * self.w).sum(-1, keepdim=True).clamp_min(torch.finfo(self.w.dtype).tiny)
        return self.u + (above - 1 - along) * self.w / size, above

    def _call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u, above = self._bend()
        tanh = ((self.w * x).sum(-1, keepdim=True) + self.bias).tanh()
        return x + u * tanh, _bent_slope(above, tanh).log().squeeze(-1)

    def _inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        u, above = self._bend()

        def fn(along: Tensor) -> tuple[Tensor, Tensor]:
            tanh = (along + self.bias).tanh()
            return along + (above - 1) * tanh, _bent_slope(above, tanh)

        target = (self.w * y).sum(-1, keepdim=True)
        target, reach, _ = torch.broadcast_tensors(target, (above - 1).abs().detach(), self.bias)
        bracket = reach * (1 + 1e-6) + 1e-6 * (1 + target.detach().abs())  # for rounding
        along = increasing_root(fn, target, target.detach() - bracket, target.detach() + bracket)
        tanh = (along + self.bias).tanh()
        return y - u * tanh, _bent_slope(above, tanh).log().squeeze(-1)


def _bent_slope(above: Tensor, tanh: Tensor) -> Tensor:
    """1 + (above - 1) (1 - tanh²), as a sum without cancellation."""
    square = tanh * tanh
    return above * (1 - square) + square


class Planar(PlanarMap, TransformModule):
    """y = x + û tanh(w·x + b): space bent along the direction w. The identity at first.

    The inverse is that of an increasing function of w·x, by a search on numbers (13 evaluations of a tanh, 10 of them
    at 16 points at once), at a cost that does not grow with input_dim; it is exact to rounding, with gradients.

    Source: Rezende & Mohamed 2015, equations 10 to 12 and appendix A.1.
    """

    def __init__(self, input_dim: int) -> None:
        TransformModule.__init__(self, cache_size=1)
        self.input_dim = input_dim
        self.bias = nn.Parameter(torch.zeros(1))
        self.u = nn.Parameter(torch.zeros(input_dim))
        self.w = nn.Parameter(torch.randn(input_dim) / input_dim**0.5)


class ConditionalPlanar(ConditionalTransformModule):
    """`Planar` with parameters from a network of a context.

    Args: nn, a `DenseNN` of the context with outputs bias, u and w of 1, input_dim and input_dim.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, nn: nn.Module) -> None:
        super().__init__()
        self.nn = nn

    def condition(self, context: Tensor) -> PlanarMap:
        """The transform of this context."""
        bias, u, w = self.nn(context)
        return PlanarMap(bias, u, w)


class RadialMap(Transform):
    """y = x + β (x - x₀) / (α + |x - x₀|), with given parameters: what `Radial` is, or `ConditionalRadial` at a context.

    Shapes: x0 (*, D), alpha_prime and beta_prime (*, 1).
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True
    x0: Tensor
    alpha_prime: Tensor
    beta_prime: Tensor

    def __init__(self, x0: Tensor, alpha_prime: Tensor, beta_prime: Tensor) -> None:
        super().__init__(cache_size=1)
        self.x0, self.alpha_prime, self.beta_prime = x0, alpha_prime, beta_prime

    def _constrained(self) -> tuple[Tensor, Tensor]:
        """α and α + β, both positive."""
        return functional.softplus(self.alpha_prime), functional.softplus(self.beta_prime)

    @staticmethod
    def _log_det(r: Tensor, alpha: Tensor, total: Tensor, dim: int) -> Tensor:
        around = (total + r).log() - (alpha + r).log()
        outwards = (r * r + 2 * alpha * r + alpha * total).log() - 2 * (alpha + r).log()
        return ((dim - 1) * around + outwards).squeeze(-1)

    def _call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        alpha, total = self._constrained()
        away = x - self.x0
        r = _norm(away)
        return self.x0 + away * (total + r) / (alpha + r), self._log_det(r, alpha, total, x.shape[-1])

    def _inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        alpha, total = self._constrained()
        away = y - self.x0
        r_y = _norm(away)  # = r (α + β + r) / (α + r), a quadratic in r
        half = 0.5 * (total - r_y)
        root = (half * half + alpha * r_y).sqrt()
        falls = half > 0
        r = torch.where(falls, alpha * r_y / torch.where(falls, half + root, 1), root - half)
        return self.x0 + away * (alpha + r) / (total + r), self._log_det(r, alpha, total, y.shape[-1])


def _norm(x: Tensor) -> Tensor:
    """The length of vectors, with gradient 0 at 0."""
    square = (x * x).sum(-1, keepdim=True)
    is_zero = square == 0
    return torch.where(is_zero, 0, torch.where(is_zero, 1, square).sqrt())


class Radial(RadialMap, TransformModule):
    """y = x + β (x - x₀) / (α + |x - x₀|): space pulled to a point, or pushed away. The identity at first.

    The inverse is the root of a quadratic.

    Source: Rezende & Mohamed 2015, equation 14 and appendix A.2.
    """

    def __init__(self, input_dim: int) -> None:
        TransformModule.__init__(self, cache_size=1)
        self.input_dim = input_dim
        self.x0 = nn.Parameter(torch.randn(input_dim) / input_dim**0.5)
        self.alpha_prime = nn.Parameter(torch.zeros(1))
        self.beta_prime = nn.Parameter(torch.zeros(1))


class ConditionalRadial(ConditionalTransformModule):
    """`Radial` with parameters from a network of a context.

    Args: nn, a `DenseNN` of the context with outputs x0, alpha_prime and beta_prime of input_dim, 1 and 1.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, nn: nn.Module) -> None:
        super().__init__()
        self.nn = nn

    def condition(self, context: Tensor) -> RadialMap:
        """The transform of this context."""
        x0, alpha_prime, beta_prime = self.nn(context)
        return RadialMap(x0, alpha_prime, beta_prime)


def planar(input_dim: int) -> Planar:
    """A `Planar`."""
    return Planar(input_dim)


def conditional_planar(input_dim: int, context_dim: int, hidden_dims: Sequence[int] | None = None) -> ConditionalPlanar:
    """A `ConditionalPlanar` with a network of its own: by default two layers of 10 units a variable."""
    hidden = [10 * input_dim] * 2 if hidden_dims is None else hidden_dims
    network = calmed(DenseNN(context_dim, hidden, (1, input_dim, input_dim)))
    with torch.no_grad():  # a direction to begin with
        network.layers[-1].bias[1 + input_dim :] += torch.randn(input_dim) / input_dim**0.5
    return ConditionalPlanar(network)


def radial(input_dim: int) -> Radial:
    """A `Radial`."""
    return Radial(input_dim)


def conditional_radial(input_dim: int, context_dim: int, hidden_dims: Sequence[int] | None = None) -> ConditionalRadial:
    """A `ConditionalRadial` with a network of its own: by default two layers of 10 units a variable."""
    hidden = [10 * input_dim] * 2 if hidden_dims is None else hidden_dims
    return ConditionalRadial(calmed(DenseNN(context_dim, hidden, (input_dim, 1, 1))))
