"""Block neural autoregressive transforms: one masked network that is the map itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppl.distributions import constraints
from ppl.distributions.transforms.module import TransformModule
from ppl.distributions.transforms.root import FAR, increasing_root


class BlockLinear(nn.Module):
    """A linear layer between units in groups, one group a variable: positive weights within a group, and weights of any
    sign from the groups of variables before. Rows have length exp(log_length).

    Source: De Cao et al. 2019, equations 5 and 6.
    """

    def __init__(self, input_dim: int, in_factor: int, out_factor: int) -> None:
        super().__init__()
        self.sizes = input_dim, in_factor, out_factor
        bound = 1 / math.sqrt(in_factor * input_dim)
        self.between = nn.Parameter(torch.empty(input_dim, out_factor, input_dim, in_factor).uniform_(-bound, bound))
        self.log_within = nn.Parameter(torch.empty(input_dim, out_factor, in_factor).uniform_(-1, 1) + math.log(bound))
        self.log_length = nn.Parameter(torch.zeros(input_dim, out_factor))
        self.bias = nn.Parameter(torch.empty(input_dim, out_factor).uniform_(-bound, bound))

    def weights(self) -> tuple[Tensor, Tensor]:
        """The whole matrix, and the logarithms of the weights within groups.

        Shapes: (D * out, D * in) and (D, out, in).
        """
        d, inner, outer = self.sizes
        before = torch.ones(d, d, dtype=self.bias.dtype, device=self.bias.device).tril(-1)[:, None, :, None]
        eye = torch.eye(d, dtype=self.bias.dtype, device=self.bias.device)[:, None, :, None]
        free = self.between * before
        log_square = (2 * self.log_within).logsumexp(-1)
        rest = (free * free).sum((-2, -1))
        log_size = 0.5 * torch.logaddexp(log_square, rest.clamp_min(torch.finfo(rest.dtype).tiny).log())
        factor = self.log_length - log_size
        log_within = self.log_within + factor.unsqueeze(-1)
        whole = free * factor.exp()[..., None, None] + eye * log_within.exp().unsqueeze(-2)
        return whole.reshape(d * outer, d * inner), log_within

    def forward(self, x: Tensor, log_slope: Tensor, weights: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Shapes: x (*, D * in), log_slope (*, D, in), of x by its own variable -> the same of the output."""
        whole, log_within = weights
        y = functional.linear(x, whole, self.bias.flatten())
        return y, (log_within + log_slope.unsqueeze(-2)).logsumexp(-1)


class BlockAutoregressive(TransformModule):
    """A network from x to y that is increasing from each variable to its own, and autoregressive between them.

    With "tanh" or "sigmoid", and upwards only with "ELU", the outputs of a network without `residual` are bounded: it
    maps onto a part of the reals, and the density of a transformed distribution is 0 (its inverse infinite) beyond.

    The inverse solves for one variable after the other, each by a search with 13 evaluations of the whole network, 10 of
    them at 16 points at once. It is exact to rounding, with gradients.

    Args:   hidden_factors, units a variable in each hidden layer; activation, "tanh", "sigmoid", "ELU" or "leaky_relu";
            residual, None, "normal" (x is added) or "gated" (the mean of x and the network's output, by a learned weight).
    Source: De Cao et al. 2019, section 3.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(
        self,
        input_dim: int,
        hidden_factors: Sequence[int] = (8, 8),
        activation: str = "tanh",
        residual: str | None = None,
    ) -> None:
        super().__init__(cache_size=1)
        if residual not in (None, "normal", "gated"):
            raise ValueError(f"BlockAutoregressive: residual must be None, 'normal' or 'gated', but got {residual!r}.")
        known = ("tanh", "sigmoid", "ELU", "leaky_relu")
        if activation not in known:
            raise ValueError(f"BlockAutoregressive: activation must be one of {known}, but got {activation!r}.")
        if any(factor < 1 for factor in hidden_factors):
            raise ValueError(f"BlockAutoregressive: hidden_factors must be 1 or more, but got {hidden_factors}.")
        self.input_dim, self.hidden_factors = input_dim, tuple(hidden_factors)
        self.activation, self.residual = activation, residual
        factors = (1, *self.hidden_factors, 1)
        self.layers = nn.ModuleList(BlockLinear(input_dim, a, b) for a, b in itertools.pairwise(factors))
        self.gate = nn.Parameter(torch.zeros(1)) if residual == "gated" else None

    def _activate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The activation, and the logarithm of its slope."""
        if self.activation == "tanh":
            return z.tanh(), 2 * (math.log(2) - z - functional.softplus(-2 * z))
        if self.activation == "sigmoid":
            return z.sigmoid(), functional.logsigmoid(z) + functional.logsigmoid(-z)
        if self.activation == "ELU":
            return functional.elu(z), z.clamp_max(0)
        return functional.leaky_relu(z), torch.where(z > 0, torch.zeros_like(z), math.log(0.01))

    def _weights(self) -> list[tuple[Tensor, Tensor]]:
        return [cast(BlockLinear, layer).weights() for layer in self.layers]

    def _map(self, x: Tensor, weights: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """The network, and the logarithm of the slope of each output by its own variable."""
        h = x = x.clamp(-FAR, FAR)
        log_slope = torch.zeros_like(x).unsqueeze(-1)
        for index, layer in enumerate(self.layers):
            h, log_slope = layer(h, log_slope, weights[index])
            if index < len(self.layers) - 1:
                h, log_bend = self._activate(h)
                log_slope = log_slope + log_bend.unflatten(-1, (self.input_dim, -1))
        log_slope = log_slope.squeeze(-1)
        if self.residual is None:
            return h, log_slope
        if self.gate is None:
            return x + h, functional.softplus(log_slope)
        share, rest = functional.logsigmoid(self.gate), functional.logsigmoid(-self.gate)
        return share.exp() * h + rest.exp() * x, torch.logaddexp(share + log_slope, rest)

    def _call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_slope = self._map(x, self._weights())
        return y, log_slope.sum(-1)

    def _inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        weights = self._weights()
        x = torch.zeros_like(y)
        beyond = torch.zeros_like(y)  # where no x leads to y: the infinity that does in the limit
        for i, here in enumerate(torch.eye(self.input_dim, dtype=torch.bool, device=y.device)):
            column, side = self._solve(x, y, i, here, weights)
            x, beyond = torch.where(here, column.unsqueeze(-1), x), torch.where(here, side.unsqueeze(-1), beyond)
        log_det = self._map(x, weights)[1].sum(-1)
        return torch.where(beyond == 0, x, beyond), log_det

    def _solve(
        self, x: Tensor, y: Tensor, i: int, here: Tensor, weights: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """The i-th variable, given those before; and 0, or the infinity that it lies at."""

        def fn(column: Tensor) -> tuple[Tensor, Tensor]:
            value, log_slope = self._map(torch.where(here, column.unsqueeze(-1), x), weights)
            return value[..., i], log_slope[..., i].exp()

        target = y[..., i]
        with torch.no_grad():
            far = torch.full_like(target, FAR)
            over, under = target >= fn(far)[0], target <= fn(-far)[0]
            side = torch.where(over, torch.inf, torch.where(under, -torch.inf, 0.0)).to(target)
            within = fn(torch.zeros_like(target))[0]
        target = torch.where(side == 0, target, within)
        return increasing_root(fn, target), side


def block_autoregressive(input_dim: int, **kwargs: Any) -> BlockAutoregressive:
    """A `BlockAutoregressive`."""
    return BlockAutoregressive(input_dim, **kwargs)
