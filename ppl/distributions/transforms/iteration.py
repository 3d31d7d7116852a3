"""Transforms of one kind, stacked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ppl.distributions.transforms.compose import ComposeTransformModule
from ppl.distributions.transforms.conditional import ConditionalComposeTransformModule, ConditionalTransform


def iterated(
    repeats: int, base_fn: Callable[..., Any], *args: Any, **kwargs: Any
) -> ComposeTransformModule | ConditionalComposeTransformModule:
    """A chain of `repeats` transforms, each with parameters of its own, made by `base_fn(*args, **kwargs)`.

    Conditional transforms make a conditional chain.
    """
    if repeats < 1:
        raise ValueError(f"iterated: repeats must be 1 or more, but got {repeats}.")
    parts = [base_fn(*args, **kwargs) for _ in range(repeats)]
    if any(isinstance(part, ConditionalTransform) for part in parts):
        return ConditionalComposeTransformModule(parts)
    return ComposeTransformModule(parts)
