"""Maps to and from simplices, ordered vectors, spheres and balls."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import transforms as torchs
from torch.nn.functional import logsigmoid, normalize, pad

from ppl.distributions import constraints
from ppl.distributions.transforms.elementwise import log_sech2, softplus
from ppl.distributions.transforms.transform import Transform


class SoftmaxTransform(Transform, torchs.SoftmaxTransform):
    """Probabilities from as many logits. Not injective: adding a number to all logits changes nothing."""

    domain = constraints.real_vector
    codomain = constraints.simplex

    def _call(self, x: Tensor) -> Tensor:
        return x.softmax(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.clamp(min=torch.finfo(y.dtype).tiny).log()

    forward_shape = inverse_shape = Transform.forward_shape


class StickBreakingTransform(Transform, torchs.StickBreakingTransform):
    """Probabilities from one number less: each breaks off its part of what is left of a stick.

    The part of entry k of n is sigmoid(x_k - log(n - k)), so that x = 0 gives equal probabilities. Worked out with
    logarithms, so that small probabilities are as accurate as large ones.
    """

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        u = x - _log_counts(x)
        rest = pad(logsigmoid(-u).cumsum(-1), (1, 0))
        log_y = pad(logsigmoid(u), (0, 1)) + rest
        return log_y.softmax(-1)  # sums to 1 already, up to rounding

    def _inverse(self, y: Tensor) -> Tensor:
        tiny = torch.finfo(y.dtype).tiny
        rest = y[..., 1:].flip(-1).cumsum(-1).flip(-1)
        x = y[..., :-1].clamp(min=tiny).log() - rest.clamp(min=tiny).log()
        return x + _log_counts(x)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        u = x - _log_counts(x)
        return (logsigmoid(u) + _counts(u) * logsigmoid(-u)).sum(-1)

    def forward_shape(self, shape: Size) -> Size:
        return _longer(self, shape, 1)

    def inverse_shape(self, shape: Size) -> Size:
        return _longer(self, shape, -1)


class SimplexToOrderedTransform(Transform):
    """Cutpoints of an ordered logistic regression from the probabilities of its categories at `anchor_point`.

    Shapes: (*batch, k) -> (*batch, k - 1); anchor_point (*batch).
    Source: Betancourt, Ordinal Regression (2019).
    """

    domain = constraints.simplex
    codomain = constraints.ordered_vector
    bijective = True

    def __init__(self, anchor_point: Tensor | float = 0.0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.anchor_point = anchor_point

    @property
    def _anchor(self) -> Any:
        anchor = self.anchor_point
        return anchor.unsqueeze(-1) if isinstance(anchor, Tensor) else anchor

    def _call(self, x: Tensor) -> Tensor:
        tiny = torch.finfo(x.dtype).tiny
        below = x[..., :-1].cumsum(-1).clamp(min=tiny)
        above = x[..., 1:].flip(-1).cumsum(-1).flip(-1).clamp(min=tiny)
        return below.log() - above.log() + self._anchor  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        y = y - self._anchor
        below = pad(pad(y.sigmoid(), (1, 0)), (0, 1), value=1.0)
        above = pad(pad((-y).sigmoid(), (0, 1)), (1, 0), value=1.0)
        # the smaller of the two tails has the more digits
        return torch.where(above[..., 1:] < below[..., :-1], above[..., :-1] - above[..., 1:], below.diff(dim=-1))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        y = y - self._anchor
        return -(logsigmoid(y) + logsigmoid(-y)).sum(-1)

    def forward_shape(self, shape: Size) -> Size:
        return _longer(self, shape, -1)

    def inverse_shape(self, shape: Size) -> Size:
        return _longer(self, shape, 1)


class OrderedTransform(Transform):
    """An increasing vector: x_0, then each entry exp(x_k) above the one before (or the next number, if that is more)."""

    domain = constraints.real_vector
    codomain = constraints.ordered_vector
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        steps = x[..., 1:].exp()
        reach = x[..., :1].abs() + pad(steps.cumsum(-1), (1, 0))[..., :-1]
        steps = torch.maximum(steps, 4 * torch.finfo(x.dtype).eps * reach.detach())
        return torch.cat([x[..., :1], steps], -1).cumsum(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.cat([y[..., :1], y.diff(dim=-1).clamp(min=torch.finfo(y.dtype).tiny).log()], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x[..., 1:].sum(-1)


class PositiveOrderedTransform(Transform):
    """An increasing positive vector: the sums of exp(x_0), …, exp(x_k) (kept apart by at least one rounding step)."""

    domain = constraints.real_vector
    codomain = constraints.positive_ordered_vector
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        steps = x.exp()
        reach = pad(steps.cumsum(-1), (1, 0))[..., :-1]
        return torch.maximum(steps, 4 * torch.finfo(x.dtype).eps * reach.detach()).cumsum(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        steps = torch.cat([y[..., :1], y.diff(dim=-1)], -1)
        return steps.clamp(min=torch.finfo(y.dtype).tiny).log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.sum(-1)


class L1BallTransform(Transform):
    """A vector whose absolute values sum to at most 1: entry k takes the share tanh(x_k) of what is left."""

    domain = constraints.real_vector
    codomain = constraints.l1_ball
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        left = pad(_log_left(x).cumsum(-1), (1, 0))[..., :-1]
        return x.tanh() * left.exp()

    def _inverse(self, y: Tensor) -> Tensor:
        tiny = torch.finfo(y.dtype).tiny
        size = y.abs()
        after = (1 - size.cumsum(-1)).clamp(min=tiny)
        before = pad(after, (1, 0), value=1.0)[..., :-1]
        return y.sign() * 0.5 * ((before + size).log() - after.log())

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return (log_sech2(x) + (_counts(x) - 1) * _log_left(x)).sum(-1)


class Normalize(Transform):
    """A vector divided by its p-norm. Not injective: its pseudoinverse is the identity."""

    domain = constraints.real_vector

    def __init__(self, p: float = 2.0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        if not p >= 0:
            raise ValueError(f"Normalize: p must not be negative, got {p}.")
        self.p = p
        self.codomain = constraints.sphere if p == 2 else type(constraints.sphere)(p)

    def _call(self, x: Tensor) -> Tensor:
        return normalize(x, p=self.p, dim=-1)

    def _inverse(self, y: Tensor) -> Tensor:
        return y

    def __repr__(self) -> str:
        return f"Normalize(p={self.p})"


class ZeroSumTransform(Transform):
    """Arrays that sum to 0 along each of the last `transform_ndims` dims, from arrays one shorter along each.

    A rotation into that subspace: distances are kept, and the log determinant, with respect to its own area, is 0. A
    Householder reflection takes the last axis to the direction of (1, …, 1).
    """

    bijective = True

    def __init__(self, transform_ndims: int = 1, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.transform_ndims = transform_ndims
        self.domain = constraints.independent(constraints.real, transform_ndims)
        self.codomain = constraints.zero_sum(transform_ndims)

    def _call(self, x: Tensor) -> Tensor:
        for dim in range(-self.transform_ndims, 0):
            size = x.shape[dim] + 1
            total = x.sum(dim, keepdim=True)
            x = torch.cat([x - total / (size + math.sqrt(size)), -total / math.sqrt(size)], dim)
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        for dim in range(-self.transform_ndims, 0):
            size = y.shape[dim]
            last = y.narrow(dim, size - 1, 1)
            y = y.narrow(dim, 0, size - 1) - last / (math.sqrt(size) + 1)
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[: x.dim() - self.transform_ndims])

    def forward_shape(self, shape: Size) -> Size:
        return self._longer(shape, 1)

    def inverse_shape(self, shape: Size) -> Size:
        return self._longer(shape, -1)

    def _longer(self, shape: Size, by: int) -> Size:
        cut = len(shape) - self.transform_ndims
        if cut < 0:
            raise ValueError(f"ZeroSumTransform: the shape {tuple(shape)} has fewer than {self.transform_ndims} dims.")
        return Size((*shape[:cut], *(size + by for size in shape[cut:])))

    def __repr__(self) -> str:
        return f"ZeroSumTransform({self.transform_ndims})"


def _counts(x: Tensor) -> Tensor:
    """n, n - 1, …, 1 along the last dim."""
    return torch.arange(x.shape[-1], 0, -1, dtype=x.dtype, device=x.device)


def _log_counts(x: Tensor) -> Tensor:
    return _counts(x).log()


def _log_left(x: Tensor) -> Tensor:
    """log(1 - |tanh(x)|)."""
    return math.log(2) - softplus(2 * x.abs())


def _longer(transform: Transform, shape: Size, by: int) -> Size:
    if len(shape) < 1 or shape[-1] + by < 0:
        raise ValueError(f"{type(transform).__name__} needs a vector, got the shape {tuple(shape)}.")
    return Size((*shape[:-1], shape[-1] + by))
