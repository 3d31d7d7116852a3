"""Exact expectations over everything that a program draws, by telling it each outcome in turn.

Only `Categorical` draws of two values and `torch.randint` are told; whatever else were drawn would be noticed by its noise.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import ppl.distributions as dist


class Tape:
    """The outcomes of one run, and how probable they are."""

    def __init__(self, outcomes: list[int]) -> None:
        self.outcomes, self.read, self.sizes = outcomes, 0, list[int]()
        self.log_weight = torch.zeros(())

    def take(self, shape: torch.Size, size: int) -> Tensor:
        count = shape.numel()
        self.sizes += [size] * count
        values = (self.outcomes[self.read : self.read + count] + [0] * count)[:count]
        self.read += count
        return torch.tensor(values).reshape(shape)


def outcomes(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """The probability and the result of each outcome of a run."""
    tape = Tape([])

    def sample(d: dist.Categorical, sample_shape: torch.Size = torch.Size()) -> Tensor:
        value = tape.take(d.shape(sample_shape), d.logits.shape[-1])
        tape.log_weight = tape.log_weight + d.log_prob(value).sum().detach()
        return value

    def randint(high: int, size: list[int], device: torch.device | None = None) -> Tensor:
        value = tape.take(torch.Size(size), high)
        tape.log_weight = tape.log_weight - value.numel() * torch.tensor(float(high)).log()
        return value

    monkeypatch.setattr(dist.Categorical, "sample", sample)
    monkeypatch.setattr(torch, "randint", randint)
    run()
    sizes = tape.sizes
    for told in itertools.product(*map(range, sizes)):
        tape = Tape(list(told))
        result = run()
        assert tape.sizes == sizes
        yield tape.log_weight.exp(), result
