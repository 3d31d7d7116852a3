"""Chains of jointly Gaussian factors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import ShapeLike
from ppl.distributions.gaussian_hmm import GaussianHMM
from ppl.distributions.hidden_markov import HiddenMarkovModel
from ppl.distributions.multivariate_normal import MultivariateNormal
from ppl.distributions.normal_vector import normal_vector
from ppl.tensors.gaussian import Gaussian, moments_to_gaussian, suffix_products


class GaussianMRF(HiddenMarkovModel):
    """Sequences whose density is proportional to a product of Gaussian factors along a chain of hidden states.

        p(x) ∝ ∫ initial(z_0) ∏_t transition((z_{t-1}, z_t)) · observation((z_t, x_t)) dz

    The factors are `MultivariateNormal` or `Normal(...).to_event(1)` over the two vectors one after the other. Read from
    its last factor to its first, the chain is a `GaussianHMM` with other parameters for each step: `directed`.

    Args: duration, the number of steps T where no factor has a time dim.
    Shapes: initial_dist (*batch, | n), transition_dist (*batch, T, | 2n), observation_dist (*batch, T, | n + d); a draw
        (*batch, | T, d).
    """

    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        initial_dist: Any,
        transition_dist: Any,
        observation_dist: Any,
        validate_args: bool | None = None,
        duration: int | None = None,
    ) -> None:
        n = initial_dist.event_shape[-1]
        if tuple(transition_dist.event_shape) != (2 * n,):
            raise ValueError(
                f"GaussianMRF: argument 'transition_dist' must have event shape {(2 * n,)}, two states of size {n}, but "
                f"it has {tuple(transition_dist.event_shape)}."
            )
        d = observation_dist.event_shape[-1] - n
        if d < 1:
            raise ValueError(
                f"GaussianMRF: argument 'observation_dist' must have an event larger than a state of size {n}, which "
                f"comes first, but its event shape is {tuple(observation_dist.event_shape)}."
            )
        self.hidden_dim, self.obs_dim = n, d
        self.initial_dist, self.transition_dist = initial_dist, transition_dist
        self.observation_dist = observation_dist
        steps = {"transition_dist": transition_dist.batch_shape, "observation_dist": observation_dist.batch_shape}
        self._take_shapes(initial_dist.batch_shape, steps, duration, (d,), validate_args)
        self._initial, self._transition, self._observation = (
            moments_to_gaussian(*normal_vector("GaussianMRF", name, factor)[:2])
            for name, factor in (
                ("initial_dist", initial_dist),
                ("transition_dist", transition_dist),
                ("observation_dist", observation_dist),
            )
        )

    def directed(self, duration: int | None = None) -> GaussianHMM:
        """The same law as a Markov process: p(z_0), p(z_t | z_{t-1}) and p(x_t | z_t), all factors considered.

        Args: duration, for a chain that has none of its own.
        """
        length = self._length() if duration is None else duration
        if length == 0:
            raise ValueError("GaussianMRF: a chain of no steps has nothing to be directed.")
        n = self.hidden_dim
        observation = self._observation
        pairs = self._transition + observation.marginalize(right=self.obs_dim).pad(left=n)
        batch = torch.broadcast_shapes(pairs.batch_shape, (*self._initial.batch_shape, 1), (length,))
        pairs = pairs.expand(batch)
        later = suffix_products(pairs).marginalize(right=n)  # of z_{t-1}: all factors from t on
        initial = self._initial + later.at(0)
        steps = pairs + _shifted(later).pad(left=n)
        transition = _conditional(steps, n)
        emission = _conditional(observation, n)
        hmm = GaussianHMM(
            MultivariateNormal(*initial.moments(), validate_args=False),
            transition[0],
            MultivariateNormal(*transition[1:], validate_args=False),
            emission[0],
            MultivariateNormal(*emission[1:], validate_args=False),
            validate_args=False,
            duration=length,
        )
        found: GaussianHMM = hmm.expand(self.batch_shape)
        return found

    def _of(self, value: Tensor) -> GaussianHMM:
        if self._validate_args:
            self._validate_sample(value)
        return self.directed(value.shape[-2])

    def log_prob(self, value: Tensor) -> Tensor:
        """The normalised log density. Shapes: (*sample, *batch, T, d) -> (*sample, *batch)."""
        return self._of(value).log_prob(value)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw, differentiably."""
        return self.directed().rsample(sample_shape)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def filter(self, value: Tensor) -> MultivariateNormal:
        """The law of the last state given the observations."""
        return self._of(value).filter(value)

    def smooth(self, value: Tensor) -> MultivariateNormal:
        """The law of each state z_1 … z_T given all observations, as a batch along time."""
        return self._of(value).smooth(value)

    def rsample_posterior(self, value: Tensor, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw paths of the states z_1 … z_T given all observations, differentiably."""
        return self._of(value).rsample_posterior(value, sample_shape)

    def prefix_condition(self, data: Tensor) -> GaussianHMM:
        """The law of the rest of a sequence given its beginning, as a `GaussianHMM`."""
        return self.directed().prefix_condition(data)

    @property
    def mean(self) -> Tensor:
        return self.directed().mean

    @property
    def variance(self) -> Tensor:
        return self.directed().variance

    def entropy(self) -> Tensor:
        """Expected -log density."""
        return self.directed().entropy()


def _shifted(later: Gaussian) -> Gaussian:
    """What comes after z_t, for t = 1 … T: nothing after the last."""

    def shift(x: Tensor, dim: int) -> Tensor:
        return torch.cat((x.narrow(dim, 1, x.shape[dim] - 1), torch.zeros_like(x.narrow(dim, 0, 1))), dim)

    return Gaussian(shift(later.log_normalizer, -1), shift(later.info_vec, -2), shift(later.precision, -3))


def _conditional(joint: Gaussian, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """The law of what follows the first n entries, given those as a row z: z @ matrix + N(loc, covariance)."""
    chol = torch.linalg.cholesky(joint.precision[..., n:, n:])
    matrix = -torch.cholesky_solve(joint.precision[..., n:, :n], chol).mT
    loc = torch.cholesky_solve(joint.info_vec[..., n:, None], chol).squeeze(-1)
    return matrix, loc, torch.cholesky_inverse(chol)
