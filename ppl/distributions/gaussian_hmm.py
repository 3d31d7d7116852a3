"""Linear Gaussian state space models."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import ShapeLike
from ppl.distributions.lifting import lift
from ppl.distributions.linear_gaussian import LinearGaussian
from ppl.distributions.multivariate_normal import MultivariateNormal
from ppl.distributions.normal_vector import normal_vector
from ppl.tensors.kalman import absorb, affine_path, smoother


class GaussianHMM(LinearGaussian):
    """Sequences of noisy linear images of a linear Gaussian Markov process.

    With states and observations as rows, for t = 1 … T:

        z_t = z_{t-1} @ transition_matrix + transition_dist,    z_0 ~ initial_dist
        x_t = z_t @ observation_matrix + observation_dist

    The dists are `MultivariateNormal` or `Normal(...).to_event(1)`. `observation_dist` may be masked, where whole
    observations are missing (`.mask(m)`) or single entries (`Normal(...).mask(m).to_event(1)`); their values, which may
    be NaN, do not count.

    Densities, filters and draws take O(log T) parallel steps.

    Args: duration, the number of steps T where no parameter has a time dim.
    Shapes: initial_dist (*batch, | n), transition_matrix (*batch, T, | n, n), transition_dist (*batch, T, | n),
        observation_matrix (*batch, T, | n, d), observation_dist (*batch, T, | d); a draw (*batch, | T, d).
    """

    has_rsample = True

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of what is not missing. Shapes: (*sample, *batch, T, d) -> (*sample, *batch)."""
        return self._filtered(self._checked(value)).log_density()

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw, differentiably; missing observations are drawn, too."""
        m = self.model
        batch = (*sample_shape, *self.batch_shape)
        initial = self._noise(m.initial_loc, m.initial_cov, batch)
        steps = (*batch, self._length())
        states = affine_path(m.transition, self._noise(m.transition_loc, m.transition_cov, steps), initial)
        noise = self._noise(m.observation_loc, m.observation_cov, steps)
        return (states[..., None, :] @ m.observation).squeeze(-2) + noise

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def filter(self, value: Tensor) -> MultivariateNormal:
        """The law of the last state given the observations. Shapes: (*sample, *batch, T, d) -> event (n,)."""
        loc, cov = self._last_state(self._filtered(self._checked(value)))
        return MultivariateNormal(loc, cov, validate_args=False)

    def smooth(self, value: Tensor) -> MultivariateNormal:
        """The law of each state z_1 … z_T given all observations.

        Shapes: value (*sample, *batch, T, d) -> batch (*sample, *batch, T), event (n,).
        """
        loc, cov = smoother(self.model, self._filtered(self._checked(value))).moments()
        return MultivariateNormal(loc, cov, validate_args=False)

    def rsample_posterior(self, value: Tensor, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw paths of the states z_1 … z_T given all observations, differentiably.

        Shapes: value (*sample, *batch, T, d) -> (*sample_shape, *sample, *batch, T, n).
        """
        value = self._checked(value)
        return smoother(self.model, self._filtered(value)).rsample(tuple(sample_shape))

    def prefix_condition(self, data: Tensor) -> Self:
        """The law of the rest of a sequence given its beginning: a forecast.

        Shapes: data (*batch, t, d) -> event shape (T - t, d).
        Raises: ValueError where nothing is left.
        """
        first, rest, left = self._split(data)
        data = first._checked(data)
        loc, cov = first._last_state(first._filtered(data))
        return self._from(replace(rest, initial_loc=loc, initial_cov=cov), data.shape[:-2], left)

    def conjugate_update(self, other: Any) -> tuple[Self, Tensor]:
        """Weigh the sequences by a normal density whose steps are independent of one another.

        Returns the updated model and a log normaliser, with
        self.log_prob(x) + other.log_prob(x) = updated.log_prob(x) + log_normaliser.

        Args: other, of event shape (T, d): `Normal(...).to_event(2)` or `MultivariateNormal(...).to_event(1)`.
        Raises: ValueError for anything else, and for a model with missing observations.
        """
        if self.model.observed is not None:
            raise ValueError("GaussianHMM.conjugate_update: the model has missing observations; unmask them first.")
        loc, cov = _steps_of(other)
        model, log_normalizer = absorb(self.model, self._whole(loc), cov)
        batch = torch.broadcast_shapes(self.batch_shape, log_normalizer.shape)
        return self._from(model, batch, loc.shape[-2]), log_normalizer

    @property
    def variance(self) -> Tensor:
        return self._observation_moments()[1].diagonal(dim1=-2, dim2=-1).expand(self.shape())

    def entropy(self) -> Tensor:
        """Expected -log density; the covariances of the predictions do not depend on what is observed."""
        filtered = self._filtered(self.model.observation_loc.new_zeros(self.shape()))
        return 0.5 * (filtered.log_det + filtered.count * (1 + math.log(2 * math.pi))).sum(-1)


def _steps_of(other: Any) -> tuple[Tensor, Tensor]:
    """Means and covariances of a normal sequence of independent steps. Shapes: (*batch, T, d), (*batch, T, d, d)."""
    if isinstance(other, torch.distributions.Independent) and len(other.event_shape) == 2:
        ndims = other.reinterpreted_batch_ndims
        steps: Any = lift(other.base_dist).to_event(ndims - 1)
        found = normal_vector("GaussianHMM.conjugate_update", "other", steps)
        return found.loc, found.covariance
    raise ValueError(
        "GaussianHMM.conjugate_update: argument 'other' must be Normal(...).to_event(2) or MultivariateNormal(...)"
        f".to_event(1), but it is {type(other).__name__}."
    )
