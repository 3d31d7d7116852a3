"""What hidden Markov models share: a time axis as the first event dim, and steps whose parameters may vary along it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import Distribution, ShapeLike, broadcast_shape, expanded
from ppl.distributions.lifting import lift
from ppl.distributions.masked import MaskedDistribution, mask_value


class HiddenMarkovModel(Distribution):
    """Base of sequences that hidden states generate. Not meant to be built.

    The initial state comes before the first transition, so that there are as many transitions as observations. The
    parameters of a step have time as their rightmost batch dim; of size 1, or absent, it means the same step at all
    times. If that holds for all of them, `duration` says how long a draw is; without it nothing can be drawn, and
    values of any length have a density.
    """

    arg_constraints = {}
    duration: int | None
    observation_dist: Any

    def _take_shapes(
        self,
        initial: ShapeLike,
        steps: dict[str, ShapeLike],
        duration: int | None,
        event_shape: ShapeLike,
        validate_args: bool | None,
    ) -> None:
        """Work out batch shape and duration; `steps` has the batch shapes (time included) of the parameters of a step.

        Raises: ValueError naming the parameters whose shapes do not fit, or the duration.
        """
        name = type(self).__name__
        try:
            shape = broadcast_shape(Size((*initial, 1)), *(Size(s) for s in steps.values()))
        except RuntimeError:
            shapes = ", ".join(f"{k} {tuple(s)}" for k, s in steps.items())
            raise ValueError(
                f"{name}: the batch dims of its parameters, time last, do not broadcast: {shapes}, and the initial "
                f"state's batch shape {tuple(initial)} with a time dim of size 1."
            ) from None
        if not shape:
            shape = Size((1,))
        if duration is None and shape[-1] != 1:
            duration = shape[-1]
        elif duration is not None and shape[-1] not in (1, duration):
            raise ValueError(
                f"{name}: duration={duration}, but the parameters have {shape[-1]} time steps; leave duration out, or "
                "pass parameters whose time dim has size 1."
            )
        self.duration = duration
        length = 1 if duration is None else duration
        super().__init__(shape[:-1], Size((length, *event_shape)), validate_args)

    def _event_shape_of(self, value: Tensor) -> Size:
        if self.duration is not None or value.dim() < self.event_dim:
            return self.event_shape
        return Size((value.shape[-self.event_dim], *self.event_shape[1:]))

    def _counted(self, value: Tensor) -> Tensor:
        return fill_missing(self.observation_dist, value)

    def _length(self) -> int:
        if self.duration is None:
            raise ValueError(
                f"{type(self).__name__}: to draw from a model whose steps are all the same, say how many there are: "
                "pass duration=…."
            )
        return self.duration

    def _over_time(self, d: Any) -> Any:
        """The distribution of a step, one for each batch entry and time step."""
        return expanded(lift(unmasked(d)), Size((*self.batch_shape, self._length())))

    def _whole(self, value: Tensor) -> Tensor:
        """The value repeated over the batch."""
        cut = value.dim() - self.event_dim
        batch = torch.broadcast_shapes(value.shape[:cut], self.batch_shape)
        return value.expand(batch + value.shape[cut:])

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        """The same distribution repeated to a larger batch shape, without copying."""
        new = copy.copy(self)
        new._batch_shape = Size(batch_shape)
        return new

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        raise ValueError(f"{cls.__name__}: its shapes follow from other distributions; build one and read its shapes.")


def unmasked(d: Any) -> Any:
    """The distribution under a mask, or under the masks below its event dims."""
    if isinstance(d, MaskedDistribution):
        return unmasked(d.base_dist)
    base = getattr(d, "base_dist", None)
    if isinstance(d, torch.distributions.Independent) and isinstance(base, MaskedDistribution):
        return lift(unmasked(base)).to_event(d.reinterpreted_batch_ndims)
    return d


def fill_missing(d: Any, value: Tensor) -> Tensor:
    """The value with what a mask of `d` hides moved to a point in the support."""
    if isinstance(d, MaskedDistribution) and isinstance(d.given_mask, Tensor):
        return mask_value(d, value, d.given_mask)
    if isinstance(d, torch.distributions.Independent):
        return fill_missing(d.base_dist, value)
    return value


def step_matrix(name: str, argument: str, matrix: Any, like: Tensor) -> Tensor:
    """A matrix argument as a tensor; ValueError for fewer than two dims."""
    tensor = matrix if isinstance(matrix, Tensor) else torch.as_tensor(matrix, dtype=like.dtype, device=like.device)
    if tensor.dim() < 2:
        raise ValueError(f"{name}: argument '{argument}' must be a matrix, but its shape is {tuple(tensor.shape)}.")
    return tensor


def check_event_shapes(name: str, hidden: int, observed: int, **found: tuple[tuple[int, ...], Size]) -> None:
    """Check event shapes against the sizes of a state and an observation; `found` is (expected, got) by argument."""
    for argument, (expected, got) in found.items():
        if expected != tuple(got):
            raise ValueError(
                f"{name}: argument '{argument}' must have event shape {expected}, given states of size {hidden} and "
                f"observations of size {observed} (from observation_matrix), but it has {tuple(got)}."
            )
