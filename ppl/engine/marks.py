"""A run whose marks on tensors are wiped away afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ppl.engine.recorder import written_by
from ppl.engine.rewrite import OUTSPOKEN
from ppl.tensors.carried import carried


class Marks(TorchDispatchMode):
    """What a run has to do with tensors from outside.

    Attributes:
        leaves: the parameters that it reads, some of which it may have made.
        means: the tensors that it replaces from run to run.
        has_gradients: whether it hangs gradients on parameters.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or else torch imports its compiler, which takes a second

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.means: list[Tensor] = []
        self.has_gradients = False
        self._grads: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._made: set[int] = set()
        self._originals: dict[int, tuple[Tensor, torch.UntypedStorage]] = {}

    @property
    def leaves(self) -> list[Tensor]:
        return [leaf for leaf, _ in self._grads.values()]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in OUTSPOKEN:
            with self:
                return OUTSPOKEN[func](*args, **kwargs)
        given = _tensors((args, kwargs))
        for tensor in given:
            if tensor.requires_grad and tensor.is_leaf and id(tensor) not in self._grads:
                self._grads[id(tensor)] = tensor, tensor.grad
        for tensor in written_by(func, args, kwargs):
            key = _storage(tensor)
            if key not in self._made and key not in self._originals:
                self._originals[key] = tensor, tensor.untyped_storage().clone()
        result = func(*args, **kwargs)
        self._made |= {_storage(t) for t in _tensors(result)} - {_storage(t) for t in given}
        return result

    def wipe(self) -> None:
        """Give tensors what they held before, and parameters the gradients that they had."""
        for tensor, original in self._originals.values():
            tensor.untyped_storage().copy_(original)
            torch.autograd.graph.increment_version(tensor)  # what was remembered of the values written is void
        for leaf, grad in self._grads.values():
            if leaf.grad is not grad:
                self.has_gradients = True
                leaf.grad = grad


def _tensors(nest: Any) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(nest) if isinstance(t, Tensor) and t.layout == torch.strided]


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def undone() -> Iterator[Marks]:
    """Afterwards, tensors that were there before, running means and torch's random state are as they were.

    Parameters that a run in this block makes stay, at their first values.
    """
    marks = Marks()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())), carried() as noted, marks:
            yield marks
        marks.means = [mean for _, before in noted for mean in before.values()]
    finally:
        marks.wipe()
