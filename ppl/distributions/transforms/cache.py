"""What a transform remembers of its last calls, so that an inverse need not be worked out, or even exist.

A remembered pair is used only where the computation would be the same: for the same tensor objects, unchanged in
place, with the parameters unchanged, by the same thread or asyncio task, under the same tracer, and with nothing to
differentiate that was not recorded. Otherwise it is passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

Stamp = tuple[int, bool]  # of a tensor: how often it was changed in place; whether it requires a gradient


def stamp(tensor: Tensor) -> Stamp:
    """What changes when a tensor changes in place."""
    return tensor._version, tensor.requires_grad


def gradient_stamp(tensor: Tensor) -> tuple[int, int] | None:
    """What changes when a gradient arrives at a parameter: fused optimisers change parameters without counting it.

    Left unnoticed is one case: a pair made after the gradient and asked for after such a step.
    """
    gradient = tensor.grad if tensor.is_leaf else None
    return None if gradient is None else (id(gradient), gradient._version)


class State:
    """What a computation depended on besides its input: tensors, flags, tracers and whether gradients were recorded."""

    def __init__(self, tensors: Iterable[Tensor], flags: tuple[Any, ...]) -> None:
        self.tensors = [(weakref.ref(t), _address(t), stamp(t), gradient_stamp(t)) for t in tensors]
        self.flags = flags
        self.modes = [weakref.ref(mode) for mode in _modes()]
        self.level = torch._C._functorch.maybe_current_level()
        self.records = torch.is_grad_enabled()
        self.wants_gradient = any(then[1] for _, _, then, _ in self.tensors)

    def holds(self, tensors: Iterable[Tensor], flags: tuple[Any, ...], asked: Tensor, answer: Tensor) -> bool:
        """Whether the same computation on `asked` would come to the same `answer` now, gradients included."""
        if self.flags != flags or self.level != torch._C._functorch.maybe_current_level():
            return False
        records = torch.is_grad_enabled()
        if records and not self.records and (self.wants_gradient or asked.requires_grad):
            return False
        if self.records and not records and answer.requires_grad:
            return False
        modes = _modes()
        if len(modes) != len(self.modes) or any(r() is not m for r, m in zip(self.modes, modes, strict=True)):
            return False
        now = list(tensors)
        return len(now) == len(self.tensors) and all(
            ref() is t and address == _address(t) and then == stamp(t) and gradient == gradient_stamp(t)
            for (ref, address, then, gradient), t in zip(self.tensors, now, strict=True)
        )


class Pair:
    """An input, its output and maybe the log determinant between them.

    The one that was given is held fast, the one that was made (whose graph may hold the other) weakly: the pair is
    forgotten with it.
    """

    def __init__(self, x: Tensor, y: Tensor, log_det: Tensor | None, state: State, is_forward: bool) -> None:
        self.given, made = (x, y) if is_forward else (y, x)
        self.made = weakref.ref(made)
        self.is_forward = is_forward
        self.stamps = stamp(self.given), stamp(made)
        self.log_det = log_det
        self.state = state

    def ends(self) -> tuple[Tensor | None, Tensor | None]:
        """Input and output; None for one that has died."""
        made = self.made()
        return (self.given, made) if self.is_forward else (made, self.given)

    def is_unchanged(self) -> bool:
        """Whether both ends are alive and as they were."""
        made = self.made()
        return made is not None and self.stamps == (stamp(self.given), stamp(made))


class Cache:
    """The last `size` pairs of each thread or task."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.slots: weakref.WeakKeyDictionary[Any, list[Pair]] = weakref.WeakKeyDictionary()

    def pairs(self) -> list[Pair]:
        """This thread's or task's pairs, the latest last."""
        owner = _owner()
        pairs = self.slots.get(owner)
        if pairs is None:
            pairs = self.slots[owner] = []
        return pairs

    def remember(self, pair: Pair) -> None:
        """Keep a pair until what was made dies, or `size` newer ones have come."""
        pairs = self.pairs()
        pairs.append(pair)
        if len(pairs) > self.size:
            del pairs[0]
        made = pair.made()
        assert made is not None

        def forget(_: object) -> None:
            with contextlib.suppress(ValueError):  # newer ones have pushed it out
                pairs.remove(pair)

        pair.made = weakref.ref(made, forget)


def is_rememberable(*tensors: Tensor) -> bool:
    """Whether changes of these tensors can be noticed: inference tensors do not count theirs."""
    return not any(t.is_inference() for t in tensors)


def _owner() -> Any:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        task = None
    return threading.current_thread() if task is None else task


def _modes() -> list[Any]:
    """The tracers and other dispatch modes that are active: what was made under one has no meaning to another."""
    count = torch._C._len_torch_dispatch_stack()
    return [torch._C._get_dispatch_stack_at(i) for i in range(count)]


def _address(tensor: Tensor) -> int:
    """Where the numbers lie, which assigning to `.data` changes; 0 for a tensor that has no numbers."""
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return 0
    try:
        return tensor.data_ptr()
    except RuntimeError:  # a functorch wrapper
        return 0
