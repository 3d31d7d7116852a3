"""What a recorded step depends on besides its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ppl.engine.surroundings import Surroundings

if TYPE_CHECKING:
    from ppl.infer.svi import SVI


def looks_at_gradients(callback: Callable[[int, float], None]) -> bool:
    """Whether a function, or another one of the user's that it refers to, mentions gradients."""
    return any("grad" in name and name not in _SWITCHES for name in Surroundings(callback).names())


_SWITCHES = ("no_grad", "enable_grad", "set_grad_enabled", "is_grad_enabled", "requires_grad", "requires_grad_")


def situation_of(svi: SVI) -> tuple[Any, ...]:
    """What a program is recorded from besides the arguments; it serves as long as this is the same."""
    treated = [leaf.requires_grad if not (hooks := leaf._backward_hooks) else 2 + len(hooks) for _, leaf in svi.trained]
    parts = svi.model, svi.guide, svi.loss, svi._optimizer, svi.params
    options = [
        value for name, value in vars(svi.loss).items() if isinstance(value, _OPTIONS) and not name.startswith("_")
    ]
    return *parts, svi.params.version, torch.get_default_dtype(), *treated, *options


_OPTIONS = (int, float, str, type(None))


def is_same(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """Whether two situations have the same objects and equal numbers in them, or one of them is not known."""
    return all(x is y or (isinstance(x, (int, float)) and x == y) for x, y in zip(a, b, strict=False))
