"""Laws on the simplex: corners, conjugacy, samplers of small and large concentrations."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats as st
import torch

import ppl.distributions as dist


@pytest.mark.parametrize("concentration", [1e-3, 0.05, 0.8, 1.0, 30.0, 1e5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_dirichlet_draws_are_positive_and_have_beta_marginals(concentration: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    d = dist.Dirichlet(torch.tensor([concentration, 2 * concentration, 1.5 * concentration], dtype=dtype))
    x = d.sample((4000,))
    assert bool((x > 0).all()) and bool(d.log_prob(x).isfinite().all())
    beta = st.beta(concentration, 3.5 * concentration)
    seen = x[:, 0].double().numpy()
    small = 1e-30  # what is below cannot be told from the smallest number
    p = beta.cdf(small)
    assert abs((seen < small).mean() - p) <= 4 * np.sqrt(p * (1 - p) / 4000) + 1e-3
    kept = seen[seen >= small]
    # twelve tests; below 1 - 1e-6, because 1 - x is rounded
    inside = kept[kept < 1 - 1e-5]
    low, high = p, beta.cdf(1 - 1e-5)
    if len(inside) > 100:
        assert st.kstest((beta.cdf(inside) - low) / (high - low), "uniform").pvalue > 1e-4


def test_dirichlet_outside_the_simplex() -> None:
    with dist.validation_enabled(False):
        d = dist.Dirichlet(torch.tensor([2.0, 3.0]))
        outside = torch.tensor([[0.5, 0.6], [-0.1, 1.1], [float("nan"), 0.5]])
        assert d.log_prob(outside).tolist() == [-torch.inf] * 3
        assert dist.LogisticNormal(torch.zeros(1), 1.0).log_prob(outside).tolist() == [-torch.inf] * 3


def test_dirichlet_at_the_corners() -> None:
    corner = torch.tensor([0.0, 0.4, 0.6], dtype=torch.float64, requires_grad=True)
    for first, expected in ((1.0, None), (2.0, -torch.inf), (0.5, torch.inf)):
        concentration = torch.tensor([first, 2.0, 3.0], dtype=torch.float64)
        found = dist.Dirichlet(concentration).log_prob(corner)
        if expected is None:  # finite there, with a gradient
            assert found.isfinite()
            (gradient,) = torch.autograd.grad(found, [corner])
            assert gradient.isfinite().all()
        else:
            assert float(found.detach()) == expected


def test_conjugate_update() -> None:
    torch.manual_seed(0)
    a = dist.Dirichlet(torch.tensor([[1.5, 2.0, 0.7], [40.0, 1.0, 1.0]], dtype=torch.float64))
    b = dist.Dirichlet(torch.tensor([3.0, 1.0, 2.5], dtype=torch.float64))
    updated, log_normalizer = a.conjugate_update(b)
    x = updated.sample((5,))
    assert updated.batch_shape == (2,) and log_normalizer.shape == (2,)
    torch.testing.assert_close(a.log_prob(x) + b.log_prob(x), updated.log_prob(x) + log_normalizer)
    with pytest.raises(ValueError, match=r"Dirichlet\.conjugate_update: expected a Dirichlet, but got Normal"):
        a.conjugate_update(dist.Normal(0.0, 1.0))


def test_conjugate_update_without_an_integral() -> None:
    a = dist.Dirichlet(torch.tensor([0.3, 2.0]))
    with pytest.raises(ValueError, match="Dirichlet: argument 'concentration'"):
        a.conjugate_update(a)


def test_logistic_normal_is_the_image_of_a_normal_vector() -> None:
    torch.manual_seed(0)
    loc = torch.tensor([0.5, -1.0, 0.3], dtype=torch.float64)
    scale = torch.tensor([0.8, 0.4, 2.0], dtype=torch.float64)
    d = dist.LogisticNormal(loc, scale)
    theirs = torch.distributions.LogisticNormal(loc, scale)
    x = d.sample((4000,))
    torch.testing.assert_close(d.log_prob(x[:100]), theirs.log_prob(x[:100]))
    for i in range(3):  # three tests
        y = theirs.transforms[0].inv(x)[:, i]
        assert st.kstest(y.numpy(), st.norm(loc[i], scale[i]).cdf).pvalue > 1e-3
    far = dist.LogisticNormal(torch.full((2,), 200.0), 1.0).sample((3,))
    assert bool((far > 0).all())


def test_logistic_normal_of_an_empty_batch() -> None:
    d = dist.LogisticNormal(torch.zeros(0, 2), torch.ones(2))
    assert d.sample((3,)).shape == (3, 0, 3) and d.log_prob(d.sample((3,))).shape == (3, 0)
