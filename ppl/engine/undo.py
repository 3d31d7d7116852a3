"""A run that leaves tensors, modules and random states as they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ppl.engine.recorder import written_by
from ppl.engine.rewrite import OUTSPOKEN


class _Saving(TorchDispatchMode):
    """Keeps what tensors held before they were written into."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or else torch imports its compiler, which takes a second

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.saved: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in OUTSPOKEN:
            with self:
                return OUTSPOKEN[func](*args, **(kwargs or {}))
        for tensor in written_by(func, args, kwargs or {}):
            if id(tensor) not in self.saved:
                self.saved[id(tensor)] = tensor, tensor.detach().clone()
        return func(*args, **(kwargs or {}))


@contextmanager
def undone(modules: Iterable[torch.nn.Module] = ()) -> Iterator[None]:
    """What happens in the block does not show afterwards: in tensors written into, torch's random state, and what modules hold."""
    before = [(module, _copy(vars(module))) for module in modules]
    saving = _Saving()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())), saving:
            yield
    finally:
        with torch.no_grad():
            for tensor, old in reversed(saving.saved.values()):
                if tensor.shape == old.shape:  # or else it was made in the block
                    tensor.copy_(old)
        for module, held in before:
            _put_back(vars(module), held)


def _copy(space: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        name: (value, value.copy() if isinstance(value, (dict, set, list)) else None) for name, value in space.items()
    }


def _put_back(space: dict[str, Any], held: dict[str, tuple[Any, Any]]) -> None:
    for name in set(space) - set(held):
        del space[name]
    for name, (value, content) in held.items():
        space[name] = value
        if content is not None:
            value.clear()
            if isinstance(value, list):
                value.extend(content)
            else:
                value.update(content)
