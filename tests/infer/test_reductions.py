"""Operations across an enumeration dim are refused instead of giving a wrong number."""

from __future__ import annotations

import itertools

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.infer import TraceEnum_ELBO

PARALLEL = {"enumerate": "parallel"}


def nothing(*args):
    pass


def model(combine):
    with ppl.plate("rows", 2):
        s = ppl.sample("s", dist.Bernoulli(0.3), infer=PARALLEL)
    ppl.sample("x", dist.Normal(combine(s), 1.0), obs=torch.tensor(1.0))


@pytest.mark.parametrize("combine", [lambda s: s.mean(), lambda s: s.sum(-1), lambda s: s.max(), lambda s: s.sum(0)])
def test_a_reduction_over_a_plate_or_an_enumeration_dim_is_an_error_that_names_both_sites(combine):
    with pytest.raises(ValueError, match=r"site 'x' was computed from the enumerated site 's'.*sequential"):
        TraceEnum_ELBO().loss(model, nothing, combine)


def test_what_only_lends_its_dtype_or_device_is_no_source():
    expected = -dist.Normal(1.0, 1.0).log_prob(torch.tensor(1.0)).item()
    for combine in (lambda s: s.new_tensor(1.0), lambda s: torch.tensor(1.0).to(s), lambda s: s.new_ones(())):
        assert TraceEnum_ELBO().loss(model, nothing, combine) == pytest.approx(expected)


def test_a_reduction_over_a_sequential_plate_is_exact():
    def by_hand():
        s = [ppl.sample(f"s_{i}", dist.Bernoulli(0.3), infer=PARALLEL) for i in ppl.plate("rows", 2)]
        ppl.sample("x", dist.Normal(sum(s) / 2, 1.0), obs=torch.tensor(1.0))

    total = torch.stack(
        [
            torch.tensor([0.7, 0.3])[[a, b]].prod() * dist.Normal((a + b) / 2, 1.0).log_prob(torch.tensor(1.0)).exp()
            for a, b in itertools.product((0, 1), repeat=2)
        ]
    ).sum()
    assert TraceEnum_ELBO().loss(by_hand, nothing) == pytest.approx(-total.log().item(), abs=1e-12)


def test_the_look_for_reductions_draws_nothing_from_the_generator():
    ppl.set_rng_seed(3)
    TraceEnum_ELBO().loss(model, nothing, lambda s: s.new_ones(()))
    after = torch.rand(())
    ppl.set_rng_seed(3)
    with ppl.validation_enabled(False):
        TraceEnum_ELBO().loss(model, nothing, lambda s: s.new_ones(()))
    assert torch.equal(after, torch.rand(()))
