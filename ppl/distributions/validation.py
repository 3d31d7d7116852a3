"""When values are checked, and what a failed check says."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import lazy_property

_default = __debug__
_scoped: ContextVar[bool | None] = ContextVar("ppl_validation", default=None)
Inside = bool | Literal["later"]
# whether values need no check, and then whether they are known to lie in the support
_trusted: ContextVar[Inside | None] = ContextVar("ppl_trusted", default=None)

# The language sets this to "is a program running?", so that a distribution built inside a program with bad
# arguments can wait for its `sample` statement and be reported with the site's name.
is_program_running: list[Callable[[], bool]] = []


def is_validation_enabled() -> bool:
    """Whether arguments and values are checked here and now (on by default, off under `python -O`)."""
    scoped = _scoped.get()
    return _default if scoped is None else scoped


def enable_validation(is_validate: bool = True) -> None:
    """Switch checking on or off for the whole process; torch's own switch is left alone."""
    global _default
    _default = is_validate


@contextlib.contextmanager
def validation_enabled(is_validate: bool = True) -> Iterator[None]:
    """Switch checking on or off for a block of code, in this thread or task only."""
    token = _scoped.set(is_validate)
    try:
        yield
    finally:
        _scoped.reset(token)


class trusted:
    """Skip the check of values passed to `log_prob` in a block: the statement that made them has checked them.

    Args: inside, whether they have passed everywhere, no mask having excused an entry; or "later", where they will be
        checked before anybody sees the density, so that it may be anything where they fail.
    """

    def __init__(self, inside: Inside = False) -> None:
        self.inside = inside

    def __enter__(self) -> None:
        self.token = _trusted.set(self.inside)

    def __exit__(self, *exc: object) -> None:
        _trusted.reset(self.token)


class InvalidArgument(ValueError):
    """A distribution was given an argument outside its constraint; `bad` is true at the entries outside."""

    def __init__(self, message: str, bad: Tensor) -> None:
        super().__init__(message)
        self.bad = bad


class Invalid:
    """Stands in for a distribution whose arguments are wrong, until a statement can say at which site.

    Any other use of it raises the original error.
    """

    def __init__(self, error: ValueError) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        if name in ("to_event", "expand", "expand_by", "mask"):
            return lambda *args, **kwargs: self
        raise self.error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise self.error


def describe_entries(bad: Tensor, value: Tensor, limit: int = 3) -> str:
    """Which entries are bad, for an error message: their indices, their values and their number.

    Shapes: bad (*batch), value (*batch, *event).
    """
    if bad.dim() == 0:
        return f"got {_short(value)}"
    indices = bad.nonzero()
    shown = [tuple(index.tolist()) for index in indices[:limit]]
    found = ", ".join(f"{_short(value[index])} at index {index}" for index in shown)
    more = f" and {len(indices) - limit} more" if len(indices) > limit else ""
    return f"got {found}{more} ({len(indices)} of {bad.numel()} entries)"


def _short(value: Tensor) -> str:
    if value.numel() == 1:
        return f"{value.item():.6g}" if value.is_floating_point() else str(value.item())
    text = ", ".join(f"{v:.4g}" for v in value.flatten()[:6].tolist())
    return f"[{text}{', …' if value.numel() > 6 else ''}]"


def check_arguments(d: torch.distributions.Distribution) -> None:
    """Check a distribution's arguments against its `arg_constraints`.

    Raises: InvalidArgument naming the distribution, the argument, the constraint and the entries.
    """
    try:
        arg_constraints = d.arg_constraints
    except NotImplementedError:  # a foreign distribution that declares none
        return
    own = vars(d)
    for name, constraint in arg_constraints.items():
        if type(constraint) not in _LOWER_BOUNDED and constraints.is_dependent(constraint):
            continue
        value = own.get(name)
        if value is None:
            if isinstance(getattr(type(d), name, None), lazy_property):
                continue
            value = getattr(d, name)
        if not isinstance(value, Tensor):
            continue
        if not still_holds(constraint, value):
            what = constraint_name(constraint)
            bad = ~constraint.check(value)
            nan = value.isnan().any() if value.is_floating_point() else False
            hint = " (NaN: a parameter or an input has diverged)" if nan else ""
            raise InvalidArgument(
                f"{type(d).__name__}: argument '{name}' must satisfy {what}, but {describe_entries(bad, value)}{hint}.",
                bad,
            )


def holds(constraint: Any, value: Tensor) -> bool:
    """Whether a value satisfies a constraint everywhere.

    Bounds need only the extremes, which takes one operation instead of three; NaN is an extreme, too.
    """
    count = value.numel()
    if count == 0:
        return True
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    kind = type(constraint)
    if kind in _LOWER_BOUNDED:
        low = value.item() if count == 1 and value.is_floating_point() else _least(value)
        if kind is _Real:
            return low == low
        bound = constraint.lower_bound
        if isinstance(bound, (int, float)):
            return low >= bound if kind is constraints.greater_than_eq else low > bound
    elif kind is constraints.interval or (kind is _IntegerInterval and value.dtype in _INTEGERS):
        bounds = constraint.lower_bound, constraint.upper_bound
        if all(isinstance(bound, (int, float)) for bound in bounds):
            low, high = (extreme.item() for extreme in value.aminmax())
            return bool(bounds[0] <= low and high <= bounds[1])
    elif kind is _Simplex and value.is_floating_point():
        smallest, largest = value.detach().sum(-1).aminmax()
        return largest.item() - 1 < _SUM_ERROR and 1 - smallest.item() < _SUM_ERROR and _least(value) >= 0
    return bool(constraint.check(value).all())


def _least(value: Tensor) -> float:
    """The least entry, looked at once where two constraints ask: is a value in the support, and is it at an edge of it?"""
    if value.is_inference() or torch._C._is_torch_function_mode_enabled():
        return value.min().item()
    known = _lows.get(id(value))
    if known is None or known[0]() is not value or known[1] != value._version:
        if len(_lows) >= _MANY:
            _lows.clear()
        known = _lows[id(value)] = weakref.ref(value), value._version, value.detach().min().item()
    return known[2]


def still_holds(constraint: Any, value: Tensor) -> bool:
    """`holds`, looked at once for a tensor that stays as it is, such as data: for it and for all views of it.

    A tensor stays as it is while it is the same object with the same version counter, which every write through torch
    raises. What is differentiated is computed anew in each run and not remembered.
    """
    if value.requires_grad or value.is_inference() or torch._C._is_torch_function_mode_enabled():
        return holds(constraint, value)
    name = _name_of(constraint)
    if name is None:
        return holds(constraint, value)
    base = value._base
    if base is None or base.dtype != value.dtype or base.numel() > _LARGE:
        base = value
    key, version = (id(base), name), base._version
    known = _seen.get(key)
    if known is None or known[0]() is not base or known[1] != version:
        if len(_seen) >= _MANY:
            _seen.clear()
        known = _seen[key] = weakref.ref(base), version, holds(constraint, base)
    return known[2] or (base is not value and holds(constraint, value))


# by a tensor's id and a constraint's name: the tensor, its version when it was looked at, and whether the constraint held
_seen: dict[Hashable, tuple[weakref.ref[Tensor], int, bool]] = {}
# by a tensor's id: the tensor, its version when it was looked at, and its least entry
_lows: dict[int, tuple[weakref.ref[Tensor], int, float]] = {}
_MANY = 256  # how many of these are remembered
_LARGE = 2**22  # the entries of a tensor that are looked at for the sake of a view of some of them


def _name_of(constraint: Any) -> Hashable | None:
    """What tells constraints on single entries apart; None for others, and for those whose bounds are tensors."""
    kind = type(constraint)
    while kind is constraints.independent:
        constraint = constraint.base_constraint
        kind = type(constraint)
    if kind is _Real:
        return "real"
    if kind is constraints.interval or kind is _IntegerInterval:
        low, high = constraint.lower_bound, constraint.upper_bound
        return (kind, low, high) if isinstance(low, (int, float)) and isinstance(high, (int, float)) else None
    if kind in _LOWER_BOUNDED:
        low = constraint.lower_bound
        return (kind, low) if isinstance(low, (int, float)) else None
    return None


_Real = type(constraints.real)
_Simplex = type(constraints.simplex)
_IntegerInterval = constraints.integer_interval
_INTEGERS = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
_SUM_ERROR = 1e-6  # as in constraints.simplex
_LOWER_BOUNDED = {_Real, constraints.greater_than, constraints.greater_than_eq}


def constraint_name(constraint: object) -> str:
    """A constraint as a person would write it, such as `positive` or `Interval(0.0, 1.0)`."""
    known = {
        constraints.real: "real",
        constraints.positive: "positive (> 0)",
        constraints.nonnegative: "nonnegative (>= 0)",
        constraints.unit_interval: "unit_interval (0 to 1)",
        constraints.boolean: "boolean (0 or 1)",
        constraints.nonnegative_integer: "nonnegative_integer",
        constraints.simplex: "simplex (nonnegative, last dim sums to 1)",
    }
    try:
        return known.get(constraint, str(constraint))  # type: ignore[call-overload, no-any-return]
    except TypeError:  # an unhashable constraint
        return str(constraint)


def check_value(d: torch.distributions.Distribution, value: object) -> None:
    """Check a value's type, shape and support against a distribution.

    Raises: ValueError naming the distribution, what was expected and what came.
    """
    tensor = check_tensor(d, value)
    check_shape(d, tensor)
    entries = bad_entries(d, tensor)
    if entries is not None:
        raise ValueError(
            f"{type(d).__name__}: the value must lie in the support {constraint_name(d.support)}, "
            f"but {describe_entries(entries, tensor.expand(entries.shape + event_shape_of(d, tensor)))}."
        )


def check_tensor(d: torch.distributions.Distribution, value: object) -> Tensor:
    """The value, if it is a tensor; ValueError otherwise."""
    if not isinstance(value, Tensor):
        raise ValueError(
            f"{type(d).__name__}: a value must be a torch.Tensor, but got {type(value).__name__}; "
            "write torch.as_tensor(value)."
        )
    return value


def check_dtype(d: torch.distributions.Distribution, value: Tensor) -> None:
    """Check that the value of a continuous distribution is floating point; ValueError otherwise."""
    if value.is_floating_point():
        return
    try:
        support: Any = d.support
    except NotImplementedError:  # a foreign distribution without a support
        return
    if value.is_complex() or not (support is None or support.is_discrete):
        raise ValueError(
            f"{type(d).__name__} is continuous and needs a floating point value, but its dtype is {value.dtype}; write "
            "value.to(torch.get_default_dtype())."
        )


def check_shape(d: torch.distributions.Distribution, value: Tensor) -> None:
    """Check that a value's shape is sample + batch + event shape up to broadcasting; ValueError otherwise."""
    event = len(d.event_shape)
    got = value.shape
    expected = event_shape_of(d, value)
    if got[len(got) - event :] != expected:
        raise ValueError(
            f"{type(d).__name__}: the value's last {event} dims must be the event shape {tuple(expected)}, "
            f"but the value's shape is {tuple(got)}."
        )
    batch = got[: len(got) - event]
    for own, came in zip(reversed(d.batch_shape), reversed(batch), strict=False):
        if own != came and own != 1 and came != 1:
            raise ValueError(
                f"{type(d).__name__}: the value's shape {tuple(got)} does not broadcast with batch shape "
                f"{tuple(d.batch_shape)} and event shape {tuple(d.event_shape)}."
            )


def event_shape_of(d: torch.distributions.Distribution, value: Tensor) -> torch.Size:
    """The event shape that a value must have; a law of sequences of any length takes the value's own length."""
    own: Callable[[Tensor], torch.Size] | None = getattr(d, "_event_shape_of", None)  # foreign ones have none
    return d.event_shape if own is None else own(value)


def bad_entries(d: torch.distributions.Distribution, value: Tensor) -> Tensor | None:
    """A boolean tensor, true where the value lies outside the support; None when it lies inside everywhere."""
    counted: Callable[[Tensor], Tensor] | None = getattr(d, "_counted", None)  # foreign ones have none
    value = value if counted is None else counted(value)
    try:
        support = d.support
    except NotImplementedError:
        return None
    if support is None or value.numel() == 0:  # torch cannot check an empty value against `independent`
        return None
    if still_holds(support, value):
        return None
    ok: Tensor = support.check(value)
    return ~ok


def inside(d: Any, value: object) -> Tensor | None:
    """Whether each entry of a value lies in the support, without looking at the answer; None where nothing is known."""
    counted: Callable[[Tensor], Tensor] | None = getattr(d, "_counted", None)
    try:
        support = d.support
    except (AttributeError, NotImplementedError):
        return None
    if support is None or not isinstance(value, Tensor) or not value.numel():
        return None
    ok: Tensor = support.check(value if counted is None else counted(value))
    return ok


def is_trusted() -> bool:
    """Whether `log_prob` may skip its check of the value."""
    return _trusted.get() is not None


def is_known_inside() -> bool:
    """Whether the statement that made a value has checked that it lies in the support."""
    return _trusted.get() is True and is_validation_enabled()


def is_checked_later() -> bool:
    """Whether values that lie outside of the support will be refused before anybody sees their density."""
    return _trusted.get() == "later"
