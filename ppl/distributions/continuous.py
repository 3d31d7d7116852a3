"""Continuous distributions of torch on part of the real line, extended."""

from __future__ import annotations

from typing import Any

import torch.distributions as td
from torch import Size, Tensor
from torch.distributions.relaxed_bernoulli import LogitRelaxedBernoulli

from ppl.distributions.distribution import Distribution, ShapeLike


class RelaxedBernoulli(td.RelaxedBernoulli, Distribution):
    """A differentiable coin on the unit interval; the lower the `temperature`, the closer to 0 and 1."""

    expands_without_init = True

    def __init__(
        self,
        temperature: Tensor | float,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None:
        base: Any = LogitRelaxedBernoulli
        td.TransformedDistribution.__init__(
            self, base(temperature, probs, logits, validate_args=False), td.SigmoidTransform(), validate_args
        )

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        return Size(arg_shapes["probs"] if "probs" in arg_shapes else arg_shapes["logits"]), Size()
