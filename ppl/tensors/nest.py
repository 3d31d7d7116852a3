"""Nests of tuples, lists and dicts with tensors and other things in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def leaves(nest: Any) -> list[Any]:
    """What stands in a nest, in order; what is no tuple, list or dict is a leaf."""
    found: list[Any] = []
    map_nest(found.append, nest)
    return found


def map_nest(function: Callable[[Any], Any], nest: Any) -> Any:
    """The same nest with each leaf replaced by `function(leaf)`."""
    if isinstance(nest, tuple):
        parts = (map_nest(function, part) for part in nest)
        return type(nest)(*parts) if hasattr(nest, "_fields") else tuple(parts)
    if isinstance(nest, list):
        return [map_nest(function, part) for part in nest]
    if isinstance(nest, dict):
        return {key: map_nest(function, part) for key, part in nest.items()}
    return function(nest)


def refill(nest: Any, new: Iterator[Any]) -> Any:
    """The same nest with its leaves replaced by new ones, in order."""
    return map_nest(lambda _: next(new), nest)
