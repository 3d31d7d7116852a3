"""Functions of torch that read values into Python without need, or write without saying so, in words that do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    *numbers: float,
) -> Any:
    if mean is None or variance is None:
        return aten._native_batch_norm_legit.no_stats(x, weight, bias, training, *numbers)
    return aten._native_batch_norm_legit.default(x, weight, bias, mean, variance, training, *numbers)


# Operations that write into their arguments without saying so, and others of the same arguments that say it.
OUTSPOKEN: Mapping[Any, Callable[..., Any]] = {aten.native_batch_norm.default: _batch_norm}


class WithoutLooks(TorchFunctionMode):
    """While active, `x[i]` with a single number in a tensor, and `one_hot`, give the same without looking at values."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.__getitem__:
            found = _item(*args)
            if found is not None:
                return found
        elif func is torch.nn.functional.one_hot or func is torch._C._nn.one_hot:
            classes = kwargs.get("num_classes", args[1] if len(args) > 1 else -1)
            if classes > 0:
                return (args[0].unsqueeze(-1) == torch.arange(classes, device=args[0].device)).long()
        return func(*args, **kwargs)


def _item(x: Tensor, index: Any) -> Tensor | None:
    """`x[index]` where single numbers in tensors stand among numbers, slices, None and `...`; else None."""
    parts = index if isinstance(index, tuple) else (index,)
    if not any(_is_number(part) for part in parts):
        return None
    if not all(_is_number(part) or part is None or isinstance(part, (int, slice, type(...))) for part in parts):
        return None
    kept = tuple(slice(None) if _is_number(part) else part for part in parts)
    rest = [part for part in parts if not isinstance(part, int)]  # what has a dim of its own in x[kept]
    dots = next((i for i, part in enumerate(rest) if part is ...), len(rest))
    places = [(i if i < dots else i - len(rest), part) for i, part in enumerate(rest) if isinstance(part, Tensor)]
    result = x[kept]
    for dim, number in reversed(places):
        size = result.shape[dim]
        result = result.index_select(dim, torch.where(number < 0, number + size, number).reshape(1)).squeeze(dim)
    return result


def _is_number(part: Any) -> bool:
    return (
        isinstance(part, Tensor)
        and not part.dim()
        and part.dtype != torch.bool
        and not part.is_floating_point()
        and not part.is_complex()
    )
