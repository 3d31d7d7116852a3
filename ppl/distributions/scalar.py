"""The short paths of univariate families, on which small eager models spend their time."""

from __future__ import annotations

from numbers import Number
from typing import Any, cast

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions import validation
from ppl.distributions.distribution import ShapeLike, broadcast_shape

_REAL, _POSITIVE = constraints.real, constraints.positive
_SCALAR = Size()


class Scalar:
    """A mixin for univariate families whose fields are their broadcast parameters. Stands before torch's class.

    A subclass names its parameters in `parameters`, sets `expands_without_init = True`, calls `_take` in its __init__,
    and gives `rsample` and `log_prob`.
    """

    parameters: tuple[str, ...] = ()

    def _take(self, values: tuple[Any, ...], validate_args: bool | None) -> None:
        """Keep the parameters, numbers or tensors, as tensors of one shape, and check them."""
        fields = vars(self)
        fields["_event_shape"] = _SCALAR
        fields["_validate_args"] = validation.is_validation_enabled() if validate_args is None else validate_args
        for value in values:
            if isinstance(value, Tensor):
                self._take_tensors(values, value)
                sure = False
                break
        else:
            sure = self._take_numbers(values)
        if not sure and fields["_validate_args"]:
            validation.check_arguments(cast(Any, self))

    def _take_numbers(self, values: tuple[Any, ...]) -> bool:
        """Keep numbers; whether they surely hold, being checked as numbers, so that constants cost no tensor operation."""
        fields, sure = vars(self), True
        bounds = cast(Any, self).arg_constraints
        for name, value in zip(self.parameters, values, strict=False):
            if type(value) is not float:
                value = _as_float(type(self).__name__, value)
            fields[name] = torch.scalar_tensor(value)  # half the time of torch.tensor
            bound = bounds[name]
            sure = sure and ((value == value) if bound is _REAL else (bound is _POSITIVE and value > 0))
        fields["_batch_shape"] = _SCALAR
        return sure

    def _take_tensors(self, values: tuple[Any, ...], like: Tensor) -> None:
        """Keep tensors, and numbers beside them, broadcast."""
        tensors = [v if isinstance(v, Tensor) else _as_tensor(v, like) for v in values]
        shape = tensors[0].shape
        for tensor in tensors:
            if tensor.shape != shape:
                tensors = list(torch.broadcast_tensors(*tensors))
                shape = tensors[0].shape
                break
        if not like.is_floating_point():
            tensors = [t if t.is_floating_point() else t.to(torch.get_default_dtype()) for t in tensors]
        vars(self).update(zip(self.parameters, tensors, strict=True))
        vars(self)["_batch_shape"] = shape

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        """The same distribution repeated to a larger batch shape, without copying."""
        this: Any = self
        shape = Size(batch_shape)
        new = this._get_checked_instance(type(self), _instance)
        fields = vars(new)
        for name in self.parameters:
            fields[name] = getattr(this, name).expand(shape)
        fields["_batch_shape"], fields["_event_shape"] = shape, _SCALAR
        fields["_validate_args"] = this._validate_args
        return new

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw without gradients."""
        this: Any = self
        with torch.no_grad():
            drawn: Tensor = this.rsample(sample_shape)
        return drawn

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        """Batch and event shape from the shapes of the arguments; no tensor is made."""
        for name in arg_shapes:
            if name not in cls.parameters:
                raise ValueError(f"{cls.__name__} has no argument '{name}'; it has {', '.join(cls.parameters)}.")
        return broadcast_shape(*(Size(s) for s in arg_shapes.values())), Size()


def _as_tensor(number: Any, like: Tensor) -> Tensor:
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    return torch.tensor(number, dtype=dtype, device=like.device)


def _as_float(family: str, value: Any) -> float:
    if not isinstance(value, Number):
        raise ValueError(
            f"{family}: arguments must be numbers or tensors, but got {type(value).__name__}; "
            "write torch.as_tensor(value)."
        )
    return float(cast(Any, value))
