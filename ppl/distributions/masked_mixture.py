"""One distribution where a mask is true, another where it is false."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import Distribution, ShapeLike, broadcast_shape, expanded
from ppl.distributions.masked import mask_value
from ppl.distributions.mixture import same_support
from ppl.distributions.prototype import unchecked

Foreign = torch.distributions.Distribution


class MaskedMixture(Distribution):
    """`component1` where a mask is true, and `component0` where it is false.

    Args: mask, boolean, broadcasts with the components' batch shapes.
    Raises: ValueError for a mask that is not boolean, and for components of different event shapes.
    """

    arg_constraints = {}
    component0: Distribution
    component1: Distribution

    def __init__(
        self,
        mask: Tensor,
        component0: Foreign,
        component1: Foreign,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            what = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(
                f"MaskedMixture: mask must be a tensor of dtype torch.bool, but got {what}; write mask.bool()."
            )
        if component0.event_shape != component1.event_shape:
            raise ValueError(
                f"MaskedMixture: the components must have one event shape, but {type(component0).__name__} has "
                f"{tuple(component0.event_shape)} and {type(component1).__name__} {tuple(component1.event_shape)}."
            )
        try:
            batch = broadcast_shape(mask.shape, component0.batch_shape, component1.batch_shape)
        except RuntimeError:
            raise ValueError(
                f"MaskedMixture: the mask's shape {tuple(mask.shape)} and the components' batch shapes "
                f"{tuple(component0.batch_shape)} and {tuple(component1.batch_shape)} do not broadcast."
            ) from None
        self.mask_ = mask.expand(batch)
        self.component0 = expanded(unchecked(component0), batch)
        self.component1 = expanded(unchecked(component1), batch)
        super().__init__(batch, component0.event_shape, validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether both components' draws are reparameterised."""
        return bool(vars(self).get("has_rsample", self.component0.has_rsample and self.component1.has_rsample))

    @property
    def support(self) -> Any:
        zero, one = self.component0.support, self.component1.support
        return zero if same_support(zero, one) else _Where(self.mask_, zero, one)

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        shape = Size(batch_shape)
        zero, one = expanded(self.component0, shape), expanded(self.component1, shape)
        return self._hand_on(MaskedMixture(self.mask_.expand(shape), zero, one, self._validate_args))

    def _choose(self, zero: Tensor, one: Tensor) -> Tensor:
        return torch.where(self.mask_.reshape(self.mask_.shape + (1,) * len(self.event_shape)), one, zero)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        shape = Size(sample_shape)
        return self._choose(self.component0.sample(shape), self.component1.sample(shape))

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        shape = Size(sample_shape)
        return self._choose(self.component0.rsample(shape), self.component1.rsample(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        mask = self.mask_.expand(broadcast_shape(self.mask_.shape, value.shape[: value.dim() - len(self.event_shape)]))
        zero = self.component0.log_prob(mask_value(self.component0, value, ~mask))
        one = self.component1.log_prob(mask_value(self.component1, value, mask))
        return torch.where(mask, one, zero)

    def cdf(self, value: Tensor) -> Tensor:
        return torch.where(self.mask_, self.component1.cdf(value), self.component0.cdf(value))

    def icdf(self, value: Tensor) -> Tensor:
        return torch.where(self.mask_, self.component1.icdf(value), self.component0.icdf(value))

    @property
    def mean(self) -> Tensor:
        return self._choose(self.component0.mean, self.component1.mean)

    @property
    def variance(self) -> Tensor:
        return self._choose(self.component0.variance, self.component1.variance)

    def entropy(self) -> Tensor:
        return torch.where(self.mask_, self.component1.entropy(), self.component0.entropy())

    def __repr__(self) -> str:
        return f"MaskedMixture({self.component0}, {self.component1})"


class _Where(constraints.Constraint):
    """One constraint where a mask is true, another where it is false."""

    def __init__(self, mask: Tensor, zero: Any, one: Any) -> None:
        self.mask, self.zero, self.one = mask, zero, one
        self.is_discrete, self.event_dim = zero.is_discrete, zero.event_dim
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return torch.where(self.mask, self.one.check(value), self.zero.check(value))
