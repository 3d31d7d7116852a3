"""How many bytes are alive while tensors are computed: an account of every storage made, on any device, `meta` too."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts, while it is active, what operations make; not what a single operation needs inside of itself.

    A program run on tensors of device `meta` makes the same storages and lets go of them in the same order as one with
    data, so that its account is that of the real run.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries = 0  # computed by all operations; a reduction counts what it reads
        self._live: dict[int, int] = {}
        self._events: list[tuple[int, int]] = []
        self._count = 0
        self._numbers: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = weakref.WeakKeyDictionary()

    @property
    def peak(self) -> int:
        """The most bytes that were alive at once."""
        return self.peak_without(())

    @property
    def now(self) -> int:
        """The bytes that are alive now."""
        return sum(change for _, change in self._events)

    def peak_without(self, tensors: Iterable[Tensor]) -> int:
        """The most bytes that were alive at once, those of some tensors not counted."""
        apart = {self._numbers.get(t.untyped_storage()) for t in tensors}
        now = most = 0
        for number, change in self._events:
            if number not in apart:
                now += change
                most = max(most, now)
        return most

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage(): t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        if any(t.untyped_storage() not in given for t in made) or func.__name__.split(".")[0].endswith("_"):
            self.entries += max((t.numel() for t in (*given.values(), *made)), default=0)
        for tensor in made:
            storage = tensor.untyped_storage()
            if storage not in given and storage not in self._numbers:
                self._note(storage)
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        self._count += 1
        number, size = self._count, storage.nbytes()
        self._numbers[storage] = number
        self._events.append((number, size))
        weakref.finalize(storage, self._events.append, (number, -size))
