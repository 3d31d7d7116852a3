"""One of K categories by its index, with given probabilities or by thresholds of a score."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributions as td
from torch import Size, Tensor
from torch.nn.functional import logsigmoid, pad

from ppl.distributions import constraints, validation
from ppl.distributions.choice import Choice
from ppl.distributions.count import along_batch
from ppl.distributions.distribution import ShapeLike, broadcast_shape
from ppl.tensors.special import log1mexp

#: Tables that would have more entries than this, if each index had its own, are read by place.
LARGE = 2**14


class Categorical(Choice, td.Categorical):
    """One of K categories, 0 to K - 1, with the probabilities in the last dim of `probs` (or `logits`)."""

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        self._take_weights(probs, logits, 0, validate_args)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self._draw_index(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        logits = self._compact.logits
        found = self._of_support(value, logits)
        if found is None:
            found = self._look_up(logits, value)
        shape = broadcast_shape(value.shape, self._batch_shape)
        return found if found.shape == shape else found.expand(shape)

    def _look_up(self, logits: Tensor, value: Tensor) -> Tensor:
        if self._validate_args:  # then the value is inside
            self._validate_sample(value)
            return _gather(logits, value.long())
        if validation.is_checked_later() and not value.is_floating_point():
            return _gather(logits, value.long().clamp(0, self._num_events - 1))
        if not value.is_floating_point() and _are_apart(logits.shape[:-1], value.shape):
            return _gather(pad(logits, (1, 1), value=-math.inf), value.long().clamp(-1, self._num_events) + 1)
        index = value.long().clamp(0, self._num_events - 1)
        return torch.where(index == value, _gather(logits, index), -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of the categories up to the value."""
        index = value.floor().long() if value.is_floating_point() else value.long()
        total = _gather(self.probs.cumsum(-1), index.clamp(0, self._num_events - 1))
        return torch.where(index < 0, 0.0, torch.where(index >= self._num_events - 1, 1.0, total))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = torch.arange(self._num_events, device=self._weights.device)
        return along_batch(values, self.batch_shape, expand)


def _gather(table: Tensor, index: Tensor) -> Tensor:
    """The entries of the last dim that the index says, over the batch of both.

    A table that many indices share is read where it is: repeated for each, its gradient would take K times the memory of
    the result.
    """
    own, size = table.shape[:-1], table.shape[-1]
    batch = broadcast_shape(index.shape, own)
    if batch != own:
        if _are_apart(own, index.shape) and batch.numel():
            return _rows(table, index, batch)
        if batch.numel() * size > LARGE:
            rows = torch.arange(own.numel(), device=index.device).reshape(own)
            places = (rows * size + index).reshape(-1)
            return table.reshape(-1).gather(0, places).reshape(batch)
        table = table.expand((*batch, -1))
    return table.gather(-1, index.unsqueeze(-1).expand((*batch, 1))).squeeze(-1)


def _are_apart(first: Size, second: Size) -> bool:
    """Whether no dim is longer than 1 in both of two shapes that broadcast."""
    return all(a == 1 or b == 1 for a, b in zip(reversed(first), reversed(second), strict=False))


def _rows(table: Tensor, index: Tensor, batch: Size) -> Tensor:
    """What each index says of all tables, which vary along other dims than the index. Shapes: -> batch."""
    own, size = table.shape[:-1], table.shape[-1]
    sizes, places = [], []
    for shape in (index.shape, own):
        for dim, length in enumerate(shape, -len(shape)):
            if length != 1:
                sizes.append(length)
                places.append(dim)
    columns = _shaped(table, (-1, size) if len(own) != 1 else table.shape).mT
    if torch._C._functorch.peek_interpreter_stack() is None:
        found = columns.contiguous().index_select(0, index.reshape(-1))
    else:  # a third of the speed, but vmap would repeat the table for each of its steps
        found = columns[index.reshape(-1)]
    found = _shaped(found, tuple(sizes))
    order = sorted(range(len(places)), key=places.__getitem__)
    if order != list(range(len(order))):
        found = found.permute(order)
    return _shaped(found, batch)


def _shaped(tensor: Tensor, shape: Size | tuple[int, ...]) -> Tensor:
    return tensor if tensor.shape == shape else tensor.reshape(shape)


class OrderedLogistic(Categorical):
    """Which of K ordered categories a logistic variable around `predictor` falls into, cut at K - 1 thresholds.

    P(y <= k) = sigmoid(cutpoints[k] - predictor). Log probabilities come from differences of the cutpoints, so that
    they are exact however far the predictor is.

    Shapes: predictor (*batch), cutpoints (*batch, K - 1) in increasing order.
    """

    arg_constraints = {"predictor": constraints.real, "cutpoints": constraints.ordered_vector}

    def __init__(self, predictor: Tensor | float, cutpoints: Tensor, validate_args: bool | None = None) -> None:
        cutpoints = torch.as_tensor(cutpoints)
        if cutpoints.dim() == 0:
            raise ValueError("OrderedLogistic: argument 'cutpoints' needs a last dim over the thresholds.")
        predictor = torch.as_tensor(predictor, dtype=cutpoints.dtype, device=cutpoints.device)
        batch = broadcast_shape(predictor.shape, cutpoints.shape[:-1])
        self.predictor = predictor.expand(batch)
        self.cutpoints = cutpoints.expand((*batch, -1))
        offset = self.cutpoints - self.predictor.unsqueeze(-1)
        below = pad(logsigmoid(offset), (0, 1))  # of falling below each end
        above = pad(logsigmoid(-offset), (1, 0))
        inner = pad(log1mexp(-self.cutpoints.diff(dim=-1)), (1, 1))
        logits = below + above + inner
        self._take_weights(None, logits, 0, False)
        vars(self)["logits"] = logits  # they are normalised
        self._check(validate_args)

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new.predictor = self.predictor.expand(Size(batch_shape))
        new.cutpoints = self.cutpoints.expand((*batch_shape, -1))
        return new

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        cutpoints = Size(arg_shapes["cutpoints"])
        return broadcast_shape(Size(arg_shapes["predictor"]), cutpoints[:-1]), Size()
