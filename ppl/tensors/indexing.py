"""Indexing with tensors that broadcast, as enumerated values do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def vindex(tensor: Tensor, index: Any) -> Tensor:
    """Advanced indexing in which everything broadcasts: `vindex(x, (..., i, j, slice(None)))`.

    Integer tensors among the indices broadcast with one another and, dim by dim counted from the right, with the dims that
    a leading `...` stands for, which are batch dims; dims taken by `slice(None)` come last and stay as they are. So a table
    can be read with several enumerated values at once, each on a dim of its own.

    Shapes: for x (*batch, A, B, *rest) and i, j of shapes that broadcast with batch, `(..., i, j)` gives
    (*broadcast(batch, i, j), *rest).
    Args: index, one index or a tuple of `...` (first, at most once), ints, integer tensors and slice(None).
    Raises: IndexError for anything else, or too many indices.
    """
    parts = index if isinstance(index, tuple) else (index,)
    batch_dim = 0
    if parts and parts[0] is Ellipsis:
        parts = parts[1:]
        batch_dim = tensor.dim() - len(parts)
    if batch_dim < 0 or len(parts) > tensor.dim():
        raise IndexError(f"vindex: {len(parts)} indices for a tensor of {tensor.dim()} dims, {tuple(tensor.shape)}.")
    parts = (*parts, *(slice(None),) * (tensor.dim() - batch_dim - len(parts)))
    for part in parts:
        whole = isinstance(part, slice) and part == slice(None)
        number = isinstance(part, int) or (isinstance(part, Tensor) and not part.is_floating_point())
        if not (whole or number) or isinstance(part, bool):
            raise IndexError(
                f"vindex: an index must be `...` in the first place, an int, an integer tensor or slice(None), got {part!r}."
            )
    kept = [i for i, part in enumerate(parts) if isinstance(part, slice)]
    picked = [i for i, part in enumerate(parts) if not isinstance(part, slice)]
    order = [*range(batch_dim), *(batch_dim + i for i in picked), *(batch_dim + i for i in kept)]
    at: list[Any] = [
        torch.arange(tensor.size(dim), device=tensor.device).reshape((-1,) + (1,) * (batch_dim - dim - 1))
        for dim in range(batch_dim)
    ]
    at += [parts[i].long() if isinstance(parts[i], Tensor) else parts[i] for i in picked]
    return tensor.permute(order)[tuple(at)] if at else tensor


class Vindex:
    """`vindex` in square brackets: `Vindex(x)[..., i, j, :]`."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __getitem__(self, index: Any) -> Tensor:
        return vindex(self.tensor, index)
