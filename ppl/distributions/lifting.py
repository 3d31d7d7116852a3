"""Torch distributions as ours: the bridge for those that know nothing of this framework."""

from __future__ import annotations

import copy
import inspect
from typing import Any, Self

import torch
from torch import Size

from ppl.distributions import validation
from ppl.distributions.distribution import Distribution, DistributionMeta, ShapeLike, forceable

_lifted: dict[type, type] = {}


def lift(d: torch.distributions.Distribution) -> Distribution:
    """Any torch distribution as one of ours: the same object's fields, with this framework's methods added.

    The result is still an instance of the original class. Ours come back as they are. Unless the object was told
    itself whether to check values, it does so where validation is enabled here and now.
    """
    if isinstance(d, Distribution):
        return d
    cls = type(d)
    ours = _lifted.get(cls)
    if ours is None:
        ours = _lifted[cls] = _lifted_class(cls)
    new: Distribution = object.__new__(ours)
    new.__dict__.update(d.__dict__)
    if "_validate_args" not in vars(d):
        new._validate_args = d._validate_args and validation.is_validation_enabled()
    return new


def _lifted_class(cls: type) -> type:
    def expand(self: Any, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        try:
            return self._hand_on(lift(cls.expand(self, Size(batch_shape), _instance)))  # type: ignore[attr-defined]
        except NotImplementedError:
            return Distribution.expand(self, batch_shape)

    namespace: dict[str, Any] = {"__reduce__": _reduce_lifted, "_foreign": cls, "expand": expand}
    own: Any = inspect.getattr_static(cls, "has_rsample")
    if isinstance(own, property):
        namespace["has_rsample"] = forceable(own)
    meta: type = DistributionMeta
    if not issubclass(meta, type(cls)):  # the foreign class has a metaclass too, such as ABCMeta
        meta = type("LiftedMeta", (DistributionMeta, type(cls)), {})
    ours: type = meta(cls.__name__, (cls, Distribution), namespace)
    return ours


def _reduce_lifted(self: Any) -> tuple[Any, ...]:
    return _rebuild_lifted, (self._foreign, self.__dict__)


def _rebuild_lifted(cls: type, state: dict[str, Any]) -> Distribution:
    original: Any = object.__new__(cls)
    original.__dict__.update(state)
    return lift(original)


class Wraps(Distribution):
    """A distribution made of one other, `base_dist`, which decides how it draws."""

    base_dist: torch.distributions.Distribution

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether the base's draws are reparameterised."""
        return bool(self.base_dist.has_rsample)

    def has_rsample_(self, value: bool) -> Self:
        """Force or restore the choice for this object alone: the base may have other owners, so a copy is changed."""
        self.base_dist = copy.copy(lift(self.base_dist)).has_rsample_(value)
        return self

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        """Whether the base's support can be listed."""
        return bool(self.base_dist.has_enumerate_support)
