"""The parameter store: named tensors that inference learns, each within its constraint."""

from __future__ import annotations

import inspect
import os
import re
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ppl.distributions import constraints, transform_to
from ppl.distributions.validation import constraint_name
from ppl.site import Init

_stores: weakref.WeakSet[ParamStore] = weakref.WeakSet()  # all there are


class ParamStore:
    """Parameters by name: each an unconstrained leaf tensor and the constraint its value obeys.

    `store[name]` is the constrained value, differentiable with respect to the leaf. An `SVI` owns a store
    (`svi.params`); `with store:` makes one current for the statements inside; a default store serves scripts.
    """

    def __init__(self) -> None:
        self._leaves: dict[str, Tensor] = {}
        self._constraints: dict[str, Any] = {}
        self._transforms: dict[str, Any] = {}  # to each constraint, made when first needed
        self._owned: set[str] = set()  # names whose leaf belongs to a module
        self.version = 0  # grows when a leaf is added, replaced or removed
        _stores.add(self)

    # -- reading

    def __getitem__(self, name: str) -> Tensor:
        leaf = self._leaves.get(name)
        if leaf is None:
            leaf = self.unconstrained(name)  # says what there is
        constraint = self._constraints[name]
        if constraint is constraints.real:
            return leaf
        transform = self._transforms.get(name)
        if transform is None:
            transform = self._transforms[name] = transform_to(constraint)
        value: Tensor = transform(leaf)
        return value

    def unconstrained(self, name: str) -> Tensor:
        """The leaf tensor that an optimiser updates; KeyError naming what is there."""
        try:
            return self._leaves[name]
        except KeyError:
            known = ", ".join(self._leaves) or "none"
            raise KeyError(
                f"there is no parameter '{name}' in this store; it has {known}. An SVI keeps its own in svi.params."
            ) from None

    def constraint(self, name: str) -> Any:
        """The constraint of a parameter."""
        self.unconstrained(name)
        return self._constraints[name]

    def __contains__(self, name: object) -> bool:
        return name in self._leaves

    def __iter__(self) -> Iterator[str]:
        return iter(self._leaves)

    def __len__(self) -> int:
        return len(self._leaves)

    def keys(self) -> list[str]:
        """The names, in the order of their creation."""
        return list(self._leaves)

    def values(self) -> list[Tensor]:
        """The constrained values."""
        return [self[name] for name in self._leaves]

    def items(self) -> list[tuple[str, Tensor]]:
        """Names with constrained values."""
        return [(name, self[name]) for name in self._leaves]

    def named_unconstrained(self) -> list[tuple[str, Tensor]]:
        """Names with leaf tensors."""
        return list(self._leaves.items())

    def match(self, pattern: str) -> dict[str, Tensor]:
        """The constrained values of all parameters whose names match a regular expression from their start."""
        compiled = re.compile(pattern)
        return {name: self[name] for name in self._leaves if compiled.match(name)}

    def __repr__(self) -> str:
        rows = (
            f"{name}: {tuple(leaf.shape)} {constraint_name(self._constraints[name])}"
            for name, leaf in self._leaves.items()
        )
        return f"ParamStore({'; '.join(rows)})"

    # -- writing

    def __setitem__(self, name: str, value: Tensor) -> None:
        """Give a parameter a new constrained value; a name not yet known becomes an unconstrained parameter."""
        constraint = self._constraints.get(name, constraints.real)
        if not isinstance(value, Tensor):
            raise ValueError(
                f"param '{name}': a value must be a torch.Tensor, but got {type(value).__name__}; write "
                "torch.as_tensor(value)."
            )
        self._check_value(name, value, constraint)
        with torch.no_grad():
            leaf = transform_to(constraint).inv(value.detach()).clone()
            if name in self._leaves and self._leaves[name].shape == leaf.shape:
                self._leaves[name].copy_(leaf)  # in place, so that modules and optimisers keep their tensor
                return
        self._put(name, leaf.requires_grad_(), constraint)

    def __delitem__(self, name: str) -> None:
        self.unconstrained(name)
        del self._leaves[name], self._constraints[name]
        self._owned.discard(name)
        self.version += 1

    def clear(self) -> None:
        """Forget every parameter."""
        self._leaves.clear()
        self._constraints.clear()
        self._owned.clear()
        self.version += 1

    def _put(self, name: str, leaf: Tensor, constraint: Any) -> None:
        self._leaves[name] = leaf
        self._constraints[name] = constraint
        self._transforms.pop(name, None)
        self.version += 1

    def setdefault(self, name: str, init: Init, constraint: Any = None, leaf: Tensor | None = None) -> Tensor:
        """The constrained value of a parameter, which is made first if it is not there.

        Args: init, a constrained tensor or a callable that returns one, called only when needed; leaf, an
            unconstrained tensor of a module's own to hold the parameter; its values give way to stored ones, unless
            those are another module's.
        Raises: ValueError for an unknown parameter without init, for a constraint other than the stored one, for an
            init outside the constraint.
        """
        stored = self._leaves.get(name)
        another = leaf is not None and leaf is not stored
        if stored is not None and not another and (constraint is None or constraint is self._constraints[name]):
            return self[name]
        if name in self._leaves and not (another and name in self._owned):
            self._check_constraint(name, constraint)
            if another and leaf is not None:  # what is stored came from a file, or was made before the module
                with torch.no_grad():
                    leaf.copy_(self._leaves[name])
                self._put(name, leaf, self._constraints[name])
                self._owned.add(name)
            return self[name]
        constraint = constraints.real if constraint is None else constraint
        if leaf is not None:
            self._owned.add(name)
        else:
            if init is None:
                known = ", ".join(self._leaves) or "none"
                raise ValueError(
                    f"param '{name}' is not in the current store (it has {known}) and was given no initial value. Write "
                    f"param('{name}', torch.tensor(…)), or, if an SVI fitted it, read svi.params['{name}'] or run inside "
                    "`with svi.params:`."
                )
            value = init() if callable(init) else init
            value = value if isinstance(value, Tensor) else torch.tensor(value)
            if not value.is_floating_point():
                raise ValueError(f"param '{name}': the initial value must be floating point, got {value.dtype}.")
            self._check_value(name, value, constraint)
            if isinstance(value, torch.nn.Parameter) and constraint is constraints.real:
                leaf = value
            else:
                with torch.no_grad():
                    leaf = transform_to(constraint).inv(value.detach()).clone(memory_format=torch.contiguous_format)
                leaf.requires_grad_()
        self._put(name, leaf, constraint)
        return self[name]

    def _check_constraint(self, name: str, constraint: Any) -> None:
        stored = self._constraints[name]
        if constraint is None or constraints.same(constraint, stored):
            return
        raise ValueError(
            f"param '{name}' has the constraint {constraint_name(stored)}; it cannot be replaced by "
            f"{constraint_name(constraint)}. Use one constraint at every statement, or `del store['{name}']` first."
        )

    @staticmethod
    def _check_value(name: str, value: Tensor, constraint: Any) -> None:
        if not bool(constraint.check(value).all()):
            raise ValueError(f"param '{name}': the value {value} does not satisfy {constraint_name(constraint)}.")

    # -- scope

    def __enter__(self) -> Self:
        _scopes.set((self, _scopes.get()))
        return self

    def __exit__(self, *exc: object) -> None:
        scope = _scopes.get()
        while scope is not None and scope[0] is not self:
            scope = scope[1]
        if scope is not None:
            _scopes.set(scope[1])

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """Leaves and constraints as plain data, which `torch.load(weights_only=True)` can read."""
        return {
            "leaves": {name: leaf.detach().clone() for name, leaf in self._leaves.items()},
            "constraints": {name: encode_constraint(c) for name, c in self._constraints.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the parameters of a `state_dict`; leaves of the same shape are filled in place."""
        for name in [n for n in self._leaves if n not in state["leaves"]]:
            del self[name]
        for name, data in state["leaves"].items():
            old = self._leaves.get(name)
            if old is not None and old.shape == data.shape:
                with torch.no_grad():
                    old.copy_(data)
                self._transforms.pop(name, None)
                self._constraints[name] = decode_constraint(state["constraints"][name])
            else:
                self._owned.discard(name)
                self._put(name, data.clone().requires_grad_(), decode_constraint(state["constraints"][name]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters to a file, all or nothing."""
        save_atomically(self.state_dict(), path)

    def load(self, path: str | os.PathLike[str], map_location: Any = None) -> None:
        """Read the parameters from a file written by `save`; the file is data and cannot run code."""
        self.load_state_dict(torch.load(path, map_location=map_location, weights_only=True))


def save_atomically(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """torch.save to a temporary file beside the target, then rename: a reader never sees half a file."""
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(dict(state), file)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def encode_constraint(constraint: Any) -> Any:
    """A constraint as nested lists of strings, numbers and tensors.

    Raises: ValueError for one that is not made of `ppl.distributions.constraints`.
    """
    if isinstance(constraint, constraints.Constraint):
        for name, known in _public().items():
            if constraints.same(constraint, known):
                return name
        for name, known in _public().items():
            cls = known if isinstance(known, type) else type(known)
            if callable(known) and constraints.kind(constraint) is cls:
                arguments = inspect.signature(cls).parameters
                return [name, {argument: _encode(getattr(constraint, argument)) for argument in arguments}]
    raise ValueError(
        f"the constraint {constraint!r} cannot be written to a file; use one of ppl.distributions.constraints."
    )


def _encode(argument: Any) -> Any:
    if isinstance(argument, constraints.Constraint):
        return {"constraint": encode_constraint(argument)}
    return [_encode(part) for part in argument] if isinstance(argument, (list, tuple)) else argument


def decode_constraint(code: Any) -> Any:
    """The constraint that `encode_constraint` wrote."""
    if isinstance(code, str):
        return getattr(constraints, code)
    name, arguments = code
    return getattr(constraints, name)(**{argument: _decode(value) for argument, value in arguments.items()})


def _decode(code: Any) -> Any:
    if isinstance(code, dict):
        return decode_constraint(code["constraint"])
    return [_decode(part) for part in code] if isinstance(code, list) else code


def _public() -> dict[str, Any]:
    """What `ppl.distributions.constraints` has by name: constraints, and classes of them."""
    found = {name: getattr(constraints, name) for name in constraints.__all__}
    hidden = (constraints.Constraint, constraints.dependent_property)
    return {
        name: thing
        for name, thing in found.items()
        if thing not in hidden
        and (isinstance(thing, (constraints.Constraint, type)))
        and not constraints.is_dependent(thing)
    }


def where_stored(leaf: Tensor) -> tuple[ParamStore, str] | None:
    """The store that a leaf tensor is in, and its name there; of several stores, the one that is in use here."""
    for store in (get_param_store(), *_stores):
        for name, known in store.named_unconstrained():
            if known is leaf:
                return store, name
    return None


_Scope = tuple[ParamStore, Any]  # a store and the scope around it: linked, so that each thread has its own
_default_store = ParamStore()
_scopes: ContextVar[_Scope | None] = ContextVar("ppl_params", default=None)


def get_param_store() -> ParamStore:
    """The store that `param` uses here: the innermost `with store:`, or else the default one."""
    scope = _scopes.get()
    return _default_store if scope is None else scope[0]


def clear_param_store() -> None:
    """Forget all parameters of the current store."""
    get_param_store().clear()
