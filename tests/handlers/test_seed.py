"""seed makes draws repeat, and leaves the generators outside as they were."""

import random

import numpy
import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers


def model():
    x = ppl.sample("x", dist.Normal(torch.zeros(3), 1.0))
    return x.tolist(), random.random(), numpy.random.rand()


def test_the_same_seed_gives_the_same_draws_and_another_gives_others():
    seeded = handlers.seed(model, rng_seed=5)
    first = seeded()
    assert seeded() == first
    assert handlers.seed(model, rng_seed=6)()[0] != first[0]
    with handlers.seed(rng_seed=5):
        assert model() == first


def test_the_seed_is_that_of_set_rng_seed():
    ppl.set_rng_seed(5)
    assert model() == handlers.seed(model, rng_seed=5)()


def test_the_generators_outside_go_on_as_if_nothing_had_been_drawn():
    ppl.set_rng_seed(1)
    expected = [model(), model()]
    ppl.set_rng_seed(1)
    first = model()
    handlers.seed(model, rng_seed=9)()
    assert [first, model()] == expected


def test_the_generators_are_put_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(ArithmeticError), handlers.seed(rng_seed=3):
        model()
        raise ArithmeticError("on purpose")
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_nest():
    h = handlers.seed(rng_seed=2)
    with h:
        first = model()
        with h:
            assert model() == first
        second = model()
    with h:
        assert [model(), model()] == [first, second]


@pytest.mark.parametrize("bad", [None, 1.5, "1"])
def test_a_seed_must_be_an_int(bad):
    with pytest.raises(ValueError, match=r"handlers\.seed: rng_seed must be an int, got"):
        handlers.seed(model, rng_seed=bad)
