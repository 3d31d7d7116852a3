"""The networks behind learnable transforms: dense, and autoregressive by masked weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Outputs = Tensor | tuple[Tensor, ...]


class MaskedLinear(nn.Linear):
    """A linear layer some of whose weights are held at zero.

    Shapes: mask (out_features, in_features), zero where there is no connection.
    """

    mask: Tensor

    def __init__(self, in_features: int, out_features: int, mask: Tensor, bias: bool = True) -> None:
        if mask.shape != (out_features, in_features):
            raise ValueError(
                f"MaskedLinear: the mask's shape must be (out_features, in_features) = {(out_features, in_features)}, "
                f"but it is {tuple(mask.shape)}."
            )
        super().__init__(in_features, out_features, bias)
        self.register_buffer("mask", mask.detach().to(self.weight))

    def forward(self, input: Tensor) -> Tensor:
        """Shapes: (*, in_features) -> (*, out_features)."""
        return functional.linear(input, self.weight * self.mask, self.bias)


class ConditionalDenseNN(nn.Module):
    """A dense network of an input and a context, with several outputs.

    Shapes: input (*, input_dim), context (*, context_dim), broadcast against it -> (*, p) for each p of `param_dims`,
    in a tuple; one tensor if there is one p.
    """

    def __init__(
        self,
        input_dim: int,
        context_dim: int,
        hidden_dims: Sequence[int],
        param_dims: Sequence[int] = (1, 1),
        nonlinearity: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.input_dim, self.context_dim = input_dim, context_dim
        self.hidden_dims, self.param_dims = tuple(hidden_dims), tuple(param_dims)
        self.count_params, self.output_multiplier = len(self.param_dims), sum(self.param_dims)
        sizes = (input_dim + context_dim, *self.hidden_dims, self.output_multiplier)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.f = nn.ReLU() if nonlinearity is None else nonlinearity

    def forward(self, x: Tensor, context: Tensor | None = None) -> Outputs:
        """The outputs at an input, and a context if there is one."""
        h = _joined(x, context, (self.input_dim, self.context_dim), type(self).__name__)
        for layer in self.layers[:-1]:
            h = self.f(layer(h))
        h = self.layers[-1](h)
        return cast(Outputs, h if self.count_params == 1 else h.split(list(self.param_dims), -1))


class DenseNN(ConditionalDenseNN):
    """A dense network with several outputs.

    Shapes: (*, input_dim) -> (*, p) for each p of `param_dims`, in a tuple; one tensor if there is one p.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int],
        param_dims: Sequence[int] = (1, 1),
        nonlinearity: nn.Module | None = None,
    ) -> None:
        super().__init__(input_dim, 0, hidden_dims, param_dims, nonlinearity)


class ConditionalAutoRegressiveNN(nn.Module):
    """A dense network whose outputs for one variable depend on the variables before it, and on a context.

    Each unit gets a degree, the number of variables that it may see; weights towards a unit of lower degree are held at
    zero. All dependencies that the order permits are there.

    Shapes: input (*, input_dim), context (*, context_dim), broadcast against it -> (*, p, input_dim) for each p of
    `param_dims`, in a tuple; (*, input_dim) where all p are 1; one tensor if there is one p.
    Args:   permutation, the variables in their order, by default at random; skip_connections, masked linear paths from
            the inputs to the outputs.
    Raises: ValueError for a hidden layer with fewer units than there are degrees.
    Source: Germain et al. 2015, MADE, equations 12 to 15.
    """

    permutation: Tensor

    def __init__(
        self,
        input_dim: int,
        context_dim: int,
        hidden_dims: Sequence[int],
        param_dims: Sequence[int] = (1, 1),
        permutation: Tensor | None = None,
        skip_connections: bool = False,
        nonlinearity: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.input_dim, self.context_dim = input_dim, context_dim
        self.hidden_dims, self.param_dims = tuple(hidden_dims), tuple(param_dims)
        self.count_params, self.output_multiplier = len(self.param_dims), sum(self.param_dims)
        self.all_ones = all(p == 1 for p in self.param_dims)
        self.register_buffer("permutation", self._order(permutation))
        # degrees: a context is seen by all (0); a variable's own is its place, from 1
        place = (
            torch.empty(input_dim, dtype=torch.long).scatter_(0, self.permutation.cpu(), torch.arange(input_dim)) + 1
        )
        first = 0 if context_dim else 1
        degrees = [torch.cat([torch.zeros(context_dim, dtype=torch.long), place])]
        for size in self.hidden_dims:
            kinds = max(input_dim - first, 1)
            if size < kinds:
                raise ValueError(
                    f"{type(self).__name__}: a hidden layer of {size} units is too small for {input_dim} variables"
                    f"{' and a context' if context_dim else ''}: give it {kinds} units at least."
                )
            degrees.append(first + torch.arange(size) * kinds // size)
        masks = [after[:, None] >= before for before, after in itertools.pairwise(degrees)]
        outputs = place.repeat(self.output_multiplier)
        masks.append(outputs[:, None] > degrees[-1])
        self.layers = nn.ModuleList(MaskedLinear(mask.shape[1], mask.shape[0], mask) for mask in masks)
        skip = outputs[:, None] > degrees[0]
        self.skip = MaskedLinear(skip.shape[1], skip.shape[0], skip, bias=False) if skip_connections else None
        self.f = nn.ReLU() if nonlinearity is None else nonlinearity

    def _order(self, permutation: Tensor | None) -> Tensor:
        if permutation is None:
            return torch.randperm(self.input_dim)
        permutation = torch.as_tensor(permutation, dtype=torch.long)
        if permutation.shape != (self.input_dim,) or sorted(permutation.tolist()) != [*range(self.input_dim)]:
            raise ValueError(
                f"{type(self).__name__}: the permutation must list 0 to {self.input_dim - 1} once each, but got "
                f"{permutation.tolist()}."
            )
        return permutation

    def get_permutation(self) -> Tensor:
        """The variables in their order."""
        return self.permutation

    def forward(self, x: Tensor, context: Tensor | None = None) -> Outputs:
        """The outputs at an input, and a context if there is one."""
        inputs = _joined(x, context, (self.input_dim, self.context_dim), type(self).__name__)
        h = inputs
        for layer in self.layers[:-1]:
            h = self.f(layer(h))
        h = self.layers[-1](h)
        if self.skip is not None:
            h = h + self.skip(inputs)
        if self.output_multiplier == 1:
            return cast(Tensor, h)
        h = h.unflatten(-1, (self.output_multiplier, self.input_dim))
        if self.count_params == 1:
            return cast(Tensor, h)
        return cast(Outputs, h.unbind(-2) if self.all_ones else h.split(list(self.param_dims), -2))


class AutoRegressiveNN(ConditionalAutoRegressiveNN):
    """A dense network whose outputs for one variable depend on the variables before it.

    Shapes: (*, input_dim) -> (*, p, input_dim) for each p of `param_dims`, in a tuple; (*, input_dim) where all p are
    1; one tensor if there is one p.
    Args:   permutation, the variables in their order, by default at random; skip_connections, masked linear paths from
            the inputs to the outputs.
    Raises: ValueError for a hidden layer with fewer than input_dim - 1 units.
    Source: Germain et al. 2015, MADE, equations 12 to 15.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int],
        param_dims: Sequence[int] = (1, 1),
        permutation: Tensor | None = None,
        skip_connections: bool = False,
        nonlinearity: nn.Module | None = None,
    ) -> None:
        super().__init__(input_dim, 0, hidden_dims, param_dims, permutation, skip_connections, nonlinearity)


def calmed(network: Any, factor: float = 0.01) -> Any:
    """The same network with its last layer shrunk, so that its outputs begin near 0 at any input."""
    last = network.layers[-1]
    with torch.no_grad():
        for layer in (last, getattr(network, "skip", None)):
            for parameter in () if layer is None else layer.parameters():
                parameter.mul_(factor)
    return network


def inverse_softplus(value: float) -> float:
    """Where softplus is `value`."""
    return math.log(math.expm1(value))


def _joined(x: Tensor, context: Tensor | None, dims: tuple[int, int], name: str) -> Tensor:
    """The context before the input, broadcast, after a check of both against the sizes of the network."""
    input_dim, context_dim = dims
    if x.shape[-1:] != (input_dim,):
        raise ValueError(f"{name}: the input's last dim must be {input_dim}, but its shape is {tuple(x.shape)}.")
    if context is None:
        if context_dim:
            raise ValueError(f"{name}: it was built for a context of {context_dim} dims, so pass one.")
        return x
    if context.shape[-1:] != (context_dim,):
        raise ValueError(
            f"{name}: the context's last dim must be {context_dim}, but its shape is {tuple(context.shape)}."
        )
    batch = torch.broadcast_shapes(x.shape[:-1], context.shape[:-1])
    return torch.cat([context.expand(*batch, -1), x.expand(*batch, -1)], -1)
