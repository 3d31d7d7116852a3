"""Errors of log densities far out, against 30 digits; shared by the tests and by the table in the docs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from case import Case

import ppl.distributions as dist


@dataclass(frozen=True)
class Error:
    """What one log density was and should have been."""

    size: float  # |got - exact| / max(1, |exact|)
    got: float
    exact: float
    x: Any
    params: Mapping[str, Any]


def has_tails(case: Case) -> bool:
    """Whether a row says what its exact log density is."""
    return case.exact is not None and not case.batch


def rounded(x: Any, dtype: torch.dtype) -> Any:
    """A number, or nested lists of them, as the dtype holds it."""
    return torch.tensor(x, dtype=dtype).double().tolist()


def points(case: Case, dtype: torch.dtype) -> Iterator[tuple[Any, Mapping[str, Any], float]]:
    """Values inside the support, parameters, and the exact log density there, of all that the row asks to be seen."""
    for chosen in (case.params, *case.extremes):
        asked = {**case.params, **chosen}
        params = {k: v if k in case.integers else rounded(v, dtype) for k, v in asked.items()}
        with dist.validation_enabled(False):
            d = case.of(**_tensors(case, params, dtype))
        for asked_x in (*case.quantiles(params), *case.points):
            x = rounded(asked_x, dtype)
            value = torch.tensor(x, dtype=dtype)
            tiny = torch.finfo(dtype).tiny
            if not value.isfinite().all() or bool(((value != 0) & (value.abs() < tiny)).any()):
                continue
            if case.event == () and asked_x != 0 and _on_an_edge(d, value):
                continue  # only by rounding
            if bool(d.support.check(value).all()):
                yield x, params, case.exactly(x, params)


def errors(case: Case, dtype: torch.dtype, build: Callable[..., Any] | None = None) -> list[Error]:
    """The errors of our log density, or of what `build` makes of the same parameters."""
    found = []
    for x, params, exact in points(case, dtype):
        tensors = _tensors(case, params, dtype)
        with dist.validation_enabled(False):
            d = case.of(**tensors) if build is None else build(**tensors, **case.options)
            got = float(d.log_prob(torch.tensor(x, dtype=dtype)))
        found.append(Error(distance(got, exact), got, exact, x, params))
    return found


def distance(got: float, exact: float) -> float:
    """Relative to the exact value, or absolute where that is below 1."""
    if got == exact:
        return 0.0
    if math.isnan(got) or math.isinf(got) or math.isinf(exact):
        return math.inf
    return abs(got - exact) / max(1.0, abs(exact))


def _tensors(case: Case, params: Mapping[str, Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {k: torch.tensor(v, dtype=torch.int64 if k in case.integers else dtype) for k, v in params.items()}


def _on_an_edge(d: Any, value: torch.Tensor) -> bool:
    ends = (getattr(d.support, name, None) for name in ("lower_bound", "upper_bound"))
    return any(end is not None and bool(value == end) for end in ends) and not d.is_discrete


__all__ = ["Error", "distance", "errors", "has_tails", "points"]
