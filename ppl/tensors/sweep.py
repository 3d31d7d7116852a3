"""Vectors on their way through a chain of matrices of log weights, in real space where that is exact.

A step is `p = v @ m; v = p * e`, with the matrix's columns scaled to a maximum of 1 and all column scales in `e`. Numbers
are held relative to a vector's largest one. What is lost to underflow is below `tiny` for each term, so an entry of `p`
above `K · tiny / eps` is as exact as rounding allows, whatever its place, or above `K · tiny / scale` where a vector was
scaled up from less than `eps` (what is below `tiny` is rounded to multiples of `eps · tiny`); one that is smaller must be
impossible (every way to it has weight zero). That is checked after all steps at once. Where it does not hold, float64 is tried, and then
the sweep is done again with logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl.tensors.log_matrix import log_matmul

#: Steps between two scalings of the vectors, in the first attempt.
PERIOD = 8


@dataclass(frozen=True, slots=True)
class Chain:
    """Log weights with time first: `initial` (n, R, K), `matrices` (T or 1, n or 1, K, K), `emissions` (T, n, K)."""

    initial: Tensor
    matrices: Tensor
    emissions: Tensor

    def to(self, dtype: torch.dtype) -> Chain:
        """The same with another precision."""
        return Chain(self.initial.to(dtype), self.matrices.to(dtype), self.emissions.to(dtype))


@dataclass(frozen=True, slots=True)
class Gradients:
    """Of a chain's three tensors."""

    initial: Tensor
    matrices: Tensor
    emissions: Tensor


@dataclass(frozen=True, slots=True)
class Swept:
    """All vectors of a sweep: `before` (T, n, R, K) are those before each matrix, `after` (T, n, R, K) those after it.

    Each vector has a scale of its own: `start` (n, R, 1) is the log of the first one's, and each time that many steps have
    passed as a period has, `log_scales` (…, n, R, 1) are added.
    """

    before: Tensor
    after: Tensor
    start: Tensor
    log_scales: Tensor


class RealChain:
    """A chain in real space, and its sweeps."""

    def __init__(self, chain: Chain, period: int) -> None:
        self.chain, self.period = chain, period
        self.num_steps, k = chain.emissions.shape[0], chain.emissions.shape[-1]
        info = torch.finfo(chain.emissions.dtype)
        self.smallest = k * info.tiny / info.eps
        self.tiny, self.eps = info.tiny, info.eps
        columns = _finite(chain.matrices.amax(-2))
        self.log_weights = chain.emissions + columns
        self.tops = _finite(self.log_weights.amax(-1, keepdim=True))
        self.weights = (self.log_weights - self.tops).exp_()
        self.matrices = (chain.matrices - columns[..., None, :]).exp_()

    def forward(self) -> Swept | None:
        """From the initial vectors on; None where it is not exact."""
        top = _finite(self.chain.initial.amax(-1, keepdim=True))
        start = (self.chain.initial - top).exp_()
        before, after, scales = self._sweep(start, self._steps(self.matrices), self.weights[:-1])
        if not self._is_exact(after, scales):
            return None
        return Swept(before, after, top, scales.log_())

    def last(self, swept: Swept) -> Tensor:
        """The log weights after all steps. Shapes: (n, R, K)."""
        log_scale = swept.start + self.tops[:-1].sum(0)[:, None] + swept.log_scales.sum(0)
        return swept.after[-1].log() + self.log_weights[-1][:, None] + log_scale

    def all(self, swept: Swept) -> Tensor:
        """The log weights after each step. Shapes: (T, n, R, K)."""
        log_scales = torch.cat((swept.start[None], self.tops[:-1, :, None].expand(-1, *swept.start.shape)))
        log_scales[self.period :: self.period] += swept.log_scales
        return swept.after.log() + self.log_weights[:, :, None] + log_scales.cumsum(0)

    def backward(self, log_final: Tensor) -> Swept | None:
        """From the final log weights (n, R, K) back: `before` matrix t is what comes later. None if inexact."""
        ending = log_final + self.log_weights[-1][:, None]
        start = (ending - _finite(ending.amax(-1, keepdim=True))).exp_()
        before, after, scales = self._sweep(start, self._steps(self._turned()), self.weights[:-1], reverse=True)
        if not self._is_exact(after, scales, log_final):
            return None
        return Swept(before, after, start, scales)

    def gradients(self, swept: Swept, back: Swept, total: Tensor) -> Gradients | None:
        """Of the log evidence of each row times its `total` (n, R, 1), which is 0 for impossible rows; None if inexact."""
        ahead = back.before
        shares = swept.after * ahead
        evidence = shares.sum(-1, keepdim=True)
        start = swept.before[0] * back.after[0]
        sums = start.sum(-1, keepdim=True)
        least = torch.minimum(evidence.amin(0), sums)
        if not bool(((least >= self._least(back.log_scales)) | (total == 0)).all()):
            return None
        factor = total / evidence.clamp_min(self.tiny)
        by_emission = (shares * factor).sum(2)
        by_initial = start * (total / sums.clamp_min(self.tiny))
        heads, tails = swept.before, ahead * factor
        num_matrices, batch, k, _ = self.matrices.shape
        if num_matrices == 1 and batch == 1:
            outer = (heads.reshape(-1, k).mT @ tails.reshape(-1, k))[None, None]
        elif batch == 1:
            outer = torch.bmm(heads.flatten(1, 2).mT, tails.flatten(1, 2))[:, None]
        elif num_matrices == 1:
            outer = (heads.transpose(0, 1).flatten(1, 2).mT @ tails.transpose(0, 1).flatten(1, 2))[None]
        elif heads.shape[2] == 1:
            outer = heads[:, :, 0, :, None] * tails
        else:
            outer = heads.mT @ tails
        return Gradients(by_initial, outer.mul_(self.matrices), by_emission)

    def _turned(self) -> Tensor:
        """The matrices, each transposed; a matrix that is used at every step is worth laying out anew."""
        return self.matrices.mT.contiguous() if self.matrices.shape[0] == 1 else self.matrices.mT

    def _steps(self, matrices: Tensor) -> Sequence[Tensor]:
        steps = (matrices[:, 0] if matrices.shape[1] == 1 else matrices).unbind(0)
        return steps * self.num_steps if len(steps) == 1 else steps

    def _sweep(
        self,
        start: Tensor,
        matrices: Sequence[Tensor],
        weights: Tensor,
        reverse: bool = False,
        possible: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The vectors before and after each matrix, and the scales taken out on the way.

        Args: reverse, from the last matrix to the first; possible, only find out which entries are not zero.
        """
        length, (n, rows, k) = len(matrices), start.shape
        shape: tuple[int, ...]
        if matrices[0].dim() == 2:
            multiply, shape = torch.mm, (n * rows, k)
            factors = weights[:, :, None].expand(-1, -1, rows, -1).reshape(-1, *shape).unbind(0)
        else:
            multiply, shape = torch.bmm, (n, rows, k)
            factors = weights[:, :, None].unbind(0)
        before, after = (start.new_empty((length, *shape)) for _ in range(2))
        sources, targets = before.unbind(0), after.unbind(0)
        scales = []
        order, step = (range(length), 1) if not reverse else (range(length - 1, -1, -1), -1)
        sources[order[0]].copy_(start.view(shape))
        for t in order:
            multiply(sources[t], matrices[t], out=targets[t])
            if t == order[-1]:
                break
            source = sources[t + step]
            torch.mul(targets[t], factors[min(t, t + step)], out=source)
            if possible:
                source.sign_()
            elif (t + 1) % self.period == 0:
                scale = source.amax(-1, keepdim=True).clamp_min_(self.tiny)
                source.div_(scale)
                scales.append(scale)
        scale = torch.stack(scales).view(-1, n, rows, 1) if scales else start.new_empty((0, n, rows, 1))
        return before.view(length, n, rows, k), after.view(length, n, rows, k), scale

    def _least(self, scales: Tensor) -> Tensor | float:
        """The smallest entry that is exact in each row's vectors. Shapes: (…, n, R, 1) -> (n, R, 1)."""
        return (self.eps / scales.amin(0)).clamp_min_(1.0).mul_(self.smallest) if len(scales) else self.smallest

    def _is_exact(self, after: Tensor, scales: Tensor, log_final: Tensor | None = None) -> bool:
        """Whether what came after the matrices lost nothing to underflow, on the way forward or back from an end."""
        least = self._least(scales)
        if not after.numel() or bool((after.amin(0) >= least).all()):
            return True
        chain, reverse = self.chain, log_final is not None
        start = chain.initial if log_final is None else log_final + self.log_weights[-1][:, None]
        matrices, weights = self._possible(chain.matrices), self._possible(self.log_weights[:-1])
        steps = self._steps(matrices.mT if reverse else matrices)
        possible = self._sweep(self._possible(start), steps, weights, reverse, possible=True)[1]
        return bool(((after >= least) | (possible == 0)).all())

    def _possible(self, log_weights: Tensor) -> Tensor:
        return log_weights.isneginf().logical_not_().to(self.weights.dtype)


def log_forward(chain: Chain) -> Tensor:
    """The log weights before each matrix and after all. Shapes: (T + 1, n, R, K)."""
    vectors = [chain.initial]
    for matrices, weights in zip(_log_steps(chain.matrices, len(chain.emissions)), chain.emissions, strict=True):
        vectors.append(log_matmul(vectors[-1], matrices) + weights[:, None])
    return torch.stack(vectors)


def log_gradients(chain: Chain, vectors: Tensor, log_final: Tensor, total: Tensor) -> Gradients:
    """As `RealChain.gradients`, for any weights; `vectors` from `log_forward`."""
    steps = _log_steps(chain.matrices, len(chain.emissions))
    back = [log_final]
    for matrices, weights in zip(reversed(steps), chain.emissions.flip(0), strict=True):
        back.append(log_matmul(back[-1] + weights[:, None], matrices.mT))
    later = torch.stack(back[::-1])
    both = vectors + later
    evidence = both.logsumexp(-1, keepdim=True)
    evidence = evidence.masked_fill(evidence.isneginf(), torch.inf)
    by_initial, by_emission = (both[0] - evidence[0]).exp() * total, ((both - evidence).exp() * total)[1:].sum(2)
    tails = later[1:] + chain.emissions[:, :, None] - evidence[1:]
    dims = [d for d in (0, 1) if chain.matrices.shape[d] == 1]
    by_matrix = torch.zeros_like(chain.matrices)
    for row in range(vectors.shape[2]):
        share = (vectors[:-1, :, row, :, None] + chain.matrices + tails[:, :, row, None, :]).exp() * total[
            :, row, :, None
        ]
        by_matrix += share.sum(dims, keepdim=True) if dims else share
    return Gradients(by_initial, by_matrix, by_emission)


def _log_steps(matrices: Tensor, length: int) -> list[Tensor]:
    steps = list(matrices.unbind(0))
    return steps * length if len(steps) == 1 else steps


def _finite(x: Tensor) -> Tensor:
    return x.masked_fill(x.isneginf(), 0.0)


def by_inputs(
    found: Gradients, by_final: Tensor | None, batch: torch.Size, inputs: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The gradients of a chain as those of the tensors that it was made of."""
    shape = (*batch, -1, *found.matrices.shape[-2:])
    by_matrix = found.matrices.transpose(0, 1)
    by_matrix = by_matrix[0] if by_matrix.shape[0] == 1 else by_matrix.reshape(shape)
    grads = (
        found.initial.reshape(*batch, *found.initial.shape[1:]),
        by_matrix,
        found.emissions.transpose(0, 1).reshape(shape[:-1]),
        by_final,
    )
    return [
        None if x is None or g is None else _sum_to(g, x.shape).to(x.dtype) for g, x in zip(grads, inputs, strict=True)
    ]


def _sum_to(x: Tensor, shape: torch.Size) -> Tensor:
    """Summed over what was broadcast; dims of size 1 on the left may be missing."""
    return x if x.shape == shape else x.reshape(shape) if x.numel() == shape.numel() else x.sum_to_size(shape)
