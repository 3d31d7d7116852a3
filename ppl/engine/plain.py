"""What is no tensor, and yet part of a recorded program, since its functions refer to it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor

PLAIN = (bool, int, float, complex, str, bytes, type(None), Tensor)


def is_same(a: Any, b: Any) -> bool:
    """Whether two things are one and the same, or equal numbers or texts."""
    if a is b:
        return True
    if type(a) is not type(b) or isinstance(a, Tensor) or not isinstance(a, PLAIN):
        return isinstance(a, MethodType) and a == b
    return bool(a == b) or (a != a and b != b)


def are_same(a: Any, b: Any) -> bool:
    """Whether two sequences hold the same, be it in tuples."""
    if len(a) != len(b) or all(map(operator.is_, a, b)):
        return len(a) == len(b)
    return all(
        are_same(x, y) if isinstance(x, tuple) and isinstance(y, tuple) else is_same(x, y)
        for x, y in zip(a, b, strict=True)
    )


class Plain(NamedTuple):
    """A number, text or tensor that the functions refer to by a name; or what a container, array or module holds."""

    words: str
    line: Callable[[], str]
    get: Callable[[], Any]
    value: Any
    same: Callable[[Any, Any], bool] = is_same

    def has_changed(self) -> bool:
        """Whether the name refers to another one now."""
        now = self.get()
        return now is not self.value and not self.same(now, self.value)


def values_of(container: Any) -> list[Any]:
    """What a container holds, without its keys."""
    return list(container.values()) if isinstance(container, dict) else list(container)


def hooks_of(module: torch.nn.Module) -> list[dict[int, Any]]:
    """The hooks of a module, by kind and number."""
    return [value for name, value in vars(module).items() if name.endswith("_hooks") and isinstance(value, dict)]


def held_by(module: torch.nn.Module) -> list[Any]:
    """What a module holds: options such as a dropout's probability, modules, hooks, parameters and buffers."""
    found = list(vars(module).values())
    spaces: list[dict[Any, Any]] = [module._modules, module._parameters, module._buffers, *hooks_of(module)]
    return found + [value for space in spaces for value in space.values()]
