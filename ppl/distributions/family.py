"""Families whose parameters have event dims of their own: vectors, matrices, functions of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Size, Tensor
from torch.distributions.utils import lazy_property

from ppl.distributions.distribution import Distribution, ShapeLike, broadcast_shape


class derived(lazy_property[Any, Tensor]):
    """A parameter worked out from the one that was given, anew each time, unless it is a field of the object itself."""

    def __init__(self, wrapped: Callable[[Any], Tensor]) -> None:
        self.wrapped: Callable[[Any], Tensor] = wrapped
        self.__doc__ = wrapped.__doc__

    def __get__(self, instance: Any, obj_type: Any = None) -> Tensor:  # type: ignore[override]
        return cast(Tensor, self) if instance is None else self.wrapped(instance)


class Family(Distribution):
    """A distribution whose fields are its parameters, broadcast against one another in their batch dims.

    A subclass declares `arg_constraints` (whose event dims say which dims of a parameter are not batch), and calls
    `_take` in its __init__; `expand`, pickling and `infer_shapes` follow. For univariate families see `Scalar`.
    """

    expands_without_init = True
    _dims: dict[str, int]  # the tensor fields that grow with the batch, and the event dims of each

    def _take(
        self,
        arguments: dict[str, Any],
        event_shape: ShapeLike = Size(),
        validate_args: bool | None = None,
    ) -> None:
        """Keep the arguments, numbers or tensors, as tensors of one batch shape, and check them; None is not given.

        Raises: ValueError naming the arguments whose shapes do not fit.
        """
        if len(arguments) == 1 and self._take_one(arguments, event_shape, validate_args):
            return
        given = {k: v for k, v in arguments.items() if v is not None}
        like = next((v for v in given.values() if isinstance(v, Tensor) and v.is_floating_point()), None)
        dtype = torch.get_default_dtype() if like is None else like.dtype
        device = next((v.device for v in given.values() if isinstance(v, Tensor)), None)
        tensors = {
            k: v if isinstance(v, Tensor) else torch.tensor(v, dtype=dtype, device=device) for k, v in given.items()
        }
        self._dims = {k: self._argument_event_dim(k) for k in tensors}
        for name, tensor in tensors.items():
            if tensor.dim() < self._dims[name]:
                raise ValueError(
                    f"{type(self).__name__}: argument '{name}' needs at least {self._dims[name]} dims, but its shape is "
                    f"{tuple(tensor.shape)}."
                )
        try:
            batch = broadcast_shape(*(t.shape[: t.dim() - self._dims[k]] for k, t in tensors.items()))
        except RuntimeError:
            shapes = ", ".join(f"{k} {tuple(t.shape)}" for k, t in tensors.items())
            raise ValueError(
                f"{type(self).__name__}: the batch dims of its arguments do not broadcast: {shapes}."
            ) from None
        for name, tensor in tensors.items():
            cut = tensor.dim() - self._dims[name]
            vars(self)[name] = tensor if tensor.shape[:cut] == batch else tensor.expand(batch + tensor.shape[cut:])
        # not through super: a subclass may also inherit from torch's class, whose __init__ takes other arguments
        torch.distributions.Distribution.__init__(self, batch, Size(event_shape), validate_args=False)
        self._check(validate_args)

    def _take_one(self, arguments: dict[str, Any], event_shape: ShapeLike, validate_args: bool | None) -> bool:
        """`_take` of a single tensor, which has nothing to broadcast against; whether this was one."""
        ((name, tensor),) = arguments.items()
        event_dim = self._argument_event_dim(name)
        if not isinstance(tensor, Tensor) or tensor.dim() < event_dim:
            return False
        fields = vars(self)
        fields["_dims"], fields[name] = {name: event_dim}, tensor
        fields["_batch_shape"], fields["_event_shape"] = tensor.shape[: tensor.dim() - event_dim], Size(event_shape)
        self._check(validate_args)
        return True

    def _keep(self, name: str, tensor: Tensor, event_dim: int) -> Tensor:
        """Keep a tensor worked out from the parameters as a field that grows with the batch."""
        self._dims[name] = event_dim
        vars(self)[name] = tensor.expand(self.batch_shape + tensor.shape[tensor.dim() - event_dim :])
        return tensor

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        """The same distribution repeated to a larger batch shape, without copying."""
        new = self._get_checked_instance(type(self), _instance)
        shape = Size(batch_shape)
        for name, value in vars(self).items():
            if name in self._dims:
                value = value.expand(shape + value.shape[value.dim() - self._dims[name] :])
            vars(new)[name] = value
        vars(new)["_dims"] = dict(self._dims)
        new._batch_shape = shape
        return new

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw without gradients."""
        with torch.no_grad():
            return self.rsample(Size(sample_shape))
