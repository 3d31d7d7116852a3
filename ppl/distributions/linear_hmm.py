"""Linear state space models with noise of any kind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from ppl.distributions.distribution import ShapeLike, expanded, forceable
from ppl.distributions.gaussian_hmm import GaussianHMM
from ppl.distributions.hidden_markov import HiddenMarkovModel, check_event_shapes, step_matrix
from ppl.distributions.independent import sum_rightmost
from ppl.distributions.lifting import lift
from ppl.distributions.normal import LogNormal
from ppl.distributions.transformed import TransformedDistribution
from ppl.tensors.kalman import affine_path


class LinearHMM(HiddenMarkovModel):
    """Sequences of noisy linear images of a linear Markov process, with noise of any kind, such as heavy-tailed.

    As `GaussianHMM`, but `initial_dist`, `transition_dist` and `observation_dist` may be any distributions over
    vectors, and `observation_dist` may be a `TransformedDistribution` (or `LogNormal(...).to_event(1)`), whose transforms
    then apply to the whole observation, z_t @ observation_matrix + noise.

    Draws always exist. The density has a closed form only where all three are normal (under the transforms), and
    `log_prob` raises NotImplementedError elsewhere: reparametrise the site, so that what is left of the noise given
    auxiliary variables is normal, or write the states as sites of their own.

    Shapes: initial_dist (*batch, | n), transition_matrix (*batch, T, | n, n), transition_dist (*batch, T, | n),
        observation_matrix (*batch, T, | n, d), observation_dist (*batch, T, | d); a draw (*batch, | T, d).
    """

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
        like = initial_dist.mean if not isinstance(transition_matrix, Tensor) else transition_matrix
        transition_matrix = step_matrix("LinearHMM", "transition_matrix", transition_matrix, like)
        observation_matrix = step_matrix("LinearHMM", "observation_matrix", observation_matrix, like)
        self.hidden_dim, self.obs_dim = n, d = tuple(observation_matrix.shape[-2:])
        self.initial_dist, self.transition_dist = lift(initial_dist), lift(transition_dist)
        self.transition_matrix, self.observation_matrix = transition_matrix, observation_matrix
        self.observation_dist, self.transforms = _split_transforms(observation_dist)
        check_event_shapes(
            "LinearHMM",
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

    def _is_reparameterised(self) -> bool:
        return all(d.has_rsample for d in (self.initial_dist, self.transition_dist, self.observation_dist))

    has_rsample: Any = forceable(property(_is_reparameterised))

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def support(self) -> Any:
        """Sequences of vectors: all of them, or the image of the transforms."""
        last: Any = self.transforms[-1].codomain if self.transforms else constraints.real
        return constraints.independent(last, 2 - last.event_dim)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw, differentiably. Raises NotImplementedError where a noise has no such sampler."""
        return self._draw("rsample", Size(sample_shape))

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw without gradients."""
        with torch.no_grad():
            return self._draw("sample", Size(sample_shape))

    def _draw(self, method: str, shape: Size) -> Tensor:
        initial = getattr(expanded(self.initial_dist, self.batch_shape), method)(shape)
        noise = getattr(self._over_time(self.transition_dist), method)(shape)
        matrix = self.transition_matrix if self.transition_matrix.dim() > 2 else self.transition_matrix[None]
        states = affine_path(matrix, noise, initial)
        x: Tensor = (states[..., None, :] @ self.observation_matrix).squeeze(-2)
        x = x + getattr(self._over_time(self.observation_dist), method)(shape)
        for transform in self.transforms:
            x = transform(x)
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density where all noises are normal.

        Raises: NotImplementedError where they are not.
        """
        if self._validate_args:
            self._validate_sample(value)
        try:
            hmm = GaussianHMM(
                self.initial_dist,
                self.transition_matrix,
                self.transition_dist,
                self.observation_matrix,
                self.observation_dist,
                False,
                self.duration,
            )
        except ValueError as error:
            raise NotImplementedError(
                "LinearHMM has a log density only where initial_dist, transition_dist and observation_dist are normal "
                "(MultivariateNormal or Normal(...).to_event(1)). Reparametrise the site so that they are, or make its "
                f"states sites of their own. ({error})"
            ) from error
        jacobian: Tensor | float = 0.0
        for transform in reversed(self.transforms):
            before = transform.inv(value)
            log_det = transform.log_abs_det_jacobian(before, value)
            jacobian = jacobian + sum_rightmost(log_det, 2 - transform.codomain.event_dim)
            value = before
        log_prob: Tensor = hmm.expand(self.batch_shape).log_prob(value)
        return log_prob - jacobian


def _split_transforms(d: Any) -> tuple[Any, tuple[Transform, ...]]:
    """The noise before its transforms, and the transforms, which act on one observation or on its entries."""
    if type(d) in (TransformedDistribution, torch.distributions.TransformedDistribution):
        return lift(d.base_dist), tuple(d.transforms)
    base = getattr(d, "base_dist", None)
    kinds = (TransformedDistribution, torch.distributions.TransformedDistribution, LogNormal)
    if isinstance(d, torch.distributions.Independent) and type(base) in kinds:
        inner: Any = base
        return lift(inner.base_dist).to_event(d.reinterpreted_batch_ndims), tuple(inner.transforms)
    return lift(d), ()
