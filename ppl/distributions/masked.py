"""Densities counted in part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import Distribution, ScoreParts, ShapeLike, expanded
from ppl.distributions.lifting import Wraps, lift
from ppl.distributions.registry import biject_to, transform_to


class MaskedDistribution(Wraps):
    """The draws of a distribution, its log density counted only where a mask is true.

    Entries whose mask is false have log density 0 and give no gradient, whatever the value there.

    Args: mask, a bool or a boolean tensor that broadcasts with the batch shape.
    Raises: ValueError for a mask that is not boolean or does not broadcast.
    """

    arg_constraints = {}
    base_dist: Distribution

    def __init__(self, base_dist: torch.distributions.Distribution, mask: Tensor | bool) -> None:
        batch_shape = base_dist.batch_shape
        if isinstance(mask, Tensor):
            if mask.dtype != torch.bool:
                raise ValueError(
                    f"{type(base_dist).__name__}.mask: expected a bool or a tensor of dtype torch.bool, got {mask.dtype}; "
                    "write mask.bool()."
                )
            try:
                batch_shape = torch.broadcast_shapes(mask.shape, batch_shape)
            except RuntimeError:
                raise ValueError(
                    f"{type(base_dist).__name__}.mask: the mask's shape {tuple(mask.shape)} does not broadcast with batch "
                    f"shape {tuple(base_dist.batch_shape)}."
                ) from None
            mask = mask.expand(batch_shape)
        elif not isinstance(mask, bool):
            raise ValueError(
                f"{type(base_dist).__name__}.mask: expected a bool or a boolean tensor, got {type(mask).__name__}."
            )
        self._mask = mask
        self.base_dist = expanded(lift(base_dist), batch_shape)
        super().__init__(batch_shape, base_dist.event_shape, validate_args=base_dist._validate_args)

    @property
    def given_mask(self) -> Tensor | bool:
        """The mask."""
        return self._mask

    @property
    def support(self) -> Any:
        return self.base_dist.support

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.base_dist.sample(Size(sample_shape))

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.base_dist.rsample(Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_form(value)
        return masked_log_prob(self.base_dist, value, self._mask)

    def score_parts(self, x: Tensor) -> ScoreParts:
        if isinstance(self._mask, bool):
            parts = self.base_dist.score_parts(x)
            return parts if self._mask else ScoreParts(torch.zeros_like(parts.log_prob), 0.0, 0.0)
        parts = self.base_dist.score_parts(mask_value(self.base_dist, x, self._mask))
        return ScoreParts(
            *(torch.where(self._mask, p, torch.zeros_like(p)) if isinstance(p, Tensor) else p for p in parts)  # type: ignore[arg-type]
        )

    @property
    def cardinality(self) -> int:
        """The base's number of values."""
        return lift(self.base_dist).cardinality

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return self.base_dist.enumerate_support(expand)

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        mask = self._mask if isinstance(self._mask, bool) else self._mask.expand(Size(batch_shape))
        return MaskedDistribution(expanded(self.base_dist, batch_shape), mask)

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance

    def __repr__(self) -> str:
        return f"MaskedDistribution({self.base_dist})"


def mask_value(d: torch.distributions.Distribution, value: Tensor, mask: Tensor) -> Tensor:
    """The value with its masked-out entries moved to a point inside the support.

    A NaN or an impossible value under a false mask would otherwise turn gradients into NaN, because 0 · inf is NaN.
    """
    event = len(d.event_shape)
    keep = mask.reshape(mask.shape + (1,) * event)
    return torch.where(keep, value, feasible(d, value))


def masked_log_prob(d: torch.distributions.Distribution, value: Tensor, mask: Tensor | bool) -> Tensor:
    """`d.log_prob(value)` where the mask is true and 0 elsewhere, with gradients that are never NaN for it."""
    if mask is True:
        return d.log_prob(value)
    if mask is False:
        batch = value.shape[: value.dim() - len(d.event_shape)]
        return value.new_zeros(torch.broadcast_shapes(batch, d.batch_shape), dtype=_float_dtype(value))
    log_prob = d.log_prob(mask_value(d, value, mask))
    return torch.where(mask, log_prob, torch.zeros_like(log_prob))


def _float_dtype(value: Tensor) -> torch.dtype:
    return value.dtype if value.is_floating_point() else torch.get_default_dtype()


def feasible(d: torch.distributions.Distribution, like: Tensor) -> Tensor:
    """Some point inside the support, of the shape and dtype of `like` (of its event shape where that is enough)."""
    try:
        support: Any = d.support
    except NotImplementedError:  # a foreign distribution without one
        return torch.zeros(d.event_shape, dtype=like.dtype, device=like.device)
    while hasattr(support, "base_constraint") and (
        support.is_discrete or not hasattr(support, "reinterpreted_batch_ndims")
    ):
        support = support.base_constraint  # of a mixture's support, or of a discrete product's
    if not support.is_discrete:
        try:
            transform, start = biject_to(support), 0.0
        except NotImplementedError:  # no bijection to, say, a sphere, where 0 has no image, either
            transform, start = transform_to(support), 1.0
        shape = transform.inverse_shape(d.event_shape)
        point: Tensor = transform(torch.full(shape, start, dtype=_float_dtype(like), device=like.device))
        if hasattr(support, "lower_bound"):  # an interval may have an infinite end
            point = torch.where(point.isfinite(), point, support.lower_bound)
        return point.detach().to(like.dtype)
    if isinstance(support, torch.distributions.constraints.multinomial):  # every draw of the first category
        total = torch.as_tensor(support.upper_bound, dtype=like.dtype, device=like.device)
        return total.unsqueeze(-1) * (torch.arange(d.event_shape[-1], device=like.device) == 0)
    if not hasattr(support, "lower_bound") and d.has_enumerate_support:
        return d.enumerate_support(expand=False)[0].to(like.dtype)
    low = getattr(support, "lower_bound", 0)
    return (torch.zeros(d.event_shape, dtype=like.dtype, device=like.device) + low).to(like.dtype)


Distribution.wrappers["mask"] = MaskedDistribution
