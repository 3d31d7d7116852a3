"""Linear state space models whose noises share an unknown scale: heavy-tailed sequences with an exact filter."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import ShapeLike, expanded
from ppl.distributions.gamma import Gamma
from ppl.distributions.linear_gaussian import LinearGaussian
from ppl.distributions.multivariate_normal import MultivariateNormal
from ppl.tensors.kalman import Filtered, affine_path


class GammaGaussianHMM(LinearGaussian):
    """A `GaussianHMM` all of whose covariances are divided by one s ~ `scale_dist`, a Gamma.

    The whole sequence is a multivariate Student t. A Kalman filter's means do not depend on s; with its squared
    Mahalanobis distances q, summed over time, and N observed numbers, s | x ~ Gamma(α + N/2, β + q/2).

    Args: scale_dist, the law of the multiplier s of all precisions. The others as in `GaussianHMM`.
    Shapes: scale_dist (*batch); the others as in `GaussianHMM`.
    """

    has_rsample = True

    def __init__(
        self,
        scale_dist: Any,
        initial_dist: Any,
        transition_matrix: Tensor,
        transition_dist: Any,
        observation_matrix: Tensor,
        observation_dist: Any,
        validate_args: bool | None = None,
        duration: int | None = None,
    ) -> None:
        if not isinstance(scale_dist, torch.distributions.Gamma):
            raise ValueError(
                f"GammaGaussianHMM: argument 'scale_dist' must be a Gamma, but it is {type(scale_dist).__name__}."
            )
        super().__init__(
            initial_dist,
            transition_matrix,
            transition_dist,
            observation_matrix,
            observation_dist,
            validate_args,
            duration,
        )
        self.concentration, self.rate = scale_dist.concentration, scale_dist.rate
        try:
            self._batch_shape = torch.broadcast_shapes(self.batch_shape, scale_dist.batch_shape)
        except RuntimeError:
            raise ValueError(
                f"GammaGaussianHMM: argument 'scale_dist' has batch shape {tuple(scale_dist.batch_shape)}, which does not "
                f"broadcast with the other parameters' {tuple(self.batch_shape)}."
            ) from None

    @property
    def scale_dist(self) -> Gamma:
        """The law of the multiplier of all precisions."""
        return Gamma(self.concentration, self.rate, validate_args=False)

    def _posterior(self, filtered: Filtered) -> tuple[Tensor, Tensor]:
        """Concentration and rate of the multiplier given the observations."""
        return self.concentration + 0.5 * filtered.count.sum(-1), self.rate + 0.5 * filtered.square.sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of what is not missing. Shapes: (*sample, *batch, T, d) -> (*sample, *batch)."""
        filtered = self._filtered(self._checked(value))
        concentration, _ = self._posterior(filtered)
        a, b = self.concentration, self.rate
        normal = -0.5 * (filtered.log_det + filtered.count * math.log(2 * math.pi)).sum(-1)
        # α log β - (α + N/2) log(β + q/2), without cancellation where α is large
        ratio = torch.log1p(0.5 * filtered.square.sum(-1) / b)
        return (
            normal
            + torch.lgamma(concentration)
            - torch.lgamma(a)
            - concentration * ratio
            - (concentration - a) * b.log()
        )

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw, differentiably; missing observations are drawn, too."""
        m = self.model
        batch = (*sample_shape, *self.batch_shape)
        scale = expanded(self.scale_dist, self.batch_shape)
        root = scale.rsample(Size(sample_shape)).rsqrt()[..., None]
        zero = torch.zeros_like
        initial = m.initial_loc + root * self._noise(zero(m.initial_loc), m.initial_cov, batch)
        steps, root = (*batch, self._length()), root[..., None]
        noise = m.transition_loc + root * self._noise(zero(m.transition_loc), m.transition_cov, steps)
        states = affine_path(m.transition, noise, initial)
        noise = m.observation_loc + root * self._noise(zero(m.observation_loc), m.observation_cov, steps)
        return (states[..., None, :] @ m.observation).squeeze(-2) + noise

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def filter(self, value: Tensor) -> tuple[Gamma, MultivariateNormal]:
        """The laws of the multiplier s, and of the last state, given the observations.

        The covariance of the second is the state's at s = 1; given s it is that divided by s.
        """
        filtered = self._filtered(self._checked(value))
        loc, cov = self._last_state(filtered)
        scale = Gamma(*self._posterior(filtered), validate_args=False)
        return scale, MultivariateNormal(loc, cov, validate_args=False)

    def prefix_condition(self, data: Tensor) -> Self:
        """The law of the rest of a sequence given its beginning: a forecast.

        Shapes: data (*batch, t, d) -> event shape (T - t, d).
        Raises: ValueError where nothing is left.
        """
        first, rest, left = self._split(data)
        data = first._checked(data)
        filtered = first._filtered(data)
        loc, cov = first._last_state(filtered)
        new = self._from(replace(rest, initial_loc=loc, initial_cov=cov), data.shape[:-2], left)
        new.concentration, new.rate = first._posterior(filtered)
        return new

    @property
    def mean(self) -> Tensor:
        """The mean, which is infinite or undefined (NaN) where the concentration is at most ½."""
        mean = self._observation_moments()[0].expand(self.shape())
        return torch.where(self.concentration[..., None, None] > 0.5, mean, torch.nan)

    @property
    def variance(self) -> Tensor:
        """The variance, infinite where the concentration is at most 1 (NaN at most ½)."""
        scaled = self._observation_moments()[1].diagonal(dim1=-2, dim2=-1).expand(self.shape())
        a, b = self.concentration[..., None, None], self.rate[..., None, None]
        heavy = torch.where(a > 0.5, torch.inf, torch.nan)
        return torch.where(a > 1, scaled * b / torch.where(a > 1, a - 1, torch.ones_like(a)), heavy)
