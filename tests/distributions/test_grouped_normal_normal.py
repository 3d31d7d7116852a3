"""The posterior of groups' means."""

from __future__ import annotations

import pytest
import torch

import ppl.distributions as dist


def of(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_posterior_is_bayes_theorem() -> None:
    groups = torch.tensor([0, 1, 1])
    d = dist.GroupedNormalNormal(of(0.5, 0.7), of(2.0, 2.5), of(1.0, 2.0, 3.0), groups)
    value, means = of(1.0, 2.0, 3.0), of(0.3, -0.4)
    posterior = d.get_posterior(value)
    assert posterior.batch_shape == (2,)
    torch.testing.assert_close(posterior.loc, of(0.9, 1.8141), rtol=1e-4, atol=1e-4)
    joint = dist.Normal(of(0.5, 0.7), of(2.0, 2.5)).log_prob(means).sum()
    joint = joint + dist.Normal(means[groups], of(1.0, 2.0, 3.0)).log_prob(value).sum()
    torch.testing.assert_close(d.log_prob(value) + posterior.log_prob(means).sum(), joint)


def test_a_group_without_observations_keeps_its_prior() -> None:
    posterior = dist.GroupedNormalNormal(of(0.5, 0.7), of(2.0, 2.5), of(1.0), torch.tensor([0, 0])).get_posterior(
        of(1, 2)
    )
    assert posterior.loc[1].item() == 0.7 and posterior.scale[1].item() == 2.5


def test_errors() -> None:
    with pytest.raises(ValueError, match="must lie from 0 to 1"):
        dist.GroupedNormalNormal(of(0.5, 0.7), of(2.0, 2.5), of(1.0), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="obs_scale has 2 entries"):
        dist.GroupedNormalNormal(of(0.5, 0.7), of(2.0, 2.5), of(1.0, 1.0), torch.tensor([0, 1, 1]))
