"""Special functions against mpmath at 40 digits, in both precisions, with their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from ppl.tensors import special

SIZES = [1e-30, 1e-6, 1e-3, 0.4, 0.99, 1.0, 1.7, 3.0, 7.99, 8.0, 8.01, 15.9, 16.1, 123.0, 1e4, 1e6, 1e9, 1e15]
NEAR = [0.5, 0.8, 0.9, 0.99, 1 - 1e-5, 1.0, 1 + 1e-6, 1.01, 1.21, 1.23, 2.0]
PAIRS = [(a, b) for a in SIZES for b in SIZES]
CLOSE = [(a * f, a) for a in SIZES for f in NEAR]


def lgamma(x: Any) -> Any:
    return mpmath.loggamma(x)


def exact_stirling(x: Any) -> Any:
    return lgamma(x) - ((x - 0.5) * mpmath.log(x) - x + mpmath.log(2 * mpmath.pi) / 2)


def exact_log_beta(a: Any, b: Any) -> Any:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], list[tuple[float, ...]]]] = {
    "log1mexp": (
        special.log1mexp,
        lambda x: mpmath.log(1 - mpmath.exp(x)),
        [(-x,) for x in (1e-30, 1e-9, 1e-3, 0.69, 0.7, 2.0, 30.0, 80.0)],
    ),
    "log_diff_exp": (
        special.log_diff_exp,
        lambda a, b: mpmath.log(mpmath.exp(a) - mpmath.exp(b)),
        [(1.0, 0.999), (1.0, -50.0), (-300.0, -300.5), (500.0, 400.0), (0.3, 0.2)],
    ),
    "stirling_error": (special.stirling_error, exact_stirling, [(x,) for x in SIZES]),
    "deviance": (special.deviance, lambda x, m: x * mpmath.log(x / m) + m - x, PAIRS + CLOSE),
    "log_beta": (special.log_beta, exact_log_beta, PAIRS),
    "log_binomial_coefficient": (
        special.log_binomial_coefficient,
        lambda n, k: lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1),
        [(1.0, 1.0), (5.0, 2.0), (1e3, 500.0), (1e6, 1.0), (1e6, 5e5), (1e6, 999_999.0), (7.5, 2.25)],
    ),
    "log_ndtr_diff": (
        special.log_ndtr_diff,
        lambda a, b: mpmath.log((mpmath.erfc(-b / mpmath.sqrt(2)) - mpmath.erfc(-a / mpmath.sqrt(2))) / 2),
        [(-1.0, 2.0), (5.0, 6.0), (-6.0, -5.0), (20.0, 21.0), (-21.0, -20.0), (0.1, 0.2), (-9.0, 9.0)],
    ),
    "log_ndtr": (
        special.log_ndtr,
        lambda x: mpmath.log(mpmath.erfc(-x / mpmath.sqrt(2)) / 2),
        [(x,) for x in (-1e3, -20.0, -5.0, -1.0, -1e-3, 1e-3, 1.0, 5.0, 9.0)],
    ),
    "log_i0": (special.log_i0, lambda x: mpmath.log(mpmath.besseli(0, x)), [(0.1,), (1.0,), (30.0,), (500.0,)]),
    "log_i1": (special.log_i1, lambda x: mpmath.log(mpmath.besseli(1, x)), [(0.1,), (1.0,), (30.0,), (500.0,)]),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str, dtype: torch.dtype) -> None:
    function, exact, points = CASES[name]
    arguments = [torch.tensor(column, dtype=dtype).requires_grad_() for column in zip(*points, strict=True)]
    got = function(*arguments)
    assert got.dtype == dtype
    gradients = torch.autograd.grad(got.sum(), arguments)
    eps = torch.finfo(dtype).eps
    with mpmath.workdps(200):
        for i in range(len(points)):
            at = [mpmath.mpf(a[i].item()) for a in arguments]
            want = exact(*at)
            assert abs(got[i].item() - want) <= 60 * eps * max(1, abs(want)), (at, got[i].item(), want)
            for k, gradient in enumerate(gradients):
                step = at[k] * mpmath.mpf(10) ** -60
                up, down = [*at], [*at]
                up[k], down[k] = at[k] + step, at[k] - step
                slope = (exact(*up) - exact(*down)) / (2 * step)
                if abs(slope) > torch.finfo(dtype).max:
                    continue
                error = abs(gradient[i].item() - slope)
                assert error <= 500 * eps * max(1, abs(slope), 1 / abs(at[k])), (at, k, gradient[i].item(), slope)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_deviance_is_relatively_accurate(dtype: torch.dtype) -> None:
    x, m = (torch.tensor(column, dtype=dtype) for column in zip(*CLOSE, strict=True))
    got = special.deviance(x, m)
    with mpmath.workdps(200):
        for i in range(len(CLOSE)):
            a, b = mpmath.mpf(x[i].item()), mpmath.mpf(m[i].item())
            want = a * mpmath.log(a / b) + b - a
            error = abs(got[i].item() - want)
            assert error <= 60 * torch.finfo(dtype).eps * want + torch.finfo(dtype).tiny


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives(name: str) -> None:
    function, _, points = CASES[name]
    usable = [p for p in points if all(0.1 < abs(v) < 200 and abs(abs(v) - 8) > 0.1 for v in p)][:40]
    arguments = [torch.tensor(column, dtype=torch.float64).requires_grad_() for column in zip(*usable, strict=True)]
    if name == "log_diff_exp":  # finite differences are coarse near equality
        arguments = [torch.tensor([1.0, 2.0]).double().requires_grad_(), torch.tensor([0.3, -1.0]).double()]
    assert torch.autograd.gradgradcheck(function, arguments, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_graph_and_vmap(name: str) -> None:
    function, _, points = CASES[name]
    arguments = [torch.tensor(column, dtype=torch.float64) for column in zip(*points, strict=True)]
    direct = function(*arguments)
    assert torch.equal(make_fx(function)(*arguments)(*arguments), direct)
    torch.testing.assert_close(torch.vmap(function)(*arguments), direct, rtol=1e-13, atol=1e-13)
    assert function(*(a.to("meta") for a in arguments)).device.type == "meta"


def test_edges() -> None:
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    one = torch.ones((), dtype=torch.float64, requires_grad=True)
    assert special.log1mexp(zero.detach()).item() == -torch.inf
    assert special.log_diff_exp(one, one).item() == -torch.inf
    assert special.log_diff_exp(-torch.inf * one, -torch.inf * one).item() == -torch.inf
    assert special.log_diff_exp(one, torch.tensor(-torch.inf)).item() == 1.0
    value = special.deviance(zero, one)
    assert value.item() == 1.0
    assert [g.item() for g in torch.autograd.grad(value, [zero, one])][1] == 1.0
    assert [g.item() for g in torch.autograd.grad(special.times_log(zero, zero), zero)] == [0.0]
    assert special.times_log(one, zero).item() == -torch.inf
    assert torch.autograd.grad(special.times_log(zero, 2 * one), zero)[0].item() == pytest.approx(0.6931471805599453)
    assert [g.item() for g in torch.autograd.grad(special.times_log1p(zero, -one), [zero, one])] == [0.0, 0.0]
    assert special.log_ndtr(zero).item() == pytest.approx(-0.6931471805599453)
    n = torch.tensor([0.0, 5.0, 1e9])
    assert special.log_binomial_coefficient(n, torch.zeros(3)).tolist() == [0.0] * 3
    assert special.log_binomial_coefficient(n, n).tolist() == [0.0] * 3
