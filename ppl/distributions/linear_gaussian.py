"""What the models that a Kalman filter solves share: their parameters as tensors, and the parts of them in time."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.hidden_markov import HiddenMarkovModel, check_event_shapes, step_matrix
from ppl.distributions.multivariate_normal import MultivariateNormal
from ppl.distributions.normal_vector import normal_vector
from ppl.tensors.kalman import Filtered, StateSpace, affine_moments, kalman_filter

# the fields of StateSpace that a step has, and where their time dim is
_STEP = {
    "transition": -3,
    "transition_loc": -2,
    "transition_cov": -3,
    "observation": -3,
    "observation_loc": -2,
    "observation_cov": -3,
    "observed": -2,
}


class LinearGaussian(HiddenMarkovModel):
    """Base of linear Gaussian state space models. Not meant to be built."""

    support = constraints.independent(constraints.real, 2)
    model: StateSpace
    hidden_dim: int
    obs_dim: int

    def __init__(
        self,
        initial_dist: Any,
        transition_matrix: Tensor,
        transition_dist: Any,
        observation_matrix: Tensor,
        observation_dist: Any,
        validate_args: bool | None = None,
        duration: int | None = None,
    ) -> None:
        name = type(self).__name__
        initial = normal_vector(name, "initial_dist", initial_dist)
        transition = normal_vector(name, "transition_dist", transition_dist)
        observation = normal_vector(name, "observation_dist", observation_dist, masks=True)
        transition_matrix = step_matrix(name, "transition_matrix", transition_matrix, initial.loc)
        observation_matrix = step_matrix(name, "observation_matrix", observation_matrix, initial.loc)
        self.hidden_dim, self.obs_dim = n, d = tuple(observation_matrix.shape[-2:])
        check_event_shapes(
            name,
            n,
            d,
            initial_dist=((n,), initial_dist.event_shape),
            transition_matrix=((n, n), transition_matrix.shape[-2:]),
            transition_dist=((n,), transition_dist.event_shape),
            observation_dist=((d,), observation_dist.event_shape),
        )
        steps = {
            "transition_matrix": transition_matrix.shape[:-2],
            "transition_dist": transition_dist.batch_shape,
            "observation_matrix": observation_matrix.shape[:-2],
            "observation_dist": observation_dist.batch_shape,
        }
        self._take_shapes(initial_dist.batch_shape, steps, duration, (d,), validate_args)
        model = StateSpace(
            initial.loc,
            initial.covariance,
            transition_matrix,
            transition.loc,
            transition.covariance,
            observation_matrix,
            observation.loc,
            observation.covariance,
            observation.observed,
        )
        self.model = replace(model, **{k: x[None] if x.dim() == -dim - 1 else x for k, dim, x in steps_of(model)})

    @property
    def initial_dist(self) -> MultivariateNormal:
        """The law of the state before the first transition."""
        return MultivariateNormal(self.model.initial_loc, self.model.initial_cov, validate_args=False)

    @property
    def transition_matrix(self) -> Tensor:
        """From state to mean of the next one. Shapes: (*batch, T, n, n)."""
        return self.model.transition

    @property
    def transition_dist(self) -> MultivariateNormal:
        """The noise of the transitions, time as its last batch dim."""
        return MultivariateNormal(self.model.transition_loc, self.model.transition_cov, validate_args=False)

    @property
    def observation_matrix(self) -> Tensor:
        """From state to mean of the observation. Shapes: (*batch, T, n, d)."""
        return self.model.observation

    @property
    def observation_dist(self) -> MultivariateNormal:
        """The noise of the observations, time as its last batch dim; without masks, which `observed` holds."""
        return MultivariateNormal(self.model.observation_loc, self.model.observation_cov, validate_args=False)

    @property
    def observed(self) -> Tensor | None:
        """False where an entry of an observation is missing; None where none is. Shapes: (*batch, T, d)."""
        return self.model.observed

    def _counted(self, value: Tensor) -> Tensor:
        if self.model.observed is None:
            return value
        return torch.where(self.model.observed, value, torch.zeros_like(value))

    def _checked(self, value: Tensor) -> Tensor:
        """The value, repeated over the batch."""
        if self._validate_args:
            self._validate_sample(value)
        return self._whole(value)

    def _filtered(self, value: Tensor) -> Filtered:
        """What the checked value says about the states; without observations, nothing about none of them."""
        if value.shape[-2]:
            return kalman_filter(self.model, value)
        zero = value.sum(-1)
        n = self.hidden_dim
        batch = value.shape[:-2]
        return Filtered(value.new_zeros((*batch, 0, n)), value.new_zeros((*batch, 0, n, n)), zero, zero, zero)

    def _last_state(self, filtered: Filtered) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the last state, which is the initial one where nothing was observed."""
        if filtered.loc.shape[-2]:
            return filtered.loc[..., -1, :], filtered.cov[..., -1, :, :]
        batch = filtered.loc.shape[:-2]
        m, n = self.model, self.hidden_dim
        return m.initial_loc.expand((*batch, n)), m.initial_cov.expand((*batch, n, n))

    def _noise(self, loc: Tensor, cov: Tensor, shape: tuple[int, ...]) -> Tensor:
        noise = torch.randn((*shape, loc.shape[-1], 1), dtype=loc.dtype, device=loc.device)
        spread: Tensor = torch.linalg.cholesky(cov) @ noise
        return loc + spread.squeeze(-1)

    def _from(self, model: StateSpace, batch_shape: Size, duration: int | None) -> Self:
        """This model with other parameters."""
        new = copy.copy(self)
        new.model, new.duration = model, duration
        new._batch_shape = batch_shape
        new._event_shape = Size((1 if duration is None else duration, self.obs_dim))
        return new

    def _split(self, data: Tensor) -> tuple[Self, StateSpace, int | None]:
        """The model of the first steps, as many as `data` has; the parameters after them; how many are left.

        Raises: ValueError where nothing is left.
        """
        count = data.shape[-2]
        if self.duration is not None and count >= self.duration:
            raise ValueError(
                f"{type(self).__name__}.prefix_condition: data of shape {tuple(data.shape)} has {count} steps, and the "
                f"whole sequence only {self.duration}: nothing is left. Pass fewer steps, or a longer duration."
            )
        before = {k: x[window(dim, 0, count)] for k, dim, x in steps_of(self.model) if x.shape[dim] != 1}
        after = {k: x[window(dim, count, None)] for k, dim, x in steps_of(self.model) if x.shape[dim] != 1}
        left = None if self.duration is None else self.duration - count
        first = self._from(replace(self.model, **before), self.batch_shape, count)
        return first, replace(self.model, **after), left

    def _observation_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of each observation. Shapes: (*batch, T, d), (*batch, T, d, d)."""
        loc, cov = affine_moments(self.model, self._length())
        h = self.model.observation
        mean = (loc[..., None, :] @ h).squeeze(-2) + self.model.observation_loc
        return mean, h.mT @ cov @ h + self.model.observation_cov

    @property
    def mean(self) -> Tensor:
        return self._observation_moments()[0].expand(self.shape())


def steps_of(model: StateSpace) -> list[tuple[str, int, Tensor]]:
    """The parameters of a step: name, time dim, tensor."""
    return [(k, dim, getattr(model, k)) for k, dim in _STEP.items() if getattr(model, k) is not None]


def window(dim: int, start: int, stop: int | None) -> tuple[Any, ...]:
    """The index that takes a range of a negative dim."""
    return (..., slice(start, stop), *[slice(None)] * (-dim - 1))
