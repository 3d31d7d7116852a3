"""Distributions without randomness: a point, and a bare log factor."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import Distribution, ScoreParts, ShapeLike, broadcast_shape


class Delta(Distribution):
    """All mass at one point `v`, with an optional log density there.

    Shapes: v (*batch, *event) with `event_dim` event dims; log_density broadcasts with batch.
    """

    arg_constraints = {"v": constraints.dependent, "log_density": constraints.real}
    has_rsample = True

    def __init__(
        self,
        v: Tensor | float,
        log_density: Tensor | float = 0.0,
        event_dim: int = 0,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(v, Tensor):
            v = torch.as_tensor(v)
        if event_dim > v.dim():
            raise ValueError(f"Delta: event_dim {event_dim} is more than v's {v.dim()} dims.")
        batch_shape, event_shape = v.shape[: v.dim() - event_dim], v.shape[v.dim() - event_dim :]
        self.v = v
        dtype = v.dtype if v.is_floating_point() else torch.get_default_dtype()
        if not isinstance(log_density, Tensor):
            self.log_density = torch.full(batch_shape, log_density, dtype=dtype, device=v.device)
        else:
            self.log_density = log_density.expand(batch_shape)
        super().__init__(batch_shape, event_shape, validate_args)

    @property
    def support(self) -> Any:
        base = constraints.real if self.v.is_floating_point() else constraints.integer_interval(self.v, self.v)
        return constraints.independent(base, self.event_dim) if self.event_dim else base

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        shape = Size(batch_shape)
        new = Delta(
            self.v.expand(shape + self.event_shape),
            self.log_density.expand(shape),
            self.event_dim,
            validate_args=False,
        )
        return self._hand_on(new)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.v.expand((*sample_shape, *self.v.shape)) if sample_shape else self.v

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.rsample(sample_shape).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_form(value)
        if value is self.v:  # its own draw
            return self.log_density
        here = (value == self.v).flatten(value.dim() - self.event_dim).all(-1) if self.event_dim else value == self.v
        zero = torch.zeros_like(self.log_density)
        return torch.where(here, zero, zero - torch.inf) + self.log_density

    @classmethod
    def infer_shapes(cls, event_dim: int = 0, **arg_shapes: ShapeLike) -> tuple[Size, Size]:  # type: ignore[override]
        shape = Size(arg_shapes["v"])
        return shape[: len(shape) - event_dim], shape[len(shape) - event_dim :]

    @property
    def mean(self) -> Tensor:
        return self.v

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.v)

    def cdf(self, value: Tensor) -> Tensor:
        if self.event_dim:
            raise NotImplementedError(f"Delta: a point of event shape {tuple(self.event_shape)} has no cdf.")
        return (value >= self.v).to(self.log_density.dtype)

    def icdf(self, value: Tensor) -> Tensor:
        if self.event_dim:
            raise NotImplementedError(f"Delta: a point of event shape {tuple(self.event_shape)} has no icdf.")
        return self.v.expand(torch.broadcast_shapes(value.shape, self.v.shape))

    def entropy(self) -> Tensor:
        """The negative of log_density, which is what `-log_prob` is at every draw."""
        return -self.log_density


class Unit(Distribution):
    """A draw of nothing (event shape (0,)) that carries a log factor.

    Args: log_factor, of the batch shape; has_rsample, whether the factor is differentiated pathwise, which a guide
        must decide.
    """

    arg_constraints = {"log_factor": constraints.real}
    support = constraints.independent(constraints.real, 1)

    def __init__(
        self, log_factor: Tensor, *, has_rsample: bool | None = None, validate_args: bool | None = None
    ) -> None:
        self.log_factor = log_factor
        self.has_rsample = bool(has_rsample)
        super().__init__(log_factor.shape, Size((0,)), validate_args)

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        return Unit(self.log_factor.expand(Size(batch_shape)), has_rsample=self.has_rsample, validate_args=False)

    def has_rsample_(self, value: bool) -> Self:
        self.has_rsample = value
        return self

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        return Size(arg_shapes["log_factor"]), Size((0,))

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.log_factor.new_empty(self.shape(sample_shape))

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_form(value)
        shape = broadcast_shape(value.shape[:-1], self.batch_shape)
        return self.log_factor if self.log_factor.shape == shape else self.log_factor.expand(shape)

    def score_parts(self, x: Tensor) -> ScoreParts:
        log_prob = self.log_prob(x)
        return ScoreParts(log_prob, 0.0 if self.has_rsample else log_prob, log_prob if self.has_rsample else 0.0)
