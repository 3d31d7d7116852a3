"""The normal distribution, with the short paths that small eager models spend their time in."""

from __future__ import annotations

import math
from numbers import Number
from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions import validation
from ppl.distributions.distribution import Distribution, ShapeLike, broadcast_shape

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Normal(torch.distributions.Normal, Distribution):
    """The normal distribution with mean `loc` and standard deviation `scale` > 0."""

    expands_without_init = True

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        validate = validation.is_validation_enabled() if validate_args is None else validate_args
        loc_is_number, scale_is_number = not isinstance(loc, Tensor), not isinstance(scale, Tensor)
        if loc_is_number and scale_is_number:
            _check_numbers(loc, scale)
            ok = loc == loc and scale > 0  # checked as numbers, so that constants cost no tensor operation
            self.loc, self.scale = torch.tensor(float(loc)), torch.tensor(float(scale))
            self._batch_shape = Size()
            validate_tensors = validate and not ok
        else:
            validate_tensors = validate
            if loc_is_number:
                loc = _as_tensor(loc, scale)  # type: ignore[arg-type]
            elif scale_is_number:
                scale = _as_tensor(scale, loc)  # type: ignore[arg-type]
            if loc.shape != scale.shape:  # type: ignore[union-attr]
                loc, scale = torch.broadcast_tensors(loc, scale)
            if not (loc.is_floating_point() and scale.is_floating_point()):  # type: ignore[union-attr]
                loc, scale = loc.to(torch.get_default_dtype()), scale.to(torch.get_default_dtype())  # type: ignore[union-attr]
            self.loc, self.scale = loc, scale  # type: ignore[assignment]
            self._batch_shape = self.loc.shape
        self._event_shape = Size()
        self._validate_args = validate
        if validate_tensors:
            validation.check_arguments(self)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        shape = (*sample_shape, *self._batch_shape)
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return torch.addcmul(self.loc, noise, self.scale)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        z = (value - self.loc) / self.scale
        return torch.addcmul(-_HALF_LOG_2PI - self.scale.log(), z, z, value=-0.5)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        return broadcast_shape(*(Size(s) for s in arg_shapes.values())), Size()


def _as_tensor(number: float, like: Tensor) -> Tensor:
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    return torch.tensor(number, dtype=dtype, device=like.device)


def _check_numbers(*values: Any) -> None:
    for value in values:
        if not isinstance(value, Number):
            raise ValueError(
                f"Normal: arguments must be numbers or tensors, but got {type(value).__name__}; "
                "write torch.as_tensor(value)."
            )
