"""Several one-dimensional sequences side by side."""

from __future__ import annotations

from typing import Any, cast

from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import Distribution, ShapeLike, expanded
from ppl.distributions.hidden_markov import HiddenMarkovModel
from ppl.distributions.lifting import Wraps


class IndependentHMM(Wraps):
    """A batch of hidden Markov models, each of one observed number a step, read as one model of vectors.

    Shapes: base_dist (*batch, d, | T, 1); a draw (*batch, | T, d).
    Raises: ValueError for a base without a batch dim, or whose observations are not of size 1.
    """

    arg_constraints = {}

    def __init__(self, base_dist: Any) -> None:
        if len(base_dist.event_shape) != 2 or base_dist.event_shape[-1] != 1 or not base_dist.batch_shape:
            raise ValueError(
                "IndependentHMM: argument 'base_dist' must have batch shape (…, d) and event shape (T, 1), but they are "
                f"{tuple(base_dist.batch_shape)} and {tuple(base_dist.event_shape)}."
            )
        self.base_dist = base_dist
        shape = Size((base_dist.event_shape[0], base_dist.batch_shape[-1]))
        super().__init__(base_dist.batch_shape[:-1], shape, validate_args=False)
        self._validate_args = bool(getattr(base_dist, "_validate_args", False))

    @property
    def duration(self) -> int | None:
        """The number of steps; None where it is left open."""
        return cast(int | None, cast(Any, self.base_dist).duration)

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def support(self) -> Any:
        """Sequences of vectors of what the base draws."""
        return constraints.independent(_entrywise(self.base_dist.support), 2)

    def _event_shape_of(self, value: Tensor) -> Size:
        if self.duration is not None or value.dim() < 2:
            return self.event_shape
        return Size((value.shape[-2], self.event_shape[-1]))

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        """The same distribution repeated to a larger batch shape, without copying."""
        base = cast(Distribution, self.base_dist)
        return IndependentHMM(expanded(base, Size((*batch_shape, base.batch_shape[-1]))))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density, summed over the sequences. Shapes: (*sample, *batch, T, d) -> (*sample, *batch)."""
        self._check_form(value)
        return self.base_dist.log_prob(_apart(value)).sum(-1)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw, differentiably."""
        return self.base_dist.rsample(Size(sample_shape)).squeeze(-1).mT

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw without gradients."""
        return self.base_dist.sample(Size(sample_shape)).squeeze(-1).mT

    def prefix_condition(self, data: Tensor) -> IndependentHMM:
        """The law of the rest of a sequence given its beginning. Shapes: data (*batch, t, d)."""
        return IndependentHMM(cast(Any, self.base_dist).prefix_condition(_apart(data)))

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean.squeeze(-1).mT

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance.squeeze(-1).mT

    def entropy(self) -> Tensor:
        """The sum of the sequences' entropies."""
        return self.base_dist.entropy().sum(-1)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        return HiddenMarkovModel.infer_shapes(**arg_shapes)


def _apart(value: Tensor) -> Tensor:
    """One sequence a batch entry. Shapes: (*, T, d) -> (*, d, T, 1)."""
    return value.mT[..., None]


def _entrywise(support: Any) -> Any:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support
