"""The laws of many steps as one distribution."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints, transforms

from ppl.distributions.distribution import Distribution, ScoreParts, ShapeLike

Rebuild = Callable[[Iterator[Tensor]], Any]


class Steps(Distribution):
    """Distributions of one kind, one for each step, along a leading batch dim.

    What it is asked it asks of all its steps at once, by `torch.vmap`; so the steps may be of any kind that vmap takes.

    Shapes: batch (T, *batch), event as each step's.
    Args:
        step: one of the distributions, for all that is alike in them.
        tensors: what `take_apart` finds in each of them, with the steps on a leading dim; one that all steps share has
            size 1 there.
        length: T.
        rank: the number of batch dims of a step; more than its own where its values have more.
    """

    arg_constraints = {}
    _derived = ("tensors",)

    def __init__(self, step: Distribution, tensors: Sequence[Tensor], length: int, rank: int | None = None) -> None:
        self._like, self.length, self._given = step, length, tensors
        _, self._rebuild = take_apart(step)  # now, as `tensors` were found: fields may be added when they are asked for
        batch = step.batch_shape
        gap = max(len(batch) if rank is None else rank, len(batch)) - len(batch)
        super().__init__(Size((length, *(1,) * gap, *batch)), step.event_shape, validate_args=False)

    @functools.cached_property
    def tensors(self) -> list[Tensor]:
        """The tensors of all steps, with size 1 on the first dim where they share one."""
        return [t.narrow(0, 0, 1) if t.stride(0) == 0 else t for t in self._given]

    @property
    def step(self) -> Any:
        """The first step's distribution."""
        return self._rebuild(iter([t[0] for t in self.tensors]))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_like": self.step, "_given": self.tensors, "_rebuild": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        _, self._rebuild = take_apart(self._like)

    def _each(self, function: Callable[..., Any], *values: Tensor) -> Any:
        """The results of a function of a step's distribution and values, steps first; None where it gives None."""
        dims = [0 if t.size(0) == self.length and self.length != 1 else None for t in self.tensors]
        shared = [t if dim == 0 else t.squeeze(0) for t, dim in zip(self.tensors, dims, strict=True)]

        def one(tensors: list[Tensor], *given: Tensor) -> Any:
            return function(self._rebuild(iter(tensors)), *given)

        if all(dim is None for dim in dims) and not values:
            return one(shared).expand(self.length, *one(shared).shape)
        return torch.vmap(one, (dims, *(0 for _ in values)), randomness="different")(shared, *values)

    def _first_dim(self, value: Tensor) -> Tensor:
        """A value with its steps on the first dim, sample dims after it."""
        position = value.dim() - len(self.event_shape) - len(self.batch_shape)
        return value.movedim(position, 0)

    def log_prob(self, value: Tensor) -> Tensor:
        samples = value.dim() - len(self.event_shape) - len(self.batch_shape)
        result: Tensor = self._each(lambda d, v: d.log_prob(v), self._first_dim(value))
        return result.movedim(0, samples)

    def score_parts(self, x: Tensor) -> ScoreParts:
        like = self.step
        plain = like.score_parts(like.sample())
        kept = [isinstance(part, Tensor) for part in plain]

        def tensors(d: Distribution, v: Tensor) -> list[Any]:
            return [part for part, keep in zip(d.score_parts(v), kept, strict=True) if keep]

        found = iter(self._each(tensors, self._first_dim(x)))
        return ScoreParts(*(next(found) if keep else part for part, keep in zip(plain, kept, strict=True)))

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        with torch.no_grad():
            return self._draw(lambda d: d.sample(Size(sample_shape)), len(sample_shape))

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self._draw(lambda d: d.rsample(Size(sample_shape)), len(sample_shape))

    def _draw(self, draw: Callable[[Any], Tensor], samples: int) -> Tensor:
        marks = torch.empty(self.length)
        result: Tensor = self._each(lambda d, _: draw(d), marks)
        return result.movedim(0, samples)

    def _rebuild_at(self, index: int) -> Any:
        return self._rebuild(iter([t[index if t.size(0) == self.length else 0] for t in self.tensors]))

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether each step's draws are reparameterised."""
        return bool(self._like.has_rsample)

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        """Whether each step has a finite support."""
        return bool(self._like.has_enumerate_support)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values: Tensor = self.step.enumerate_support(expand=False)
        values = values.reshape((-1, *(1,) * len(self.batch_shape), *self.event_shape))
        return values.expand((-1, *self.batch_shape, *self.event_shape)) if expand else values

    @property
    def cardinality(self) -> int:
        """The number of values of a step's support."""
        return int(self.step.cardinality)

    @property
    def support(self) -> Any:
        """The steps' supports, bounds that differ between steps along the leading dim."""
        alike = self._like.support
        if not take_apart(alike)[0]:
            return alike
        found: list[Tensor] = []
        rank = len(self.batch_shape) - 1 + len(self.event_shape)
        supports = [self._rebuild_at(i).support for i in range(self.length)]
        rows = [take_apart(support)[0] for support in supports]
        for column in zip(*rows, strict=True):
            aligned = [t.reshape((1,) * (rank - t.dim()) + t.shape) for t in column]
            found.append(torch.stack(aligned))
        return take_apart(supports[0])[1](iter(found))

    @property
    def mean(self) -> Tensor:
        return self._each(lambda d, _: d.mean, torch.empty(self.length))  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        return self._each(lambda d, _: d.variance, torch.empty(self.length))  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        return self._each(lambda d, _: d.entropy(), torch.empty(self.length))  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"Steps({type(self._like).__name__}, batch {tuple(self.batch_shape)}, event {tuple(self.event_shape)})"


class MixedSteps(Steps):
    """Distributions of any kinds, one for each step, all of one batch and event shape: asked one by one.

    Args: steps, at least one; rank, as in `Steps`.
    """

    def __init__(self, steps: Sequence[Distribution], rank: int | None = None) -> None:
        self.steps = list(steps)
        super().__init__(self.steps[0], [], len(self.steps), rank)

    def _each(self, function: Callable[..., Any], *values: Tensor) -> Any:
        found = [function(d, *(value[i] for value in values)) for i, d in enumerate(self.steps)]
        if isinstance(found[0], list):
            return [torch.stack(column) for column in zip(*found, strict=True)]
        return torch.stack(found)

    @property
    def step(self) -> Any:
        """The first step's distribution."""
        return self.steps[0]

    def _rebuild_at(self, index: int) -> Any:
        return self.steps[index]


def take_apart(thing: Any) -> tuple[list[Tensor], Rebuild]:
    """The tensors that a distribution is made of, and how to make another one of others.

    Those of its parts are among them: base distributions, transforms, constraints; parameters of modules are not.
    """
    found: list[Tensor] = []
    return found, _take_apart(thing, found)


def _take_apart(thing: Any, found: list[Tensor]) -> Rebuild:
    if isinstance(thing, Tensor):
        found.append(thing)
        return next
    if isinstance(thing, (list, tuple)) and not isinstance(thing, Size):
        parts = [_take_apart(part, found) for part in thing]
        kind = type(thing)
        return lambda tensors: kind(part(tensors) for part in parts)
    if isinstance(thing, _PARTS) and not isinstance(thing, torch.nn.Module):
        before, derived = len(found), thing._derived if isinstance(thing, Distribution) else ()
        fields = {
            name: _take_apart(value, found)
            for name, value in vars(thing).items()
            if _may_hold(value) and name not in derived
        }
        if len(found) == before:
            return lambda tensors: thing

        def rebuild(tensors: Iterator[Tensor]) -> Any:
            new = copy.copy(thing)
            for name in derived:
                vars(new).pop(name, None)
            vars(new).update({name: part(tensors) for name, part in fields.items()})
            return new

        return rebuild
    return lambda tensors: thing


_PARTS = (torch.distributions.Distribution, transforms.Transform, constraints.Constraint)


def _may_hold(value: Any) -> bool:
    return isinstance(value, (Tensor, list, tuple, *_PARTS)) and not isinstance(value, Size)
