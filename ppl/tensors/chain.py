"""Exact products of chains of matrices of log weights: hidden Markov models, and whatever factorises like them.

A chain has states z_0 … z_T with K values, log weights `log_initial[z_0]`, `log_matrices[t][z_t, z_{t+1}]` and,
optionally, `log_emissions[t][z_{t+1}]`, which are added to the matrices. -inf is an impossible step.

Where nothing is being traced, vectors pass through the chain in real space, checked to be as exact as with logs (see
`sweep.py`); long chains of few vectors are cut into blocks that are worked out side by side. On a processor all of this
is one operator, `ppl::chain`, where that has been compiled (`native.py`, `chain.cpp`). Within `torch.compile`, `make_fx`,
`vmap` and other transforms, an associative tree over matrices of logs, in O(log T) depth.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from ppl.tensors.log_matrix import log_matmul
from ppl.tensors.native_chain import is_native, sweep, sweep_back
from ppl.tensors.rewind import is_recorded
from ppl.tensors.scan import Bundle, associative_reduce, associative_scan
from ppl.tensors.semiring import log_sum_exp, maximum
from ppl.tensors.shapes import broadcast_shape
from ppl.tensors.sweep import PERIOD, Chain, Gradients, RealChain, Swept, by_inputs, log_forward, log_gradients

#: The products in a step that take as long as the call that starts them: below, blocks of a chain go side by side.
CALL = 2**13
#: Chains shorter than this are not cut into blocks.
SHORT = 256


def chain_evidence(
    log_initial: Tensor, log_matrices: Tensor, log_final: Tensor, log_emissions: Tensor | None = None
) -> Tensor:
    """The log of the weights of all paths together, with those of the last state. Its gradients are posteriors.

    Shapes: (*, K), (*, T or 1, K, K), (*, K), (*, T or 1, K) -> (*), all batch dims broadcasting.
    """
    batch = _batch(log_matrices, log_emissions, log_initial.shape[:-1], log_final.shape[:-1])
    rows = _through(log_initial.unsqueeze(-2), log_matrices, log_emissions, batch, log_final.unsqueeze(-2))
    return rows.squeeze(-1)


def chain_forward(log_initial: Tensor, log_matrices: Tensor, log_emissions: Tensor | None = None) -> Tensor:
    """The log weights of all paths to each last state.

    Shapes: (*, K), (*, T or 1, K, K), (*, T or 1, K) -> (*, K), all batch dims broadcasting.
    """
    batch = _batch(log_matrices, log_emissions, log_initial.shape[:-1])
    return _through(log_initial.unsqueeze(-2), log_matrices, log_emissions, batch).squeeze(-2)


def chain_product(log_matrices: Tensor, log_emissions: Tensor | None = None, largest: bool = False) -> Tensor:
    """The log of the matrix product M_0 M_1 … M_{T-1}, the empty one being the identity.

    Shapes: (*, T or 1, K, K), (*, T or 1, K) -> (*, K, K), all batch dims broadcasting.
    Args: largest, take the best path from state to state instead of the sum over all.
    """
    if largest:
        return _tree(log_matrices, log_emissions, largest)
    batch = _batch(log_matrices, log_emissions)
    unit = log_identity(log_matrices)
    return _through(unit, log_matrices, log_emissions, batch)


def chain_filter(
    log_initial: Tensor, log_matrices: Tensor, log_emissions: Tensor | None = None, largest: bool = False
) -> Tensor:
    """The log weights of all paths to each state z_0 … z_T, for looking at: without gradients where not traced.

    Shapes: (*, K), (*, T or 1, K, K), (*, T or 1, K) -> (*, T + 1, K), all batch dims broadcasting.
    Args: largest, the weight of the best path to each state instead of all together.
    """
    length, batch = num_steps(log_matrices, log_emissions), _batch(log_matrices, log_emissions, log_initial.shape[:-1])
    k = log_initial.shape[-1]
    log_initial = log_initial.expand((*batch, k))
    if length == 0 or batch.numel() == 0:
        return log_initial[..., None, :].expand((*batch, length + 1, k))
    if is_eager(log_initial, log_matrices):
        with torch.no_grad():
            return _vectors(log_initial, log_matrices, log_emissions, batch, largest)
    steps = log_matrices if log_emissions is None else log_matrices + log_emissions[..., None, :]
    (products,) = associative_scan(
        _multiply_best if largest else _multiply, (steps.expand((*batch, length, k, k)),), -3
    )
    later = _multiply_best if largest else _multiply
    (vectors,) = later((log_initial[..., None, None, :],), (products,))
    return torch.cat((log_initial[..., None, :], vectors[..., 0, :]), -2)


def _vectors(
    log_initial: Tensor, log_matrices: Tensor, log_emissions: Tensor | None, batch: torch.Size, largest: bool
) -> Tensor:
    """`chain_filter`, one step after the other."""
    chain = _flat(log_initial[..., None, :], log_matrices, log_emissions, batch)
    length, k = chain.emissions.shape[0], chain.emissions.shape[-1]
    if not largest:
        for real in _attempts(chain):
            swept = real.forward()
            if swept is not None:
                break
        if swept is None:
            vectors = log_forward(_precise(chain)).to(chain.initial)
        else:
            vectors = torch.cat((chain.initial[None], real.all(swept).to(chain.initial)))
    else:
        found = [chain.initial]
        for t in range(length):
            matrix = chain.matrices[t if chain.matrices.shape[0] > 1 else 0]
            found.append(maximum(found[-1].mT + matrix, (-2,))[:, None] + chain.emissions[t][:, None])
        vectors = torch.stack(found)
    return vectors[:, :, 0].transpose(0, 1).reshape((*batch, length + 1, k))


def log_identity(like: Tensor) -> Tensor:
    """The log of the identity. Shapes: (…, K) -> (K, K)."""
    k = like.shape[-1]
    eye = torch.eye(k, dtype=torch.bool, device=like.device)
    return torch.where(eye, 0.0, torch.full((), -torch.inf, dtype=like.dtype, device=like.device))


def num_steps(log_matrices: Tensor, log_emissions: Tensor | None) -> int:
    """The number of steps T of a chain, whose tensors may have one for all."""
    if log_emissions is None:
        return log_matrices.shape[-3]
    return int(broadcast_shape(log_matrices.shape[-3:-2], log_emissions.shape[-2:-1])[0])


def is_eager(*tensors: Tensor) -> bool:
    """Whether values may be looked at: no compiler, tracer or function transform is at work, no data is missing."""
    return not is_recorded() and has_values(*tensors)


def has_values(*tensors: Tensor) -> bool:
    """Whether operations are done as they are called, on data; they may be written down meanwhile, to be done again."""
    if torch.compiler.is_compiling() or get_proxy_mode() is not None:
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    return not any(isinstance(x, FakeTensor) or x.is_meta for x in tensors)


def _batch(log_matrices: Tensor, log_emissions: Tensor | None, *shapes: torch.Size) -> torch.Size:
    shapes = (*shapes, log_matrices.shape[:-3])
    if log_emissions is not None:
        shapes = (*shapes, log_emissions.shape[:-2])
    return broadcast_shape(*shapes)


def _through(
    rows: Tensor, log_matrices: Tensor, log_emissions: Tensor | None, batch: torch.Size, log_final: Tensor | None = None
) -> Tensor:
    """Rows of log weights times the chain, and times a vector where one is given.

    Shapes: (*, R, K), …, (*, R, K) -> (*batch, R, K), or (*batch, R) with a final vector for each row.
    """
    length = num_steps(log_matrices, log_emissions)
    tensors = [x for x in (rows, log_matrices, log_emissions, log_final) if x is not None]
    may_sweep = is_native(*tensors) if is_recorded() else True
    if length > 1 and batch.numel() and may_sweep and has_values(*tensors):
        count = _num_blocks(length, batch.numel(), rows.shape[-1])
        if count > 1 and not is_native(*tensors):
            return _by_blocks(rows, log_matrices, log_emissions, batch, log_final, length, count)
        found: Tensor = _Through.apply(batch, rows, log_matrices, log_emissions, log_final)  # type: ignore[no-untyped-call]
        return found
    if length and all(x.is_meta for x in tensors) and get_proxy_mode() is None:
        product = _rehearsed(rows, log_matrices, log_emissions, batch)
    else:
        product = log_matmul(rows, _tree(log_matrices, log_emissions)) if length else rows
    product = product.expand((*batch, *product.shape[-2:]))
    return product if log_final is None else log_sum_exp(product + log_final, (-1,))


def _rehearsed(rows: Tensor, log_matrices: Tensor, log_emissions: Tensor | None, batch: torch.Size) -> Tensor:
    """Something of the product's shape, made of tensors without data, that takes the memory of an eager product."""
    steps = num_steps(log_matrices, log_emissions)
    vectors = rows.exp()[..., None, :, :].expand(*batch, steps, *rows.shape[-2:])
    if log_emissions is not None:
        vectors = vectors * log_emissions.exp()[..., None, :]
    return (vectors * log_matrices.exp().sum()).sum(-3)


def _flat(rows: Tensor, log_matrices: Tensor, log_emissions: Tensor | None, batch: torch.Size) -> Chain:
    """The chain with one batch dim after time. Shapes: as `Chain` has them."""
    n, k, length = batch.numel(), log_matrices.shape[-1], num_steps(log_matrices, log_emissions)
    initial = rows.expand((*batch, *rows.shape[-2:])).reshape(n, *rows.shape[-2:])
    if math.prod(log_matrices.shape[:-3]) == 1:
        matrices = log_matrices.reshape(-1, 1, k, k)
    else:
        matrices = log_matrices.expand((*batch, *log_matrices.shape[-3:])).reshape(n, -1, k, k).transpose(0, 1)
    if log_emissions is None:
        emissions = matrices.new_zeros(()).expand(length, n, k)
    else:
        emissions = log_emissions.expand((*batch, length, k)).reshape(n, length, k).transpose(0, 1)
    dtype = torch.promote_types(torch.promote_types(initial.dtype, matrices.dtype), emissions.dtype)
    return Chain(initial, matrices, emissions).to(dtype)


def _num_blocks(length: int, n: int, k: int) -> int:
    """How many blocks to cut each of n chains into. A block's product costs K times as much as one vector's way."""
    if length < SHORT:
        return 1
    count = round(min(length**0.5, CALL / (n * k * k)))  # as many as one call's cost has room for
    return count if count > 2 else 1


def _by_blocks(
    rows: Tensor,
    log_matrices: Tensor,
    log_emissions: Tensor | None,
    batch: torch.Size,
    log_final: Tensor | None,
    length: int,
    count: int,
) -> Tensor:
    """Products of blocks of equal length, then rows through those products, then through the steps left over."""
    size, k = length // count, log_matrices.shape[-1]
    cut = size * count

    def blocks(x: Tensor, dim: int) -> Tensor:
        return x.unsqueeze(dim) if x.shape[dim] == 1 else x.narrow(dim, 0, cut).unflatten(dim, (count, size))

    def rest(x: Tensor, dim: int) -> Tensor:
        return x if x.shape[dim] == 1 else x.narrow(dim, cut, length - cut)

    inner = None if log_emissions is None else blocks(log_emissions, -2)
    matrices = blocks(log_matrices, -3)
    shape = _batch(matrices, inner)
    products = _through(log_identity(log_matrices), matrices, inner, shape)
    products = products.expand((*shape[:-1], count, k, k))
    if cut == length:
        return _through(rows, products, None, batch, log_final)
    rows = _through(rows, products, None, batch)
    after = None if log_emissions is None else rest(log_emissions, -2)
    return _through(rows, rest(log_matrices, -3), after, batch, log_final)


def _tree(log_matrices: Tensor, log_emissions: Tensor | None, largest: bool = False) -> Tensor:
    """The product by an associative tree, in log space. Shapes: -> (*, K, K)."""
    if log_emissions is not None:
        log_matrices = log_matrices + log_emissions[..., None, :]
    if log_matrices.shape[-3] == 0:
        return log_identity(log_matrices).expand((*log_matrices.shape[:-3], *log_matrices.shape[-2:]))
    (product,) = associative_reduce(_multiply_best if largest else _multiply, (log_matrices,), -3)
    return product[..., 0, :, :]


def _multiply(left: Bundle, right: Bundle) -> Bundle:
    return (log_matmul(left[0], right[0]),)


def _multiply_best(left: Bundle, right: Bundle) -> Bundle:
    return (maximum(left[0][..., :, None, :] + right[0].mT[..., None, :, :], (-1,)),)


class _Through(torch.autograd.Function):
    """`_through`, one step after the other; the way back takes vectors only."""

    @staticmethod
    def forward(
        ctx: Any,
        batch: torch.Size,
        rows: Tensor,
        log_matrices: Tensor,
        log_emissions: Tensor | None,
        log_final: Tensor | None,
    ) -> Tensor:
        chain = _flat(rows, log_matrices, log_emissions, batch)
        ctx.batch, ctx.attempt, last = batch, None, None
        ctx.is_native = is_native(chain.initial)
        if ctx.is_native:
            ends = None if log_final is None else _ends(log_final, chain, batch)
            result, kept = sweep(chain, ends)
            tensors = (chain.initial, chain.matrices, chain.emissions, ends, *kept)
            ctx.save_for_backward(rows, log_matrices, log_emissions, log_final, *tensors, result)
            return result.view(*batch, *result.shape[1:]).to(rows.dtype, copy=True)
        for real in _attempts(chain):
            swept = real.forward()
            if swept is not None:
                last = real.last(swept)
                ctx.attempt = (real, swept) if any(ctx.needs_input_grad) else None
                break
        if last is None:
            last = log_forward(_precise(chain))[-1]
        result = last.view(*batch, *last.shape[1:])
        if log_final is not None:
            result = log_sum_exp(result + log_final, (-1,))
        ctx.save_for_backward(rows, log_matrices, log_emissions, log_final, last, result)
        return result.to(rows.dtype, copy=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors[:4]
        if torch.is_grad_enabled():
            return None, *_twice(inputs, ctx.needs_input_grad[1:], gradient)
        if ctx.is_native:
            *flat, ends, after, weights, scales, result = ctx.saved_tensors[4:]
            gradient = gradient.to(result.dtype).reshape(result.shape)
            found, by_final = sweep_back(Chain(*flat), ends, (after, weights, scales), result, gradient)
            if by_final is not None:
                by_final = by_final.view(*ctx.batch, *by_final.shape[1:])
            wanted = [x if need else None for x, need in zip(inputs, ctx.needs_input_grad[1:], strict=True)]
            return None, *by_inputs(found, by_final, ctx.batch, wanted)
        rows, log_matrices, log_emissions, log_final = inputs
        last, result = ctx.saved_tensors[4:]
        gradient = gradient.to(last.dtype).masked_fill(result.isneginf(), 0.0)
        chain = _flat(rows, log_matrices, log_emissions, ctx.batch)
        by_final = None
        if log_final is not None:
            shares = last.view(*ctx.batch, *last.shape[1:]) + log_final
            if ctx.needs_input_grad[4]:
                by_final = (shares - result.masked_fill(result.isneginf(), torch.inf)[..., None]).exp() * gradient[
                    ..., None
                ]
            ends = log_final.to(last.dtype).expand(shares.shape).reshape(last.shape)
            found = _gradients(chain, ctx.attempt, ends, gradient.reshape(*last.shape[:-1], 1))
        else:
            found = _of_weighted(chain, ctx.attempt, last, gradient.reshape(last.shape))
        return None, *by_inputs(found, by_final, ctx.batch, inputs)


def _of_weighted(chain: Chain, attempt: tuple[RealChain, Swept] | None, last: Tensor, gradient: Tensor) -> Gradients:
    """Gradients under any weighting of the log weights at the end: of a positive part and of a negative one."""
    positive = _of_positive(chain, attempt, last, gradient.clamp_min(0.0))
    if not bool((gradient < 0).any()):
        return positive
    negative = _of_positive(chain, attempt, last, (-gradient).clamp_min(0.0))
    return Gradients(
        positive.initial - negative.initial,
        positive.matrices - negative.matrices,
        positive.emissions - negative.emissions,
    )


def _of_positive(chain: Chain, attempt: tuple[RealChain, Swept] | None, last: Tensor, weights: Tensor) -> Gradients:
    log_final = torch.where(weights > 0, weights.log() - last, -torch.inf)
    return _gradients(chain, attempt, log_final, weights.sum(-1, keepdim=True))


def _ends(log_final: Tensor, chain: Chain, batch: torch.Size) -> Tensor:
    """Final log weights for each row. Shapes: -> (n, R, K)."""
    shape = chain.initial.shape
    return log_final.to(chain.initial.dtype).expand(*batch, *shape[1:]).reshape(shape)


def _twice(inputs: Sequence[Tensor | None], needed: tuple[bool, ...], gradient: Tensor) -> list[Tensor | None]:
    """The gradients as functions that can be differentiated again."""
    rows, log_matrices, log_emissions, log_final = inputs
    assert rows is not None and log_matrices is not None
    result = log_matmul(rows, _tree(log_matrices, log_emissions))
    if log_final is not None:
        result = log_sum_exp(result + log_final, (-1,))
    wanted = [x for x, need in zip(inputs, needed, strict=True) if need and x is not None]
    found = iter(torch.autograd.grad(result.expand(gradient.shape), wanted, gradient, create_graph=True))
    return [next(found) if need else None for need in needed]


def _attempts(chain: Chain) -> Iterator[RealChain]:
    yield RealChain(chain, PERIOD)
    yield RealChain(_precise(chain), 1)


def _precise(chain: Chain) -> Chain:
    return chain if chain.initial.device.type == "mps" else chain.to(torch.float64)


def _gradients(chain: Chain, attempt: tuple[RealChain, Swept] | None, log_final: Tensor, total: Tensor) -> Gradients:
    """The gradients of rows' log evidence under final log weights, each times its total."""

    def attempts() -> Iterator[tuple[RealChain, Swept | None]]:
        if attempt is not None:
            yield attempt
        for real in itertools.islice(_attempts(chain), int(attempt is not None and attempt[0].period == PERIOD), None):
            yield real, real.forward()

    for real, swept in attempts():
        if swept is None:
            continue
        dtype = real.weights.dtype
        back = real.backward(log_final.to(dtype))
        found = None if back is None else real.gradients(swept, back, total.to(dtype))
        if found is not None:
            return found
    chain = _precise(chain)
    return log_gradients(chain, log_forward(chain), log_final.to(chain.initial.dtype), total.to(chain.initial.dtype))
