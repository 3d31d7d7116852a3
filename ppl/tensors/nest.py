"""Nests of tuples, lists and dicts with tensors and other things in them; many steps of them, along the first dim."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch as functorch
from torch._functorch import vmap as torch_vmap

Body = Callable[[Any, list[Tensor], list[Tensor]], list[Tensor]]


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


def number_as_tensor(leaf: Any) -> Any:
    """A number as a tensor, because it may be another one at another step."""
    return torch.as_tensor(leaf) if isinstance(leaf, (int, float)) and not isinstance(leaf, bool) else leaf


def tensors_in(nest: Any) -> list[Tensor]:
    """The tensors in a nest, in order."""
    return [leaf for leaf in leaves(nest) if isinstance(leaf, Tensor)]


def refill_tensors(nest: Any, tensors: Any) -> Any:
    """A nest with its tensors replaced, in order; what is no tensor stays."""
    new = iter(tensors)
    return map_nest(lambda leaf: next(new) if isinstance(leaf, Tensor) else leaf, nest)


def device_of(*nests: Any) -> torch.device | None:
    """The device of the first tensor in some nests; None where there is none."""
    return next((t.device for nest in nests for t in tensors_in(nest)), None)


def stack_nests(nests: list[Any]) -> Any:
    """The leaves of many nests of one form, stacked."""
    rows = [leaves(map_nest(number_as_tensor, nest)) for nest in nests]
    columns = []
    for column in zip(*rows, strict=True):
        if not all(isinstance(leaf, Tensor) for leaf in column):
            columns.append(column[0])
            continue
        shape = torch.broadcast_shapes(*(leaf.shape for leaf in column))
        columns.append(torch.stack([leaf.expand(shape) for leaf in column]))
    return refill(nests[0], iter(columns))


def join_nests(first: list[Any], rest: Any) -> Any:
    """Some nests one by one, and then many stacked ones, all as one stack."""
    if not tensors_in(rest):
        return rest
    head = stack_nests(first)
    rows = []
    for a, b in zip(leaves(head), leaves(rest), strict=True):
        if not isinstance(a, Tensor):
            rows.append(a)
            continue
        shape = torch.broadcast_shapes(a.shape[1:], b.shape[1:])
        rows.append(torch.cat([a.expand(len(a), *shape), b.expand(len(b), *shape)]))
    return refill(rest, iter(rows))


def is_repeated(out: Any, carry: Any) -> bool:
    """Whether a stack of carries is one carry over and over.

    Raises: ValueError where they have not as many leaves.
    """
    ours, known = leaves(out), leaves(map_nest(number_as_tensor, carry))
    if len(ours) != len(known):
        raise ValueError(
            f"scan: the carry must keep its form, but has {len(known)} parts out of the first step and {len(ours)} later."
        )
    return all(_is_constant(a, b) for a, b in zip(ours, known, strict=True))


def _is_constant(stacked: Any, leaf: Any) -> bool:
    if not isinstance(stacked, Tensor) or not isinstance(leaf, Tensor):
        return stacked is leaf or bool(stacked == leaf)
    if stacked.shape[1:] != leaf.shape or stacked.dtype != leaf.dtype:
        return False
    rows = stacked[:1] if stacked.stride(0) == 0 else stacked
    return torch.equal(rows.detach(), leaf.detach().expand_as(rows))


def at_once(body: Body, arguments: tuple[Tensor, list[Tensor], list[Tensor]], differs: bool) -> list[Tensor]:
    """What a function of (step, x, carry) gives for all steps under `torch.vmap`, steps first.

    What does not differ between steps is repeated without copying. Args: differs, whether the carry has the steps first.
    """
    index, xs, carry = arguments
    size = len(index)
    # what torch.vmap does, without its look at nests of arguments
    torch_vmap.lazy_load_decompositions()  # type: ignore[attr-defined]
    level = functorch._vmap_increment_nesting(size, "different")
    try:
        at, *x = (functorch._add_batch_dim(tensor, 0, level) for tensor in (index, *xs))
        given = [functorch._add_batch_dim(tensor, 0, level) for tensor in carry] if differs else carry
        found = [functorch._unwrap_batched(tensor, level) for tensor in body(at, x, given)]
    finally:
        functorch._vmap_decrement_nesting()
    return [
        tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0) if dim else tensor
        for tensor, dim in found
    ]
