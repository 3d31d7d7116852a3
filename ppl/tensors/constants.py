"""Numbers as tensors, made once.

An operation with a Python number makes a tensor of it each time, forwards and backwards, which takes longer than the arithmetic
of a small model.
"""

from __future__ import annotations

import torch
from torch import Tensor

_made: dict[tuple[float, torch.dtype, torch.device | None], Tensor] = {}


def constant(value: float, like: Tensor) -> Tensor:
    """A number as a tensor without dims, of another tensor's dtype and device; never to be written into, or given to a user.

    Within `make_fx` and other modes of torch's dispatcher it is made anew, because a tensor from outside may not enter there.
    """
    if torch._C._len_torch_dispatch_stack():
        return torch.scalar_tensor(value, dtype=like.dtype, device=like.device)
    key = value, like.dtype, None if like.is_cpu else like.device
    known = _made.get(key)
    if known is None:
        with torch.inference_mode(False):  # where such a mode is on, the tensor would be of no use outside of it
            known = _made[key] = torch.scalar_tensor(value, dtype=like.dtype, device=like.device)
    return known
