"""Gamma and beta log densities against mpmath, in both precisions and both ways of working them out."""

from __future__ import annotations

from typing import Any

import mpmath
import pytest
import torch

from ppl.tensors import saddlepoint
from ppl.tensors.saddlepoint import log_beta_density, log_beta_function, log_gamma_density, log_inverse_gamma_density

SIZES = (1e-6, 1e-3, 0.3, 1.0, 2.5, 40.0, 1e4, 1e6)
GAMMA = [(a, a * f, r) for a in SIZES for f in (0.5, 0.9, 0.999, 1.0, 1.01, 3.0) for r in (1.0, 1e-3, 30.0)]
BETA = [(a, b, a / (a + b) * f) for a in SIZES for b in SIZES for f in (0.5, 0.9, 0.999, 1.0)]


@pytest.fixture(params=["float64", "float32", "float32 without doubles"])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    if "without" in request.param:
        monkeypatch.setattr(saddlepoint, "_WITHOUT_DOUBLE", {"cpu"})
    return torch.float64 if request.param == "float64" else torch.float32


def compare(function: Any, exact: Any, columns: list[tuple[float, ...]], dtype: torch.dtype) -> None:
    arguments = [torch.tensor(column, dtype=dtype) for column in zip(*columns, strict=True)]
    got = function(*arguments)
    tolerance = 1e-9 if dtype == torch.float64 else 1.5e-4
    assert got.dtype == dtype
    with mpmath.workdps(40):
        for i in range(len(columns)):
            at = [mpmath.mpf(v[i].item()) for v in arguments]
            want = exact(*at)
            assert abs(got[i].item() - want) <= tolerance * max(1, abs(want)), (at, got[i].item(), want)


def lgamma(x: Any) -> Any:
    return mpmath.loggamma(x)


def test_gamma(dtype: torch.dtype) -> None:
    columns = [(a, t / r, r) for a, t, r in GAMMA]
    exact = lambda a, x, r: a * mpmath.log(r) + (a - 1) * mpmath.log(x) - r * x - lgamma(a)  # noqa: E731
    compare(log_gamma_density, exact, columns, dtype)
    compare(log_gamma_density, lambda a, x: exact(a, x, 1), [(a, t) for a, t, r in GAMMA if r == 1.0], dtype)


def test_inverse_gamma(dtype: torch.dtype) -> None:
    columns = [(a, r / t, r) for a, t, r in GAMMA]
    exact = lambda a, x, r: a * mpmath.log(r) - (a + 1) * mpmath.log(x) - r / x - lgamma(a)  # noqa: E731
    compare(log_inverse_gamma_density, exact, columns, dtype)


def test_beta(dtype: torch.dtype) -> None:
    def exact(a: Any, b: Any, x: Any) -> Any:
        return (a - 1) * mpmath.log(x) + (b - 1) * mpmath.log(1 - x) - lgamma(a) - lgamma(b) + lgamma(a + b)

    columns = [(a, b, x) for a, b, x in BETA if 1e-6 < x < 1 - 1e-6]
    compare(log_beta_density, exact, columns, dtype)
    turned = [(b, a, x) for a, b, x in columns]
    compare(lambda b, a, x: log_beta_density(a, b, 1 - x, x), lambda b, a, x: exact(b, a, x), turned, dtype)


def test_beta_function(dtype: torch.dtype) -> None:
    columns = [(a, b) for a in SIZES for b in SIZES]
    compare(log_beta_function, lambda a, b: lgamma(a) + lgamma(b) - lgamma(a + b), columns, dtype)


def test_gradients() -> None:
    a = torch.tensor([0.3, 1.0, 5.0, 50.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.5, 2.0, 30.0, 7.0], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([0.2, 0.4, 0.7, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_gamma_density, (a, x, b))
    assert torch.autograd.gradcheck(log_inverse_gamma_density, (a, x, b))
    assert torch.autograd.gradcheck(log_beta_density, (a, b, x))
    assert torch.autograd.gradgradcheck(log_beta_density, (a, b, x))
