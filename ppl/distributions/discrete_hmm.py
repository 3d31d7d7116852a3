"""Hidden Markov models with finitely many states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.categorical import Categorical
from ppl.distributions.distribution import ShapeLike, expanded
from ppl.distributions.hidden_markov import HiddenMarkovModel, fill_missing, step_matrix, unmasked
from ppl.distributions.lifting import lift
from ppl.tensors.log_matrix import chain_maps, draw_index, log_matmul
from ppl.tensors.scan import Bundle, associative_reduce, associative_scan
from ppl.tensors.semiring import log_sum_exp

#: With more states, the K³ operations a step of a parallel scan cost more than the K² of one step after the other.
PARALLEL_STATES = 32


class DiscreteHMM(HiddenMarkovModel):
    """Sequences of observations whose laws depend on the states of a finite Markov chain.

    For t = 1 … T, z_0 ~ Categorical(initial_logits), z_t ~ Categorical(transition_logits[z_{t-1}]) and
    x_t ~ observation_dist[z_t]: the rightmost batch dim of `observation_dist` is the state. It may be masked where
    observations are missing.

    Densities, filters and smoothers take O(log T) parallel steps over K × K matrices, or for more than 32 states T steps
    over vectors; draws take O(log T). Sums over states are exact wherever their terms lie, so nothing underflows.

    Args: initial_logits and transition_logits, not necessarily normalised; duration, the number of steps T where no
        parameter has a time dim.
    Shapes: initial_logits (*batch, K), transition_logits (*batch, T, K, K), observation_dist (*batch, T, K, | event);
        a draw (*batch, | T, *event).
    """

    arg_constraints = {"initial_logits": constraints.real_vector, "transition_logits": constraints.real_vector}

    def __init__(
        self,
        initial_logits: Tensor,
        transition_logits: Tensor,
        observation_dist: Any,
        validate_args: bool | None = None,
        duration: int | None = None,
    ) -> None:
        if not isinstance(initial_logits, Tensor) or initial_logits.dim() < 1:
            raise ValueError("DiscreteHMM: argument 'initial_logits' must be a tensor of shape (*batch, K).")
        transition_logits = step_matrix("DiscreteHMM", "transition_logits", transition_logits, initial_logits)
        k = initial_logits.shape[-1]
        if tuple(transition_logits.shape[-2:]) != (k, k):
            raise ValueError(
                f"DiscreteHMM: argument 'transition_logits' must end in ({k}, {k}), as initial_logits has {k} states, but "
                f"its shape is {tuple(transition_logits.shape)}."
            )
        observation_dist = lift(observation_dist)
        if observation_dist.batch_shape[-1:] not in ((k,), (1,)):
            raise ValueError(
                f"DiscreteHMM: the rightmost batch dim of 'observation_dist' must be the state, of size {k}, but its batch "
                f"shape is {tuple(observation_dist.batch_shape)}."
            )
        self.initial_logits = initial_logits - initial_logits.logsumexp(-1, True)
        self.transition_logits = transition_logits - transition_logits.logsumexp(-1, True)
        self.observation_dist = observation_dist
        steps = {
            "transition_logits": transition_logits.shape[:-2],
            "observation_dist (without its states)": observation_dist.batch_shape[:-1],
        }
        self._take_shapes(initial_logits.shape[:-1], steps, duration, observation_dist.event_shape, validate_args)

    @constraints.dependent_property
    def support(self) -> Any:
        """Sequences of what `observation_dist` draws."""
        inner: Any = self.observation_dist.support
        return constraints.independent(inner, self.event_dim - inner.event_dim)

    def _counted(self, value: Tensor) -> Tensor:
        # a value counts if any state counts it; what none does may be anything
        d = self.observation_dist
        return fill_missing(d, value.unsqueeze(-1 - len(d.event_shape))).select(-1 - len(d.event_shape), 0)

    def _likelihoods(self, value: Tensor) -> Tensor:
        """Log densities of each observation in each state. Shapes: value (*batch, T, *event) -> (*batch, T, K)."""
        if self._validate_args:
            self._validate_sample(value)
        value = self._whole(value)
        d = self.observation_dist
        log_probs: Tensor = d.log_prob(value.unsqueeze(-1 - len(d.event_shape)))
        cut = value.dim() - self.event_dim
        return log_probs.expand((*value.shape[: cut + 1], self.initial_logits.shape[-1]))

    def _steps(self, likelihoods: Tensor) -> Tensor:
        """log p(z_t, x_t | z_{t-1}). Shapes: (*batch, T, K) -> (*batch, T, K, K)."""
        return torch.add(self.transition_logits, likelihoods[..., None, :])

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density, summed over all paths of states. Shapes: (*sample, *batch, T, *event) -> (…)."""
        return log_sum_exp(self._final(value), (-1,))

    def _final(self, value: Tensor) -> Tensor:
        """log p(z_T, all observations). Shapes: value -> (*sample, *batch, K)."""
        likelihoods = self._likelihoods(value)
        if likelihoods.shape[-2] == 0:
            return self.initial_logits.expand((*likelihoods.shape[:-2], likelihoods.shape[-1]))
        if likelihoods.shape[-1] > PARALLEL_STATES:
            return self._forward(likelihoods)[..., -1, :]
        (product,) = associative_reduce(_multiply, (self._steps(likelihoods),), -3)
        return log_matmul(self.initial_logits[..., None, :], product[..., 0, :, :]).squeeze(-2)

    def _forward(self, likelihoods: Tensor) -> Tensor:
        """log p(z_t, x_1 … x_t). Shapes: (*batch, T, K) -> (*batch, T, K)."""
        steps = self._steps(likelihoods)
        if likelihoods.shape[-1] > PARALLEL_STATES:
            return _walk(self.initial_logits, steps)
        first = log_matmul(self.initial_logits[..., None, None, :], steps[..., :1, :, :])
        (products,) = associative_scan(
            _multiply, (torch.cat((first.expand_as(steps[..., :1, :, :]), steps[..., 1:, :, :]), -3),), -3
        )
        return products[..., 0, :]

    def filter(self, value: Tensor) -> Categorical:
        """The law of the last state given the observations. Shapes: (*sample, *batch, T, *event) -> K states."""
        return Categorical(logits=self._final(value), validate_args=False)

    def smooth(self, value: Tensor) -> Categorical:
        """The law of each state z_1 … z_T given all observations, as a batch (*sample, *batch, T)."""
        likelihoods = self._likelihoods(value)
        if likelihoods.shape[-2] == 0:
            return Categorical(logits=likelihoods, validate_args=False)
        steps = self._steps(likelihoods)
        nothing = torch.zeros_like(likelihoods[..., :1, :])
        if likelihoods.shape[-1] > PARALLEL_STATES:
            later = _walk(nothing[..., 0, :], steps[..., 1:, :, :].flip(-3).mT).flip(-2)
        else:
            (products,) = associative_scan(_multiply, (steps[..., 1:, :, :],), -3, reverse=True)
            later = log_sum_exp(products, (-1,))
        backward = torch.cat((later, nothing), -2)
        return Categorical(logits=self._forward(likelihoods) + backward, validate_args=False)

    def sample_posterior(self, value: Tensor, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw paths of the states z_1 … z_T given all observations.

        Shapes: value (*sample, *batch, T, *event) -> (*sample_shape, *sample, *batch, T), of dtype int64.
        """
        with torch.no_grad():
            likelihoods = self._likelihoods(value)
            if likelihoods.shape[-2] == 0:
                return likelihoods.new_zeros((*sample_shape, *likelihoods.shape[:-1]), dtype=torch.int64)
            forward = self._forward(likelihoods)
            # from each possible next state, a draw of this one; composed backwards from the last
            back = forward[..., :-1, None, :] + self._time(self.transition_logits, forward.shape[-2])[..., 1:, :, :].mT
            last = forward[..., -1:, None, :].expand((*forward.shape[:-2], 1, *back.shape[-1:] * 2))
            maps = draw_index(torch.cat((back, last), -3), tuple(sample_shape))
            (paths,) = associative_scan(lambda left, right: chain_maps(right, left), (maps,), -2, reverse=True)
            return paths[..., 0]

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw sequences of observations."""
        with torch.no_grad():
            length, k = self._length(), self.initial_logits.shape[-1]
            batch = self.batch_shape
            transition = self._time(self.transition_logits, length).expand((*batch, length, k, k))
            if length:
                first = log_matmul(self.initial_logits[..., None, None, :], transition[..., :1, :, :])
                transition = torch.cat((first.expand((*batch, 1, k, k)), transition[..., 1:, :, :]), -3)
            (paths,) = associative_scan(chain_maps, (draw_index(transition, tuple(sample_shape)),), -2)
            states = paths[..., 0]
            emitter = expanded(lift(unmasked(self.observation_dist)), Size((*batch, length, k)))
            drawn = emitter.sample(Size(sample_shape))
            event = len(emitter.event_shape)
            index = states.reshape(states.shape + (1,) * (1 + event))
            index = index.expand((*states.shape, 1, *emitter.event_shape))
            return drawn.gather(drawn.dim() - 1 - event, index).squeeze(-1 - event)

    @staticmethod
    def _time(matrix: Tensor, length: int) -> Tensor:
        """A matrix with a time dim of some length."""
        matrix = matrix[None] if matrix.dim() == 2 else matrix
        return matrix.expand((*matrix.shape[:-3], length, *matrix.shape[-2:]))


def _walk(state: Tensor, steps: Tensor) -> Tensor:
    """The log weights of the states after each step, one after the other. Shapes: (*, K), (*, T, K, K) -> (*, T, K)."""
    found = []
    for step in steps.unbind(-3):
        state = log_matmul(state[..., None, :], step).squeeze(-2)
        found.append(state)
    return torch.stack(found, -2) if found else steps[..., 0]


def _multiply(left: Bundle, right: Bundle) -> Bundle:
    return (log_matmul(left[0], right[0]),)
