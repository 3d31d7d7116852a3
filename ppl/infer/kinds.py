"""What the arguments of steps must have in common to share a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ppl.stack import active, is_running

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


def kind_of(args: Args, kwargs: Kwargs) -> Any:
    """What steps must have in common to share a program.

    That is: the arguments' structure, shapes, strides, types and values that are no tensors; the handlers around; default dtype.
    """
    around = tuple(map(_Same, active())) if is_running() else (), torch.get_default_dtype()
    if not kwargs and all(type(t) is Tensor for t in args):  # mostly
        return tuple, tuple((t.shape, t.dtype, t.device, _stride(t)) for t in args), *around
    leaves, structure = pytree.tree_flatten((args, dict(kwargs)))
    kinds = tuple((t.shape, t.dtype, t.device, _stride(t)) if isinstance(t, Tensor) else _plain(t) for t in leaves)
    return structure, kinds, *around


def _stride(tensor: Tensor) -> tuple[int, ...]:
    return tensor.stride() if tensor.layout == torch.strided else ()


class _Same:
    """An object as part of a key: equal to itself alone, and kept, so that no later one is taken for it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str, torch.dtype)) or value is None:
        return type(value), value
    return _Same(value)


def describe_change(kinds: list[Any], args: Args, kwargs: Kwargs) -> str:
    """Which argument has differed, in words."""
    if any(kind[0] != kinds[0][0] for kind in kinds):
        return "the arguments' structure changes from step to step."
    paths = [path for path, _ in pytree.tree_flatten_with_path((args, dict(kwargs)))[0]]
    for path, *found in zip(paths, *(kind[1] for kind in kinds), strict=True):
        if any(one != found[0] for one in found):
            seen = ", ".join(dict.fromkeys(map(_describe_kind, found)))
            _, name, *inside = path
            where = f"{_key(name)!r}{pytree.keystr(tuple(inside))}"
            return f"argument {where} has come in {len(kinds)} kinds ({seen})."
    return "what is around the steps changes from one to the next."


def _key(entry: Any) -> Any:
    return entry.idx if isinstance(entry, pytree.SequenceKey) else entry.key


def _describe_kind(kind: Any) -> str:
    if isinstance(kind, _Same):
        return f"a {type(kind.value).__name__}"
    return str(tuple(kind[0])) if isinstance(kind[0], torch.Size) else repr(kind[1])
