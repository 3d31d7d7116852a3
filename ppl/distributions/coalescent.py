"""Kingman's coalescent with leaves sampled at different times.

Times run forwards: leaves are late, coalescences lie before them, and a tree is followed backwards from its last leaf.
While k lineages are extant they coalesce at the rate C(k, 2) · rate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Transform
from torch.distributions.constraints import Constraint

from ppl.distributions import constraints
from ppl.distributions.distribution import ShapeLike
from ppl.distributions.family import Family
from ppl.distributions.registry import biject_to, transform_to

_VECTOR = constraints.independent(constraints.positive, 1)


class CoalescentTimesConstraint(Constraint):
    """Times of N - 1 coalescences that are possible for N leaves: at least two lineages are there before each.

    Args: ordered, whether the times must ascend.
    """

    is_discrete = False
    event_dim = 1

    def __init__(self, leaf_times: Tensor, *, ordered: bool = True) -> None:
        self.leaf_times, self.ordered = leaf_times, ordered
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each coalescence comes before enough leaves, and whether they are in order."""
        latest = self.leaf_times.sort(-1, descending=True).values[..., 1:]
        ok = (value.sort(-1, descending=True).values < latest).all(-1) & value.isfinite().all(-1)
        return ok & (value.diff(dim=-1) >= 0).all(-1) if self.ordered else ok

    def __repr__(self) -> str:
        return f"CoalescentTimesConstraint(leaf_times of shape {tuple(self.leaf_times.shape)}, ordered={self.ordered})"


class CoalescentTimesTransform(Transform):
    """From all real vectors to ascending times of coalescence.

    Backwards from the leaves, c_k = min(c_{k-1}, L_{k+1}) - exp(x_k), where L_{k+1} is the latest leaf but k.
    """

    domain = constraints.real_vector
    bijective = True

    def __init__(self, leaf_times: Tensor) -> None:
        super().__init__()
        self.leaf_times = leaf_times

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        return CoalescentTimesConstraint(self.leaf_times)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CoalescentTimesTransform) and torch.equal(self.leaf_times, other.leaf_times)

    __hash__ = object.__hash__

    def _latest(self) -> Tensor:
        return self.leaf_times.sort(-1, descending=True).values[..., 1:]

    def _call(self, x: Tensor) -> Tensor:
        latest, times = self._latest(), []
        now: Tensor | None = None
        for k in range(x.size(-1)):
            bound = latest[..., k] if now is None else torch.minimum(now, latest[..., k])
            now = bound - x[..., k].exp()
            times.append(now)
        return torch.stack(times[::-1], -1)

    def _inverse(self, y: Tensor) -> Tensor:
        times = y.flip(-1)
        latest = self._latest()
        bound = torch.cat([latest[..., :1] + 0 * times[..., :1], torch.minimum(times[..., :-1], latest[..., 1:])], -1)
        return (bound - times).log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.sum(-1)

    def forward_shape(self, shape: ShapeLike) -> Size:
        return Size(shape)

    def inverse_shape(self, shape: ShapeLike) -> Size:
        return Size(shape)


@biject_to.register(CoalescentTimesConstraint)
@transform_to.register(CoalescentTimesConstraint)
def _to_coalescent_times(constraint: CoalescentTimesConstraint) -> Transform:
    return CoalescentTimesTransform(constraint.leaf_times)


class _Coalescent(Family):
    """A coalescent of rate 1 in a time of its own, Λ(t), the integral of the rate."""

    has_rsample = True
    leaf_times: Tensor

    @property
    def support(self) -> Any:
        return CoalescentTimesConstraint(self.leaf_times)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        batches = (Size(s)[: len(s) - cls._argument_event_dim(name)] for name, s in arg_shapes.items())
        return torch.broadcast_shapes(*batches), Size((arg_shapes["leaf_times"][-1] - 1,))

    def _own_time(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Λ and the log rate at times."""
        raise NotImplementedError

    def _from_own_time(self, own: Tensor) -> Tensor:
        """The inverse of Λ."""
        raise NotImplementedError

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw backwards in time, one coalescence after the other, differentiably."""
        leaves = self._own_time(self.leaf_times)[0]
        return self._from_own_time(_draw(leaves, Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        inside = self.support.check(value)
        value = torch.where(inside.unsqueeze(-1), value, self.leaf_times.amin(-1, keepdim=True) - 1)
        leaves, _ = self._own_time(self.leaf_times)
        coals, log_rate = self._own_time(value)
        density = _log_density(leaves, coals) + log_rate.sum(-1)
        return torch.where(inside, density, -torch.inf)


class CoalescentTimes(_Coalescent):
    """The times of coalescence, ascending, of N leaves at a constant rate (Kingman 1982; Rodrigo and Felsenstein 1999).

    Shapes: leaf_times (*batch, N), N >= 2, in any order; rate (*batch), the rate of coalescence of a pair (one over the
        effective population size); value (*batch, N - 1).
    """

    arg_constraints = {"leaf_times": constraints.real_vector, "rate": constraints.positive}
    rate: Tensor

    def __init__(self, leaf_times: Tensor, rate: Tensor | float = 1.0, *, validate_args: bool | None = None) -> None:
        _check_leaves(type(self).__name__, leaf_times)
        self._take({"leaf_times": leaf_times, "rate": rate}, (leaf_times.size(-1) - 1,), validate_args)

    def _own_time(self, times: Tensor) -> tuple[Tensor, Tensor]:
        rate = self.rate.unsqueeze(-1)
        return times * rate, rate.log().expand(torch.broadcast_shapes(times.shape, rate.shape))

    def _from_own_time(self, own: Tensor) -> Tensor:
        return own / self.rate.unsqueeze(-1)


class CoalescentTimesWithRate(_Coalescent):
    """The times of coalescence, ascending, of N leaves at a rate that is constant on each unit of time.

    Shapes: leaf_times (*batch, N), N >= 2, in any order; rate_grid (*batch, T), the rate from time t to t + 1 at index t;
        before 0 it is the first, after T the last; value (*batch, N - 1).
    """

    arg_constraints = {"leaf_times": constraints.real_vector, "rate_grid": _VECTOR}
    rate_grid: Tensor

    def __init__(self, leaf_times: Tensor, rate_grid: Tensor, *, validate_args: bool | None = None) -> None:
        _check_leaves(type(self).__name__, leaf_times)
        self._take({"leaf_times": leaf_times, "rate_grid": rate_grid}, (leaf_times.size(-1) - 1,), validate_args)

    @property
    def duration(self) -> int:
        """The number of units of time, T."""
        return self.rate_grid.size(-1)

    def _starts(self) -> Tensor:
        """Λ at the start of each unit."""
        return self.rate_grid.cumsum(-1) - self.rate_grid

    def _at(self, grid: Tensor, index: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(grid.shape[:-1], index.shape[:-1])
        return grid.expand((*shape, grid.size(-1))).gather(-1, index.expand((*shape, index.size(-1))))

    def _own_time(self, times: Tensor) -> tuple[Tensor, Tensor]:
        index = times.detach().floor().clamp(0, self.duration - 1).long()
        rate = self._at(self.rate_grid, index)
        return self._at(self._starts(), index) + rate * (times - index), rate.log()

    def _from_own_time(self, own: Tensor) -> Tensor:
        starts = self._starts()
        index = (starts[..., 1:].unsqueeze(-2) <= own.unsqueeze(-1)).sum(-1)
        return index + (own - self._at(starts, index)) / self._at(self.rate_grid, index)


class CoalescentRateLikelihood:
    """The log likelihood of rates given times of coalescence, as a sum over units of time.

    Called with a rate_grid of shape (*batch, T) it returns that unit's part of the log density of
    `CoalescentTimesWithRate` at each; called with the rates of some units and `t`, their index or slice, those parts.

    Shapes: leaf_times (*batch, N), coal_times (*batch, N - 1).
    Args: duration, T.
    """

    def __init__(
        self, leaf_times: Tensor, coal_times: Tensor, duration: int, *, validate_args: bool | None = None
    ) -> None:
        _check_leaves(type(self).__name__, leaf_times)
        if coal_times.size(-1) != leaf_times.size(-1) - 1:
            raise ValueError(
                f"CoalescentRateLikelihood: {leaf_times.size(-1)} leaves have {leaf_times.size(-1) - 1} times of "
                f"coalescence, but coal_times has shape {tuple(coal_times.shape)}."
            )
        if validate_args is not False and not bool(CoalescentTimesConstraint(leaf_times).check(coal_times).all()):
            raise ValueError(
                "CoalescentRateLikelihood: coal_times must ascend, and each come before enough of leaf_times."
            )
        times, is_coal, pairs = _history(leaf_times, coal_times)
        start = torch.arange(duration, dtype=times.dtype, device=times.device)
        lower, upper = start.clone(), start + 1
        lower[:1], upper[-1:] = -torch.inf, torch.inf
        late, early = times[..., :-1].unsqueeze(-1), times[..., 1:].unsqueeze(-1)
        overlap = (torch.minimum(late, upper) - torch.maximum(early, lower)).clamp(min=0)
        self._linear = -(pairs[..., :-1].unsqueeze(-1) * overlap).sum(-2)
        index = times.floor().clamp(0, duration - 1)
        here = is_coal.unsqueeze(-1) & (index.unsqueeze(-1) == start)
        before = torch.cat([torch.ones_like(pairs[..., :1]), pairs[..., :-1]], -1).clamp(min=1)
        self._const = (here * before.log().unsqueeze(-1)).sum(-2)
        self._log = here.sum(-2).to(times.dtype)

    def __call__(self, rate_grid: Tensor, t: int | slice = slice(None)) -> Tensor:
        """The log likelihood of each unit `t` at the rates given for those."""
        return self._const[..., t] + self._linear[..., t] * rate_grid + self._log[..., t] * rate_grid.log()


def _check_leaves(name: str, leaf_times: Tensor) -> None:
    if leaf_times.dim() == 0 or leaf_times.size(-1) < 2:
        raise ValueError(
            f"{name}: leaf_times must hold two leaves at least, but its shape is {tuple(leaf_times.shape)}."
        )


def _history(leaves: Tensor, coals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All events backwards in time: their times, which are coalescences, and the pairs of lineages after each."""
    batch = torch.broadcast_shapes(leaves.shape[:-1], coals.shape[:-1])
    times = torch.cat([leaves.expand((*batch, leaves.size(-1))), coals.expand((*batch, coals.size(-1)))], -1)
    times, order = times.sort(dim=-1, descending=True, stable=True)
    is_coal = order >= leaves.size(-1)
    lineages = torch.where(is_coal, -1, 1).cumsum(-1).to(times.dtype)
    return times, is_coal, lineages * (lineages - 1) / 2


def _log_density(leaves: Tensor, coals: Tensor) -> Tensor:
    """The log density of times of coalescence at rate 1."""
    times, is_coal, pairs = _history(leaves, coals)
    before = torch.where(is_coal[..., 1:], pairs[..., :-1], 1).log().sum(-1)
    return before + (pairs[..., :-1] * times.diff(dim=-1)).sum(-1)


def _draw(leaves: Tensor, sample_shape: Size) -> Tensor:
    """Ascending times of coalescence at rate 1: each when the integrated rate since the last reaches an exponential draw."""
    leaves = leaves.sort(-1, descending=True).values
    size = leaves.size(-1)
    waits = torch.empty((*sample_shape, *leaves.shape[:-1], size - 1), dtype=leaves.dtype, device=leaves.device)
    waits = waits.exponential_()
    now = leaves[..., 0]
    number = torch.arange(1, size + 1, dtype=leaves.dtype, device=leaves.device)
    found = []
    for k in range(size - 1):
        # while the leaves 1 … j have been met and k pairs have coalesced, j - k lineages are there
        pairs = ((number - k) * (number - k - 1) / 2).clamp(min=0)[k + 1 :]
        starts = torch.minimum(leaves[..., k + 1 :], now.unsqueeze(-1))
        spent = pairs[:-1] * (starts[..., :-1] - starts[..., 1:])
        spent = torch.cat([torch.zeros_like(starts[..., :1]), spent.cumsum(-1)], -1)
        wait = waits[..., k : k + 1]
        index = (spent <= wait).sum(-1, keepdim=True) - 1
        start = starts.expand((*index.shape[:-1], starts.size(-1))).gather(-1, index)
        left = wait - spent.expand((*index.shape[:-1], spent.size(-1))).gather(-1, index)
        now = (start - left / pairs[index]).squeeze(-1)
        found.append(now)
    return torch.stack(found[::-1], -1)
