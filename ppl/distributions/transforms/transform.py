"""The base of all transforms here: torch's interface, with inverses that pickle and a cache that is never stale."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions import constraints
from ppl.distributions.transforms.cache import Cache, Pair, State, is_rememberable

_PRIVATE = ("_inv", "_cache")  # what is not part of a transform's meaning: not compared, copied or pickled


class Transform(torch.distributions.transforms.Transform):
    """A map between two sets of tensors, with its inverse and the log density of its Jacobian.

    Write one by giving `domain`, `codomain`, `bijective`, `_call`, `_inverse` and `log_abs_det_jacobian`; one whose
    output has another shape than its input also gives `forward_shape` and `inverse_shape`. Where the Jacobian comes as
    a by-product of the map, give `_call_and_log_det` (and `_inverse_and_log_det`) instead of `_call`, `_inverse` and
    `log_abs_det_jacobian`. Tensors that the map depends on are kept as attributes (or in lists, tuples and dicts that
    are), so that the cache notices when they change.

    A pseudoinverse of one that is not bijective satisfies t(t.inv(t(x))) == t(x).

    With `cache_size=n`, the last n pairs of input and output of each thread are remembered: `t.inv(y)` of an output `y`
    returns the very tensor it was made from, and then costs nothing. Its gradient is that of the program that made `y`:
    differentiate by what `y` was made from, or use `y.detach()`, which is another tensor and is inverted afresh.
    """

    domain: Any
    codomain: Any
    bijective: bool = False

    _cache_size: int = 0
    _inv: Any = None
    _cache: Cache | None = None
    _changes: int = 0  # how often an attribute was assigned

    def __init__(self, cache_size: int = 0) -> None:
        if not isinstance(cache_size, int) or cache_size < 0:
            raise ValueError(
                f"{type(self).__name__}: cache_size must be a number of pairs to remember, got {cache_size!r}."
            )
        self._cache_size = cache_size

    # -- the map

    def __call__(self, x: Tensor) -> Tensor:
        """The image of x."""
        if self._cache_size == 0 or torch.compiler.is_dynamo_compiling():
            return self._call(x)
        found = self._find(x=x)
        if found is not None:
            made = found.ends()[1]
            assert made is not None
            return made
        y, log_det = self._call_and_log_det(x)
        self._remember(x, y, log_det, is_forward=True)
        return y

    def _inv_call(self, y: Tensor) -> Tensor:
        """The preimage of y."""
        if self._cache_size == 0 or torch.compiler.is_dynamo_compiling():
            return self._inverse(y)
        found = self._find(y=y)
        if found is not None:
            made = found.ends()[0]
            assert made is not None
            return made
        x, log_det = self._inverse_and_log_det(y)
        self._remember(x, y, log_det, is_forward=False)
        return x

    def _call(self, x: Tensor) -> Tensor:
        if type(self)._call_and_log_det is Transform._call_and_log_det:
            raise NotImplementedError(f"{type(self).__name__} has no forward map.")
        return self._call_and_log_det(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        if type(self)._inverse_and_log_det is Transform._inverse_and_log_det:
            raise NotImplementedError(
                f"{type(self).__name__} has no inverse in closed form. Its own outputs can be inverted while they live, "
                "if it was made with cache_size=1."
            )
        return self._inverse_and_log_det(y)[0]

    def _call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The image of x, and log |dy/dx| where it is known by then."""
        return self._call(x), None

    def _inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor | None]:
        """The preimage of y, and log |dy/dx| (of the forward map) where it is known by then."""
        return self._inverse(y), None

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |dy/dx| at a pair of input and output, summed over event dims.

        Shapes: x (*batch, *domain event), y (*batch, *codomain event) -> (*batch).
        """
        found = None if torch.compiler.is_dynamo_compiling() else self._find(x=x, y=y)
        log_det = None if found is None else found.log_det
        if log_det is None:
            log_det = self._call_and_log_det(x)[1]
        elif not torch.is_grad_enabled():
            log_det = log_det.detach()
        if log_det is None:
            raise NotImplementedError(f"{type(self).__name__} has no log_abs_det_jacobian.")
        return log_det

    def forward_shape(self, shape: Size) -> Size:
        """The shape of the image of a tensor of this shape."""
        return shape

    def inverse_shape(self, shape: Size) -> Size:
        """The shape of the preimage of a tensor of this shape."""
        return shape

    @property
    def event_dim(self) -> int:
        """The number of event dims, where input and output have the same."""
        if self.domain.event_dim == self.codomain.event_dim:
            return int(self.domain.event_dim)
        raise ValueError(
            f"{type(self).__name__} changes the number of event dims: read .domain.event_dim or .codomain.event_dim."
        )

    @property
    def sign(self) -> Any:
        """+1 for an increasing elementwise bijection, -1 for a decreasing one; a tensor where entries differ."""
        raise NotImplementedError(f"{type(self).__name__} is not known to be monotone.")

    @property
    def inv(self) -> Any:
        """The inverse, a transform itself; `t.inv.inv is t`."""
        inverse = self._inv
        if inverse is None:
            inverse = vars(self)["_inv"] = self._make_inverse()
        return inverse

    def _make_inverse(self) -> Transform:
        return Inverse(self)

    def with_cache(self, cache_size: int = 1) -> Any:
        """The same transform (sharing its parameters), remembering so many pairs."""
        if self._cache_size == cache_size:
            return self
        new = copy.copy(self)
        new._cache_size = cache_size
        return new

    # -- the cache

    def _find(self, x: Tensor | None = None, y: Tensor | None = None) -> Pair | None:
        """The remembered pair with these ends, if it would come out the same now."""
        if self._cache is None:
            return None
        for pair in reversed(self._cache.pairs()):
            known_x, known_y = pair.ends()
            if (x is None or x is known_x) and (y is None or y is known_y) and pair.is_unchanged():
                asked: Any = y if x is None else x
                answer: Any = known_y if y is None else known_x
                if pair.state.holds(self._tensors(), self._flags(), asked, asked if answer is pair.given else answer):
                    return pair
        return None

    def _remember(self, x: Tensor, y: Tensor, log_det: Tensor | None, is_forward: bool) -> None:
        if x is y or not is_rememberable(x, y, *self._tensors()):
            return
        if self._cache is None:
            vars(self)["_cache"] = Cache(self._cache_size)
        assert self._cache is not None
        state = State(self._tensors(), self._flags())
        self._cache.remember(Pair(x, y, log_det, state, is_forward))

    def clear_cache(self) -> None:
        """Forget all pairs."""
        vars(self).pop("_cache", None)

    def _tensors(self) -> Iterator[Tensor]:
        """The tensors that the map depends on."""
        fields = {name: value for name, value in vars(self).items() if name not in _PRIVATE}
        return _tensors_in(fields)

    def _flags(self) -> tuple[Any, ...]:
        """What else the map depends on: how often an attribute was assigned."""
        return (self._changes,)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if self._cache is not None:
            vars(self)["_changes"] = self._changes + 1

    # -- being a value

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _PRIVATE}

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return type(self) is type(other) and _is_same(_meaning(self), _meaning(other))

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Inverse(Transform):
    """The inverse of a transform, sharing its cache; read it as `transform.inv`."""

    def __init__(self, transform: Any) -> None:
        super().__init__(transform._cache_size)
        self._transform = transform

    @property
    def domain(self) -> Any:  # type: ignore[override]
        return self._transform.codomain

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        return self._transform.domain

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return bool(self._transform.bijective)

    @property
    def sign(self) -> Any:
        return self._transform.sign

    @property
    def inv(self) -> Any:
        return self._transform

    def with_cache(self, cache_size: int = 1) -> Any:
        return self._transform.with_cache(cache_size).inv

    def clear_cache(self) -> None:
        self._transform.clear_cache()

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._transform._inv_call(x)
        return y

    def _inv_call(self, y: Tensor) -> Tensor:
        x: Tensor = self._transform(y)
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        log_det: Tensor = self._transform.log_abs_det_jacobian(y, x)
        return -log_det

    def forward_shape(self, shape: Size) -> Size:
        return self._transform.inverse_shape(shape)  # type: ignore[no-any-return]

    def inverse_shape(self, shape: Size) -> Size:
        return self._transform.forward_shape(shape)  # type: ignore[no-any-return]

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        vars(self._transform)["_inv"] = self  # so that t.inv.inv is t after a copy, too

    def __repr__(self) -> str:
        return f"{self._transform!r}.inv"


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested containers and transforms."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors_in(part)
    elif isinstance(value, Transform):
        yield from value._tensors()
    elif isinstance(value, (torch.distributions.Distribution, torch.distributions.transforms.Transform)):
        yield from _tensors_in(vars(value))


def _meaning(transform: Transform) -> dict[str, Any]:
    hidden = (*_PRIVATE, "_cache_size", "_changes")
    return {name: value for name, value in vars(transform).items() if name not in hidden}


def _is_same(a: Any, b: Any) -> bool:
    """Whether two attributes are equal, tensors and numbers entry by entry."""
    if a is b:
        return True
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        if not all(isinstance(v, (Tensor, int, float)) for v in (a, b)):
            return False
        a, b = torch.as_tensor(a), torch.as_tensor(b)
        return a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_is_same(v, b[k]) for k, v in a.items())
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_is_same, a, b))
    if isinstance(a, torch.distributions.constraints.Constraint):
        return constraints.same(a, b)
    if isinstance(a, torch.distributions.Distribution):
        return type(a) is type(b) and _is_same(vars(a), vars(b))
    return bool(a == b)


def sum_rightmost(value: Tensor, count: int) -> Tensor:
    """Sum over the last `count` dims."""
    return value if count == 0 else value.sum(tuple(range(-count, 0)))
