"""Sweeps through chains by our own operators, `ppl::chain` and `ppl::chain_backward` of chain.cpp, where they are there."""

from __future__ import annotations

import torch
from torch import Tensor

from ppl.tensors import native
from ppl.tensors.sweep import Chain, Gradients

Kept = tuple[Tensor, Tensor, Tensor]


def is_native(*tensors: Tensor) -> bool:
    """Whether the operators work on these tensors, and are there."""
    return all(x.is_cpu and x.dtype in (torch.float32, torch.float64) for x in tensors) and native.want()


def sweep(chain: Chain, final: Tensor | None) -> tuple[Tensor, Kept]:
    """The log weights after all steps, or their sum with those of `final`; and what the way back needs.

    Shapes: final (n, R, K) -> (n, R), or (n, R, K) without.
    """
    result, *kept = torch.ops.ppl.chain(chain.initial, chain.matrices, chain.emissions, final)
    after, weights, scales = kept
    return result, (after, weights, scales)


def sweep_back(
    chain: Chain, final: Tensor | None, kept: Kept, result: Tensor, gradient: Tensor
) -> tuple[Gradients, Tensor | None]:
    """The gradients under one by the result; the second by `final`, (n, R, K), where that is given."""
    tensors = (chain.initial, chain.matrices, chain.emissions, final)
    *found, by_final = torch.ops.ppl.chain_backward(gradient, result, *tensors, *kept)
    by_initial, by_matrices, by_emissions = found
    return Gradients(by_initial, by_matrices, by_emissions), None if final is None else by_final
