"""Small tensors laid one after another in a vector, so that one operation updates all of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

SMALL = 4096  # entries; a larger tensor is worth operations of its own, and copying it is not free


def lay_out(leaves: Sequence[Tensor], keys: Sequence[Hashable]) -> list[list[int]]:
    """The leaves by number, in packs: small ones with the same key together, each large one by itself."""
    packs: list[list[int]] = []
    by_key: dict[Hashable, list[int]] = {}
    for index, (leaf, key) in enumerate(zip(leaves, keys, strict=True)):
        if leaf.numel() >= SMALL:
            packs.append([index])
        elif key in by_key:
            by_key[key].append(index)
        else:
            by_key[key] = [index]
            packs.append(by_key[key])
    return packs


def layout_of(leaves: Sequence[Tensor], members: list[int]) -> dict[str, Any]:
    """What `join` and `split` need to know of a pack, in words that JSON has."""
    return {
        "leaves": members,
        "shapes": [list(leaves[i].shape) for i in members],
        "sizes": [leaves[i].numel() for i in members],
        "flat": leaves[members[0]].numel() < SMALL,
    }


def join(layout: dict[str, Any], parts: Sequence[Tensor]) -> Tensor:
    """The parts of a pack as one tensor, which may be the only part itself: (sum of sizes,), or the large one's shape."""
    if not layout["flat"]:
        return parts[0]
    return parts[0].reshape(-1) if len(parts) == 1 else torch.cat([part.reshape(-1) for part in parts])


def contiguous_join(layout: dict[str, Any], parts: list[Tensor], own: bool) -> Tensor:
    """The same, contiguous and, if `own` is set, in memory of its own. Not for graphs."""
    if len(parts) == 1:
        joined = join(layout, parts).detach()
        return joined.clone(memory_format=torch.contiguous_format) if own else joined.contiguous()
    return torch._C._nn.flatten_dense_tensors(parts)  # in a seventh of the time of `join`


def split(layout: dict[str, Any], packed: Tensor) -> list[Tensor]:
    """The parts of a pack, as views with their own shapes."""
    if not layout["flat"]:
        return [packed]
    pieces = [packed] if len(layout["sizes"]) == 1 else packed.split(layout["sizes"])
    return [piece.view(shape) for piece, shape in zip(pieces, layout["shapes"], strict=True)]


class Spread:
    """A pack in parts, over and over: the views, which take longer to make than to fill, are made once."""

    def __init__(self, layout: dict[str, Any], like: Tensor) -> None:
        self._packed = torch.empty_like(like) if layout["flat"] else None
        self._parts = [] if self._packed is None else split(layout, self._packed)

    def __call__(self, packed: Tensor) -> list[Tensor]:
        """The parts, to be used before the next call."""
        if self._packed is None:
            return [packed]
        self._packed.copy_(packed)
        return self._parts
