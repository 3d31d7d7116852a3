"""Maps that only move entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import transforms as torchs

from ppl.distributions import constraints
from ppl.distributions.transforms.fourier import AlongDim
from ppl.distributions.transforms.transform import Transform


class Permute(AlongDim):
    """Entries along `dim` in another order: entry i of the image is entry `permutation[i]`."""

    def __init__(self, permutation: Tensor | Sequence[int], dim: int = -1, cache_size: int = 0) -> None:
        super().__init__(dim, cache_size)
        self.permutation = torch.as_tensor(permutation)
        if self.permutation.dim() != 1 or self.permutation.is_floating_point():
            raise ValueError(f"Permute: permutation must be a vector of integers, got {permutation}.")

    def _call(self, x: Tensor) -> Tensor:
        return x.index_select(self.dim, self.permutation.to(x.device))

    def _inverse(self, y: Tensor) -> Tensor:
        return y.index_select(self.dim, self.permutation.argsort().to(y.device))


class PermuteTransform(Permute):
    """Entries of the last dim in another order."""

    def __init__(self, permutation: Tensor | Sequence[int], cache_size: int = 0) -> None:
        super().__init__(permutation, cache_size=cache_size)


def permute(
    input_dim: int | tuple[int, ...], permutation: Tensor | Sequence[int] | None = None, dim: int = -1
) -> Permute:
    """A `Permute` of `input_dim` entries (or of the dim `dim` of that shape), random if no permutation is given."""
    size = input_dim if isinstance(input_dim, int) else input_dim[dim]
    if permutation is None:
        permutation = torch.randperm(size)
    if sorted(torch.as_tensor(permutation).tolist()) != list(range(size)):
        raise ValueError(f"permute: permutation must have each of 0, …, {size - 1} once, got {permutation}.")
    return Permute(permutation, dim)


class ReshapeTransform(Transform, torchs.ReshapeTransform):
    """The last dims, of shape `in_shape`, read as `out_shape`.

    Args: forward_shape and inverse_shape, other names of out_shape and in_shape.
    """

    bijective = True

    def __init__(
        self,
        in_shape: Sequence[int] | None = None,
        out_shape: Sequence[int] | None = None,
        cache_size: int = 0,
        *,
        forward_shape: Sequence[int] | None = None,
        inverse_shape: Sequence[int] | None = None,
    ) -> None:
        Transform.__init__(self, cache_size)
        in_shape = inverse_shape if in_shape is None else in_shape
        out_shape = forward_shape if out_shape is None else out_shape
        if in_shape is None or out_shape is None:
            raise ValueError("ReshapeTransform needs in_shape and out_shape.")
        if math.prod(in_shape) != math.prod(out_shape):
            raise ValueError(
                f"ReshapeTransform: the shapes {tuple(in_shape)} and {tuple(out_shape)} have different numbers of entries."
            )
        self.in_shape, self.out_shape = Size(in_shape), Size(out_shape)

    @property
    def domain(self) -> Any:  # type: ignore[override]
        return constraints.independent(constraints.real, len(self.in_shape))

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        return constraints.independent(constraints.real, len(self.out_shape))

    def _call(self, x: Tensor) -> Tensor:
        return x.reshape(self.forward_shape(x.shape))

    def _inverse(self, y: Tensor) -> Tensor:
        return y.reshape(self.inverse_shape(y.shape))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[: x.dim() - len(self.in_shape)])

    def forward_shape(self, shape: Size) -> Size:
        return self._swapped(shape, self.in_shape, self.out_shape)

    def inverse_shape(self, shape: Size) -> Size:
        return self._swapped(shape, self.out_shape, self.in_shape)

    def _swapped(self, shape: Size, old: Size, new: Size) -> Size:
        cut = len(shape) - len(old)
        if cut < 0 or shape[cut:] != old:
            raise ValueError(f"ReshapeTransform: the last dims must be {tuple(old)}, got the shape {tuple(shape)}.")
        return Size((*shape[:cut], *new))

    def __repr__(self) -> str:
        return f"ReshapeTransform({tuple(self.in_shape)}, {tuple(self.out_shape)})"


class UnpackTransform(Transform):
    """A vector read as something else, such as a dict of tensors, by `unpack_fn`; `pack_fn` is its inverse.

    `unpack_fn` sees one vector: batch dims are vectorised over. `pack_fn` sees what came out, batch dims included.
    """

    domain = constraints.real_vector
    codomain = constraints.dependent(is_discrete=False, event_dim=1)
    bijective = True

    def __init__(
        self, unpack_fn: Callable[[Tensor], Any], pack_fn: Callable[[Any], Tensor] | None = None, cache_size: int = 0
    ) -> None:
        super().__init__(0)  # what comes out is no tensor, and cannot be remembered
        self.unpack_fn = unpack_fn
        self.pack_fn = pack_fn

    def _call(self, x: Tensor) -> Any:
        unpack: Any = self.unpack_fn
        for _ in range(x.dim() - 1):
            unpack = torch.vmap(unpack)
        return unpack(x)

    def _inverse(self, y: Any) -> Tensor:
        if self.pack_fn is None:
            raise ValueError("UnpackTransform: the inverse needs pack_fn.")
        return self.pack_fn(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Any) -> Tensor:
        return x.new_zeros(x.shape[:-1])

    def forward_shape(self, shape: Size) -> Size:
        raise NotImplementedError("UnpackTransform: what unpack_fn returns need not have a shape.")

    def inverse_shape(self, shape: Size) -> Size:
        raise NotImplementedError("UnpackTransform: what unpack_fn returns need not have a shape.")
