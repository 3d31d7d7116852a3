"""Kullback-Leibler divergences: a registry of our own beside torch's, which is read and stays as it is.

`kl_divergence(p, q)` takes the function registered for the most specific pair of classes: first p's ancestors decide,
nearest first, then q's. Of equal pairs, the one registered here comes before torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Divergence = Callable[[Any, Any], Tensor]

_registry: dict[tuple[type, type], Divergence] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Divergence], Divergence]:
    """Register a function (p, q) -> tensor of the batch shape for a pair of classes and their subclasses.

        @register_kl(MyDistribution, Normal)
        def _(p, q):
            return ...

    Raises: ValueError for what is not a distribution class.
    """
    for cls in (type_p, type_q):
        if not (isinstance(cls, type) and issubclass(cls, torch.distributions.Distribution)):
            raise ValueError(f"register_kl: expected two classes of distributions, but got {cls!r}.")

    def register(fn: Divergence) -> Divergence:
        _registry[type_p, type_q] = fn
        return fn

    return register


def kl_divergence(p: torch.distributions.Distribution, q: torch.distributions.Distribution) -> Tensor:
    """KL(p || q) = E_p[log p(x) - log q(x)], in closed form.

    Shapes: the broadcast batch shapes of p and q.
    Raises: NotImplementedError naming both classes, and how to register a formula, where there is none.
    """
    fn = find_kl(type(p), type(q))
    if fn is None:
        raise NotImplementedError(no_formula(p, q))
    return fn(p, q)


def find_kl(type_p: type, type_q: type) -> Divergence | None:
    """The function registered, here or with torch, for the most specific pair of ancestors."""
    torchs: Any = torch.distributions.kl._KL_REGISTRY
    for ancestor in type_p.__mro__:
        for other in type_q.__mro__:
            fn = _registry.get((ancestor, other)) or torchs.get((ancestor, other))
            if fn is not None:
                return fn
    return None


def no_formula(p: object, q: object) -> str:
    """What to say of a pair without a closed form."""
    a, b = type(p).__name__, type(q).__name__
    return (
        f"KL({a} || {b}) has no closed form here. If you know one, register it:\n"
        f"    @register_kl({a}, {b})\n"
        "    def _(p, q):\n"
        "        return ...  # of the batch shape\n"
        "or estimate it from draws: x = p.sample((1000,)); (p.log_prob(x) - q.log_prob(x)).mean(0)."
    )
