"""Paths through chains of matrices of log weights: posterior draws and the best one.

The chains are those of `chain.py`. To fix an end, give its state the log weight 0 and all others -inf.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ppl.tensors.chain import chain_filter, is_eager, num_steps
from ppl.tensors.log_matrix import chain_maps
from ppl.tensors.scan import associative_scan

Choose = Callable[[Tensor], Tensor]
#: Steps back are drawn for each possible next state, all at once, while they have no more entries than this.
MAPS = 2**21


def chain_sample(
    log_initial: Tensor, log_matrices: Tensor, log_final: Tensor, log_emissions: Tensor | None = None
) -> Tensor:
    """A path z_0 … z_T from the posterior over paths: forward sums, then draws from the last state back.

    Shapes: (*, K), (*, T or 1, K, K), (*, K), (*, T or 1, K) -> (*, T + 1), of dtype int64.
    """
    with torch.no_grad():
        return chain_choose(log_initial, log_matrices, log_final, log_emissions, _draw, False)


def chain_best(
    log_initial: Tensor, log_matrices: Tensor, log_final: Tensor, log_emissions: Tensor | None = None
) -> Tensor:
    """The path of the largest weight (Viterbi).

    Shapes: (*, K), (*, T or 1, K, K), (*, K), (*, T or 1, K) -> (*, T + 1), of dtype int64.
    """
    with torch.no_grad():
        return chain_choose(log_initial, log_matrices, log_final, log_emissions, _best, True)


def chain_choose(
    log_initial: Tensor,
    log_matrices: Tensor,
    log_final: Tensor,
    log_emissions: Tensor | None,
    choose: Choose,
    largest: bool,
) -> Tensor:
    """A path chosen from its end: the last state by what leads to it, each other by what leads to it and what comes after.

    Args: choose, from log weights (…, K) to indices (…); largest, whether what leads to a state is its best path or all.
    """
    vectors = chain_filter(log_initial, log_matrices, log_emissions, largest)
    length, k = num_steps(log_matrices, log_emissions), vectors.shape[-1]
    batch = torch.broadcast_shapes(vectors.shape[:-2], log_final.shape[:-1])
    vectors = vectors.expand((*batch, length + 1, k))
    last = choose(vectors[..., -1, :] + log_final)
    matrices = log_matrices.expand((*log_matrices.shape[:-3], length, k, k))
    if not is_eager(vectors) or batch.numel() * length * k * k <= MAPS:
        weights = vectors[..., :-1, None, :] + matrices.mT
        weights = weights.masked_fill(
            (weights == -torch.inf).all(-1, keepdim=True), 0.0
        )  # states that nothing leads to
        maps = choose(weights)
        (maps,) = associative_scan(lambda a, b: chain_maps(b, a), (maps,), -2, reverse=True)
        states = maps.gather(-1, last[..., None, None].expand((*batch, length, 1)))[..., 0]
        return torch.cat((states, last[..., None]), -1)
    found = [last]
    columns = matrices.expand((*batch, length, k, k)).mT
    for t in range(length - 1, -1, -1):
        index = found[-1][..., None, None].expand((*batch, 1, k))
        found.append(choose(vectors[..., t, :] + columns[..., t, :, :].gather(-2, index)[..., 0, :]))
    return torch.stack(found[::-1], -1)


def _draw(log_weights: Tensor) -> Tensor:
    """An index of the last dim with probability proportional to its weight."""
    return (log_weights - torch.empty_like(log_weights).exponential_().log_()).argmax(-1)


def _best(log_weights: Tensor) -> Tensor:
    return log_weights.argmax(-1)
