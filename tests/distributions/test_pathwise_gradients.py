"""Velocity fields of draws: unbiased (the generic tests compare them to quadrature), and better than the usual ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import ppl.distributions as dist

TRIL = torch.tensor([[1.0, 0.0, 0.0], [0.7, 0.8, 0.0], [-0.6, 0.5, 0.4]], dtype=torch.float64)
LOC = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
CURVE = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)


def gradients(make: Any, count: int = 4000) -> torch.Tensor:
    """Single-draw gradients of E[xᵀ C x] in the Cholesky factor, one a row."""
    torch.manual_seed(0)
    trils = TRIL.repeat(count, 1, 1).requires_grad_()
    x = make(trils).rsample()
    f = (x * (x @ CURVE)).sum(-1)
    (found,) = torch.autograd.grad(f.sum(), [trils])
    return found.tril()


def check_unbiased(found: torch.Tensor) -> None:
    truth = (2 * CURVE @ TRIL).tril()  # of E = loc' C loc + tr(C L L')
    error = (found.mean(0) - truth).abs()
    assert (error <= 4.5 * found.std(0) / len(found) ** 0.5 + 1e-12).all()


def total_variance(found: torch.Tensor) -> float:
    return float(found.var(0).sum())


def test_optimal_transport_is_unbiased_with_less_variance() -> None:
    usual = gradients(lambda tril: dist.MultivariateNormal(LOC, scale_tril=tril))
    transported = gradients(lambda tril: dist.OMTMultivariateNormal(LOC, tril))
    check_unbiased(usual)
    check_unbiased(transported)
    assert total_variance(transported) < 0.9 * total_variance(usual)


def test_optimal_transport_draws_are_the_usual_draws() -> None:
    torch.manual_seed(0)
    x = dist.OMTMultivariateNormal(LOC, TRIL).rsample((5,))
    torch.manual_seed(0)
    torch.testing.assert_close(x, dist.MultivariateNormal(LOC, scale_tril=TRIL).rsample((5,)))


def test_adaptive_field_is_unbiased_and_learns() -> None:
    control = torch.full((2, 2, 3), 0.1, dtype=torch.float64, requires_grad=True)
    plain = gradients(lambda tril: dist.AVFMultivariateNormal(LOC, tril, torch.zeros_like(control)))
    check_unbiased(plain)
    optimiser = torch.optim.Adam([control], lr=0.03)
    for step in range(300):
        torch.manual_seed(step)
        x = dist.AVFMultivariateNormal(LOC, TRIL.clone().requires_grad_(), control).rsample((64,))
        (x * (x @ CURVE)).sum(-1).mul(1 / 64).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    learned = gradients(lambda tril: dist.AVFMultivariateNormal(LOC, tril, control.detach()))
    check_unbiased(learned)
    assert total_variance(learned) < 0.95 * total_variance(plain)


def test_gradient_of_the_control_is_that_of_the_squared_gradient() -> None:
    control = torch.tensor([[[0.3, -0.2, 0.1]], [[0.5, 0.4, -0.6]]], dtype=torch.float64, requires_grad=True)

    def squared(values: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        tril = TRIL.clone().requires_grad_()
        x = dist.AVFMultivariateNormal(LOC, tril, values).rsample()
        (found,) = torch.autograd.grad((x * (x @ CURVE)).sum(), [tril])
        return found.square().sum()

    torch.manual_seed(3)
    x = dist.AVFMultivariateNormal(LOC, TRIL.clone().requires_grad_(), control).rsample()
    (found,) = torch.autograd.grad((x * (x @ CURVE)).sum(), [control])
    for index in ((0, 0, 0), (0, 0, 2), (1, 0, 1), (1, 0, 2)):
        step = torch.zeros_like(control)
        step[index] = 1e-5
        slope = (squared(control.detach() + step) - squared(control.detach() - step)) / 2e-5
        assert float(found[index]) == pytest.approx(float(slope), rel=1e-5, abs=1e-8)


def test_a_control_of_a_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"AVFMultivariateNormal: 'control_var' must have shape \(2, m, 3\)"):
        dist.AVFMultivariateNormal(LOC, TRIL, torch.zeros(2, 3))


class TestMixtures:
    def test_pathwise_gradient_of_weights_in_many_dims(self) -> None:
        """Against the closed form of E[sum of squares] in four dims, where there is no quadrature."""
        torch.manual_seed(0)
        locs = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
        scale = (torch.rand(3, 4, dtype=torch.float64) + 0.5).requires_grad_()
        logits = torch.randn(3, dtype=torch.float64, requires_grad=True)
        truth = torch.autograd.grad(
            (logits.softmax(-1) * (locs.square() + scale.square()).sum(-1)).sum(), [locs, scale, logits]
        )
        blocks = []
        for _ in range(40):
            x = dist.MixtureOfDiagNormals(locs, scale, logits).rsample((1000,))
            blocks.append(torch.autograd.grad(x.square().sum(-1).mean(), [locs, scale, logits]))
        for i, expected in enumerate(truth):
            found = torch.stack([b[i] for b in blocks])
            assert ((found.mean(0) - expected).abs() <= 4.5 * found.std(0) / 40**0.5 + 1e-9).all()

    def test_a_component_of_no_weight(self) -> None:
        logits = torch.tensor([0.0, -torch.inf, 1.0], dtype=torch.float64, requires_grad=True)
        locs = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
        with dist.validation_enabled(False):
            d = dist.MixtureOfDiagNormals(locs, torch.ones(3, 2, dtype=torch.float64), logits)
        x = d.rsample((10,))
        assert x.isfinite().all()
        for gradient in torch.autograd.grad(x.sum(), [logits, locs]):
            assert gradient.isfinite().all()

    def test_far_apart_components(self) -> None:
        locs = torch.tensor([[-1e3, 0.0], [1e3, 5.0]], dtype=torch.float64)
        logits = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        x = dist.MixtureOfDiagNormals(locs, torch.full((2, 2), 1e-2, dtype=torch.float64), logits).rsample((100,))
        (gradient,) = torch.autograd.grad(x.sum(), [logits])
        assert gradient.isfinite().all()

    def test_one_component_is_a_normal_vector(self) -> None:
        d = dist.GaussianScaleMixture(torch.tensor([0.5, 2.0]), torch.zeros(1), torch.tensor([1.5]))
        e = dist.Normal(torch.zeros(2), torch.tensor([0.75, 3.0])).to_event(1)
        x = d.rsample((5,))
        torch.testing.assert_close(d.log_prob(x), e.log_prob(x))

    @pytest.mark.parametrize(
        "arguments",
        [
            (torch.zeros(3, 2), torch.ones(3, 3), torch.zeros(3)),
            (torch.zeros(3, 2), torch.ones(3, 2), torch.zeros(2)),
        ],
    )
    def test_shapes_that_do_not_fit(self, arguments: Any) -> None:
        with pytest.raises(ValueError, match="MixtureOfDiagNormals: expected the shapes"):
            dist.MixtureOfDiagNormals(*arguments)
