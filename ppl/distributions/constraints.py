"""The sets that values and arguments may lie in.

Those that torch has and checks rightly are torch's own objects. A new one is a class with `check` (and `event_dim`,
`is_discrete`); `ppl.distributions.biject_to` and `transform_to` learn in three lines how to reach it.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints as torchs
from torch.distributions.constraints import (
    Constraint,
    MixtureSameFamilyConstraint,
    boolean,
    corr_cholesky,
    dependent,
    dependent_property,
    greater_than,
    greater_than_eq,
    half_open_interval,
    independent,
    integer_interval,
    interval,
    is_dependent,
    less_than,
    lower_cholesky,
    lower_triangular,
    nonnegative,
    nonnegative_integer,
    one_hot,
    positive,
    positive_definite,
    positive_integer,
    positive_semidefinite,
    real,
    real_vector,
    simplex,
    square,
    symmetric,
    unit_interval,
)


class Set(Constraint):
    """The base of the constraints written here: a readable name, and equality by parameters."""

    def __eq__(self, other: object) -> bool:
        return self is other or (type(self) is type(other) and _same_parameters(vars(self), vars(other)))

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__.lstrip('_')}({shown})"


def _same_parameters(a: dict[str, Any], b: dict[str, Any]) -> bool:
    def same(x: Any, y: Any) -> bool:
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            return torch.equal(x, y)
        return type(x) is type(y) and bool(x == y)

    return a.keys() == b.keys() and all(same(value, b[name]) for name, value in a.items())


def _tolerance(value: Tensor) -> float:
    """How far rounding takes a sum over the last dim, in units of what is summed."""
    return 10 * torch.finfo(value.dtype).eps * max(value.shape[-1], 1)


# -- numbers


class _Integer(Set):
    """Whole numbers."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return value % 1 == 0


class _Complex(Set):
    """Complex numbers."""

    def check(self, value: Tensor) -> Tensor:
        ok = value == value
        return ok if value.is_complex() else torch.zeros_like(ok)


class _SoftplusPositive(greater_than):
    """Positive numbers, reached by softplus instead of exp."""

    def __init__(self) -> None:
        self.lower_bound = 0.0

    def __repr__(self) -> str:
        return "SoftplusPositive()"


# -- vectors


class _Ordered(Set):
    """Vectors of increasing entries."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value[..., 1:] > value[..., :-1]).all(-1) & (value == value).all(-1)


class _PositiveOrdered(_Ordered):
    """Vectors of positive, increasing entries."""

    def check(self, value: Tensor) -> Tensor:
        return super().check(value) & (value > 0).all(-1)


class _Sphere(Set):
    """Vectors of length 1, in the p-norm."""

    event_dim = 1

    def __init__(self, p: float = 2.0) -> None:
        self.p = p

    def __call__(self, p: float = 2.0) -> _Sphere:
        return type(self)(p)

    def check(self, value: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(value, self.p, dim=-1)
        return (norm - 1).abs() <= _tolerance(value)


class _L1Ball(Set):
    """Vectors whose absolute values sum to at most 1."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return value.abs().sum(-1) <= 1 + _tolerance(value)


class zero_sum(Set):
    """Arrays that sum to 0 along each of the last `event_dim` dims."""

    def __init__(self, event_dim: int = 1) -> None:
        if event_dim < 1:
            raise ValueError(f"zero_sum: event_dim must be at least 1, got {event_dim}.")
        self._event_dim = event_dim

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        return self._event_dim

    def check(self, value: Tensor) -> Tensor:
        checks = []
        for dim in range(-self._event_dim, 0):
            slack = 100 * torch.finfo(value.dtype).eps * value.abs().sum(dim).clamp(min=1.0)
            checks.append(_reduced(value.sum(dim).abs() <= slack, self._event_dim - 1))
        return torch.stack(checks).all(0)

    def __repr__(self) -> str:
        return f"zero_sum(event_dim={self._event_dim})"


class _PositiveDefiniteCirculantVector(Set):
    """First rows of positive definite circulant matrices: symmetric, with a positive spectrum.

    The number of free entries of a row of `size` n is n // 2 + 1, from which n cannot be told: an even one is assumed
    where none is given. For an odd one write `positive_definite_circulant_vector(n)`.
    """

    event_dim = 1

    def __init__(self, size: int | None = None) -> None:
        self.size = size

    def __call__(self, size: int | None = None) -> _PositiveDefiniteCirculantVector:
        return type(self)(size)

    def check(self, value: Tensor) -> Tensor:
        if value.numel() == 0:  # which the library of Fourier transforms refuses
            return torch.ones(value.shape[:-1], dtype=torch.bool, device=value.device)
        scale = value.abs().amax(-1)
        reflected = torch.cat([value[..., :1], value[..., 1:].flip(-1)], -1)
        is_even = (value - reflected).abs().amax(-1) <= _tolerance(value) * scale
        spectrum: Tensor = torch.fft.rfft(value).real
        return is_even & (spectrum > 0).all(-1)


class multinomial(torchs.multinomial):
    """Vectors of counts whose sum is `upper_bound`."""

    def check(self, x: Tensor) -> Tensor:
        reaches: Tensor = x.sum(-1) == self.upper_bound
        return ((x >= 0) & (x % 1 == 0)).all(-1) & reaches

    def __repr__(self) -> str:
        return f"multinomial(upper_bound={self.upper_bound})"


# -- matrices


class _SoftplusLowerCholesky(type(torchs.lower_cholesky)):  # type: ignore[misc]
    """Lower triangular matrices of positive diagonal, which is reached by softplus instead of exp."""


class _ScaledUnitLowerCholesky(type(torchs.lower_cholesky)):  # type: ignore[misc]
    """Lower triangular matrices of positive diagonal, reached as a unit triangular matrix times a diagonal one."""


class _UnitLowerCholesky(Set):
    """Lower triangular matrices with ones on the diagonal."""

    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        is_lower = (value.triu(1) == 0).all(-1).all(-1)
        return is_lower & (value.diagonal(dim1=-2, dim2=-1) == 1).all(-1) & (value == value).all(-1).all(-1)


class _CorrMatrix(type(torchs.positive_definite)):  # type: ignore[misc]
    """Correlation matrices: positive definite, with ones on the diagonal."""

    def check(self, value: Tensor) -> Tensor:
        is_unit = ((value.diagonal(dim1=-2, dim2=-1) - 1).abs() <= _tolerance(value)).all(-1)
        ok: Tensor = super().check(value)
        return ok & is_unit


# -- combinations


class cat(torchs.cat):
    """Parts side by side along `dim`, `lengths` long, each with its own constraint, as `torch.cat` lays them."""

    def __init__(self, cseq: Sequence[Constraint], dim: int = 0, lengths: Sequence[int] | None = None) -> None:
        self.cseq, self.dim = list(cseq), dim
        self.lengths = [1] * len(self.cseq) if lengths is None else list(lengths)
        if len(self.lengths) != len(self.cseq):
            raise ValueError(f"cat: {len(self.cseq)} constraints were given {len(self.lengths)} lengths.")

    def check(self, value: Tensor) -> Tensor:
        dim = self.dim if self.dim < 0 else self.dim - value.dim()
        if not -value.dim() <= dim < 0 or value.shape[dim] != sum(self.lengths):
            raise ValueError(
                f"cat: dim {self.dim} of the value must have the size {sum(self.lengths)}, the sum of the lengths, "
                f"but the value's shape is {tuple(value.shape)}."
            )
        checks = [
            _reduced(part.check(piece), self.event_dim - part.event_dim)
            for part, piece in zip(self.cseq, value.split(self.lengths, dim), strict=True)
        ]
        if dim + self.event_dim < 0:
            return torch.cat(checks, dim + self.event_dim)
        return torch.stack(checks).all(0)

    def __repr__(self) -> str:
        return f"cat({self.cseq}, dim={self.dim}, lengths={self.lengths})"


class stack(torchs.stack):
    """One slice along `dim` for each constraint, as `torch.stack` lays them."""

    def __init__(self, cseq: Sequence[Constraint], dim: int = 0) -> None:
        self.cseq, self.dim = list(cseq), dim

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        """The parts' largest, and one more where the new dim lies among the event dims."""
        largest: int = max(part.event_dim for part in self.cseq)
        return largest + 1 if -1 - largest <= self.dim < 0 else largest

    def check(self, value: Tensor) -> Tensor:
        dim = self.dim if self.dim < 0 else self.dim - value.dim()
        if not -value.dim() <= dim < 0 or value.shape[dim] != len(self.cseq):
            raise ValueError(
                f"stack: dim {self.dim} of the value must have the size {len(self.cseq)}, the number of parts, but the "
                f"value's shape is {tuple(value.shape)}."
            )
        largest = max(part.event_dim for part in self.cseq)
        checks = [
            _reduced(part.check(piece), largest - part.event_dim)
            for part, piece in zip(self.cseq, value.unbind(dim), strict=True)
        ]
        if self.event_dim > largest:
            return torch.stack(checks).all(0)
        return torch.stack(checks, dim + largest)

    def __repr__(self) -> str:
        return f"stack({self.cseq}, dim={self.dim})"


def _reduced(check: Tensor, count: int) -> Tensor:
    for _ in range(count):
        check = check.all(-1)
    return check


def kind(thing: Any) -> type:
    """The class of a constraint; ours where ours is a corrected version of torch's."""
    cls = type(thing)
    return {torchs.cat: cat, torchs.stack: stack, torchs.multinomial: multinomial}.get(cls, cls)


def same(a: Any, b: Any) -> builtins.bool:
    """Whether two constraints, or two parameters of constraints, mean the same."""
    if a is b:
        return True
    if kind(a) is not kind(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Constraint):
        return vars(a).keys() == vars(b).keys() and all(same(value, vars(b)[name]) for name, value in vars(a).items())
    return torch.equal(a, b) if isinstance(a, Tensor) else builtins.bool(a == b)


integer = _Integer()
integer_greater_than = type(nonnegative_integer)  # inclusive, as in torch
complex = _Complex()
circular = interval(-math.pi, math.pi)
softplus_positive = _SoftplusPositive()
ordered_vector = _Ordered()
positive_ordered_vector = _PositiveOrdered()
sphere = _Sphere()
l1_ball = _L1Ball()
positive_definite_circulant_vector = _PositiveDefiniteCirculantVector()
real_matrix = independent(real, 2)
softplus_lower_cholesky = _SoftplusLowerCholesky()
scaled_unit_lower_cholesky = _ScaledUnitLowerCholesky()
unit_lower_cholesky = _UnitLowerCholesky()
corr_matrix = _CorrMatrix()

__all__ = [
    "Constraint",
    "MixtureSameFamilyConstraint",
    "boolean",
    "cat",
    "circular",
    "complex",
    "corr_cholesky",
    "corr_matrix",
    "dependent",
    "dependent_property",
    "greater_than",
    "greater_than_eq",
    "half_open_interval",
    "independent",
    "integer",
    "integer_greater_than",
    "integer_interval",
    "interval",
    "is_dependent",
    "l1_ball",
    "less_than",
    "lower_cholesky",
    "lower_triangular",
    "multinomial",
    "nonnegative",
    "nonnegative_integer",
    "one_hot",
    "ordered_vector",
    "positive",
    "positive_definite",
    "positive_definite_circulant_vector",
    "positive_integer",
    "positive_ordered_vector",
    "positive_semidefinite",
    "real",
    "real_matrix",
    "real_vector",
    "same",
    "scaled_unit_lower_cholesky",
    "simplex",
    "softplus_lower_cholesky",
    "softplus_positive",
    "sphere",
    "square",
    "stack",
    "symmetric",
    "unit_interval",
    "unit_lower_cholesky",
    "zero_sum",
]
