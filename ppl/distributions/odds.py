"""Families with a probability of success, given as `probs` or as log odds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions.utils import lazy_property

from ppl.distributions.count import Count
from ppl.distributions.distribution import ShapeLike
from ppl.tensors.mass import Chances, chances_of_logits, chances_of_probs


class Odds(Count):
    """A mixin for univariate families with `probs` or `logits`, whichever is given. Stands before torch's class."""

    parameters: tuple[str, ...] = ("probs", "logits")

    def _take_odds(
        self,
        probs: Tensor | float | None,
        logits: Tensor | float | None,
        validate_args: bool | None,
        **others: Tensor | float,
    ) -> None:
        """Keep the parameters that are given, and check them.

        Raises: ValueError unless exactly one of probs and logits is given.
        """
        name, value = one_of(type(self).__name__, probs, logits)
        vars(self)["parameters"] = (*others, name)
        self._take((*others.values(), value), validate_args)

    @lazy_property
    def probs(self) -> Tensor:
        """The probability of success."""
        return torch.sigmoid(self.logits)

    @lazy_property
    def logits(self) -> Tensor:
        """The log odds of success, infinite where it is certain or impossible."""
        probs: Tensor = self.probs
        return probs.log() - torch.log1p(-probs)

    _param: Any = property(lambda self: self._like)

    @property
    def param_shape(self) -> Size:
        """The batch shape."""
        return self._like.shape

    def _chances(self, successes: Tensor, failures: Tensor) -> Chances:
        if "probs" in self.parameters:
            return chances_of_probs(self.probs, successes, failures)
        return chances_of_logits(self.logits, successes, failures)

    def _odds(self) -> Tensor:
        """Success over failure."""
        if "probs" in self.parameters:
            return self.probs / (1 - self.probs)
        odds: Tensor = self.logits.exp()
        return odds

    def _failure(self) -> Tensor:
        """The probability of failure, not through a subtraction from 1 where logits are given."""
        return 1 - self.probs if "probs" in self.parameters else torch.sigmoid(-self.logits)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        one_of(cls.__name__, arg_shapes.get("probs"), arg_shapes.get("logits"))
        return super().infer_shapes(**arg_shapes)


def one_of(family: str, probs: Any, logits: Any) -> tuple[str, Any]:
    """The name and the value of the one that is given.

    Raises: ValueError unless exactly one is.
    """
    if (probs is None) == (logits is None):
        raise ValueError(
            f"{family}: give exactly one of 'probs' and 'logits', but {'neither' if probs is None else 'both'} came."
        )
    return ("probs", probs) if logits is None else ("logits", logits)
