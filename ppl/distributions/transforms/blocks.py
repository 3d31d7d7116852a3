"""Several transforms side by side, each of its own part of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.distributions import transforms as torchs

from ppl.distributions import constraints
from ppl.distributions.transforms.compose import Combinator, twin_of
from ppl.distributions.transforms.module import TransformModule
from ppl.distributions.transforms.transform import Transform, sum_rightmost


class Blocks(Combinator):
    """The base of transforms of parts of a tensor."""

    transforms: list[Any]
    dim: int

    def _take(self, tseq: Sequence[Any], cache_size: int) -> None:
        if not tseq or not all(isinstance(t, torchs.Transform) for t in tseq):
            raise ValueError(f"{type(self).__name__} needs one transform or more, got {tseq}.")
        Transform.__init__(self, cache_size)
        self.transforms = list(tseq)

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return all(t.bijective for t in self.transforms)

    @property
    def sign(self) -> Any:
        signs = {t.sign for t in self.transforms if not isinstance(t.sign, Tensor)}
        if len(signs) == 1 and not any(isinstance(t.sign, Tensor) for t in self.transforms):
            return signs.pop()
        raise NotImplementedError(f"{type(self).__name__}: the parts differ in sign.")

    def clear_cache(self) -> None:
        for t in self.transforms:
            if isinstance(t, Transform):
                t.clear_cache()

    def _register(self) -> None:
        for index, t in enumerate(self.transforms):
            if isinstance(t, nn.Module) and isinstance(self, nn.Module):
                self.add_module(str(index), t)

    def _negative(self, dims: int) -> int:
        if not -dims <= self.dim < dims:
            raise ValueError(f"{type(self).__name__}: there is no dim {self.dim} in a tensor of {dims} dims.")
        return self.dim if self.dim < 0 else self.dim - dims


class CatTransform(Blocks, torchs.CatTransform):
    """Transforms side by side along `dim`, as `torch.cat` lays them.

    Args: lengths, how many entries of the input each transforms (1 by default); a part may return another number of
        them, such as one more for stick-breaking.
    """

    def __init__(
        self, tseq: Sequence[Any], dim: int = 0, lengths: Sequence[int] | None = None, cache_size: int = 0
    ) -> None:
        self._take(tseq, cache_size)
        self.dim = dim
        self.lengths = [1] * len(self.transforms) if lengths is None else list(lengths)
        if len(self.lengths) != len(self.transforms):
            raise ValueError(f"CatTransform: {len(self.transforms)} transforms were given {len(self.lengths)} lengths.")
        changes = {t.codomain.event_dim - t.domain.event_dim for t in self.transforms}
        if len(changes) > 1:
            raise ValueError(
                "CatTransform: the parts change the number of event dims differently and cannot be joined."
            )
        self._change: int = changes.pop()

    @property
    def event_dim(self) -> int:
        """The parts' largest number of event dims."""
        largest: int = max(t.domain.event_dim for t in self.transforms)
        return largest

    @property
    def length(self) -> int:
        """How many entries of the input all parts take."""
        return sum(self.lengths)

    @property
    def domain(self) -> Any:  # type: ignore[override]
        return constraints.cat([t.domain for t in self.transforms], self.dim, self.lengths)

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        dim = self._codomain_dim()
        return constraints.cat([t.codomain for t in self.transforms], dim, self._codomain_lengths())

    def _codomain_dim(self) -> int:
        if self.dim >= 0 or not self._change:
            return self.dim
        if self.dim >= -self.event_dim:
            raise ValueError("CatTransform: parts that change the number of event dims are joined along a batch dim.")
        return self.dim - self._change

    def _codomain_lengths(self) -> list[int]:
        lengths: list[int] = [
            n if not -t.domain.event_dim <= self.dim < 0 else t.forward_shape(self._probe(n))[self.dim]
            for t, n in zip(self.transforms, self.lengths, strict=True)
        ]
        return lengths

    def _probe(self, length: int) -> Size:
        """A shape with this length along the dim."""
        return Size((length,) + (1,) * (-self.dim - 1))

    def _call(self, x: Tensor) -> Tensor:
        pieces = self._split(x, self._negative(x.dim()), self.lengths)
        dim = self.dim if self.dim >= 0 else self._codomain_dim()
        return torch.cat([t(piece) for t, piece in zip(self.transforms, pieces, strict=True)], dim)

    def _inverse(self, y: Tensor) -> Tensor:
        dim = self.dim if self.dim >= 0 else self._codomain_dim()
        pieces = self._split(y, dim, self._codomain_lengths())
        return torch.cat([t.inv(piece) for t, piece in zip(self.transforms, pieces, strict=True)], self.dim)

    def _split(self, value: Tensor, dim: int, lengths: list[int]) -> tuple[Tensor, ...]:
        if value.shape[dim] != sum(lengths):
            raise ValueError(
                f"CatTransform: dim {dim} must have the size {sum(lengths)}, the sum of the lengths {lengths}, got the "
                f"shape {tuple(value.shape)}."
            )
        pieces: tuple[Tensor, ...] = value.split(lengths, dim)
        return pieces

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        dim = self._negative(x.dim())
        codomain_dim = self.dim if self.dim >= 0 else self._codomain_dim()
        pieces = zip(
            self.transforms,
            self._split(x, dim, self.lengths),
            self._split(y, codomain_dim, self._codomain_lengths()),
            strict=True,
        )
        terms = [sum_rightmost(t.log_abs_det_jacobian(a, b), self.event_dim - t.domain.event_dim) for t, a, b in pieces]
        if dim + self.event_dim < 0:
            return torch.cat(terms, dim + self.event_dim)
        return torch.stack(torch.broadcast_tensors(*terms)).sum(0)

    def forward_shape(self, shape: Size) -> Size:
        return self._shape(shape, self.lengths, [t.forward_shape for t in self.transforms], self._negative(len(shape)))

    def inverse_shape(self, shape: Size) -> Size:
        dim = self.dim - len(shape) if self.dim >= 0 else self._codomain_dim()
        return self._shape(shape, self._codomain_lengths(), [t.inverse_shape for t in self.transforms], dim)

    def _shape(self, shape: Size, lengths: list[int], maps: list[Any], dim: int) -> Size:
        if shape[dim] != sum(lengths):
            raise ValueError(f"CatTransform: dim {dim} must have the size {sum(lengths)}, got {tuple(shape)}.")
        cut = len(shape) + dim
        results = [m(Size((*shape[:cut], n, *shape[cut + 1 :]))) for m, n in zip(maps, lengths, strict=True)]
        return Size((*results[0][:cut], sum(r[cut] for r in results), *results[0][cut + 1 :]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.transforms}, dim={self.dim}, lengths={self.lengths})"


class StackTransform(Blocks, torchs.StackTransform):
    """One transform for each slice along `dim`, as `torch.stack` lays them."""

    def __init__(self, tseq: Sequence[Any], dim: int = 0, cache_size: int = 0) -> None:
        self._take(tseq, cache_size)
        self.dim = dim
        changes = {t.codomain.event_dim - t.domain.event_dim for t in self.transforms}
        if len(changes) > 1:
            raise ValueError("StackTransform: the parts change the number of event dims differently.")
        self._change: int = changes.pop()

    @property
    def domain(self) -> Any:  # type: ignore[override]
        return constraints.stack([t.domain for t in self.transforms], self.dim)

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        return constraints.stack([t.codomain for t in self.transforms], self._codomain_dim())

    @property
    def _largest(self) -> int:
        return max(int(t.domain.event_dim) for t in self.transforms)

    def _codomain_dim(self) -> int:
        """Where the slices lie in the image: a dim left of the event dims moves with their number."""
        return self.dim - self._change if self.dim < -self._largest else self.dim

    def _call(self, x: Tensor) -> Tensor:
        pieces = self._slices(x, self._negative(x.dim()))
        return torch.stack([t(piece) for t, piece in zip(self.transforms, pieces, strict=True)], self._codomain_dim())

    def _inverse(self, y: Tensor) -> Tensor:
        pieces = self._slices(y, self._codomain_dim())
        return torch.stack([t.inv(piece) for t, piece in zip(self.transforms, pieces, strict=True)], self.dim)

    def _slices(self, value: Tensor, dim: int) -> tuple[Tensor, ...]:
        if value.shape[dim] != len(self.transforms):
            raise ValueError(
                f"StackTransform: dim {dim} must have the size {len(self.transforms)}, one slice for each transform, got "
                f"the shape {tuple(value.shape)}."
            )
        return value.unbind(dim)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        dim = self._negative(x.dim())
        largest = self._largest
        pieces = zip(self.transforms, self._slices(x, dim), self._slices(y, self._codomain_dim()), strict=True)
        terms = [sum_rightmost(t.log_abs_det_jacobian(a, b), largest - t.domain.event_dim) for t, a, b in pieces]
        if self.domain.event_dim > largest:
            return torch.stack(torch.broadcast_tensors(*terms)).sum(0)
        return torch.stack(terms, dim + largest)

    def forward_shape(self, shape: Size) -> Size:
        return _moved_shape(shape, self.dim, self._codomain_dim(), self.transforms[0].forward_shape)

    def inverse_shape(self, shape: Size) -> Size:
        return _moved_shape(shape, self._codomain_dim(), self.dim, self.transforms[0].inverse_shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.transforms}, dim={self.dim})"


@twin_of(CatTransform)
class CatTransformModule(CatTransform, TransformModule):
    """Transforms side by side, some with learnable parameters."""

    def __init__(
        self, tseq: Sequence[Any], dim: int = 0, lengths: Sequence[int] | None = None, cache_size: int = 0
    ) -> None:
        nn.Module.__init__(self)
        CatTransform.__init__(self, tseq, dim, lengths, cache_size)
        self._register()


@twin_of(StackTransform)
class StackTransformModule(StackTransform, TransformModule):
    """One transform for each slice, some with learnable parameters."""

    def __init__(self, tseq: Sequence[Any], dim: int = 0, cache_size: int = 0) -> None:
        nn.Module.__init__(self)
        StackTransform.__init__(self, tseq, dim, cache_size)
        self._register()


def _moved_shape(shape: Size, dim: int, new_dim: int, shape_map: Any) -> Size:
    """The shape of stacked images, from that of stacked slices."""
    sizes = list(shape)
    count = sizes.pop(dim)
    new = list(shape_map(Size(sizes)))
    new.insert(new_dim if new_dim >= 0 else len(new) + 1 + new_dim, count)
    return Size(new)
