"""Distributions of torch over vectors and matrices, and its combinators, extended."""

from __future__ import annotations

import torch.distributions as td
from torch import Size

from ppl.distributions.distribution import Distribution, ShapeLike, forceable


class RelaxedOneHotCategorical(td.RelaxedOneHotCategorical, Distribution):
    """A differentiable one-hot draw on the simplex."""

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        shape = Size(arg_shapes["probs"] if "probs" in arg_shapes else arg_shapes["logits"])
        return shape[:-1], shape[-1:]


class MixtureSameFamily(td.MixtureSameFamily, Distribution):
    """A mixture along the last batch dim of `component_distribution`."""


class TransformedDistribution(td.TransformedDistribution, Distribution):
    """The image of a distribution under one or more transforms."""

    has_rsample = forceable(td.TransformedDistribution.has_rsample)
