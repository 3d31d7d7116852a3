"""reparam rewrites sites by a protocol of one call."""

import pytest
import scipy.stats
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers


def noncentred(name, fn, obs):
    """A normal site as a shifted and stretched standard normal."""
    assert obs is None
    noise = ppl.sample(f"{name}_noise", dist.Normal(torch.zeros_like(fn.loc), 1.0))
    return None, fn.loc + fn.scale * noise


def widened(name, fn, obs):
    return dist.Normal(fn.loc, 2 * fn.scale), obs


def shifted_data(name, fn, obs):
    return fn, obs + 1.0


def model():
    x = ppl.sample("x", dist.Normal(5.0, 2.0))
    ppl.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(0.0))
    return x


def test_no_distribution_and_a_value_make_the_site_deterministic():
    tr = handlers.trace(handlers.reparam(model, config={"x": noncentred})).get_trace()
    assert list(tr) == ["x_noise", "x", "y"]
    assert tr["x"].kind == "deterministic" and list(tr.stochastic_nodes) == ["x_noise"]
    assert tr.returned.item() == 5.0 + 2.0 * tr["x_noise"].tensor.item()
    assert tr.log_prob("x_noise").item() == pytest.approx(scipy.stats.norm.logpdf(tr["x_noise"].tensor.item()))


def test_the_distribution_of_the_site_is_unchanged():
    draws = torch.stack([handlers.reparam(model, config={"x": noncentred})() for _ in range(2000)])
    assert abs(draws.mean().item() - 5.0) < 4 * 2.0 / 2000**0.5
    assert abs(draws.std().item() - 2.0) < 4 * 2.0 / (2 * 2000) ** 0.5


def test_a_distribution_and_no_value_make_a_sample_site():
    tr = handlers.trace(handlers.reparam(model, config={"x": widened})).get_trace()
    assert tr["x"].fn.scale.item() == 4.0 and list(tr.stochastic_nodes) == ["x"]


def test_both_make_an_observation():
    tr = handlers.trace(handlers.reparam(model, config={"y": shifted_data})).get_trace()
    assert tr["y"].observed and tr["y"].tensor.item() == 1.0


def test_a_function_of_the_site_chooses():
    run = handlers.reparam(model, config=lambda site: None if site.observed else noncentred)
    assert list(handlers.trace(run).get_trace()) == ["x_noise", "x", "y"]


def test_new_statements_stand_in_the_sites_plates_with_its_scale_and_mask():
    mask = torch.tensor([True, False, True])

    def plated():
        with ppl.plate("data", 6, subsample_size=3), handlers.mask(mask=mask):
            return ppl.sample("x", dist.Normal(5.0, 2.0))

    tr = handlers.trace(handlers.reparam(plated, config={"x": noncentred})).get_trace()
    noise = tr["x_noise"]
    assert noise.tensor.shape == (3,) and len(set(noise.tensor.tolist())) == 3
    assert [f.name for f in noise.plates] == ["data"] and noise.scale == 2.0
    each = 2 * scipy.stats.norm.logpdf(noise.tensor.numpy())
    assert tr.log_prob("x_noise").tolist() == pytest.approx([each[0], 0.0, each[2]])


def test_a_plate_made_by_a_rewriting_takes_a_free_dim():
    def repeated(name, fn, obs):
        with ppl.plate(f"{name}_parts", 4):
            parts = ppl.sample(f"{name}_part", dist.Normal(0.0, 1.0))
        return None, parts.sum(0)

    def plated():
        with ppl.plate("data", 3):
            return ppl.sample("x", dist.Normal(0.0, 1.0))

    tr = handlers.trace(handlers.reparam(plated, config={"x": repeated})).get_trace()
    assert tr["x_part"].tensor.shape == (4, 3) and tr.returned.shape == (3,)
    assert {f.name: f.dim for f in tr["x_part"].plates} == {"data": -1, "x_parts": -2}


def test_rewritings_chain():
    run = handlers.reparam(handlers.reparam(model, config={"x": noncentred}), config={"x_noise": widened})
    tr = handlers.trace(run).get_trace()
    assert tr["x_noise"].fn.scale.item() == 2.0 and tr["x"].kind == "deterministic"


def test_config_must_be_a_mapping_or_a_function():
    with pytest.raises(ValueError, match=r"handlers\.reparam: config must map names to reparams, or be a function"):
        handlers.reparam(model)
