"""What can be known of a distribution's draws without drawing, and distributions without checks inside others."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ppl.distributions.distribution import broadcast_shape
from ppl.distributions.lifting import lift
from ppl.distributions.masked import mask_value


class NoSampler(NotImplementedError):
    """A draw was asked of a distribution that has none; the message says what to write."""


def log_prob_shape(d: torch.distributions.Distribution, value: Tensor) -> torch.Size:
    """The shape of `d.log_prob(value)`."""
    return broadcast_shape(value.shape[: value.dim() - len(d.event_shape)], d.batch_shape)


def unchecked(d: torch.distributions.Distribution) -> Any:
    """The distribution, as one of ours, that does not check values: for use inside another one that does.

    A wrapper asks its base for densities where a value may lie outside the base's support, which is no error there.
    """
    new = copy.copy(lift(d))
    new._validate_args = False
    for name, field in vars(new).items():
        if isinstance(field, torch.distributions.Distribution):
            vars(new)[name] = unchecked(field)
    return new


def log_prob_anywhere(d: torch.distributions.Distribution, value: Tensor) -> Tensor:
    """The log density of a distribution, -inf outside its support whatever a foreign class says there."""
    support: Any = d.support
    inner = support
    while isinstance(inner, torch.distributions.constraints.independent):
        inner = inner.base_constraint
    if inner is torch.distributions.constraints.real or value.numel() == 0:  # torch cannot check an empty value
        return d.log_prob(value)
    inside = support.check(value)
    density = d.log_prob(mask_value(d, value, inside))
    return torch.where(inside, density, torch.full_like(density, -torch.inf))


def has_varying_support(d: torch.distributions.Distribution) -> bool:
    """Whether the entries of the batch may have different supports: some bound of the support is a tensor with dims."""
    try:
        return _varies(d.support)
    except NotImplementedError:  # a foreign distribution without one
        return False


def _varies(support: Any) -> bool:
    parts = vars(support).values() if hasattr(support, "__dict__") else ()
    return any(
        v.dim() > 0
        if isinstance(v, Tensor)
        else isinstance(v, torch.distributions.constraints.Constraint) and _varies(v)
        for v in parts
    )


def own(d: torch.distributions.Distribution, method: str) -> bool:
    """Whether a distribution's class has a method (`cdf`, `log_cdf`) of its own, rather than the base's default."""
    given = getattr(type(d), method)
    bases = [c for c in type(d).__mro__ if c.__module__.endswith("distributions.distribution")]
    return all(given is not vars(c).get(method) for c in bases)


def like(d: torch.distributions.Distribution) -> Tensor:
    """An empty tensor of the dtype and on the device of the distribution's floating point draws, from its parameters."""
    for tensor in _tensors(d):
        return tensor.new_empty(0)
    return torch.empty(0)


def _tensors(d: Any) -> Iterator[Tensor]:
    for field in vars(d).values():
        if isinstance(field, Tensor) and field.is_floating_point():
            yield field
        elif isinstance(field, torch.distributions.Distribution):
            yield from _tensors(field)
