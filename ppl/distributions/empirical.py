"""A distribution over given, weighted samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import Distribution, ShapeLike


class Empirical(Distribution):
    """One of N given samples, drawn with the given log weights.

    Shapes: samples (*batch, N, *event), log_weights (*batch, N), not necessarily normalised.
    Raises: ValueError where the shapes do not match.
    """

    arg_constraints = {"log_weights": constraints.real_vector}
    has_enumerate_support = True

    def __init__(self, samples: Tensor, log_weights: Tensor, validate_args: bool | None = None) -> None:
        if samples.shape[: log_weights.dim()] != log_weights.shape or log_weights.dim() == 0:
            raise ValueError(
                f"Empirical: log_weights of shape {tuple(log_weights.shape)} must equal the first dims of samples, whose "
                f"shape is {tuple(samples.shape)}; the last dim of log_weights counts the samples."
            )
        self._samples, self._log_weights = samples, log_weights
        self._choice = torch.distributions.Categorical(logits=log_weights, validate_args=False)
        super().__init__(log_weights.shape[:-1], samples.shape[log_weights.dim() :], validate_args)

    @property
    def support(self) -> Any:
        event = len(self.event_shape)
        base: Any = constraints.real
        if not self._samples.is_floating_point():
            empty = self._samples.numel() == 0
            low, high = (0, 0) if empty else (int(self._samples.min()), int(self._samples.max()))
            base = constraints.integer_interval(low, high)
        return constraints.independent(base, event) if event else base

    @property
    def sample_size(self) -> int:
        """The number of samples, N."""
        return self._log_weights.size(-1)

    @property
    def log_weights(self) -> Tensor:
        """The log weights as given."""
        return self._log_weights

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        index = self._choice.sample(Size(sample_shape))
        event = len(self.event_shape)
        source = self._samples.detach().expand((*sample_shape, *self._samples.shape))
        axis = len(sample_shape) + len(self.batch_shape)
        index = index.reshape(index.shape + (1,) * (event + 1)).expand((*index.shape, 1, *self.event_shape))
        return source.gather(axis, index).squeeze(axis)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        event = len(self.event_shape)
        same = value.unsqueeze(value.dim() - event) == self._samples
        hit = same.flatten(same.dim() - event).all(-1) if event else same
        weights = self._choice.logits
        return torch.where(hit, weights, torch.full_like(weights, -torch.inf)).logsumexp(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """The samples on a new leftmost dim, each value once; where they differ along the batch, in both expand modes.

        Raises: ValueError for repeated samples that differ along the batch, whose rows have no common number of values.
        """
        axis = len(self.batch_shape)
        values = self._samples.detach().movedim(axis, 0)
        if not self.batch_shape.numel():
            return values
        first = values.reshape((values.size(0), -1, *self.event_shape))[:, 0]
        if bool((values == first.reshape((-1, *(1,) * axis, *self.event_shape))).all()):
            unique: Tensor = torch.unique(first, dim=0).reshape((-1, *(1,) * axis, *self.event_shape))
            return unique.expand((-1, *self.batch_shape, *self.event_shape)) if expand else unique
        event = len(self.event_shape)
        same = values.unsqueeze(0) == values.unsqueeze(1)
        same = same.flatten(same.dim() - event).all(-1) if event else same
        if bool((same.sum(0) > 1).any()):
            raise ValueError(
                "Empirical cannot be enumerated: samples differ along its batch, and some are equal. Add up the weights of "
                "equal ones."
            )
        return values

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        weights = Size(arg_shapes["log_weights"])
        return weights[:-1], Size(arg_shapes["samples"])[len(weights) :]

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        shape = Size(batch_shape)
        size = (self.sample_size,)
        return Empirical(
            self._samples.expand(shape + size + self.event_shape), self._log_weights.expand(shape + size), False
        )

    def _mean_of(self, values: Tensor) -> Tensor:
        event = len(self.event_shape)
        probs = self._choice.probs
        return (probs.reshape(probs.shape + (1,) * event) * values).sum(len(self.batch_shape))

    @property
    def mean(self) -> Tensor:
        return self._mean_of(self._samples)

    @property
    def variance(self) -> Tensor:
        return self._mean_of((self._samples - self.mean.unsqueeze(len(self.batch_shape))) ** 2)

    def cdf(self, value: Tensor) -> Tensor:
        if self.event_shape:
            raise NotImplementedError(f"Empirical: samples of event shape {tuple(self.event_shape)} have no cdf.")
        below = value.unsqueeze(-1) >= self._samples
        return torch.where(below, self._choice.probs, 0.0).sum(-1)

    def entropy(self) -> Tensor:
        """Of the distinct values: equal samples count as one."""
        event = len(self.event_shape)
        axis = len(self.batch_shape)
        same = self._samples.unsqueeze(axis) == self._samples.unsqueeze(axis + 1)
        same = same.flatten(same.dim() - event).all(-1) if event else same
        logits = self._choice.logits
        log_probs = torch.where(same, logits.unsqueeze(-2), -torch.inf).logsumexp(-1)
        return -(self._choice.probs * log_probs).sum(-1)
