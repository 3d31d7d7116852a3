"""Discrete distributions of torch, extended."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributions as td
from torch import Size, Tensor

from ppl.distributions.distribution import Distribution, ShapeLike, broadcast_shape


class Bernoulli(td.Bernoulli, Distribution):
    """A coin: 1 with probability `probs` (or `sigmoid(logits)`), else 0."""

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob: Tensor = super().log_prob(value.to(self._param.dtype))  # type: ignore[no-untyped-call]
        return log_prob


class Geometric(td.Geometric, Distribution):
    """The number of failures before the first success of probability `probs`."""


class Poisson(td.Poisson, Distribution):
    """Counts at the given `rate` > 0."""


class NegativeBinomial(td.NegativeBinomial, Distribution):
    """The number of successes of probability `probs` before `total_count` failures."""


class Binomial(td.Binomial, Distribution):
    """The number of successes in `total_count` trials of probability `probs`."""


class _Choice(Distribution):
    """What distributions over the last dim of `probs` or `logits` share: the shapes."""

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        shape = Size(arg_shapes["probs"] if "probs" in arg_shapes else arg_shapes["logits"])
        return shape[:-1], Size() if issubclass(cls, td.Categorical) else shape[-1:]


class Categorical(td.Categorical, _Choice):
    """One of K categories, 0 to K - 1, with the probabilities in the last dim of `probs` (or `logits`)."""

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        shape = self.shape(sample_shape)
        if 0 in shape:  # torch cannot draw nothing
            return torch.empty(shape, dtype=torch.int64, device=self._param.device)
        draw: Tensor = super().sample(Size(sample_shape))  # type: ignore[no-untyped-call]
        return draw

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        index = value.long().unsqueeze(-1)
        batch = broadcast_shape(index.shape[:-1], self.logits.shape[:-1])
        return self.logits.expand((*batch, -1)).gather(-1, index.expand((*batch, 1))).squeeze(-1)


class _OneHot:
    """What the one-hot distributions share: an inner categorical, built unchecked."""

    expands_without_init = True

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        this: Any = self
        this._categorical = td.Categorical(probs, logits, validate_args=False)
        shape = this._categorical.param_shape
        Distribution.__init__(this, shape[:-1], shape[-1:], validate_args)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        this: Any = self
        index = this._categorical.sample(Size(sample_shape)).unsqueeze(-1)
        # torch's one_hot looks at values, which a graph cannot
        categories = torch.arange(this.event_shape[0], device=index.device)
        return (index == categories).to(this._param.dtype)  # type: ignore[no-any-return]


class OneHotCategorical(_OneHot, td.OneHotCategorical, _Choice):
    """One of K categories as a vector of zeros with a single one."""


class OneHotCategoricalStraightThrough(_OneHot, td.OneHotCategoricalStraightThrough, _Choice):
    """A one-hot draw whose gradient is passed straight through to the probabilities."""


class Multinomial(td.Multinomial, _Choice):
    """Counts of K categories in `total_count` draws."""

    expands_without_init = True

    def __init__(
        self,
        total_count: int = 1,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(total_count, int):
            raise ValueError("Multinomial: total_count must be one int for the whole batch.")
        self.total_count = total_count
        self._categorical = td.Categorical(probs, logits, validate_args=False)
        self._binomial = td.Binomial(total_count, self.probs, validate_args=False)
        shape = self._categorical.param_shape
        Distribution.__init__(self, shape[:-1], shape[-1:], validate_args)
