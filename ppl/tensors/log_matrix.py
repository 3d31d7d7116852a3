"""Products of matrices of log weights, and compositions of maps between finitely many states."""

from __future__ import annotations

import torch
from torch import Tensor

from ppl.tensors.scan import Bundle


def log_matmul(x: Tensor, y: Tensor) -> Tensor:
    """log(exp(x) @ exp(y)), exact however far apart the weights lie: nothing underflows that matters.

    Shapes: x (*, a, k), y (*, k, b) -> (*, a, b); takes memory for (*, a, b, k).
    """
    terms = x[..., :, None, :] + y.mT[..., None, :, :]
    top = terms.detach().amax(-1, keepdim=True)
    top = torch.where(top.isfinite(), top, torch.zeros_like(top))
    total = (terms - top).exp().sum(-1)
    empty = total == 0
    safe = torch.where(empty, torch.ones_like(total), total).log() + top.squeeze(-1)
    return safe.masked_fill(empty, -torch.inf)


def chain_maps(first: Bundle, second: Bundle) -> Bundle:
    """Apply one map after another; a map is the list of the images of 0 … K - 1. Shapes: (*, K), (*, K) -> (*, K)."""
    return (second[0].gather(-1, first[0]),)
