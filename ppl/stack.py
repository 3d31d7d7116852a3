"""The handler stack: how a site passes through the handlers, and what happens when nobody minds it.

`perform(site)` gives the site to the innermost handler, with only the outer ones active while it runs. A handler passes
the site on by calling `perform` itself; what comes back has its value. The stack is a linked list in a context
variable, so that every thread and every asyncio task has its own.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, Self

from torch import Tensor

from ppl.distributions import validation
from ppl.distributions.prototype import NoSampler
from ppl.distributions.subsample import Subsample
from ppl.params import get_param_store
from ppl.site import Site, expand_to_plates, locate


class _Node(NamedTuple):
    handler: Handler
    outer: _Node | None


_stack: ContextVar[_Node | None] = ContextVar("ppl_stack", default=None)
validation.is_program_running.append(lambda: _stack.get() is not None)


def perform(site: Site) -> Site:
    """Pass a site to the innermost handler and return it with its value."""
    node = _stack.get()
    if node is None:
        return settle(site)
    token = _stack.set(node.outer)
    try:
        handler: Handler = node.handler
        return handler.handle(site)
    finally:
        _stack.reset(token)


def settle(site: Site) -> Site:
    """What a site means when no handler decides otherwise: draw, read the store, or keep the given value."""
    if site.kind == "sample" or site.kind == "plate":
        if isinstance(site.distribution, validation.Invalid):
            raise ValueError(explain_invalid(site, site.distribution.error))
        # of a site with its whole support on a dim, the density is a table, which need not be repeated in each plate
        enumerated = site.value is not None and site.is_enumerated
        d = (
            expand_to_plates(site, site.fn, enumerated and site.mask is None)
            if site.plates and site.kind == "sample"
            else site.fn
        )
        if site.value is None:
            try:
                return site.replace(distribution=d, value=d(), drawn=True)
            except NoSampler as error:
                raise NoSampler(f"{site}: {error}") from None
        is_given_support = enumerated and (site.drawn or d.has_enumerate_support)
        if not is_given_support and validation.is_validation_enabled() and not _are_indices(d, site.value):
            check_value(site, d, site.value)
        return site if d is site.distribution else site.replace(distribution=d)
    if site.kind == "param":
        if site.value is None:
            store = get_param_store()
            return site.replace(value=store.setdefault(site.name, site.init, site.constraint, site.leaf))
        if site.constraint is not None and validation.is_validation_enabled():
            check_param(site, site.value)
    return site


def _are_indices(d: Any, value: Tensor) -> bool:
    """Whether this is a plate with possible indices: a quicker look than at other values."""
    return isinstance(d, Subsample) and d.is_possible(value)


def check_param(site: Site, value: Tensor) -> None:
    """Check a value that a handler gave to a param site; ValueError where it is outside the constraint."""
    if not bool(site.constraint.check(value).all()):
        raise ValueError(
            f"param '{site.name}': the value given must satisfy {validation.constraint_name(site.constraint)}, but got "
            f"{value}. Values for params are constrained ones; a leaf of a ParamStore is not."
        )


def explain_invalid(site: Site, error: ValueError) -> str:
    """What is wrong with a distribution's arguments, and at which site and plate index."""
    where = locate(error.bad, site) if isinstance(error, validation.InvalidArgument) else ""
    return f"{site}: {error}{f' First at {where}.' if where else ''}"


def check_value(site: Site, d: Any, value: Tensor) -> None:
    """Check a value that was given rather than drawn.

    Raises: ValueError naming the site, what was expected and what came.
    """
    try:
        validation.check_dtype(d, value)
        validation.check_shape(d, value)
        bad = validation.bad_entries(d, value)
    except (ValueError, RuntimeError) as error:
        what = "obs" if site.observed else "value"
        raise ValueError(f"{site}: {what} does not fit. {error}{hint_at_subsample(site, d, value, what)}") from error
    if bad is None or site.mask is False or site.branch or not site.recorded:
        return  # where the support depends on a choice, the value may lie inside for another than this run's
    if isinstance(site.mask, Tensor):
        bad = bad & site.mask
    batch = value.shape[: value.dim() - len(d.event_shape)]
    for dim, _ in site.enum_dims:  # a support that depends on a choice need not hold the value for every choice
        if -dim <= bad.dim() and (-dim > len(batch) or batch[dim] == 1):
            bad = bad.all(dim, keepdim=True)
    if bool(bad.any()):
        what = "obs" if site.observed else "value"
        raise ValueError(
            f"{site}: the {what} must lie in the support {validation.constraint_name(d.support)} of {type(d).__name__}, "
            f"but {validation.describe_entries(bad, value.expand(bad.shape + validation.event_shape_of(d, value)))}."
        )


def hint_at_subsample(site: Site, d: Any, value: Tensor, what: str) -> str:
    """What to write where a value has the size of a whole plate of which only a part is seen; empty otherwise."""
    batch = value.shape[: value.dim() - len(d.event_shape)]
    for frame in site.plates:
        dim = frame.dim
        if dim is not None and frame.size != frame.subsample_size and -dim <= len(batch) and batch[dim] == frame.size:
            return (
                f" Plate '{frame.name}' shows {frame.subsample_size} of {frame.size} elements in this run: write "
                f"`with plate as index:` and {what}[index], or ppl.subsample({what}, event_dim={len(d.event_shape)})."
            )
    return ""


class Handler:
    """Gives statements their meaning while it is active.

    A subclass implements `handle`. Every handler is a context manager (`with handler:`), a wrapper (`handler(fn)` or
    `Handler(fn, …)`, then called like `fn`) and a decorator (`@Handler(…)`).
    """

    def __init__(self, fn: Callable[..., Any] | None = None) -> None:
        self.fn: Callable[..., Any] | None = None
        if fn is not None:
            self._wrap(fn)

    def handle(self, site: Site) -> Site:
        """Meet a site: change it, `perform` it outwards (or not, to hide it), and return it with its value."""
        return perform(site)

    def fresh(self) -> Self:
        """The handler to use for one call of the wrapped function; one with state returns a copy without it."""
        return self

    def __enter__(self) -> Any:
        _stack.set(_Node(self, _stack.get()))
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        # Looks for its own place, so that whatever an inner block left behind goes too.
        node = _stack.get()
        while node is not None and node.handler is not self:
            node = node.outer
        if node is not None:
            _stack.set(node.outer)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fn is None:
            if len(args) != 1 or kwargs:
                raise TypeError(
                    f"handlers.{type(self).__name__} wraps nothing yet: call it with the one function to wrap, or use it "
                    f"as a context manager; got {len(args)} arguments and {len(kwargs)} keyword arguments."
                )
            bound = copy.copy(self)
            bound._wrap(args[0])
            return bound
        with self.fresh():
            return self.fn(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def _wrap(self, fn: Any) -> None:
        if not callable(fn):
            raise TypeError(
                f"handlers.{type(self).__name__} wraps a callable, but got {type(fn).__name__}: {fn!r}. Pass the function "
                f"itself, as in {type(self).__name__}(model), not the result of calling it."
            )
        self.fn = fn
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)
        self.__doc__ = getattr(fn, "__doc__", None)
        self.__wrapped__ = fn


class inherit(Handler):
    """Hands a site's plates, scale, mask and steps on to the statements that a handler makes in its place."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def handle(self, site: Site) -> Site:
        parent = self.site
        mask = combine_masks(parent.mask, site.mask)
        return perform(
            site.replace(
                plates=parent.plates + site.plates,
                scale=parent.scale * site.scale,
                mask=mask,
                steps=parent.steps + site.steps,
                moments=parent.moments + site.moments,
                recorded=parent.recorded and site.recorded,
            )
        )


class unrecorded(Handler):
    """A run that only prepares another one: the outer handlers act on it as they will on that one, but record nothing."""

    def handle(self, site: Site) -> Site:
        return perform(site.replace(recorded=False))


class sketched(Handler):
    """A run that only looks for what plates and parameters there are."""

    def handle(self, site: Site) -> Site:
        return perform(site.replace(sketched=True))


def combine_masks(a: Tensor | bool | None, b: Tensor | bool | None) -> Tensor | bool | None:
    """Both masks at once; None is no mask."""
    if a is None or a is True:
        return a if b is None else b
    if b is None or b is True:
        return a
    return a & b


def active() -> Iterator[Handler]:
    """The active handlers, innermost first."""
    node = _stack.get()
    while node is not None:
        yield node.handler
        node = node.outer


def is_running() -> bool:
    """Whether any handler is active here."""
    return _stack.get() is not None
