"""Householder and Sylvester transforms: reflections, and bends within the frame that they turn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ppl.distributions import constraints
from ppl.distributions.transforms.conditional import ConditionalTransformModule
from ppl.distributions.transforms.module import TransformModule
from ppl.distributions.transforms.networks import DenseNN, calmed
from ppl.distributions.transforms.root import increasing_root
from ppl.distributions.transforms.transform import Transform


def reflected(x: Tensor, normals: Tensor) -> Tensor:
    """x reflected at the hyperplanes with these normals, one after the other.

    Shapes: x (*, D), normals (*, K, D), of any length but 0 -> (*, D).
    """
    for normal in normals.unbind(-2):
        square = (normal * normal).sum(-1, keepdim=True).clamp_min(torch.finfo(normal.dtype).tiny)
        x = x - 2 * normal * ((normal * x).sum(-1, keepdim=True) / square)
    return x


class HouseholderMap(Transform):
    """Reflections with given normals (*, K, D): what `Householder` is, or `ConditionalHouseholder` at a context."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True
    u_unnormed: Tensor

    def __init__(self, u_unnormed: Tensor) -> None:
        super().__init__(cache_size=1)
        self.u_unnormed = u_unnormed

    def _call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = reflected(x, self.u_unnormed)
        return y, torch.zeros_like(y[..., 0])

    def _inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x = reflected(y, self.u_unnormed.flip(-2))
        return x, torch.zeros_like(x[..., 0])


class Householder(HouseholderMap, TransformModule):
    """A product of reflections: an orthogonal map. With an even number of them, the identity at first.

    Args:   count_transforms, the number of reflections, at most input_dim of use.
    Source: Tomczak & Welling 2016, equation 11.
    """

    def __init__(self, input_dim: int, count_transforms: int = 1) -> None:
        _check_count(type(self).__name__, count_transforms)
        TransformModule.__init__(self, cache_size=1)
        self.input_dim = input_dim
        self.u_unnormed = nn.Parameter(_normals(input_dim, count_transforms))


class ConditionalHouseholder(ConditionalTransformModule):
    """`Householder` with normals from a network of a context.

    Args: nn, a `DenseNN` of the context with one output of input_dim * count_transforms, or count_transforms outputs of
          input_dim.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, input_dim: int, nn: nn.Module, count_transforms: int = 1) -> None:
        _check_count(type(self).__name__, count_transforms)
        super().__init__()
        self.input_dim, self.nn, self.count_transforms = input_dim, nn, count_transforms

    def condition(self, context: Tensor) -> HouseholderMap:
        """The transform of this context."""
        found = self.nn(context)
        flat = found if isinstance(found, Tensor) else torch.cat(list(found), -1)
        return HouseholderMap(flat.unflatten(-1, (self.count_transforms, self.input_dim)))


class Sylvester(TransformModule):
    """y = x + Q R tanh(S Qᵀ x + b), with Q orthogonal by reflections and R and S upper triangular. Near the identity at first.

    In the frame of Q the map is triangular: the inverse solves for one variable after the other, each by a search on
    numbers (13 evaluations of a tanh, 10 of them at 16 points at once); it is exact to rounding, with gradients.

    Args:   count_transforms, the number of reflections that make Q.
    Source: van den Berg et al. 2018, equations 13 and 17 to 21 (Householder-Sylvester).
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, input_dim: int, count_transforms: int = 1) -> None:
        _check_count(type(self).__name__, count_transforms)
        super().__init__(cache_size=1)
        self.input_dim = input_dim
        self.u_unnormed = nn.Parameter(_normals(input_dim, count_transforms))
        self.R_dense = nn.Parameter(0.01 * torch.randn(input_dim, input_dim))
        self.S_dense = nn.Parameter(torch.randn(input_dim, input_dim) / input_dim**0.5)
        self.R_diag = nn.Parameter(0.01 * torch.randn(input_dim))
        self.S_diag = nn.Parameter(torch.randn(input_dim) / input_dim**0.5)
        self.b = nn.Parameter(torch.zeros(input_dim))

    def R(self) -> Tensor:  # noqa: N802, as in the paper
        """The outer triangular matrix, with a diagonal within -1 and 1."""
        return self.R_dense.triu(1) + self.R_diag.tanh().diag()

    def S(self) -> Tensor:  # noqa: N802, the paper's R̃
        """The inner triangular matrix, with a diagonal within -1 and 1."""
        return self.S_dense.triu(1) + self.S_diag.tanh().diag()

    def Q(self, x: Tensor) -> Tensor:  # noqa: N802, as in the paper
        """Q x."""
        return reflected(x, self.u_unnormed)

    def _log_det(self, tanh: Tensor) -> Tensor:
        product = self.R_diag.tanh() * self.S_diag.tanh()
        return _slope(product, tanh).log().sum(-1)

    def _call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        turned = reflected(x, self.u_unnormed.flip(-2))  # Qᵀ x
        tanh = (turned @ self.S().mT + self.b).tanh()
        return x + self.Q(tanh @ self.R().mT), self._log_det(tanh)

    def _inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        turned = reflected(y, self.u_unnormed.flip(-2))
        outer, inner = self.R(), self.S()
        found: list[Tensor] = []  # of Qᵀ x, the last first
        tanhs: list[Tensor] = []
        for i in reversed(range(self.input_dim)):
            target, shift = turned[..., i], self.b[i]
            if found:
                later = slice(i + 1, None)
                target = target - torch.stack(tanhs, -1) @ outer[i, later].flip(-1)
                shift = shift + torch.stack(found, -1) @ inner[i, later].flip(-1)
            value = _solve(target, outer[i, i], inner[i, i], shift)
            found.append(value)
            tanhs.append((inner[i, i] * value + shift).tanh())
        tanh = torch.stack(tanhs[::-1], -1)
        return y - self.Q(tanh @ outer.mT), self._log_det(tanh)


def _slope(product: Tensor, tanh: Tensor) -> Tensor:
    """1 + product (1 - tanh²), as a sum without cancellation."""
    square = tanh * tanh
    return (1 + product) * (1 - square) + square


def _solve(target: Tensor, outer: Tensor, inner: Tensor, shift: Tensor) -> Tensor:
    """Where v + outer tanh(inner v + shift) is the target."""

    def fn(v: Tensor) -> tuple[Tensor, Tensor]:
        tanh = (inner * v + shift).tanh()
        return v + outer * tanh, _slope(outer * inner, tanh)

    middle = target.detach()
    bracket = outer.detach().abs() * (1 + 1e-6) + 1e-6 * (1 + middle.abs())  # for rounding
    return increasing_root(fn, target, middle - bracket, middle + bracket)


def _normals(input_dim: int, count: int) -> Tensor:
    """Normals of reflections that undo each other in pairs."""
    normals = torch.randn((count + 1) // 2, input_dim)
    return torch.cat([normals, normals.flip(0)[count % 2 :]])


def _check_count(name: str, count_transforms: int) -> None:
    if count_transforms < 1:
        raise ValueError(f"{name}: count_transforms must be 1 or more, but got {count_transforms}.")


def householder(input_dim: int, count_transforms: int | None = None) -> Householder:
    """A `Householder` of half as many reflections as variables, plus one, by default."""
    return Householder(input_dim, input_dim // 2 + 1 if count_transforms is None else count_transforms)


def conditional_householder(
    input_dim: int, context_dim: int, hidden_dims: Sequence[int] | None = None, count_transforms: int = 1
) -> ConditionalHouseholder:
    """A `ConditionalHouseholder` with a network of its own: by default two layers of 10 units a variable."""
    hidden = [10 * input_dim] * 2 if hidden_dims is None else hidden_dims
    network = calmed(DenseNN(context_dim, hidden, (input_dim * count_transforms,)))
    with torch.no_grad():  # normals to begin with
        network.layers[-1].bias += _normals(input_dim, count_transforms).flatten()
    return ConditionalHouseholder(input_dim, network, count_transforms)


def sylvester(input_dim: int, count_transforms: int | None = None) -> Sylvester:
    """A `Sylvester` with half as many reflections as variables, plus one, by default."""
    return Sylvester(input_dim, input_dim // 2 + 1 if count_transforms is None else count_transforms)
