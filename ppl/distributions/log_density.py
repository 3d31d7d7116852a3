"""Any function of a value as a distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.masked import feasible
from ppl.distributions.prototype import NoSampler, log_prob_shape


class LogDensity(Distribution):
    """The distribution whose log density is `fn(value) - log_normalizer`, normalised or not.

    Without a sampler it works wherever no draw is needed: as a prior under NUTS and guides (which start from a point of the
    support), with `obs=` or `condition` as a likelihood, and its density anywhere. A draw that is asked for says what is
    missing. An unnormalised density shifts evidence by its unknown constant, and nothing else.

    Args:
        fn: a function of the value alone, which sees values of shape (*sample, *batch, *event) and returns log densities
            that broadcast to (*sample, *batch). It closes over its parameters; they get gradients. It is called at points
            of the support only; elsewhere the log density is -inf.
        support: a constraint on values; its event dims may be fewer than the event shape's.
        event_shape, batch_shape: of one draw, and of independent repetitions. `expand` repeats without calling fn anew.
        sampler: a function of a sample shape that returns draws of shape (*sample, *batch at construction, *event), with
            gradients if has_rsample is true.
        log_normalizer: a number or a tensor that broadcasts with the batch shape.
        has_rsample: whether the sampler's draws are reparameterised.

    Pickles when fn and sampler do (functions at a module's top level, or methods of picklable objects).
    """

    arg_constraints = {"log_normalizer": constraints.real}
    log_normalizer: Tensor | float

    def __init__(
        self,
        fn: Callable[[Tensor], Tensor],
        support: Any = constraints.real,
        event_shape: ShapeLike = Size(),
        batch_shape: ShapeLike = Size(),
        sampler: Callable[[Size], Tensor] | None = None,
        log_normalizer: Tensor | float = 0.0,
        has_rsample: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        event, batch = Size(event_shape), Size(batch_shape)
        if not callable(fn):
            raise ValueError(f"LogDensity: fn must be a function of a value, but got {type(fn).__name__}.")
        if has_rsample and sampler is None:
            raise ValueError(
                "LogDensity: has_rsample=True needs a sampler; write sampler=… (a function of a sample shape)."
            )
        if len(event) < support.event_dim:
            raise ValueError(
                f"LogDensity: the support {support} is one of draws with {support.event_dim} event dims, but event_shape is "
                f"{tuple(event)}; write event_shape=(…), the shape of one draw."
            )
        rest = len(event) - support.event_dim
        self.fn, self.sampler, self._own_batch = fn, sampler, batch
        self._support = constraints.independent(support, rest) if rest else support
        self.log_normalizer = log_normalizer
        self._reparameterised = has_rsample
        super().__init__(batch, event, validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether the sampler's draws are reparameterised, as it was said at construction."""
        return bool(vars(self).get("has_rsample", self._reparameterised))

    @property
    def support(self) -> Any:
        return self._support

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        shape, own = Size(batch_shape), self.batch_shape
        if len(own) > len(shape) or any(a not in (1, b) for a, b in zip(reversed(own), reversed(shape), strict=False)):
            raise ValueError(
                f"LogDensity: batch shape {tuple(own)} does not expand to {tuple(shape)}; each dim must be equal or 1, "
                "counted from the right."
            )
        new = object.__new__(type(self))
        vars(new).update(vars(self))
        new._batch_shape = shape
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shape = log_prob_shape(self, value)
        inside = self._support.check(value) if value.numel() and self._inner() is not constraints.real else None
        if inside is not None:
            value = torch.where(inside.reshape(inside.shape + (1,) * len(self.event_shape)), value, self._point(value))
        log_prob = self.fn(value)
        if not isinstance(log_prob, Tensor):
            raise ValueError(
                f"LogDensity: fn must return a tensor of log densities, but it returned {type(log_prob).__name__}."
            )
        try:
            log_prob = (log_prob - self.log_normalizer).expand(shape)
        except RuntimeError:
            raise ValueError(
                f"LogDensity: fn returned shape {tuple(log_prob.shape)} for a value of shape {tuple(value.shape)}; expected "
                f"one that broadcasts to {tuple(shape)} (sample and batch dims; sum over the {len(self.event_shape)} event "
                "dims, or give event_shape=…)."
            ) from None
        return log_prob if inside is None else torch.where(inside, log_prob, torch.full_like(log_prob, -torch.inf))

    def _inner(self) -> Any:
        support = self._support
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        return support

    def _point(self, value: Tensor) -> Tensor:
        """A point of the support, where fn is called in place of values outside."""
        return feasible(self, value)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        with torch.no_grad():
            return self._draw(Size(sample_shape)).detach()

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        if not self.has_rsample:
            raise NotImplementedError(
                "LogDensity: its draws are not reparameterised; give sampler=… that is, and has_rsample=True."
            )
        return self._draw(Size(sample_shape))

    def _draw(self, sample_shape: Size) -> Tensor:
        if self.sampler is None:
            raise NoSampler(
                "LogDensity cannot be sampled: it was made without a sampler. Write LogDensity(fn, …, sampler=draw) with "
                "draw(sample_shape), or give its site a value (condition, obs=…), or let an inference start without a draw "
                "(init_to_uniform, init_to_feasible, init_to_value)."
            )
        new = len(self.batch_shape) - len(self._own_batch)
        aligned = (1,) * new + tuple(self._own_batch)
        fresh = [i for i, (a, b) in enumerate(zip(aligned, self.batch_shape, strict=True)) if a != b]
        if not fresh:
            drawn = self.sampler(sample_shape)
        else:  # repetitions are drawn as samples, and moved into place
            inner = LogDensity(
                self.fn, self._support, self.event_shape, self._own_batch, self.sampler, has_rsample=self.has_rsample
            )
            repeated = self.wrappers["expand"](inner, self.batch_shape)
            drawn = repeated.rsample(sample_shape) if self.has_rsample else repeated.sample(sample_shape)
        if drawn.shape != self.shape(sample_shape):
            raise ValueError(
                f"LogDensity: the sampler returned shape {tuple(drawn.shape)}, but expected {tuple(self.shape(sample_shape))}: "
                "sample shape, batch shape and event shape."
            )
        return drawn

    def __repr__(self) -> str:
        name = getattr(self.fn, "__name__", type(self.fn).__name__)
        return f"LogDensity({name}, {self._support}, event_shape={tuple(self.event_shape)}, batch_shape={tuple(self.batch_shape)})"
