"""What a row of the table of distributions is, and what the rows share.

A row says how to build the distribution, which shapes it must have, and what its log density is according to somebody
else: scipy or a closed form in numpy everywhere, mpmath at 30 digits in the tails.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np
import torch
from torch import Tensor

Array = np.ndarray
#: Probabilities below which, and above which, the tails are looked at.
LEVELS = (1e-12, 1e-9, 1e-6, 1e-3, 0.05, 0.3, 0.5)


@dataclass(frozen=True)
class Case:
    """One row.

    `params` are numbers and nested lists that become tensors; `options` are passed as they are. `log_density` takes a
    value and the parameters (and options) as arrays.

    The tails (rows without batch dims): `exact` takes one draw and the parameters as mpmath numbers (nested lists of
    them for vectors) and returns the log density; it is compared at the quantiles of `law` (the function that `scipy`
    was given, or one that returns anything with `ppf` and `isf`), at `points`, and with each set of parameters in
    `extremes`, which lie near the ends of their ranges, as well as in the row's own.
    """

    cls: type
    params: Mapping[str, Any]
    log_density: Callable[..., Any]
    batch: tuple[int, ...] = ()
    event: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    build_from: Callable[..., Any] | None = None  # how to build it, for wrappers; the class itself otherwise
    integers: tuple[str, ...] = ()  # parameters of dtype int64
    no_gradient: tuple[str, ...] = ()  # parameters that log_prob is not differentiated by
    exact: Callable[..., Any] | None = None
    law: Callable[..., Any] | None = None
    points: tuple[Any, ...] = ()
    extremes: tuple[Mapping[str, Any], ...] = ()
    integrates: bool = True  # whether the log density is one that integrates to 1 (no atoms, no mask, nothing improper)
    skips: Mapping[str, str] = field(default_factory=dict)  # name of a test method -> why it cannot hold
    note: str = ""

    @property
    def name(self) -> str:
        kind = "x".join(map(str, self.batch)) or "scalar"
        return "-".join(filter(None, [self.cls.__name__, self.note, kind]))

    def tensors(self, dtype: torch.dtype = torch.float64, device: str = "cpu") -> dict[str, Tensor]:
        """The parameters."""
        return {
            k: torch.tensor(v, dtype=torch.int64 if k in self.integers else dtype, device=device)
            for k, v in self.params.items()
        }

    def of(self, **tensors: Any) -> Any:
        """The distribution with these parameters."""
        return (self.build_from or self.cls)(**tensors, **self.options)

    def build(self, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Any:
        """The distribution."""
        return self.of(**self.tensors(dtype, device))

    def reference(self, value: Tensor, dtype: torch.dtype = torch.float64) -> Array:
        """The log density at a value according to `log_density`, in double precision."""
        arrays = {k: v.double().numpy() for k, v in self.tensors(dtype).items()}
        return np.asarray(self.log_density(value.double().numpy(), **arrays, **self.options))

    def quantiles(self, params: Mapping[str, Any]) -> list[float]:
        """Where to look: from the far lower to the far upper tail, as far as `law` can say."""
        make = self.law or getattr(self.log_density, "law", None)
        if make is None:
            return []
        with np.errstate(all="ignore"):
            law = make(**{k: np.asarray(v, dtype=float) for k, v in params.items()}, **self.options)
            found = [*(float(law.ppf(q)) for q in LEVELS), *(float(law.isf(q)) for q in reversed(LEVELS[:-1]))]
        return sorted({x for x in found if np.isfinite(x)})

    def exactly(self, x: Any, params: Mapping[str, Any]) -> float:
        """The log density of one draw according to `exact`, worked out with 30 digits."""
        assert self.exact is not None
        with mpmath.workdps(30):
            return float(self.exact(_mpf(x), **{k: _mpf(v) for k, v in params.items()}, **self.options))


def _mpf(x: Any) -> Any:
    return [_mpf(v) for v in x] if isinstance(x, (list, tuple)) else mpmath.mpf(x)


def rows(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function of single draws and parameters one of batches: `"(k),(k)->()"`."""

    def wrap(fn: Callable[..., Any]) -> Callable[..., Any]:
        inner = np.vectorize(fn, signature=signature, otypes=[float])

        @functools.wraps(fn)
        def outer(value: Array, **params: Any) -> Array:
            return inner(value, *params.values())

        return outer

    return wrap


def logit(p: Array) -> Array:
    return np.log(p) - np.log1p(-p)


def normalised(p: Array) -> Array:
    return p / p.sum(-1, keepdims=True)


def categorical(x: Array, probs: Array) -> Array:
    logs = np.broadcast_to(
        np.log(normalised(probs)), (*np.broadcast_shapes(x.shape, probs.shape[:-1]), probs.shape[-1])
    )
    return np.take_along_axis(logs, x.astype(int)[..., None], -1)[..., 0]


def scipy(make: Callable[..., Any], discrete: bool = False) -> Callable[..., Any]:
    """The log density of what `make(**params)` returns, which also lends its quantiles."""

    def log_density(value: Array, **params: Any) -> Array:
        return getattr(make(**params), "logpmf" if discrete else "logpdf")(value)

    log_density.law = make
    return log_density


V = [0.3, 1.4]  # a batch of positive parameters
R = [-0.7, 2.5]  # a batch of real parameters
P = [0.2, 0.7]  # a batch of probabilities
P3 = [0.2, 0.3, 0.5]
P23 = [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]
COV = [[1.3, 0.4, -0.2], [0.4, 0.9, 0.1], [-0.2, 0.1, 0.6]]
TRIL = [[1.1, 0.0, 0.0], [0.4, 0.8, 0.0], [-0.3, 0.2, 0.5]]
LOC3 = [0.5, -1.0, 2.0]


def pair(
    cls: type, log_density: Callable[..., Any], one: dict[str, Any], two: dict[str, Any], **kwargs: Any
) -> list[Case]:
    """An unbatched row and one of batch shape (2,)."""
    return [Case(cls, one, log_density, **kwargs), Case(cls, two, log_density, (2,), **kwargs)]
