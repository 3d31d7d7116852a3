"""Latent entries that the model does not count must not feed the guide's entropy."""

from __future__ import annotations

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.infer import SVI, Trace_ELBO
from ppl.infer.autoguide import AutoDiagonalNormal, AutoNormal

DATA = torch.tensor([1.0, float("nan"), 2.0, float("nan")])
SEEN = ~DATA.isnan()


def model() -> None:
    mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
    with ppl.plate("rows", 4):
        ppl.sample("y", dist.Normal(mean, 1.0), obs=DATA, obs_mask=SEEN)


@pytest.mark.parametrize("guide_class", [AutoNormal, AutoDiagonalNormal])
def test_imputed_entries_reach_their_posterior_and_observed_ones_do_not_drift(guide_class: type) -> None:
    """With precision 1 + 2, E[mean] = 3 / 3; the loss at the optimum is finite and stays there."""
    guide = guide_class(model)
    svi = SVI(model, guide, ppl.optim.Adam({"lr": 0.03}), Trace_ELBO(num_particles=10, vectorize_particles=True))
    early = svi.run(600, progress_bar=False).losses[-150:].mean()
    late = svi.run(200, progress_bar=False).losses[-150:].mean()
    # Under mean field, mean and the two imputed values have precision 1 + 2 + 2 and 1; -ELBO has this closed form:
    # the joint of (mean, y1, y3) is normal with the precision matrix below, and mean field keeps its diagonal.
    precision = torch.tensor([[5.0, -1.0, -1.0], [-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
    seen = torch.tensor([1.0, 2.0])
    evidence = torch.distributions.MultivariateNormal(torch.zeros(2), torch.ones(2, 2) + torch.eye(2)).log_prob(seen)
    gap = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    expected = -evidence + gap
    assert abs(early - expected) < 0.1
    assert abs(late - expected) < 0.1
    median = guide.median()
    assert abs(median["mean"] - 1.0) < 0.15
    torch.testing.assert_close(median["y_unobserved"][~SEEN], torch.full((2,), 1.0), atol=0.2, rtol=0)
