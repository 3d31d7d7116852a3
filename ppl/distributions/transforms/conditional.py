"""Transforms that depend on a context: `condition(context)` gives the transform."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ppl.distributions.transforms.compose import ComposeTransform
from ppl.distributions.transforms.module import TransformModule
from ppl.distributions.transforms.transform import Transform


class ConditionalTransform(ABC):
    """A family of transforms, one for each context."""

    domain: Any
    codomain: Any
    bijective: bool = False

    @abstractmethod
    def condition(self, context: Tensor) -> Transform:
        """The transform of this context.

        Shapes: context (*batch, context_dim); its batch dims broadcast with those of what is transformed.
        """

    @property
    def inv(self) -> Any:
        """The family of the inverses."""
        return ConditionalInverse(self)


class ConditionalInverse(ConditionalTransform):
    """The inverses of a family of transforms; read it as `conditional_transform.inv`."""

    def __init__(self, transform: ConditionalTransform) -> None:
        self.transform = transform
        self.domain, self.codomain = transform.codomain, transform.domain
        self.bijective = transform.bijective

    def condition(self, context: Tensor) -> Transform:
        return self.transform.condition(context).inv  # type: ignore[no-any-return]

    @property
    def inv(self) -> Any:
        return self.transform


class ConditionalTransformModule(ConditionalTransform, nn.Module):
    """A family of transforms with learnable parameters, such as those of the network that reads the context."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    @property
    def inv(self) -> Any:
        return ConditionalInverseModule(self)


class ConditionalInverseModule(ConditionalInverse, ConditionalTransformModule):
    """The inverses of a family of transforms with learnable parameters, which it shares."""

    def __init__(self, transform: ConditionalTransformModule) -> None:
        nn.Module.__init__(self)
        ConditionalInverse.__init__(self, transform)


class ConstantConditionalTransform(ConditionalTransform):
    """The same transform for every context."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform
        self.domain, self.codomain = transform.domain, transform.codomain
        self.bijective = bool(transform.bijective)

    def condition(self, context: Tensor) -> Any:
        return self.transform


class ConstantConditionalTransformModule(ConstantConditionalTransform, ConditionalTransformModule):
    """The same transform with learnable parameters for every context."""

    def __init__(self, transform: TransformModule) -> None:
        nn.Module.__init__(self)
        ConstantConditionalTransform.__init__(self, transform)


def as_conditional(transform: Any) -> ConditionalTransform:
    """A transform, conditional or not, as a conditional one."""
    if isinstance(transform, ConditionalTransform):
        return transform
    if isinstance(transform, TransformModule):
        return ConstantConditionalTransformModule(transform)
    return ConstantConditionalTransform(transform)


class ConditionalComposeTransformModule(ConditionalTransformModule):
    """A chain of transforms, conditional or not, each conditioned on the same context. First to last."""

    def __init__(self, parts: Sequence[Any], cache_size: int = 0) -> None:
        super().__init__()
        self.parts = [as_conditional(part) for part in parts]
        for index, part in enumerate(self.parts):
            if isinstance(part, nn.Module):
                self.add_module(str(index), part)
        self.cache_size = cache_size
        whole = ComposeTransform(self.parts)  # only for its sets
        self.domain, self.codomain = whole.domain, whole.codomain
        self.bijective = all(part.bijective for part in self.parts)

    def condition(self, context: Tensor) -> Transform:
        return ComposeTransform([part.condition(context) for part in self.parts], cache_size=self.cache_size)
