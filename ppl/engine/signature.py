"""The arguments that a captured function was given, and whether others are like them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ppl.engine.program import Spec

PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, type(None))


class Arguments:
    """What a function was called with: tensors by name, such as `data` or `batch['x']`, and everything else.

    Args: owner, what error messages begin with.
    """

    def __init__(self, owner: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.owner = owner
        self._signature = _signature_of(fn)
        self._nests = self._by_name(args, kwargs)
        self._leaves = {name: pytree.tree_flatten_with_path(nest) for name, nest in self._nests.items()}
        found = [
            (name + pytree.keystr(path), leaf) for name, (leaves, _) in self._leaves.items() for path, leaf in leaves
        ]
        self.tensors = [(name, leaf) for name, leaf in found if isinstance(leaf, Tensor)]
        self._others = [(name, leaf) for name, leaf in found if not isinstance(leaf, Tensor)]
        self._specs = [Spec.of(leaf) for _, leaf in self.tensors]

    def match(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """The tensors of other arguments, in the order of `tensors`.

        Raises: ValueError naming the argument, for another structure, shape, dtype, device, or another Python value.
        """
        nests = self._by_name(args, kwargs)
        for name in [*self._nests, *nests]:
            if name not in nests or name not in self._nests:
                raise ValueError(
                    f"{self.owner}: argument {name} was {'' if name in self._nests else 'not '}given when captured."
                )
        tensors: list[Tensor] = []
        others: list[Any] = []
        for name, (_, structure) in self._leaves.items():
            nest = nests[name]
            leaves, other = (
                ([nest], structure) if isinstance(nest, Tensor) and structure.is_leaf() else pytree.tree_flatten(nest)
            )
            if other != structure:
                expected = _outline(self._nests[name])
                raise ValueError(f"{self.owner}: argument {name} is {_outline(nests[name])}, but was {expected}.")
            for leaf, (_, known) in zip(leaves, self._leaves[name][0], strict=True):
                if isinstance(leaf, Tensor) != isinstance(known, Tensor):
                    raise ValueError(f"{self.owner}: argument {name} has {_outline(leaf)} where {_outline(known)} was.")
                (tensors if isinstance(leaf, Tensor) else others).append(leaf)
        for value, (name, known) in zip(others, self._others, strict=True):
            if value is not known and not (isinstance(known, PLAIN) and type(value) is type(known) and value == known):
                raise ValueError(
                    f"{self.owner}: argument {name} was {known!r}, which is part of the program now, but is {value!r}. "
                    "Give a tensor if it is to change, or capture the function again."
                )
        for tensor, (name, _), spec in zip(tensors, self.tensors, self._specs, strict=True):
            if tensor.shape != spec.shape or tensor.dtype != spec.dtype or tensor.device != spec.device:
                raise ValueError(f"{self.owner}: argument {name} is {_outline(tensor)}, but was {_outline(spec)}.")
        return [_laid_out(tensor, spec) for tensor, spec in zip(tensors, self._specs, strict=True)]

    def _by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if self._signature is None:
            return {f"number {i}": value for i, value in enumerate(args)} | dict(kwargs)
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ValueError(f"{self.owner}: {error}.") from error
        bound.apply_defaults()
        return dict(bound.arguments)


def _signature_of(fn: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(fn)
    except (TypeError, ValueError):  # a builtin function
        return None


def _laid_out(tensor: Tensor, spec: Spec) -> Tensor:
    """The tensor in the layout that the operations were recorded with."""
    if tensor.stride() == spec.strides:
        return tensor
    with torch.no_grad():
        return torch.empty_strided(spec.shape, spec.strides, dtype=spec.dtype, device=spec.device).copy_(tensor)


def _outline(value: Any) -> str:
    if isinstance(value, (Tensor, Spec)):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(repr, value)) or 'nothing'}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {value!r}"
