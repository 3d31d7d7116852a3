"""Random operations with tensors as arguments, as draws without any and arithmetic: the same bits on the CPU.

Such draws can be made ahead (`ppl.engine.draw`), while the arithmetic waits for the arguments. What rejects (gamma,
Poisson, binomial, Dirichlet) takes an unknown count of random numbers and has no such form.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor

__all__ = ["SPLIT"]

aten = torch.ops.aten


def _normal_of_both(mean: Tensor, std: Tensor, *, generator: Generator | None = None) -> Tensor:
    shape = torch.broadcast_shapes(mean.shape, std.shape)
    noise = torch.empty(shape, dtype=mean.dtype, device=mean.device).normal_(generator=generator)
    return noise * std + mean


def _normal_of_mean(mean: Tensor, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    noise = torch.empty(mean.shape, dtype=mean.dtype, device=mean.device)
    return noise.normal_(0.0, std, generator=generator) + mean


def _normal_of_std(mean: float, std: Tensor, *, generator: Generator | None = None) -> Tensor:
    noise = torch.empty(std.shape, dtype=std.dtype, device=std.device).normal_(generator=generator)
    return noise * std + mean


def _is_less(probs: Tensor, generator: Generator | None) -> Tensor:
    """Whether uniform numbers of the precision that torch takes lie below the probabilities, in their dims' order."""
    dtype = torch.float64 if probs.dtype == torch.float64 else torch.float32
    return torch.empty(probs.shape, dtype=dtype, device=probs.device).uniform_(generator=generator) < probs


def _bernoulli(probs: Tensor, *, generator: Generator | None = None) -> Tensor:
    return _is_less(probs, generator).to(probs.dtype)


def _bernoulli_like(like: Tensor, probs: Tensor, *, generator: Generator | None = None) -> Tensor:
    return _is_less(probs.expand(like.shape), generator).to(like.dtype)


def _bernoulli_into(out: Tensor, probs: Tensor, *, generator: Generator | None = None) -> Tensor | None:
    if not out.is_contiguous():
        return None  # drawn in the order of memory
    return out.copy_(_is_less(probs.expand(out.shape), generator))


def _multinomial(
    probs: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor | None:
    if replacement and num_samples > 1:
        return None
    race = probs / torch.empty_like(probs).exponential_(generator=generator)
    return race.argmax(-1, keepdim=True) if num_samples == 1 else race.topk(num_samples).indices


# For each operation, a function of the same arguments; it gives None, and draws nothing, where they have no such form.
# It does not look whether values, such as probabilities, are in their range.
SPLIT: Mapping[torch._ops.OpOverload, Callable[..., Tensor | None]] = {
    aten.normal.Tensor_Tensor: _normal_of_both,
    aten.normal.Tensor_float: _normal_of_mean,
    aten.normal.float_Tensor: _normal_of_std,
    aten.bernoulli.default: _bernoulli,
    aten.bernoulli.Tensor: _bernoulli_like,
    aten.bernoulli_.Tensor: _bernoulli_into,
    aten.multinomial.default: _multinomial,
}
