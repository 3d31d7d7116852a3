"""Associative reductions and scans over a dim, in O(log T) depth, for any associative function of bundles of tensors.

Element t is the bundle of the slices at t; `combine(left, right)` takes two bundles with many elements along the dim
and combines them pairwise. Nothing but associativity is needed: the order of the elements is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Bundle = tuple[Tensor, ...]
Combine = Callable[[Bundle, Bundle], Bundle]


def associative_reduce(combine: Combine, elements: Sequence[Tensor], dim: int) -> Bundle:
    """Combine all elements, from left to right, into one.

    Args: dim, along which all tensors of `elements` have one size; negative where their numbers of dims differ.
    Shapes: (*, T, *) -> (*, 1, *); the dim stays.
    Raises: ValueError where there is no element, because the function's neutral element is not known.
    """
    bundle = tuple(elements)
    length = _length(bundle, dim)
    if length == 0:
        raise ValueError("associative_reduce: there is nothing to combine along a dim of size 0.")
    while length > 1:
        pairs = combine(_every_second(bundle, dim, 0, length - 1), _every_second(bundle, dim, 1, length))
        if length % 2:
            last = tuple(x.narrow(dim, length - 1, 1) for x in bundle)
            bundle = tuple(_cat(a, b, dim) for a, b in zip(pairs, last, strict=True))
        else:
            bundle = pairs
        length = (length + 1) // 2
    return bundle


def associative_scan(combine: Combine, elements: Sequence[Tensor], dim: int, reverse: bool = False) -> Bundle:
    """All prefixes: entry t combines the elements 0 … t; with `reverse` all suffixes: entry t combines t … T - 1.

    Shapes: (*, T, *) -> (*, T, *), T may be 0. Where `combine` broadcasts other dims, so does the result.
    """
    bundle = tuple(elements)
    if _length(bundle, dim) == 0:
        return bundle
    if not reverse:
        return _scan(combine, bundle, dim)
    flipped = _scan(lambda left, right: combine(right, left), tuple(x.flip(dim) for x in bundle), dim)
    return tuple(x.flip(dim) for x in flipped)


def _scan(combine: Combine, bundle: Bundle, dim: int) -> Bundle:
    """Prefixes of pairs give every second prefix; one more combination gives those between."""
    length = _length(bundle, dim)
    if length == 1:
        return bundle
    pairs = combine(_every_second(bundle, dim, 0, length - 1), _every_second(bundle, dim, 1, length))
    odd = _scan(combine, pairs, dim)
    first = tuple(x.narrow(dim, 0, 1) for x in bundle)
    if length == 2:
        return tuple(_cat(a, b, dim) for a, b in zip(first, odd, strict=True))
    count = (length - 1) // 2
    between = combine(tuple(x.narrow(dim, 0, count) for x in odd), _every_second(bundle, dim, 2, length))
    even = tuple(_cat(a, b, dim) for a, b in zip(first, between, strict=True))
    return tuple(_interleave(a, b, dim) for a, b in zip(even, odd, strict=True))


def _length(bundle: Bundle, dim: int) -> int:
    sizes = {x.shape[dim] for x in bundle}
    if len(sizes) != 1:
        raise ValueError(f"all tensors must have one size along dim {dim}, but their sizes are {sorted(sizes)}.")
    return sizes.pop()


def _every_second(bundle: Bundle, dim: int, start: int, stop: int) -> Bundle:
    return tuple(x.movedim(dim, 0)[start:stop:2].movedim(0, dim) for x in bundle)


def _cat(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Concatenate; what has not met others yet broadcasts to what has."""
    a, b = a.movedim(dim, -1), b.movedim(dim, -1)
    shape = torch.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    return torch.cat((a.expand(*shape, a.shape[-1]), b.expand(*shape, b.shape[-1])), -1).movedim(-1, dim)


def _interleave(even: Tensor, odd: Tensor, dim: int) -> Tensor:
    """even[0], odd[0], even[1], …; `even` has as many elements as `odd`, or one more."""
    even, odd = even.movedim(dim, 0), odd.movedim(dim, 0)
    count = len(odd)
    pairs = torch.stack((even[:count], odd), 1).flatten(0, 1)
    return torch.cat((pairs, even[count:])).movedim(0, dim)
