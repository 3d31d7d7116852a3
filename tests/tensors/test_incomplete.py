"""Incomplete gamma and beta functions against mpmath, their gradients against differences of it, and their inverses."""

from __future__ import annotations

from typing import Any

import mpmath
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from ppl.tensors import incomplete, quantile

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])

GAMMA = [(a, a + k * a**0.5) for a in (0.1, 0.5, 1.0, 2.0, 7.0, 30.0, 300.0, 1e4) for k in (-8, -2, -0.3, 0, 1, 4, 9)]
GAMMA = [(a, x) for a, x in GAMMA if x > 0] + [(a, x) for a in (1e-3, 0.1, 3.0) for x in (1e-8, 1e-2, 0.4, 0.8, 20.0)]
SHAPES = [(1e-3, 1e-3), (0.1, 0.1), (0.5, 1e-2), (1.0, 1.0), (2.0, 3.0), (30.0, 7.0), (300.0, 200.0)]
BETA = [(a, b, x) for a, b in SHAPES for x in (1e-8, 1e-2, 0.3, 0.499, 0.6, 0.9, 1 - 2**-20)]
BETA += [(a, b, a / (a + b) * f) for a, b in ((1e-2, 1e4), (2.0, 1e4), (500.0, 30.0)) for f in (0.9, 0.98, 1.0, 1.03)]


def exact_gamma(a: Any, x: Any) -> tuple[Any, Any]:
    if x < a:
        p = mpmath.gammainc(a, 0, x, regularized=True)
        return mpmath.log(p), mpmath.log(1 - p)
    q = mpmath.gammainc(a, x, mpmath.inf, regularized=True)
    return mpmath.log(1 - q), mpmath.log(q)


def exact_beta(a: Any, b: Any, x: Any) -> tuple[Any, Any]:
    if x < a / (a + b):
        p = mpmath.betainc(a, b, 0, x, regularized=True)
        return mpmath.log(p), mpmath.log(1 - p)
    q = mpmath.betainc(b, a, 0, 1 - x, regularized=True)
    return mpmath.log(1 - q), mpmath.log(q)


@DTYPES
@pytest.mark.parametrize(
    ("tails", "exact", "points"),
    [(incomplete.log_gamma_tails, exact_gamma, GAMMA), (incomplete.log_beta_tails, exact_beta, BETA)],
    ids=["gamma", "beta"],
)
def test_tails(tails: Any, exact: Any, points: Any, dtype: torch.dtype) -> None:
    arguments = [torch.tensor(column, dtype=dtype).requires_grad_() for column in zip(*points, strict=True)]
    got = tails(*arguments)
    tolerance = 1e-11 if dtype == torch.float64 else 1e-4
    with mpmath.workdps(60):
        for i in range(len(points)):
            at = [mpmath.mpf(v[i].item()) for v in arguments]
            for g, w in zip(got, exact(*at), strict=True):
                assert g.dtype == dtype
                assert abs(g[i].item() - w) <= tolerance * max(1, abs(w)), (at, g[i].item(), w)


@pytest.mark.parametrize(
    ("tails", "points"),
    [(incomplete.log_gamma_tails, GAMMA), (incomplete.log_beta_tails, BETA)],
    ids=["gamma", "beta"],
)
def test_gradients(tails: Any, points: Any) -> None:
    usable = [p for p in points if all(1e-2 < v < 50 for v in p) and abs(p[-1] - 1) > 1e-3]
    arguments = [torch.tensor(c, dtype=torch.float64).requires_grad_() for c in zip(*usable, strict=True)]
    assert torch.autograd.gradcheck(tails, arguments, rtol=1e-4)
    few = [v.detach()[::5].clone().requires_grad_() for v in arguments]
    assert torch.autograd.gradgradcheck(tails, few, atol=1e-3, rtol=1e-2)


P = [1e-12, 1e-6, 1e-3, 0.1, 0.3, 0.499, 0.5, 0.6, 0.9, 0.999, 1 - 1e-6]


@DTYPES
def test_inverse_gamma_function(dtype: torch.dtype) -> None:
    a = torch.tensor([0.3, 1.0, 5.0, 100.0, 1e6], dtype=dtype).unsqueeze(-1)
    p = torch.tensor(P, dtype=dtype)
    x = quantile.gammaincinv(a, p)
    back = torch.where(p < 0.5, incomplete.gammainc(a, x) / p, incomplete.gammaincc(a, x) / (1 - p))
    back = back[x > torch.finfo(dtype).tiny]  # not where the root underflows
    assert (back - 1).abs().max() < (1e-10 if dtype == torch.float64 else 1e-2)
    ends = quantile.gammaincinv(a[:, 0], torch.tensor([0.0, 1.0], dtype=dtype).repeat(3)[:5])
    assert ends.tolist() == [0.0, torch.inf, 0.0, torch.inf, 0.0]


@DTYPES
def test_inverse_beta_function(dtype: torch.dtype) -> None:
    shapes = torch.tensor([[0.3, 0.4], [1.0, 1.0], [2.0, 30.0], [300.0, 0.2], [1e6, 1e6]], dtype=dtype)
    a, b = shapes.unsqueeze(-1).unbind(1)
    p = torch.tensor(P, dtype=dtype)
    z = quantile.logit_betaincinv(a, b, p)
    log_p, log_q = incomplete.log_beta_tails(a, b, z.sigmoid(), (-z).sigmoid())
    back = torch.where(p < 0.5, log_p.exp() / p, log_q.exp() / (1 - p))
    back = back[z.exp() > torch.finfo(dtype).tiny]  # not where the root underflows
    assert (back - 1).abs().max() < (1e-10 if dtype == torch.float64 else 1e-2)


def test_gradients_of_inverses() -> None:
    a = torch.tensor([0.5, 1.5, 40.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.7, 8.0, 3.0], dtype=torch.float64, requires_grad=True)
    p = torch.tensor([0.2, 0.9, 0.01], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(quantile.gammaincinv, [a, p])
    assert torch.autograd.gradcheck(quantile.betaincinv, [a, b, p])


@DTYPES
def test_exponential_integral(dtype: torch.dtype) -> None:
    x = torch.tensor([1e-20, 1e-4, 0.3, 0.99, 1.01, 7.0, 300.0, 1e6], dtype=dtype)
    got = incomplete.scaled_exp1(x)
    for a, g in zip(x.tolist(), got.tolist(), strict=True):
        want = mpmath.exp(a) * mpmath.e1(a)
        assert abs(g / want - 1) < 60 * torch.finfo(dtype).eps, (a, g, want)


def test_ends() -> None:
    a, b = torch.tensor([0.5, 1.0, 3.0]), torch.tensor([2.0, 1.0, 0.1])
    zero, one = torch.zeros(3), torch.ones(3)
    assert torch.equal(incomplete.log_gammainc(a, zero), -torch.inf * one)
    assert torch.equal(incomplete.log_gammaincc(a, zero), zero)
    assert torch.equal(incomplete.log_betainc(a, b, zero), -torch.inf * one)
    assert torch.equal(incomplete.log_betaincc(a, b, one), -torch.inf * one)
    assert torch.equal(incomplete.betainc(a, b, one), one)


@pytest.mark.parametrize("function", [incomplete.gammainc, quantile.gammaincinv])
def test_graph_vmap_and_meta(function: Any) -> None:
    a, p = torch.tensor([0.5, 1.5, 40.0]), torch.tensor([0.2, 0.9, 0.01])
    direct = function(a, p)
    assert torch.equal(make_fx(function)(a, p)(a, p), direct)
    torch.testing.assert_close(torch.vmap(function)(a, p), direct)
    assert function(a.to("meta"), p.to("meta")).shape == (3,)
