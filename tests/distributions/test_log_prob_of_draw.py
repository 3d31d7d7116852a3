"""The density at a draw, whose total derivatives by the parameters are those of `log_prob`."""

import pytest
import torch

import ppl
from ppl import distributions as dist
from ppl.distributions import biject_to, constraints
from ppl.handlers import trace
from ppl.infer import SVI, Trace_ELBO

FAMILIES = {
    "normal": lambda loc, scale: dist.Normal(loc, scale),
    "log normal": lambda loc, scale: dist.LogNormal(loc, scale),
    "independent": lambda loc, scale: dist.Normal(loc, scale).to_event(1),
    "expanded": lambda loc, scale: dist.LogNormal(loc, scale).expand((2, 3)).to_event(1),
    "simplex": lambda loc, scale: dist.TransformedDistribution(
        dist.Normal(loc, scale).to_event(1), [biject_to(constraints.simplex).with_cache()]
    ),
    "interval": lambda loc, scale: dist.TransformedDistribution(
        dist.Normal(loc, scale), [biject_to(constraints.interval(-1.0, 2.0))]
    ),
    "its own": lambda loc, scale: dist.Gumbel(loc, scale),
}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_values_and_total_derivatives_are_those_of_log_prob(family):
    loc = torch.tensor([0.3, -1.2, 0.7]).requires_grad_()
    raw = torch.tensor([0.1, -0.4, 0.9]).requires_grad_()
    d = FAMILIES[family](loc, raw.exp())
    torch.manual_seed(0)
    draw = d.rsample()
    expected, found = d.log_prob(draw), d.log_prob_of_draw(draw)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.rand_like(expected)
    for one, two in zip(*(derivatives((weights * x).sum(), loc, raw) for x in (expected, found)), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-9)


def derivatives(total, *by):
    """The first derivatives, and those of their sum of squares."""
    first = torch.autograd.grad(total, by, create_graph=True, materialize_grads=True)
    squares = sum((g * g).sum() for g in first)
    if not squares.requires_grad:
        return [*first, *(torch.zeros_like(x) for x in by)]
    return [*first, *torch.autograd.grad(squares, by, retain_graph=True, materialize_grads=True)]


class Doubled(dist.Normal):
    """A class of a user's own, which draws in its own way."""

    def log_prob(self, value):
        return 2 * super().log_prob(value)


def test_a_class_of_ones_own_keeps_its_density():
    d = Doubled(torch.tensor(0.5).requires_grad_(), 1.0)
    draw = d.rsample()
    assert torch.equal(d.log_prob_of_draw(draw), d.log_prob(draw))


def test_a_value_that_was_not_drawn_has_its_plain_density():
    loc = torch.tensor(0.5).requires_grad_()
    value = (2 * loc).exp()

    def program():
        ppl.sample("x", dist.LogNormal(loc, 1.0))

    with trace() as record, ppl.handlers.substitute(data={"x": value}):
        program()
    (gradient,) = torch.autograd.grad(record.log_prob_of_draw("x"), loc)
    # log x = 2 loc, so that the density is -loc²/2 - 2 loc
    assert gradient.item() == pytest.approx(-0.5 - 2.0, abs=1e-12)


def test_the_bound_has_the_gradient_of_the_entropy():
    """With a flat model the loss is the negative entropy: its gradient is known, whatever is drawn."""

    def guide():
        loc, scale = ppl.param("loc", torch.tensor(0.7)), ppl.param("scale", torch.tensor(2.0), constraints.positive)
        ppl.sample("x", dist.LogNormal(loc, scale))

    def model():
        ppl.sample("x", dist.ImproperUniform(constraints.positive, (), ()))

    svi = SVI(model, guide, ppl.optim.SGD({"lr": 1.0}), Trace_ELBO())
    svi.step()
    # entropy of LogNormal: loc + log scale + constant, by loc and log scale
    assert svi.params["loc"].item() == pytest.approx(1.7, abs=1e-12)


class TestNoise:
    """A draw's noise is remembered for the latest draw alone, while nobody writes into it."""

    def law(self):
        return dist.Normal(torch.tensor([0.3, -1.2]).requires_grad_(), torch.tensor([0.5, 2.0]).requires_grad_())

    def test_an_earlier_draw_and_a_foreign_one_have_their_own_noise(self):
        d = self.law()
        first, second = d.rsample(), d.rsample((4,))
        for value in (second, first, first.detach(), second.clone(), torch.tensor([1.0, 2.0])):
            torch.testing.assert_close(d.log_prob_of_draw(value), d.log_prob(value), rtol=1e-12, atol=1e-12)

    def test_a_draw_that_was_written_into(self):
        d = self.law()
        draw = d.rsample()
        with torch.no_grad():
            draw.add_(1.0)
        torch.testing.assert_close(d.log_prob_of_draw(draw), d.log_prob(draw), rtol=1e-12, atol=1e-12)

    def test_an_expanded_law_knows_nothing_of_the_other_one(self):
        d = self.law()
        draw = d.rsample()
        wide = d.expand((3, 2))
        torch.testing.assert_close(wide.log_prob_of_draw(draw), d.log_prob(draw).expand(3, 2), rtol=1e-12, atol=1e-12)
        other = wide.rsample()
        torch.testing.assert_close(wide.log_prob_of_draw(other), wide.log_prob(other), rtol=1e-12, atol=1e-12)

    def test_the_random_numbers_are_those_of_a_law_that_remembers_nothing(self):
        torch.manual_seed(3)
        ours = self.law().rsample((2,))
        torch.manual_seed(3)
        assert torch.equal(ours, dist.Normal(torch.tensor([0.3, -1.2]), torch.tensor([0.5, 2.0])).sample((2,)))
