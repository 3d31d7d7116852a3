"""Which named tensors did a tensor come from? Tracked operation by operation."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

Names = frozenset[str]
_NOTHING: Names = frozenset()
_READS = {Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__}


class Provenance(TorchFunctionMode):
    """While active, every tensor made by torch remembers the names of the tensors it was computed from.

    A value that leaves torch (`.item()`, `if x > 0:`) may steer the program, so its names are counted as sources of
    everything named later: see `control`.

    Args: quiet, beginnings of the names of modules whose looks at values are checks and steer nothing.
    """

    def __init__(self, quiet: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._quiet = quiet
        self._names: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.control: Names = _NOTHING

    @property
    def is_used(self) -> bool:
        """Whether any tensor that is still alive has a name."""
        return bool(self._names)

    def name(self, value: Tensor, name: str) -> Tensor:
        """A fresh view of a tensor that comes from `name` alone."""
        with torch._C.DisableTorchFunction():
            view = value.view_as(value)
        self._names[view] = frozenset((name,))
        return view

    def mark(self, value: Tensor, names: Names) -> Tensor:
        """A fresh view of a tensor that comes from some names, and from whatever it was computed from."""
        with torch._C.DisableTorchFunction():
            view = value.view_as(value)
        self._names[view] = names | self._names.get(value, _NOTHING)
        return view

    def of(self, thing: Any) -> Names:
        """The names that a tensor, or all tensors in a nest of containers and objects, came from."""
        found: Names = _NOTHING
        for value in _tensors(thing):
            found |= self._names.get(value, _NOTHING)
        return found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        sources = self.of(_value_arguments(func, args, kwargs))
        if sources:
            if func in _READS and not _reader().startswith(self._quiet):
                self.control |= sources
            targets = list(_tensors(result))
            if _writes(func):
                written = args[0]
                targets += [written] if written._base is None else [written, written._base]
            for target in targets:
                self._names[target] = self._names.get(target, _NOTHING) | sources
        return result


def _reader() -> str:
    """The module whose code called the torch function that is being watched."""
    return str(sys._getframe(2).f_globals.get("__name__", ""))


def _value_arguments(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The arguments whose values reach the result; others only lend their dtype, device or shape."""
    name = getattr(func, "__name__", "")
    if name.startswith("new_") or name.endswith("_like"):
        return args[1:], kwargs
    return args[:1] if name in _LENDING else (args, kwargs)


_LENDING = {"to", "type_as", "expand_as", "view_as", "reshape_as"}


def _writes(func: Callable[..., Any]) -> bool:
    """Whether a function changes its first argument: `x[i] = y`, `x.add_(y)`."""
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))


def _tensors(thing: Any, depth: int = 0) -> Iterator[Tensor]:
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, (list, tuple)):
        for part in thing:
            yield from _tensors(part, depth)
    elif isinstance(thing, dict):
        for part in thing.values():
            yield from _tensors(part, depth)
    elif isinstance(thing, (torch.distributions.Distribution, torch.distributions.transforms.Transform)) and depth < 8:
        yield from _tensors(vars(thing), depth + 1)
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type) and depth < 8:  # a distribution's parts
        for part in dataclasses.fields(thing):
            yield from _tensors(getattr(thing, part.name, None), depth + 1)
