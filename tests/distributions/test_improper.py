"""Distributions without draws: improper uniforms, and functions as densities."""

from __future__ import annotations

import pickle

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.distributions import constraints
from ppl.infer import SVI, Trace_ELBO
from ppl.infer.autoguide import (
    AutoDelta,
    AutoNormal,
    init_to_feasible,
    init_to_mean,
    init_to_median,
    init_to_sample,
    init_to_uniform,
    init_to_value,
)


def test_improper_uniform() -> None:
    d = dist.ImproperUniform(constraints.positive, (2,), (3,))
    assert (d.batch_shape, d.event_shape, d.support.event_dim) == ((2,), (3,), 1)
    x = torch.rand(5, 2, 3)
    assert torch.equal(d.log_prob(x), torch.zeros(5, 2))
    e = d.expand((4, 2))
    assert e.log_prob(x[0]).shape == (4, 2) and e.support.event_dim == 1
    assert d.to_event(1).log_prob(x).shape == (5,)
    with dist.validation_enabled(False):
        outside = dist.ImproperUniform(constraints.positive).log_prob(torch.tensor([-1.0, 1.0]))
    assert outside.tolist() == [-torch.inf, 0.0]
    assert dist.ImproperUniform(constraints.simplex, (), (3,)).support is constraints.simplex
    with pytest.raises(ValueError, match="must lie in the support"):
        d.log_prob(-x)
    with pytest.raises(NotImplementedError, match="init_to_uniform"):
        d.sample()
    with pytest.raises(ValueError, match="1 event dims, but event_shape is"):
        dist.ImproperUniform(constraints.simplex)


def flat(x: torch.Tensor) -> torch.Tensor:
    return -0.5 * (x**2).sum(-1)


def test_log_density_without_a_sampler() -> None:
    d = dist.LogDensity(flat, event_shape=(3,))
    x = torch.randn(5, 3)
    torch.testing.assert_close(d.log_prob(x), flat(x))
    assert d.expand((2, 5)).log_prob(x).shape == (2, 5)
    assert not d.has_rsample and not d.is_discrete
    twin = pickle.loads(pickle.dumps(d))
    torch.testing.assert_close(twin.log_prob(x), flat(x))
    with dist.validation_enabled(False):
        unchecked = dist.LogDensity(flat, event_shape=(3,))
    torch.testing.assert_close(torch.vmap(unchecked.log_prob)(x), flat(x))
    with pytest.raises(NotImplementedError, match="made without a sampler"):
        d.sample()
    with pytest.raises(ValueError, match="fn returned shape"):
        dist.LogDensity(lambda x: x, event_shape=(3,)).log_prob(x)
    with pytest.raises(ValueError, match="needs a sampler"):
        dist.LogDensity(flat, has_rsample=True)
    with pytest.raises(ValueError, match="does not expand"):
        dist.LogDensity(flat, event_shape=(3,), batch_shape=(2,)).expand((3,))


def test_log_density_is_called_inside_its_support_only() -> None:
    d = dist.LogDensity(lambda x: x.log() - x, support=constraints.positive, validate_args=False)
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    log_prob = d.log_prob(x)
    assert log_prob[0] == -torch.inf
    (slope,) = torch.autograd.grad(log_prob[1], [x])
    assert slope.tolist() == [0.0, -0.5]


def test_log_density_with_a_sampler_expands() -> None:
    d = dist.LogDensity(
        lambda x: -x, constraints.positive, batch_shape=(1, 2), sampler=lambda s: torch.rand((*s, 1, 2))
    )
    x = d.expand((4, 3, 2)).sample((5,))
    assert x.shape == (5, 4, 3, 2)
    assert len(x.unique()) == x.numel()
    with pytest.raises(ValueError, match="the sampler returned shape"):
        dist.LogDensity(lambda x: -x, sampler=lambda s: torch.rand(7)).sample()


def model(data: torch.Tensor) -> None:
    loc = ppl.sample("loc", dist.ImproperUniform(constraints.real, (), ()))
    scale = ppl.sample("scale", dist.LogDensity(lambda s: -s, support=constraints.positive))
    with ppl.plate("data", len(data)):
        ppl.sample("x", dist.Normal(loc, scale), obs=data)


STRATEGIES = [init_to_feasible, init_to_mean, init_to_median, init_to_sample, init_to_uniform, init_to_value]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: s.__name__)
@pytest.mark.parametrize("guide", [AutoNormal, AutoDelta])
def test_guides_start_without_a_draw(strategy: object, guide: type) -> None:
    torch.manual_seed(0)
    data = torch.tensor([0.5, 1.5, 2.5])
    fitted = guide(model, init_loc_fn=strategy)
    fitted.setup(data)
    assert set(fitted.median()) == {"loc", "scale"}


def test_a_guide_finds_the_mode() -> None:
    torch.manual_seed(0)
    data = torch.randn(200) * 2 + 3
    guide = AutoDelta(model)
    svi = SVI(model, guide, ppl.optim.Adam({"lr": 0.05}), Trace_ELBO())
    svi.run(600, data)
    found = guide.median()
    torch.testing.assert_close(found["loc"], data.mean(), rtol=0.0, atol=0.02)
    torch.testing.assert_close(found["scale"], data.std(correction=0), rtol=0.05, atol=0.0)
    assert float(dist.Normal(data.mean(), found["scale"]).log_prob(data).sum()) < 0


def test_a_draw_in_a_model_names_the_site() -> None:
    with pytest.raises(NotImplementedError, match=r"'loc'.* cannot be sampled"):
        ppl.sample("loc", dist.ImproperUniform(constraints.real))
    value = ppl.sample("loc", dist.LogDensity(lambda x: -x * x), obs=torch.tensor(1.0))
    assert value == 1.0
