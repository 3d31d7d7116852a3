"""Discretised paths of stochastic differential equations."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import Distribution, ShapeLike, expanded, forceable
from ppl.distributions.hidden_markov import HiddenMarkovModel
from ppl.distributions.lifting import lift

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
Coefficients = Callable[[Tensor, Tensor], tuple[Any, Any]]


class EulerMaruyama(Distribution):
    """Paths of dx = f(x, t) dt + g(x, t) dW at given times, by the Euler–Maruyama scheme.

    With (f, g) = sde_fn(x, t), x_{i+1} = x_i + f Δt + g √Δt ε_i, entry by entry, and x_1 ~ `init_dist` at the first time.

    Args: t, increasing times. sde_fn, a function of x (*batch, *event) and t (*batch, with a 1 for each event dim) that
        returns drift and diffusion, which broadcast to x; the batch may have more dims on its left, such as all times at
        once, so select entries of an event by x[..., i].
    Shapes: t (*batch, num_steps), init_dist (*batch, | *event); a draw (*batch, | num_steps, *event).
    """

    arg_constraints = {"t": constraints.real_vector}
    t: Tensor

    def __init__(self, t: Tensor, sde_fn: Coefficients, init_dist: Any, validate_args: bool | None = None) -> None:
        if not isinstance(t, Tensor) or t.dim() < 1 or t.shape[-1] < 1:
            raise ValueError("EulerMaruyama: argument 't' must be a tensor of times of shape (*batch, num_steps).")
        self.t, self.sde_fn, self.init_dist = t, sde_fn, lift(init_dist)
        batch = torch.broadcast_shapes(t.shape[:-1], init_dist.batch_shape)
        super().__init__(batch, Size((t.shape[-1], *init_dist.event_shape)), validate_args)
        if self._validate_args and not bool((t.diff(dim=-1) > 0).all()):
            raise ValueError(
                "EulerMaruyama: argument 't' must increase along its last dim; sort it, without repetitions."
            )

    def _has_rsample(self) -> bool:
        return bool(self.init_dist.has_rsample)

    has_rsample: Any = forceable(property(_has_rsample))

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """All paths of real numbers."""
        return constraints.independent(constraints.real, self.event_dim)

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        """The same distribution repeated to a larger batch shape, without copying."""
        new = copy.copy(self)
        new._batch_shape = Size(batch_shape)
        return new

    def _times(self, value_dim: int) -> Tensor:
        """The times, first, then the batch, then a 1 for each event dim."""
        t = self.t.movedim(-1, 0)
        inner = self.event_dim - 1
        batch = value_dim - self.event_dim
        return t.reshape(t.shape[:1] + (1,) * (batch - t.dim() + 1) + t.shape[1:] + (1,) * inner)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw, differentiably; one step after the other."""
        return self._draw("rsample", Size(sample_shape))

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw without gradients."""
        with torch.no_grad():
            return self._draw("sample", Size(sample_shape))

    def _draw(self, method: str, shape: Size) -> Tensor:
        x: Tensor = getattr(expanded(self.init_dist, self.batch_shape), method)(shape)
        t = self._times(x.dim() + 1)
        noise = torch.randn((len(t) - 1, *x.shape), dtype=x.dtype, device=x.device)
        path = [x]
        for i, eps in enumerate(noise):
            drift, diffusion = self.sde_fn(x, t[i])
            dt = t[i + 1] - t[i]
            x = x + drift * dt + diffusion * dt.sqrt() * eps
            path.append(x)
        return torch.stack(path, -self.event_dim)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density, all steps at once. Shapes: (*sample, *batch, T, *event) -> (*sample, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        cut = value.dim() - self.event_dim
        value = value.expand(torch.broadcast_shapes(value.shape[:cut], self.batch_shape) + value.shape[cut:])
        t = self._times(value.dim())
        x = value.movedim(-self.event_dim, 0)
        drift, diffusion = self.sde_fn(x[:-1], t[:-1])
        dt = t.diff(dim=0)
        scale = diffusion * dt.sqrt()
        log_scale = torch.as_tensor(scale).log().expand(x[1:].shape)
        z = (x[1:] - x[:-1] - drift * dt) / scale
        steps: Tensor = -0.5 * z.square() - log_scale - _HALF_LOG_2PI
        inner = tuple(range(-(self.event_dim - 1), 0))
        steps = steps.sum(inner) if inner else steps
        first: Tensor = self.init_dist.log_prob(x[0])
        return first + steps.sum(0)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        return HiddenMarkovModel.infer_shapes(**arg_shapes)
