"""Whether a value is a plate's indices."""

from __future__ import annotations

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.distributions.subsample import Subsample
from ppl.handlers import replay, trace


def test_whole_plates_know_their_indices_until_somebody_writes_into_them() -> None:
    d, other = Subsample(4, 4), Subsample(4, 4)
    value = d.sample()
    assert d.is_possible(value) and other.is_possible(value)
    value[0] = 4
    assert not d.is_possible(value) and not other.is_possible(value)
    assert other.is_possible(other.sample()) and not other.is_possible(torch.tensor([0, 1, 2, -1]))


def test_the_indices_of_another_size_are_not_taken_for_these() -> None:
    value = Subsample(4, 4).sample()
    assert not Subsample(3, 3).is_possible(value) and Subsample(5, 4).is_possible(value)
    assert not Subsample(4, 4).is_possible(value.double())
    for _ in range(200):  # more than are remembered, and ids that come again
        assert Subsample(3, 3).is_possible(Subsample(3, 3).sample())
        assert not Subsample(3, 3).is_possible(torch.tensor([0, 1, 3]))


def test_replayed_indices_that_were_changed_are_refused() -> None:
    def model() -> None:
        with ppl.plate("data", 3):
            ppl.sample("x", dist.Normal(0.0, 1.0))

    record = trace(model).get_trace()
    trace(replay(model, record)).get_trace()
    record["data"].tensor[2] = 7
    with pytest.raises(ValueError, match="data"):
        replay(model, record)()
