"""Random matchings of sources to destinations."""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

import torch
from torch import Size, Tensor
from torch.distributions.constraints import Constraint

from ppl.distributions import constraints
from ppl.distributions.distribution import ShapeLike
from ppl.distributions.family import Family
from ppl.tensors import assignment

_MOST_STATES = 3**10
_MOST_VALUES = 50_000


class _MatchingConstraint(Constraint):
    """Vectors of the destinations of sources, in which each destination stands equally often."""

    is_discrete = True
    event_dim = 1
    capacity: ClassVar[int]

    def __init__(self, num_destinations: int) -> None:
        self.num_destinations = num_destinations
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether all destinations are equally full."""
        n = self.num_destinations
        if value.dim() == 0 or value.size(-1) != n * self.capacity:
            return torch.zeros(value.shape[:-1], dtype=torch.bool, device=value.device)
        hits = value.unsqueeze(-1) == torch.arange(n, device=value.device)
        return (hits.sum(-2) == self.capacity).all(-1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_destinations})"


class OneOneMatchingConstraint(_MatchingConstraint):
    """Permutations of 0 … N - 1."""

    capacity = 1


class OneTwoMatchingConstraint(_MatchingConstraint):
    """Vectors of length 2N in which each of 0 … N - 1 stands twice."""

    capacity = 2


class _Matching(Family):
    """What the two matchings share; `capacity` is the number of sources to a destination."""

    arg_constraints = {"logits": constraints.independent(constraints.real, 2)}
    has_enumerate_support = True
    capacity: ClassVar[int]
    constraint: ClassVar[type[_MatchingConstraint]]
    logits: Tensor

    def __init__(self, logits: Tensor, *, bp_iters: int | None = None, validate_args: bool | None = None) -> None:
        if logits.dim() < 2 or logits.size(-2) != self.capacity * logits.size(-1) or logits.size(-1) == 0:
            raise ValueError(
                f"{type(self).__name__}: logits must have {self.capacity} rows (sources) for each column (destination), "
                f"but their shape is {tuple(logits.shape)}."
            )
        if bp_iters is not None and not (isinstance(bp_iters, int) and bp_iters > 0):
            raise ValueError(
                f"{type(self).__name__}: bp_iters must be a positive integer or None, but got {bp_iters!r}."
            )
        self.num_sources, self.num_destins = logits.shape[-2:]
        self.bp_iters = bp_iters
        self._take({"logits": logits}, (self.num_sources,), validate_args)

    @property
    def num_nodes(self) -> int:
        """The number of destinations."""
        return self.num_destins

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        shape = Size(arg_shapes["logits"])
        return shape[:-2], shape[-2:-1]

    @property
    def support(self) -> Any:
        return self.constraint(self.num_destins)

    def _check_size(self, what: str) -> None:
        if (self.capacity + 1) ** self.num_destins > _MOST_STATES:
            raise ValueError(
                f"{type(self).__name__}: {what} of {self.num_destins} destinations takes time exponential in their number, "
                f"at most {int(math.log(_MOST_STATES) / math.log(self.capacity + 1))} are allowed. For the density, give "
                "bp_iters (such as 10) to approximate the partition function by belief propagation."
            )

    @property
    def log_partition_function(self) -> Tensor:
        """The log sum of the weights of all matchings, or its Bethe approximation where `bp_iters` is given."""
        if self.bp_iters is not None:
            return assignment.bethe(self.logits, self.capacity, self.bp_iters)
        self._check_size("the exact partition function")
        return assignment.count(self.logits, self.capacity)[-1].squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        is_matching = self.support.check(value)
        index = torch.where(is_matching.unsqueeze(-1), value.long(), 0)
        shape = torch.broadcast_shapes(index.shape[:-1], self.batch_shape)
        logits = self.logits.expand(shape + self.logits.shape[-2:])
        chosen = logits.gather(-1, index.expand((*shape, index.size(-1))).unsqueeze(-1)).squeeze(-1)
        return torch.where(is_matching, chosen.sum(-1) - self.log_partition_function, -torch.inf)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw exactly, whether or not the density is approximated.

        Raises: ValueError for sizes that are too large for that.
        """
        self._check_size("an exact draw")
        with torch.no_grad():
            return assignment.draw(self.logits, self.capacity, tuple(sample_shape))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All matchings, in lexicographic order.

        Raises: ValueError where there are more than 50 000.
        """
        count = math.factorial(self.num_sources) // math.factorial(self.capacity) ** self.num_destins
        if count > _MOST_VALUES:
            raise ValueError(
                f"{type(self).__name__} of {self.num_destins} destinations has {count} values, too many to enumerate; at "
                f"most {_MOST_VALUES} are."
            )
        rows = [j for j in range(self.num_destins) for _ in range(self.capacity)]
        values = torch.tensor(_arrangements(rows), device=self.logits.device)
        values = values.reshape((-1, *(1 for _ in self.batch_shape), self.num_sources))
        return values.expand((-1, *self.batch_shape, self.num_sources)) if expand else values

    def mode(self) -> Tensor:  # type: ignore[override]
        """The matching of greatest weight, of any size, one matrix of the batch after the other."""
        columns = self.logits.repeat_interleave(self.capacity, -1)
        return assignment.best_assignment(columns) // self.capacity


class OneOneMatching(_Matching):
    """A permutation, with probability proportional to exp Σ_i logits[i, value_i].

    The partition function is a permanent: exact by dynamic programming over subsets, for up to 15 nodes; or with `bp_iters`
    rounds of belief propagation Bethe's approximation, a lower bound of it, at any size.

    Shapes: logits (*batch, N, N); value (*batch, N), the destination of each source.
    Raises: ValueError for more nodes where `bp_iters` is None.
    """

    capacity = 1
    constraint = OneOneMatchingConstraint


class OneTwoMatching(_Matching):
    """A matching of 2N sources to N destinations, two to each, with probability proportional to
    exp Σ_i logits[i, value_i].

    The partition function is exact, by dynamic programming over how full the destinations are, for up to 10 of them; or with
    `bp_iters` rounds of belief propagation Bethe's approximation, at any size.

    Shapes: logits (*batch, 2N, N); value (*batch, 2N), the destination of each source.
    Raises: ValueError for more destinations where `bp_iters` is None.
    """

    capacity = 2
    constraint = OneTwoMatchingConstraint


def _arrangements(items: list[int]) -> list[tuple[int, ...]]:
    """The distinct orders of a sorted list, lexicographically."""
    if len(set(items)) == len(items):
        return list(itertools.permutations(items))
    if not items:
        return [()]
    found: list[tuple[int, ...]] = []
    for item in sorted(set(items)):
        rest = list(items)
        rest.remove(item)
        found += [(item, *tail) for tail in _arrangements(rest)]
    return found
