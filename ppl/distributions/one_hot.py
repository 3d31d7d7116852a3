"""One of K categories as a one-hot vector."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributions as td
from torch import Size, Tensor

from ppl.distributions.categorical import Categorical
from ppl.distributions.choice import Choice
from ppl.distributions.distribution import ShapeLike


class OneHotCategorical(Choice, td.OneHotCategorical):
    """One of K categories as a vector of zeros with a single one."""

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        self._take_weights(probs, logits, 1, validate_args)

    _categorical: Any = property(lambda self: Categorical(validate_args=False, **{self._given: self._weights}))

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        index = self._draw_index(sample_shape).unsqueeze(-1)
        # torch's one_hot looks at values, which a graph cannot
        return (index == torch.arange(self.num_categories, device=index.device)).to(self._weights.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits = self.logits
        # a product, and no choice of an entry, so that straight-through draws have a gradient; 0 times -inf is NaN
        log_prob = value * torch.where((logits == -math.inf) & (value == 0), 0.0, logits)
        if self._validate_args:
            return log_prob.sum(-1)
        inside = ((value == 0) | (value == 1)).all(-1) & (value.sum(-1) == 1)
        return torch.where(inside, log_prob.sum(-1), -math.inf)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        size, batch = self.num_categories, self.batch_shape
        values = torch.eye(size, dtype=self._weights.dtype, device=self._weights.device)
        values = values.reshape((size,) + (1,) * len(batch) + (size,))
        return values.expand((size, *batch, size)) if expand else values


class OneHotCategoricalStraightThrough(OneHotCategorical, td.OneHotCategoricalStraightThrough):
    """A one-hot draw whose gradient is passed straight through to the probabilities."""

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        drawn, probs = self.sample(sample_shape), self.probs
        return drawn + (probs - probs.detach())
