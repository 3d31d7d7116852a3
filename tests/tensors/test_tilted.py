"""The tilted uniform law against mpmath, through its removable singularity and far from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch

from ppl.tensors import tilted

C = [-800.0, -30.0, -1.0, -0.2001, -0.1999, -1e-3, -1e-5, 1e-12, 1e-4, 0.19, 0.21, 3.0, 90.0, 700.0]
V = [1e-6, 0.1, 0.5, 0.93]
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])

MOMENTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "log_normaliser": (tilted.log_normaliser, lambda c: mpmath.log(mpmath.expm1(c) / c)),
    "mean": (tilted.mean, lambda c: 1 / -mpmath.expm1(-c) - 1 / c),
    "variance": (tilted.variance, lambda c: 1 / c**2 - mpmath.exp(-abs(c)) / mpmath.expm1(-abs(c)) ** 2),
}
FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "log_cdf": (tilted.log_cdf, lambda v, c: mpmath.log(mpmath.expm1(c * v) / mpmath.expm1(c))),
    "log_survival": (tilted.log_survival, lambda v, c: mpmath.log(mpmath.expm1(-c * (1 - v)) / mpmath.expm1(-c))),
    "icdf": (tilted.icdf, lambda q, c: mpmath.log(1 + q * mpmath.expm1(c)) / c),
}


@DTYPES
@pytest.mark.parametrize("name", MOMENTS)
def test_moments(name: str, dtype: torch.dtype) -> None:
    function, exact = MOMENTS[name]
    c = torch.tensor(C, dtype=dtype)
    got = function(c)
    tolerance = 100 * torch.finfo(dtype).eps
    with mpmath.workdps(60):
        for i in range(len(C)):
            want = exact(mpmath.mpf(c[i].item()))
            assert abs(got[i].item() - want) <= tolerance * max(1, abs(want)), (c[i].item(), got[i].item(), want)


@DTYPES
@pytest.mark.parametrize("name", FUNCTIONS)
def test_distribution_functions(name: str, dtype: torch.dtype) -> None:
    function, exact = FUNCTIONS[name]
    v, c = (m.reshape(-1) for m in torch.meshgrid(torch.tensor(V), torch.tensor(C), indexing="ij"))
    v, c = v.to(dtype), c.to(dtype)
    got = function(v, c)
    tolerance = 1000 * torch.finfo(dtype).eps
    with mpmath.workdps(800):
        for i in range(len(v)):
            want = exact(mpmath.mpf(v[i].item()), mpmath.mpf(c[i].item()))
            assert abs(got[i].item() - want) <= tolerance * max(1, abs(want)), (v[i], c[i], got[i].item(), want)


def test_no_tilt_is_uniform() -> None:
    zero, v = torch.zeros(3), torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(tilted.log_cdf(v, zero), v.log())
    torch.testing.assert_close(tilted.icdf(v, zero), v)
    assert tilted.mean(zero).tolist() == [0.5] * 3


def test_derivatives() -> None:
    c = torch.tensor([-5.0, -0.1, 0.0, 1e-5, 0.15, 2.0, 40.0], dtype=torch.float64, requires_grad=True)
    v = torch.full_like(c, 0.3).requires_grad_()
    assert torch.autograd.gradcheck(tilted.log_normaliser, c)
    assert torch.autograd.gradgradcheck(tilted.log_normaliser, c)
    assert torch.autograd.gradcheck(tilted.icdf, (v, c))
    (slope,) = torch.autograd.grad(tilted.log_normaliser(c).sum(), c)
    torch.testing.assert_close(slope, tilted.mean(c))
