"""mask counts densities only where it is true."""

import pytest
import scipy.stats
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers

OBS = torch.tensor([0.5, torch.nan, -1.0])
SEEN = torch.tensor([True, False, True])


def test_only_true_entries_count_and_nan_elsewhere_harms_neither_density_nor_gradients():
    loc = torch.tensor(0.2, requires_grad=True)

    def model():
        with ppl.plate("data", 3), handlers.mask(mask=SEEN):
            ppl.sample("x", dist.Normal(loc, 1.0), obs=OBS)

    tr = handlers.trace(model).get_trace()
    each = scipy.stats.norm(0.2, 1.0).logpdf([0.5, -1.0])
    assert tr.log_prob("x").tolist() == pytest.approx([each[0], 0.0, each[1]])
    (gradient,) = torch.autograd.grad(tr.log_prob_sum(), loc)
    assert gradient.item() == pytest.approx(0.3 - 1.2)


@pytest.mark.parametrize(
    ("make", "obs", "expected"),
    [
        (lambda p: dist.Categorical(logits=p.expand(3)), torch.tensor([2, -1, 0]), 2 * torch.tensor(1 / 3).log()),
        (lambda p: dist.Poisson(p.exp()), torch.tensor([0.0, -3.0, 1.0]), torch.tensor(-2.0)),
        (lambda p: dist.Bernoulli(logits=p), torch.tensor([1.0, torch.nan, 0.0]), 2 * torch.tensor(0.5).log()),
        (lambda p: dist.Gamma(p.exp(), 1.0), torch.tensor([1.0, -1.0, 2.0]), torch.tensor(-3.0)),
        (lambda p: dist.Beta(p.exp(), 1.0), torch.tensor([0.5, 7.0, 0.2]), torch.tensor(0.0)),
    ],
    ids=["Categorical", "Poisson", "Bernoulli", "Gamma", "Beta"],
)
def test_impossible_data_under_the_mask_are_no_matter_for_any_support(make, obs, expected):
    p = torch.tensor(0.0, requires_grad=True)

    def model():
        with ppl.plate("data", 3), handlers.mask(mask=SEEN):
            ppl.sample("x", make(p), obs=obs)

    total = handlers.trace(model).get_trace().log_prob_sum()
    assert total.item() == pytest.approx(expected.item(), abs=1e-7)
    (gradient,) = torch.autograd.grad(total, p)
    assert gradient.isfinite()


def test_a_bad_value_that_counts_is_still_an_error():
    def model():
        with ppl.plate("data", 3), handlers.mask(mask=~SEEN):
            ppl.sample("x", dist.Normal(0.0, 1.0), obs=OBS)

    with pytest.raises(ValueError, match=r"site 'x'.*obs must lie in the support.*index \(1,\)"):
        model()


def test_the_mask_false_turns_everything_off_and_true_nothing():
    def model():
        ppl.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0))

    assert handlers.trace(handlers.mask(model, mask=False)).get_trace().log_prob_sum().item() == 0.0
    plain = handlers.trace(model).get_trace().log_prob_sum().item()
    assert handlers.trace(handlers.mask(model, mask=True)).get_trace().log_prob_sum().item() == plain


def test_draws_stay_as_they_are():
    def model():
        with ppl.plate("data", 3):
            return ppl.sample("x", dist.Normal(0.0, 1.0))

    ppl.set_rng_seed(5)
    plain = model()
    ppl.set_rng_seed(5)
    assert torch.equal(handlers.mask(model, mask=SEEN)(), plain)


def test_nested_masks_are_a_conjunction():
    def model():
        with ppl.plate("data", 3):
            ppl.sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(3))

    other = torch.tensor([True, True, False])
    tr = handlers.trace(handlers.mask(handlers.mask(model, mask=SEEN), mask=other)).get_trace()
    assert [value != 0 for value in tr.log_prob("x").tolist()] == [True, False, False]


def test_the_handler_and_the_distributions_own_mask_agree():
    def by_distribution():
        with ppl.plate("data", 3):
            ppl.sample("x", dist.Normal(0.0, 1.0).mask(SEEN), obs=OBS.nan_to_num())

    def by_handler():
        with ppl.plate("data", 3), handlers.mask(mask=SEEN):
            ppl.sample("x", dist.Normal(0.0, 1.0), obs=OBS.nan_to_num())

    one, other = handlers.trace(by_distribution).get_trace(), handlers.trace(by_handler).get_trace()
    assert torch.equal(one.log_prob("x"), other.log_prob("x"))


@pytest.mark.parametrize(("bad", "came"), [(torch.ones(2), r"torch\.float64"), (1, "int"), (None, "NoneType")])
def test_a_mask_that_is_not_boolean_is_refused(bad, came):
    with pytest.raises(
        ValueError, match=rf"handlers\.mask: expected a bool or a tensor of dtype torch\.bool, got {came}"
    ):
        handlers.mask(mask=bad)
