"""One result for the same computation asked for again: what the steps of a loop over time have in common.

While a `Sharing` is active, functions of the same tensor objects (unchanged by their version counters) and the same plain
arguments give the tensor that they gave before. Only functions of a list are shared: pure ones, which draw nothing and write
nowhere. Who writes into a tensor that was handed out twice would change it for others too, so `is_intact` must be asked when all is
done: if it says no, the computation has to be done again without sharing.

The library's own code is not watched (see `unwatched`), because watching costs more than most of its operations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ppl.tensors.chain import is_eager
from ppl.tensors.rewind import is_recorded

T = TypeVar("T")


class _Entry(NamedTuple):
    result: Any
    tensors: tuple[Tensor, ...]  # the result, or what it is made of
    version: int  # of these, when it was made
    held: Any  # keeps the arguments alive, because their ids are in the key


def _functions() -> frozenset[Any]:
    names = [
        "__getitem__",
        "gather",
        "index_select",
        "take",
        "add",
        "sub",
        "mul",
        "div",
        "neg",
        "exp",
        "log",
        "sigmoid",
        "softmax",
        "log_softmax",
        "tanh",
        "unsqueeze",
        "squeeze",
        "where",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "float",
        "long",
        "double",
        "expand",
        "reshape",
        "view",
        "transpose",
        "permute",
        "clamp",
        "matmul",
        "abs",
        "sqrt",
        "square",
        "pow",
        "logsumexp",
        "sum",
        "cumsum",
        "stack",
        "cat",
        "__add__",
        "__radd__",
        "__sub__",
        "__rsub__",
        "__mul__",
        "__rmul__",
        "__truediv__",
        "__rtruediv__",
        "__neg__",
        "__eq__",
        "__ne__",
        "__lt__",
        "__le__",
        "__gt__",
        "__ge__",
        "__matmul__",
    ]
    found = {getattr(owner, name) for owner in (Tensor, torch) for name in names if hasattr(owner, name)}
    return frozenset(found)


_SHARED = _functions()
_active: ContextVar[Sharing | None] = ContextVar("ppl_sharing", default=None)
_AS_EVER = contextlib.nullcontext()


class Sharing(TorchFunctionMode):
    """Share the results of pure functions of the same tensors; as a context manager, for one run of a program."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[Hashable, _Entry] = {}
        self._token: Token[Sharing | None] | None = None
        self._handed: dict[int, _Entry] = {}  # what was given out more than once

    def __enter__(self) -> Any:
        self._token = _active.set(self)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *args: Any) -> None:
        assert self._token is not None
        _active.reset(self._token)
        super().__exit__(*args)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in _SHARED:
            return func(*args, **(kwargs or {}))
        return self.share(func, args, kwargs or {})

    def share(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], setting: bool = True
    ) -> Any:
        """func(*args, **kwargs), or what it gave before; arguments must be tensors and plain values to be shared.

        Args: setting, which the result depends on as well.
        """
        key = _key((args, tuple(kwargs.items())) if kwargs else args)
        if key is None:
            return func(*args, **kwargs)
        return self.share_as((func, key, setting), lambda: func(*args, **kwargs), (args, kwargs))

    def share_as(self, key: Hashable, make: Callable[[], Any], held: Any = None) -> Any:
        """What `make` gives, or gave before under the same key."""
        whole = (torch.is_grad_enabled(), torch._C._is_any_autocast_enabled(), key)
        known = self._known.get(whole)
        if known is not None and _version(known.tensors) == known.version:
            self._handed[id(known.result)] = known
            return known.result
        result = make()
        if isinstance(result, tuple):
            return result
        tensors = (result,) if isinstance(result, Tensor) else _tensors_of(result)
        self._known[whole] = _Entry(result, tensors, _version(tensors), held)
        return result

    def is_intact(self) -> bool:
        """Whether nobody wrote into what was handed out more than once."""
        return all(_version(entry.tensors) == entry.version for entry in self._handed.values())


def shared(func: Callable[..., T], *args: Any, key: Hashable | None = None) -> T:
    """func(*args), shared if sharing is active; for the library's own functions.

    Args: key, tells apart what the arguments do not, where these are not to count; they are kept alive, so it may have ids.
    """
    active = _active.get()
    if active is None:
        return func(*args)
    if key is None:
        found: T = active.share(func, args, {})
    else:
        found = active.share_as((func, key), lambda: func(*args), args)
    return found


def active_sharing() -> Sharing | None:
    """The sharing that is active, if there is one."""
    return _active.get()


def unwatched() -> contextlib.AbstractContextManager[Any]:
    """While this is entered, a sharing watches nothing."""
    if _active.get() is None or torch._C._len_torch_function_stack() != 1:
        return _AS_EVER
    found: contextlib.AbstractContextManager[Any] = torch._C.DisableTorchFunction()
    return found


def can_share() -> bool:
    """Whether a run may share: no tracer and no other watcher of torch's functions is at work."""
    return (
        torch._C._len_torch_function_stack() == 1
        if is_recorded()
        else is_eager() and not torch._C._len_torch_function_stack()
    )


def _tensors_of(d: Any) -> tuple[Tensor, ...]:
    """The tensors that a distribution is made of."""
    return tuple(value for value in vars(d).values() if isinstance(value, Tensor))


def _version(tensors: tuple[Tensor, ...]) -> int:
    if len(tensors) == 1:
        return tensors[0]._version
    return sum([tensor._version for tensor in tensors])


def _key(thing: Any) -> Hashable | None:
    """What tells arguments apart; None for those that cannot be told apart."""
    kind = type(thing)
    if kind is Tensor:
        return id(thing), thing._version
    if kind in _PLAIN:
        return kind, thing
    if kind in _NESTS:
        keys: list[Hashable] = []
        for part in thing:
            own = type(part)
            if own is Tensor:
                keys.append((id(part), part._version))
            elif own in _PLAIN:
                keys.append((own, part))
            else:
                key = _key(part)
                if key is None:
                    return None
                keys.append(key)
        return kind, tuple(keys)
    if kind is slice:
        return _key(("slice", thing.start, thing.stop, thing.step))
    if kind is float:
        return kind, repr(thing)
    if isinstance(thing, Tensor):
        return id(thing), thing._version
    if isinstance(thing, torch.distributions.Distribution):
        return id(thing), _version(_tensors_of(thing))
    return None


_PLAIN = frozenset((int, bool, str, type(None), type(Ellipsis), torch.dtype))
_NESTS = frozenset((tuple, list, torch.Size))
