"""Distributions of a context: shapes, values, and that each context has draws of its own."""

import pickle

import pytest
import torch

import ppl.distributions as dist
from ppl.distributions import transforms

WIDE = dist.Normal(torch.zeros(2), torch.ones(2))
FLOWS = {
    "autoregressive": lambda: transforms.conditional_affine_autoregressive(2, 3),
    "coupling": lambda: transforms.conditional_spline_coupling(2, 3),
    "spline": lambda: transforms.conditional_spline(2, 3),
    "planar": lambda: transforms.conditional_planar(2, 3),
}


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("base", [WIDE, WIDE.to_event(1)], ids=["entries", "event"])
@pytest.mark.parametrize("batch", [(), (5,), (4, 1)])
def test_shapes(name, base, batch):
    d = dist.ConditionalTransformedDistribution(base, [FLOWS[name]()]).condition(torch.randn(*batch, 3))
    entries = name == "spline" and base is WIDE
    assert (d.batch_shape, d.event_shape) == ((*batch, 2), ()) if entries else (batch, (2,))
    x = d.sample((7,))
    assert x.shape == d.shape((7,)) == (7, *batch, 2)
    assert d.log_prob(x).shape == (7, *d.batch_shape)
    rows = x.reshape(7, -1, 2)
    assert len({tuple(row) for row in rows[0].tolist()}) == rows.shape[1]  # no draw is shared


def test_density_at_a_context():
    flow = transforms.conditional_affine_autoregressive(2, 3)
    d = dist.ConditionalTransformedDistribution(WIDE, flow)
    context, x = torch.randn(5, 3), torch.randn(5, 2)
    at = d.condition(context)
    for row, one, log_prob in zip(context, x, at.log_prob(x), strict=True):
        t = flow.condition(row)
        z = t.inv(one)
        assert log_prob.item() == pytest.approx((WIDE.log_prob(z).sum() - t.log_abs_det_jacobian(z, one)).item())
    assert torch.allclose(pickle.loads(pickle.dumps(d)).condition(context).log_prob(x), at.log_prob(x))


def test_constant_parts_and_conditional_bases():
    fixed = transforms.planar(2)
    inner = dist.ConditionalTransformedDistribution(WIDE, [fixed, transforms.conditional_planar(2, 3)])
    outer = dist.ConditionalTransformedDistribution(inner, [dist.transforms.ExpTransform()])
    context = torch.randn(5, 3)
    d = outer.condition(context)
    assert (d.batch_shape, d.event_shape) == ((5,), (2,))
    x = d.sample()
    assert torch.allclose(d.log_prob(x), inner.condition(context).log_prob(x.log()) - x.log().sum(-1))
    constant = dist.ConstantConditionalDistribution(WIDE)
    assert constant.condition(context) is constant.base_dist
    outer.clear_cache()


def test_gradients_reach_the_network():
    flow = transforms.conditional_spline_coupling(2, 3)
    d = dist.ConditionalTransformedDistribution(WIDE, [flow])
    loss = -d.condition(torch.randn(20, 3)).log_prob(torch.randn(20, 2)).mean()
    grads = torch.autograd.grad(loss, list(flow.parameters()))
    assert all(grad.abs().sum() > 0 for grad in grads)


def test_ones_own_conditional_transform():
    class Shift(dist.ConditionalTransform):
        domain = codomain = dist.constraints.real
        bijective = True

        def condition(self, context):
            return transforms.AffineTransform(context[..., 0], 1.0)

    d = dist.ConditionalTransformedDistribution(dist.Normal(0.0, 1.0), [Shift()]).condition(torch.arange(3.0)[:, None])
    assert d.batch_shape == (3,)
    assert torch.allclose(d.log_prob(torch.arange(3.0)), dist.Normal(0.0, 1.0).log_prob(torch.zeros(3)))
