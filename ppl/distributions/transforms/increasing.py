"""Families of increasing maps of the real line, elementwise: what autoregressive and coupling transforms apply."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ppl.distributions.transforms.networks import inverse_softplus
from ppl.distributions.transforms.root import increasing_root


class Increasing(ABC):
    """A family of increasing maps of the real line onto itself.

    Parameters come as networks give them: (*, D) where each kind has one a variable, else (*, p, D); x is (*, D). At
    parameters of zero the map is the identity or near it.
    """

    @abstractmethod
    def forward(self, x: Tensor, *params: Tensor) -> tuple[Tensor, Tensor]:
        """The map at x, and the logarithm of its slope; both (*, D)."""

    @abstractmethod
    def inverse(self, y: Tensor, *params: Tensor) -> Tensor:
        """Where the map is y."""


@dataclass(frozen=True)
class AffineFamily(Increasing):
    """y = loc + exp(log_scale) x, the log scale clamped; parameters loc and log_scale (*, D)."""

    log_scale_min_clip: float = -5.0
    log_scale_max_clip: float = 3.0

    def forward(self, x: Tensor, *params: Tensor) -> tuple[Tensor, Tensor]:
        """The map at x, and the logarithm of its slope."""
        loc, log_scale = params[0], params[1].clamp(self.log_scale_min_clip, self.log_scale_max_clip)
        return loc + log_scale.exp() * x, log_scale

    def inverse(self, y: Tensor, *params: Tensor) -> Tensor:
        """Where the map is y."""
        loc, log_scale = params[0], params[1].clamp(self.log_scale_min_clip, self.log_scale_max_clip)
        return (y - loc) * (-log_scale).exp()


@dataclass(frozen=True)
class GatedFamily(Increasing):
    """y = g x + (1 - g) loc with g = sigmoid(logit + bias): the stable form; parameters loc and logit (*, D).

    Source: Kingma et al. 2016, equation 14.
    """

    sigmoid_bias: float = 2.0

    def forward(self, x: Tensor, *params: Tensor) -> tuple[Tensor, Tensor]:
        """The map at x, and the logarithm of its slope."""
        loc, logit = params[0], params[1] + self.sigmoid_bias
        return logit.sigmoid() * x + (-logit).sigmoid() * loc, functional.logsigmoid(logit)

    def inverse(self, y: Tensor, *params: Tensor) -> Tensor:
        """Where the map is y."""
        loc, logit = params[0], params[1] + self.sigmoid_bias
        return (y - (-logit).sigmoid() * loc) / logit.sigmoid()


@dataclass(frozen=True)
class NeuralFamily(Increasing):
    """y = f⁻¹(Σ w f(a x + b)) with a > 0, Σ w = 1 and an increasing f: a mean of the hidden units' values.

    Parameters a and b and w (*, H, D), unconstrained. As a mean, y lies between the least and the greatest a x + b;
    that brackets the inverse.
    Source: Huang et al. 2018, equation 8 (with f the sigmoid), worked out in log space.
    """

    activation: str = "sigmoid"

    def __post_init__(self) -> None:
        if self.activation not in ("sigmoid", "ELU", "leaky_relu"):
            raise ValueError(f"activation must be 'sigmoid', 'ELU' or 'leaky_relu', but got {self.activation!r}.")

    def _constrained(self, *params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        least = 1e-3  # so that no unit is flat
        scale = least + functional.softplus(params[0] + inverse_softplus(1 - least))
        return scale, params[1], params[2].log_softmax(-2)

    def forward(self, x: Tensor, *params: Tensor) -> tuple[Tensor, Tensor]:
        """The map at x, and the logarithm of its slope."""
        scale, shift, log_weight = self._constrained(*params)
        return self._mean(scale * x.unsqueeze(-2) + shift, scale, log_weight)

    def _mean(self, z: Tensor, scale: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        log_scale = scale.log()
        if self.activation == "sigmoid":
            log_up, log_down = functional.logsigmoid(z), functional.logsigmoid(-z)
            up, down = (log_weight + log_up).logsumexp(-2), (log_weight + log_down).logsumexp(-2)
            slope = (log_weight + log_scale + log_up + log_down).logsumexp(-2)
            return up - down, slope - up - down
        if self.activation == "ELU":
            # f + 1 is exp(z) up to 0 and 1 + z from there, so both it and its inverse are known by their logarithms
            log_unit = torch.where(z > 0, z.clamp_min(0).log1p(), z)
            log_mean = (log_weight + log_unit).logsumexp(-2)
            slope = (log_weight + log_scale + z.clamp_max(0)).logsumexp(-2)
            low = log_mean.clamp_max(0)
            return torch.where(log_mean > 0, log_mean.clamp_min(0).expm1(), low), slope - low
        leak = 0.01
        mean = (log_weight.exp() * torch.where(z > 0, z, leak * z)).sum(-2)
        slope = (log_weight.exp() * torch.where(z > 0, scale, leak * scale)).sum(-2)
        return torch.where(mean > 0, mean, mean / leak), torch.where(mean > 0, slope, slope / leak).log()

    def inverse(self, y: Tensor, *params: Tensor) -> Tensor:
        """Where the map is y, by a search on the map."""
        scale, shift, log_weight = self._constrained(*params)

        def fn(x: Tensor) -> tuple[Tensor, Tensor]:
            value, log_slope = self._mean(scale * x.unsqueeze(-2) + shift, scale, log_weight)
            return value, log_slope.exp()

        reached = ((y.unsqueeze(-2) - shift) / scale).detach()
        low, high = reached.amin(-2), reached.amax(-2)
        margin = 1e-6 * (1 + low.abs() + high.abs())  # for rounding
        return increasing_root(fn, y.expand(low.shape), low - margin, high + margin)


@dataclass(frozen=True)
class PolynomialFamily(Increasing):
    """y = ∫₀ˣ Σ (Σ a uⁱ)² du: polynomials that increase because their slopes are sums of squares.

    Parameters (*, S (R + 1), D): S polynomials of degree R; at zero the first is the constant 1.
    Source: Jaini et al. 2019, equation 8.
    """

    count_degree: int = 4
    count_sum: int = 3

    def _coefficients(self, params: Tensor) -> Tensor:
        """The coefficients of the slope by power, (*, 2 R + 1, D)."""
        degrees = self.count_degree + 1
        a = params.unflatten(-2, (self.count_sum, degrees))
        first = torch.zeros(self.count_sum, degrees, 1, dtype=a.dtype, device=a.device)
        first[0, 0] = 1.0
        a = a + first
        products = (a.unsqueeze(-2) * a.unsqueeze(-3)).sum(-4)  # (*, R + 1, R + 1, D)
        return torch.stack(
            [
                sum(
                    (products[..., i, n - i, :] for i in range(max(0, n - degrees + 1), min(n, degrees - 1) + 1)),
                    torch.zeros_like(products[..., 0, 0, :]),
                )
                for n in range(2 * degrees - 1)
            ],
            -2,
        )

    @staticmethod
    def _evaluate(x: Tensor, slope_by_power: Tensor) -> tuple[Tensor, Tensor]:
        """By Horner's rule."""
        value = slope = torch.zeros_like(x)
        for n in reversed(range(slope_by_power.shape[-2])):
            coefficient = slope_by_power[..., n, :]
            slope = slope * x + coefficient
            value = value * x + coefficient / (n + 1)
        return value * x, slope

    def forward(self, x: Tensor, *params: Tensor) -> tuple[Tensor, Tensor]:
        """The map at x, and the logarithm of its slope."""
        value, slope = self._evaluate(x, self._coefficients(params[0]))
        return value, slope.log()

    def inverse(self, y: Tensor, *params: Tensor) -> Tensor:
        """Where the map is y, by a search on the polynomial."""
        slope_by_power = self._coefficients(params[0])
        y, _ = torch.broadcast_tensors(y, slope_by_power[..., 0, :])
        return increasing_root(lambda x: self._evaluate(x, slope_by_power), y)
