"""Foreign torch distributions: lifted as they are, by class or by a user's own subclass."""

from __future__ import annotations

import abc
import copy
import pickle
from typing import Any

import pytest
import torch
import torch.distributions as td
from torch import Tensor

import ppl
import ppl.distributions as dist


class Triangle(td.Distribution):
    """A user's own: the density 2x on the unit interval, written for torch alone and without `expand`."""

    arg_constraints = {"scale": td.constraints.positive}
    support = td.constraints.unit_interval
    has_rsample = True

    def __init__(self, scale: Tensor, validate_args: bool | None = None) -> None:
        self.scale = scale
        super().__init__(scale.shape, validate_args=validate_args)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        return torch.rand(self._extended_shape(sample_shape)).sqrt() * self.scale / self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return (2 * value).log().expand(torch.broadcast_shapes(value.shape, self.batch_shape))


class Shifted(td.Normal):
    """A subclass with an __init__ of its own, which torch's `expand` refuses."""

    def __init__(self, shift: float) -> None:
        super().__init__(torch.full((2,), shift), 1.0)
        self.shift = shift


class Elsewhere(td.Normal):
    """A subclass whose `expand` builds another torch object."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> td.Distribution:
        return td.Normal(self.loc.expand(batch_shape), self.scale.expand(batch_shape))


class Nowhere(td.Distribution):
    """No support, no arg_constraints, as zuko's flows have it."""

    def __init__(self) -> None:
        super().__init__(validate_args=False)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        return torch.zeros(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return -value.abs()


class Abstract(td.Normal, abc.ABC):
    """With a metaclass of its own."""


FOREIGN = [
    td.Normal(torch.zeros(2), 1.0),
    td.Categorical(torch.ones(2, 3)),
    td.LogNormal(torch.zeros(2), 1.0),
    td.Gumbel(torch.zeros(2), 1.0),
    td.Gamma(torch.ones(2), 1.0),
    td.Independent(td.Normal(torch.zeros(2, 3), 1.0), 1),
    td.MultivariateNormal(torch.zeros(2, 3), torch.eye(3)),
    td.TransformedDistribution(td.Normal(torch.zeros(2), 1.0), [td.ExpTransform()]),
    td.MixtureSameFamily(td.Categorical(torch.ones(2, 3)), td.Normal(torch.zeros(2, 3), 1.0)),
    Triangle(torch.ones(2)),
    Shifted(3.0),
    Elsewhere(torch.zeros(2), 1.0),
    Abstract(torch.zeros(2), 1.0),
]
foreign = pytest.mark.parametrize("original", FOREIGN, ids=[type(d).__name__ for d in FOREIGN])


@foreign
class TestLifted:
    def test_it_is_both(self, original: td.Distribution) -> None:
        d = dist.lift(original)
        assert isinstance(d, dist.Distribution) and isinstance(d, type(original))
        assert not isinstance(original, dist.Distribution)
        assert dist.lift(d) is d
        assert type(d) is type(dist.lift(copy.copy(original)))

    def test_it_has_all_methods(self, original: td.Distribution) -> None:
        d = dist.lift(original)
        x = d.sample((4,))
        assert x.shape == d.shape((4,)) == (4, *original.batch_shape, *original.event_shape)
        assert torch.equal(d.log_prob(x), original.log_prob(x))
        for e in (d.expand((3, 2)), d.expand_by((3,))):
            assert isinstance(e, dist.Distribution) and e.batch_shape == (3, 2)
            y = e.sample((4,))
            assert y.shape == (4, 3, 2, *original.event_shape)
            assert torch.equal(e.log_prob(y), original.log_prob(y))
            assert e.mask(torch.tensor([True, False])).score_parts(y).log_prob[..., 1].eq(0).all()
        assert d.to_event(1).log_prob(x).shape == (4,)
        assert d.to_event(1).expand((5,)).sample().shape == (5, 2, *original.event_shape)
        assert d.mask(torch.tensor([True, False])).log_prob(x)[:, 1].eq(0).all()
        assert d.is_discrete == original.support.is_discrete

    def test_estimator_can_be_forced(self, original: td.Distribution) -> None:
        d = dist.lift(original)
        had = d.has_rsample
        assert d.has_rsample_(False).has_rsample is False
        assert d.expand((3, 2)).has_rsample is False and d.to_event(1).has_rsample is False
        assert original.has_rsample is had
        if had:
            assert d.has_rsample_(True).has_rsample is True
        else:
            with pytest.raises(ValueError, match="no reparameterised sampler"):
                d.has_rsample_(True)

    def test_copies(self, original: td.Distribution) -> None:
        d = dist.lift(original)
        x = d.sample((3,))
        twins = [copy.copy(d), copy.deepcopy(d)]
        if not isinstance(original, td.Gumbel):  # torch's inverse transforms do not pickle
            twins.append(pickle.loads(pickle.dumps(d)))
        for twin in twins:
            assert type(twin) is type(d)
            assert torch.equal(twin.log_prob(x), d.log_prob(x))

    def test_a_program_takes_it(self, original: td.Distribution) -> None:
        def model() -> None:
            with ppl.plate("rows", 3, dim=-2), ppl.plate("columns", 2, dim=-1):
                ppl.sample("x", original)

        trace = ppl.handlers.trace(model).get_trace()
        assert trace.nodes["x"].value.shape == (3, 2, *original.event_shape)


def test_kl_divergence_still_dispatches() -> None:
    p, q = td.Normal(0.0, 1.0), td.Normal(torch.tensor(2.0), 3.0)
    expected = td.kl_divergence(p, q)
    for a in (p, dist.lift(p), dist.Normal(0.0, 1.0)):
        for b in (q, dist.lift(q), dist.Normal(torch.tensor(2.0), 3.0)):
            assert torch.allclose(dist.kl_divergence(a, b), expected)
    a, b = (dist.lift(td.Independent(td.Normal(torch.zeros(3), s), 1)) for s in (1.0, 2.0))
    assert dist.kl_divergence(a, b).shape == ()


def test_without_a_support() -> None:
    d = dist.lift(Nowhere())
    assert d.expand((3,)).sample((2,)).shape == (2, 3)
    assert d.mask(torch.tensor([True, False])).log_prob(torch.tensor([-1.0, torch.nan])).tolist() == [-1.0, 0.0]


def test_the_original_is_left_alone() -> None:
    original = td.Normal(torch.zeros(2), 1.0)
    before = dict(vars(original))
    dist.lift(original).has_rsample_(False)
    assert vars(original).keys() == before.keys() and type(original) is td.Normal


def test_lifted_values_are_checked_in_our_words() -> None:
    d = dist.lift(
        td.Gamma(torch.ones(2), 1.0, validate_args=True)
    )  # torch.compile switches torch's default off for good
    with pytest.raises(ValueError, match=r"Gamma: the value must lie in the support .*got -1 at index \(1,\)"):
        d.log_prob(torch.tensor([1.0, -1.0]))
    with dist.validation_enabled(False):
        quiet = dist.lift(td.Gamma(torch.ones(2), 1.0))
    assert quiet.log_prob(torch.tensor([1.0, -1.0])).shape == (2,)
    with dist.validation_enabled(False):
        loud = dist.lift(td.Gamma(torch.ones(2), 1.0, validate_args=True))
    with pytest.raises(ValueError, match="Gamma: the value must lie"):
        loud.log_prob(torch.tensor([1.0, -1.0]))


def test_enumeration() -> None:
    d = dist.lift(td.Bernoulli(torch.tensor([0.2, 0.3])))
    assert d.has_enumerate_support and d.enumerate_support(expand=False).shape == (2, 1)
    assert d.expand((3, 2)).enumerate_support().shape == (2, 3, 2)
