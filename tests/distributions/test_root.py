"""The search for roots, on functions that are hard, and its derivatives to third order."""

import pytest
import torch

from ppl.distributions.transforms.root import increasing_root

HARD = {
    "flat": lambda x: (1e-6 * x, torch.full_like(x, 1e-6)),
    "steep": lambda x: (1e6 * x, torch.full_like(x, 1e6)),
    "polynomial": lambda x: (x + x**9, 1 + 9 * x**8),
    "sinh": lambda x: (x.sinh(), x.cosh()),
    "kink": lambda x: (torch.where(x > 0, x, 0.01 * x), torch.where(x > 0, torch.ones_like(x), 0.01)),
    "far": lambda x: ((x - 1e5) + (x - 1e5) ** 3, 1 + 3 * (x - 1e5) ** 2),
}


@pytest.mark.parametrize("name", HARD)
def test_open_searches(name):
    size = torch.logspace(-8, 8, 100)
    target = torch.cat([-size, torch.zeros(1), size])
    value, slope = HARD[name](x := increasing_root(HARD[name], target))
    assert ((value - target).abs() <= 1e-15 * (slope * (1 + x.abs()) + 4 * target.abs())).all()


def test_derivatives_to_third_order():
    a = torch.tensor(0.7, requires_grad=True)
    y = torch.tensor([-1.5, 0.2, 3.0], requires_grad=True)
    low, high = torch.full_like(y, -10), torch.full_like(y, 10)
    found = increasing_root(lambda x: (a.exp() * x.sinh(), a.exp() * x.cosh()), y, low, high)
    exact = (y / a.exp()).asinh()
    for _ in range(3):
        assert torch.allclose(found, exact, rtol=1e-11)
        for leaf in (a, y):
            one = torch.autograd.grad(found.sum(), leaf, create_graph=True)[0]
            other = torch.autograd.grad(exact.sum(), leaf, create_graph=True)[0]
            assert torch.allclose(one, other, rtol=1e-9)
        found, exact = one, other


def test_single_precision():
    target = torch.linspace(-50, 50, 101, dtype=torch.float32)
    x = increasing_root(lambda x: (x + 2 * x.tanh(), 3 - 2 * x.tanh() ** 2), target)
    assert x.dtype == torch.float32
    assert torch.allclose(x + 2 * x.tanh(), target, rtol=1e-6, atol=1e-6)
