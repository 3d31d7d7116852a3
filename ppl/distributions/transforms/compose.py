"""Transforms made of others: one after the other, or each entry of a batch on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Size, Tensor, nn

from ppl.distributions import constraints
from ppl.distributions.transforms.module import TransformModule
from ppl.distributions.transforms.transform import Transform, remembers, sum_rightmost

_twins: dict[type, type] = {}


class Combinator(Transform):
    """The base of transforms made of others. Where one of those is a module, so is the whole: parameters are found."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        twin = _twins.get(cls)
        return super().__new__(cls if twin is None or not _has_module([args, kwargs]) else twin)


def twin_of(cls: type) -> Callable[[type], type]:
    """Declare the class of a combinator whose parts contain modules."""

    def declare(twin: type) -> type:
        _twins[cls] = twin
        return twin

    return declare


def _has_module(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return any(map(_has_module, value)) if isinstance(value, (list, tuple)) else isinstance(value, nn.Module)


class ComposeTransform(Combinator, torch.distributions.transforms.ComposeTransform):
    """A chain of transforms, applied first to last. The parts do the caching.

    Where a part is a module, so is the chain.
    """

    def __init__(self, parts: Sequence[Any], cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.parts = [part.with_cache(cache_size) if cache_size else part for part in parts]

    @property
    def domain(self) -> Any:  # type: ignore[override]
        """The first part's domain, with as many event dims as the parts need."""
        if not self.parts:
            return constraints.real
        event_dim = self.parts[-1].codomain.event_dim
        for part in reversed(self.parts):
            event_dim = max(event_dim + part.domain.event_dim - part.codomain.event_dim, part.domain.event_dim)
        return _with_event_dim(self.parts[0].domain, event_dim)

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        """The last part's codomain, with as many event dims as the parts need."""
        if not self.parts:
            return constraints.real
        event_dim = self.parts[0].domain.event_dim
        for part in self.parts:
            event_dim = max(event_dim + part.codomain.event_dim - part.domain.event_dim, part.codomain.event_dim)
        return _with_event_dim(self.parts[-1].codomain, event_dim)

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return all(part.bijective for part in self.parts)

    @property
    def sign(self) -> Any:
        sign: Any = 1
        for part in self.parts:
            sign = sign * part.sign
        return sign

    def with_cache(self, cache_size: int = 1) -> Any:
        if self._cache_size == cache_size:
            return self
        new = type(self)(self.parts, cache_size)
        if cache_size == 0:
            new.parts = [part.with_cache(0) for part in self.parts]
        return new

    def _remembers(self, y: Tensor) -> bool:
        return bool(self.parts) and remembers(self.parts[-1], y)

    def clear_cache(self) -> None:
        for part in self.parts:
            if isinstance(part, Transform):
                part.clear_cache()

    def __call__(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def _inv_call(self, y: Tensor) -> Tensor:
        for part in reversed(self.parts):
            y = part.inv(y)
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        if not self.parts:
            return torch.zeros_like(x)
        values = [x]
        for part in self.parts[:-1]:
            values.append(part(values[-1]))
        values.append(y)
        event_dim = self.domain.event_dim
        total: Any = 0.0
        for part, before, after in zip(self.parts, values[:-1], values[1:], strict=True):
            log_det = part.log_abs_det_jacobian(before, after)
            total = total + sum_rightmost(log_det, event_dim - part.domain.event_dim)
            event_dim += part.codomain.event_dim - part.domain.event_dim
        return total  # type: ignore[no-any-return]

    def forward_shape(self, shape: Size) -> Size:
        for part in self.parts:
            shape = part.forward_shape(shape)
        return shape

    def inverse_shape(self, shape: Size) -> Size:
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return shape

    def __repr__(self) -> str:
        return f"{type(self).__name__}([{', '.join(map(repr, self.parts))}])"


@twin_of(ComposeTransform)
class ComposeTransformModule(ComposeTransform, TransformModule):
    """A chain of transforms, some with learnable parameters, numbered "0", "1", … in its `state_dict`."""

    def __init__(self, parts: Sequence[Any], cache_size: int = 0) -> None:
        nn.Module.__init__(self)
        ComposeTransform.__init__(self, parts, cache_size)
        for index, part in enumerate(self.parts):
            if isinstance(part, nn.Module):
                self.add_module(str(index), part)


class IndependentTransform(Combinator, torch.distributions.transforms.IndependentTransform):
    """A transform whose last batch dims are read as event dims: log determinants sum over them."""

    def __init__(self, base_transform: Any, reinterpreted_batch_ndims: int, cache_size: int = 0) -> None:
        Transform.__init__(self, cache_size)
        self.base_transform = base_transform.with_cache(cache_size) if cache_size else base_transform
        self.reinterpreted_batch_ndims = reinterpreted_batch_ndims

    @property
    def domain(self) -> Any:  # type: ignore[override]
        return constraints.independent(self.base_transform.domain, self.reinterpreted_batch_ndims)

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        return constraints.independent(self.base_transform.codomain, self.reinterpreted_batch_ndims)

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return bool(self.base_transform.bijective)

    @property
    def sign(self) -> Any:
        return self.base_transform.sign

    def with_cache(self, cache_size: int = 1) -> Any:
        if self._cache_size == cache_size:
            return self
        return type(self)(self.base_transform.with_cache(cache_size), self.reinterpreted_batch_ndims, cache_size)

    def _remembers(self, y: Tensor) -> bool:
        return remembers(self.base_transform, y)

    def clear_cache(self) -> None:
        if isinstance(self.base_transform, Transform):
            self.base_transform.clear_cache()

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x, self.base_transform.domain)
        return self.base_transform(x)  # type: ignore[no-any-return]

    def _inv_call(self, y: Tensor) -> Tensor:
        self._check(y, self.base_transform.codomain)
        return self.base_transform.inv(y)  # type: ignore[no-any-return]

    def _check(self, value: Tensor, base: Any) -> None:
        event_dim = base.event_dim + self.reinterpreted_batch_ndims
        if value.dim() < event_dim:
            raise ValueError(f"{self!r} needs at least {event_dim} dims, got the shape {tuple(value.shape)}.")

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return sum_rightmost(self.base_transform.log_abs_det_jacobian(x, y), self.reinterpreted_batch_ndims)

    def forward_shape(self, shape: Size) -> Size:
        return self.base_transform.forward_shape(shape)  # type: ignore[no-any-return]

    def inverse_shape(self, shape: Size) -> Size:
        return self.base_transform.inverse_shape(shape)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_transform!r}, {self.reinterpreted_batch_ndims})"


@twin_of(IndependentTransform)
class IndependentTransformModule(IndependentTransform, TransformModule):
    """A transform with learnable parameters whose last batch dims are read as event dims."""

    def __init__(self, base_transform: Any, reinterpreted_batch_ndims: int, cache_size: int = 0) -> None:
        nn.Module.__init__(self)
        IndependentTransform.__init__(self, base_transform, reinterpreted_batch_ndims, cache_size)


def _with_event_dim(constraint: Any, event_dim: int) -> Any:
    extra = event_dim - constraint.event_dim
    return constraints.independent(constraint, extra) if extra > 0 else constraint
