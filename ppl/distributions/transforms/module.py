"""Transforms that are modules: their parameters are found by `.parameters()` and learned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ppl.distributions.transforms.transform import Inverse, Transform


class TransformModule(Transform, nn.Module):
    """A transform with learnable parameters. Equality is identity."""

    def __init__(self, cache_size: int = 0) -> None:
        nn.Module.__init__(self)
        Transform.__init__(self, cache_size)

    def _make_inverse(self) -> Transform:
        if torch.compiler.is_dynamo_compiling():  # which cannot make modules; this one will not outlive the trace
            return Inverse(self)
        return InverseModule(self)

    def _tensors(self) -> Iterator[Tensor]:
        yield from super()._tensors()
        yield from self.parameters()
        yield from self.buffers()

    def _flags(self) -> tuple[Any, ...]:
        return (self._changes, *(module.training for module in self.modules()))

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__setstate__(self, state)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return nn.Module.__repr__(self)


class InverseModule(Inverse, TransformModule):
    """The inverse of a transform with learnable parameters, which it shares."""

    def __init__(self, transform: TransformModule) -> None:
        nn.Module.__init__(self)
        Inverse.__init__(self, transform)

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__setstate__(self, state)
        vars(self._transform)["_inv"] = self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InverseModule) and self._transform is other._transform

    def __hash__(self) -> int:
        return id(self._transform)

    def __repr__(self) -> str:
        return nn.Module.__repr__(self)
