"""What distributions over K categories share."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributions as td
from torch import Size, Tensor
from torch.distributions.utils import lazy_property

from ppl.distributions import validation
from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.odds import one_of
from ppl.tensors.seen import Seen


class Choice(Distribution):
    """What distributions over the last dim of `probs` or `logits` share: the parameters, and the shapes.

    `probs` need not sum to 1. Probabilities of 0 (logits of -inf) are welcome: they have log density -inf and no
    gradient, where an infinite one would spoil everything that it is added to.
    """

    expands_without_init = True
    _derived = ("probs", "logits")
    _given: str  # the parameter's name
    _weights: Tensor  # the parameter as it came
    _source: Choice  # what it was expanded from, if it was
    _support = Seen()  # the support, if somebody listed it

    def _take_weights(
        self, probs: Tensor | None, logits: Tensor | None, event_dim: int, validate_args: bool | None
    ) -> None:
        family = type(self).__name__
        name, weights = one_of(family, probs, logits)
        if not isinstance(weights, Tensor):
            weights = torch.as_tensor(weights)
        if weights.dim() == 0:
            raise ValueError(f"{family}: argument '{name}' needs a last dim over the categories, but it is a scalar.")
        if not weights.is_floating_point():
            weights = weights.to(torch.get_default_dtype())
        fields, shape = vars(self), weights.shape
        fields["_given"], fields["_weights"], fields["_num_events"] = name, weights, shape[-1]
        fields["_batch_shape"], fields["_event_shape"] = shape[:-1], shape[-1:] if event_dim else Size()
        check = validation.is_validation_enabled() if validate_args is None else validate_args
        fields["_validate_args"] = check
        if check and weights.numel():
            # an extreme is NaN where anything is: an entry, or a total
            if name == "logits":
                normalised: Tensor = self.logits
                sure = bool(normalised.max() <= 0)
            else:
                known = weights.detach()
                least, most = known.sum(-1).aminmax()
                sure = known.min().item() >= 0 and least.item() > 0 and most.item() < math.inf
            if not sure:
                getattr(self, name)  # what is looked at: NaN where the total is 0
                validation.check_arguments(self)

    @property
    def _compact(self) -> Any:
        """The distribution that this one was expanded from, which has as many tables as were given; or this one."""
        return vars(self).get("_source", self)

    @lazy_property
    def probs(self) -> Tensor:
        """The probabilities, which sum to 1 over the last dim."""
        if "_source" in vars(self):
            few: Tensor = self._source.probs
            return few.expand(self.param_shape)
        if self._given == "probs":
            return self._weights / self._weights.sum(-1, keepdim=True)
        return torch.softmax(self._weights, -1)

    @lazy_property
    def logits(self) -> Tensor:
        """The log probabilities."""
        if "_source" in vars(self):
            few: Tensor = self._source.logits
            return few.expand(self.param_shape)
        if self._given == "logits":
            return torch.log_softmax(self._weights, -1)
        # no gradient comes through `relu` where it is 0, be what arrives there infinite or NaN
        return self._weights.relu().log() - self._weights.sum(-1, keepdim=True).log()

    def note_support(self, values: Tensor, dim: int) -> None:
        vars(self)["_support"] = Seen(values, dim)

    def _of_support(self, value: Tensor, table: Tensor) -> Tensor | None:
        """The entries of a table (*batch, K) at a value that is the whole support; None for any other value."""
        dim: int | None = self._support.of(value)
        if dim is None:
            return None
        missing = -dim - (table.dim() - 1)
        if missing > 0:
            table = table.reshape((1,) * missing + table.shape)
        return None if table.shape[dim - 1] != 1 else table.transpose(dim - 1, -1).squeeze(-1)

    _param: Any = property(lambda self: self._weights)

    @property
    def param_shape(self) -> Size:
        """The batch shape and the number of categories."""
        return self._weights.shape

    @property
    def num_categories(self) -> int:
        """K."""
        return self._weights.shape[-1]

    @property
    def cardinality(self) -> int:
        """The number of values of the support."""
        return self.num_categories

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        """The same distribution repeated to a larger batch shape, without copying."""
        new = self._get_checked_instance(type(self), _instance)
        shape = Size(batch_shape)
        fields, expanded = dict(vars(self)), Size((*shape, self.num_categories))
        for name in ("_weights", "probs", "logits"):
            if name in fields:
                fields[name] = fields[name].expand(expanded)
        fields["_batch_shape"] = shape
        fields["_source"] = self._compact
        vars(new).update(fields)
        return new

    def _draw_index(self, sample_shape: ShapeLike) -> Tensor:
        shape = Size((*sample_shape, *self.batch_shape))
        if 0 in shape:  # torch cannot draw nothing
            return torch.empty(shape, dtype=torch.int64, device=self._weights.device)
        with torch.no_grad():
            rows = self.probs.reshape(-1, self.num_categories)
            drawn = torch.multinomial(rows, Size(sample_shape).numel(), True).T
        return drawn.reshape(shape)

    def entropy(self) -> Tensor:
        logits = self.logits
        return -(self.probs * torch.where(logits == -math.inf, 0.0, logits)).sum(-1)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        for name in arg_shapes:
            if name not in ("probs", "logits"):
                raise ValueError(f"{cls.__name__} has no argument '{name}'; it has probs, logits.")
        shape = Size(one_of(cls.__name__, arg_shapes.get("probs"), arg_shapes.get("logits"))[1])
        return shape[:-1], Size() if issubclass(cls, td.Categorical) else shape[-1:]
