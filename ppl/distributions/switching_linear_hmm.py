"""Linear Gaussian state space models whose parameters switch with a hidden Markov chain of regimes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, NamedTuple, Self

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.categorical import Categorical
from ppl.distributions.distribution import ShapeLike, broadcast_shape
from ppl.distributions.hidden_markov import HiddenMarkovModel, check_event_shapes, step_matrix
from ppl.distributions.linear_gaussian import steps_of, window
from ppl.distributions.multivariate_normal import MultivariateNormal
from ppl.distributions.normal_vector import NormalVector, normal_vector
from ppl.tensors.kalman import StateSpace
from ppl.tensors.switching import (
    Mixture,
    Regimes,
    possible,
    switching_density,
    switching_draw,
    switching_filter,
    switching_moments,
    switching_smoother,
)

#: The largest number of paths of regimes that an exact density sums over.
MAX_PATHS = 2**20


class SwitchingPath(NamedTuple):
    """A draw with all that made it. Shapes: (*, T) of dtype int64, (*, T, n), (*, T, d)."""

    regimes: Tensor
    states: Tensor
    observations: Tensor


class SwitchingLinearHMM(HiddenMarkovModel):
    """Sequences of noisy linear images of a linear Gaussian process whose matrices and noises depend on a Markov chain.

    With regimes z of S values, and states x and observations y as rows, for t = 1 … T:

        z_0 ~ Categorical(initial_logits),                         x_0 ~ initial_mvn[z_0]
        z_t ~ Categorical(transition_logits[t, z_{t-1}])
        x_t = x_{t-1} @ transition_matrix[t, z_t] + transition_mvn[t, z_t]
        y_t = x_t @ observation_matrix[t, z_t] + observation_mvn[t, z_t]

    so that the regime after a transition governs both the state's step to its time and what is seen there. The mvns are
    `MultivariateNormal` or `Normal(...).to_event(1)`; their rightmost batch dim, and that of the matrices before their own
    two, is the regime, and the one left of it time. Either may have size 1 or be absent, for parameters that all regimes
    or steps share. `observation_mvn` may be masked, as in `GaussianHMM`, where observations are missing.

    The density is a sum over the paths of regimes, one term each. With `exact`, all are kept: S^T of them where the
    regimes share `initial_mvn`, otherwise S^(T+1), at most 2^20. Without, the normals that end in one regime are merged
    before each step into one of the same mean and covariance, in O(T S²). Merging is exact where they agree: for S = 1,
    for T = 1 (and T = 2 if `initial_mvn` is shared), and where the regimes differ in `transition_logits` alone.
    Otherwise the log density is approximate, and not quite normalised; the closer, the better the observations tell the
    regimes apart, or the states.

    Args:
        initial_logits, transition_logits: log weights, not necessarily normalised; -inf for what cannot be.
        exact: whether to sum over all paths.
        duration: the number of steps T where no parameter has a time dim.
    Shapes: initial_logits (*batch, S), initial_mvn (*batch, S, | n), transition_logits (*batch, T, S, S),
        transition_matrix (*batch, T, S, | n, n), transition_mvn (*batch, T, S, | n), observation_matrix
        (*batch, T, S, | n, d), observation_mvn (*batch, T, S, | d); a draw (*batch, | T, d).
    Raises: ValueError for shapes that do not fit, and for more paths than an exact density can sum over.
    Source: Murphy (1998), "Switching Kalman filters"; the merging is GPB(2), or Kim's (1994) filter.
    """

    arg_constraints = {"initial_logits": constraints.real_vector, "transition_logits": constraints.real_vector}
    support = constraints.independent(constraints.real, 2)
    has_rsample = False

    def __init__(
        self,
        initial_logits: Tensor,
        initial_mvn: Any,
        transition_logits: Tensor,
        transition_matrix: Tensor,
        transition_mvn: Any,
        observation_matrix: Tensor,
        observation_mvn: Any,
        exact: bool = False,
        validate_args: bool | None = None,
        duration: int | None = None,
    ) -> None:
        name = "SwitchingLinearHMM"
        if not isinstance(initial_logits, Tensor) or initial_logits.dim() < 1:
            raise ValueError(f"{name}: argument 'initial_logits' must be a tensor of shape (*batch, S).")
        transition_logits = step_matrix(name, "transition_logits", transition_logits, initial_logits)
        size = initial_logits.shape[-1]
        if tuple(transition_logits.shape[-2:]) != (size, size):
            raise ValueError(
                f"{name}: argument 'transition_logits' must end in ({size}, {size}), as initial_logits has {size} regimes, "
                f"but its shape is {tuple(transition_logits.shape)}."
            )
        initial = normal_vector(name, "initial_mvn", initial_mvn)
        transition = normal_vector(name, "transition_mvn", transition_mvn)
        observation = normal_vector(name, "observation_mvn", observation_mvn, masks=True)
        transition_matrix = step_matrix(name, "transition_matrix", transition_matrix, initial.loc)
        observation_matrix = step_matrix(name, "observation_matrix", observation_matrix, initial.loc)
        self.hidden_dim, self.obs_dim = n, d = tuple(observation_matrix.shape[-2:])
        check_event_shapes(
            name,
            n,
            d,
            initial_mvn=((n,), initial_mvn.event_shape),
            transition_matrix=((n, n), transition_matrix.shape[-2:]),
            transition_mvn=((n,), transition_mvn.event_shape),
            observation_mvn=((d,), observation_mvn.event_shape),
        )
        batches = {
            "initial_mvn": Size(initial_mvn.batch_shape),
            "transition_matrix": transition_matrix.shape[:-2],
            "transition_mvn": Size(transition_mvn.batch_shape),
            "observation_matrix": observation_matrix.shape[:-2],
            "observation_mvn": Size(observation_mvn.batch_shape),
        }
        _check_regimes(size, batches)
        start = broadcast_shape(initial_logits.shape[:-1], batches.pop("initial_mvn")[:-1])
        steps: dict[str, ShapeLike] = {f"{k} (without regimes)": batch[:-1] for k, batch in batches.items()}
        steps["transition_logits"] = transition_logits.shape[:-2]
        self.exact = exact
        chain = transition_logits - transition_logits.logsumexp(-1, True)
        space = StateSpace(
            *_start_by_regime(initial),
            _regime_first(transition_matrix, 2, size),
            _regime_first(transition.loc, 1, size),
            _regime_first(transition.covariance, 2, size),
            _regime_first(observation_matrix, 2, size),
            _regime_first(observation.loc, 1, size),
            _regime_first(observation.covariance, 2, size),
            None if observation.observed is None else _regime_first(observation.observed, 1, size),
        )
        self.model = Regimes(
            space, initial_logits - initial_logits.logsumexp(-1, True), chain if chain.dim() > 2 else chain[None]
        )
        self._take_shapes(start, steps, duration, (d,), validate_args)
        if self.duration is not None:
            self._check_paths(self.duration)

    @property
    def initial_logits(self) -> Tensor:
        """Log probabilities of the regime before the first step. Shapes: (*batch, S)."""
        return self.model.initial

    @property
    def transition_logits(self) -> Tensor:
        """Log probabilities of the next regime by the one before it. Shapes: (*batch, T, S, S)."""
        return self.model.transition

    @property
    def initial_mvn(self) -> MultivariateNormal:
        """The law of the state before the first step, regime as its last batch dim."""
        return MultivariateNormal(self.model.space.initial_loc, self.model.space.initial_cov, validate_args=False)

    @property
    def transition_matrix(self) -> Tensor:
        """From state to mean of the next one. Shapes: (*batch, T, S, n, n)."""
        return self.model.space.transition.movedim(-4, -3)

    @property
    def transition_mvn(self) -> MultivariateNormal:
        """The noise of the transitions, time and regime as its last batch dims."""
        return _mvn(self.model.space.transition_loc, self.model.space.transition_cov)

    @property
    def observation_matrix(self) -> Tensor:
        """From state to mean of the observation. Shapes: (*batch, T, S, n, d)."""
        return self.model.space.observation.movedim(-4, -3)

    @property
    def observation_mvn(self) -> MultivariateNormal:
        """The noise of the observations, time and regime as its last batch dims; without masks."""
        return _mvn(self.model.space.observation_loc, self.model.space.observation_cov)

    @property
    def num_regimes(self) -> int:
        """How many regimes there are."""
        return self.model.initial.shape[-1]

    def _check_paths(self, length: int) -> None:
        """Raise ValueError where an exact density would sum over too many paths."""
        count = self.num_regimes ** (length if self.model.shares_start else length + 1)
        if self.exact and count > MAX_PATHS:
            raise ValueError(
                f"SwitchingLinearHMM: exact=True would keep {count} normals, one for each path of {self.num_regimes} "
                f"regimes over {length} steps, and the limit is {MAX_PATHS}. Pass exact=False to merge them at each step, "
                "or shorter sequences."
            )

    def _counted(self, value: Tensor) -> Tensor:
        observed = self.model.space.observed
        if observed is None:
            return value
        return torch.where(observed.any(-3), value, torch.zeros_like(value))

    def _checked(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        self._check_paths(value.shape[-2])
        return self._whole(value)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of what is not missing. Shapes: (*sample, *batch, T, d) -> (*sample, *batch)."""
        return switching_density(self.model, self._checked(value), not self.exact)

    def filter(self, value: Tensor) -> tuple[Categorical, MultivariateNormal]:
        """The laws of the last regime, and of the last state in each regime, given the observations.

        The second has the mean and covariance of the state given the last regime, which is itself a mixture of normals.
        Both are exact with `exact`.

        Shapes: value (*sample, *batch, T, d) -> batch (*sample, *batch) of S regimes; batch (*sample, *batch, S), event
            (n,).
        """
        value = self._checked(value)
        found = switching_filter(self.model, value, not self.exact)
        batch, s, n = value.shape[:-2], self.num_regimes, self.hidden_dim
        state = MultivariateNormal(
            found.loc[..., 0, :, :, 0].expand((*batch, s, n)),
            found.cov[..., 0, :, :, :].expand((*batch, s, n, n)),
            validate_args=False,
        )
        logits = possible(found.log_weight[..., 0, :].log_softmax(-1)).expand((*batch, s))
        return Categorical(logits=logits, validate_args=False), state

    def smooth(self, value: Tensor) -> Categorical:
        """The law of each step's regime given all observations, as a batch (*sample, *batch, T).

        Exact with `exact`; otherwise as far as a later observation tells of a regime only by way of the next regime.
        """
        value = self._checked(value)
        shape = (*value.shape[:-1], self.num_regimes)
        if value.shape[-2] == 0:
            return Categorical(logits=value.new_zeros(shape), validate_args=False)
        logits = possible(switching_smoother(self.model, value, not self.exact)).expand(shape)
        return Categorical(logits=logits, validate_args=False)

    def prefix_condition(self, data: Tensor) -> Self:
        """The law of the rest of a sequence given its beginning: a forecast.

        What the data say of the state is merged into one normal for each regime, with `exact` too.

        Shapes: data (*batch, t, d) -> event shape (T - t, d).
        Raises: ValueError where nothing is left.
        """
        count = data.shape[-2]
        if self.duration is not None and count >= self.duration:
            raise ValueError(
                f"SwitchingLinearHMM.prefix_condition: data of shape {tuple(data.shape)} has {count} steps, and the whole "
                f"sequence only {self.duration}: nothing is left. Pass fewer steps, or a longer duration."
            )
        steps, chain = self.model.space, self.model.transition
        varying = [(k, dim, x) for k, dim, x in steps_of(steps) if x.shape[dim] != 1]
        varies = chain.shape[-3] != 1
        before = replace(steps, **{k: x[window(dim, 0, count)] for k, dim, x in varying})
        after = replace(steps, **{k: x[window(dim, count, None)] for k, dim, x in varying})
        first = self._from(Regimes(before, self.model.initial, chain[..., :count, :, :] if varies else chain), count)
        regime, state = first.filter(data)
        rest = Regimes(
            replace(after, initial_loc=state.loc, initial_cov=state.covariance_matrix),
            regime.logits,
            chain[..., count:, :, :] if varies else chain,
        )
        new = self._from(rest, None if self.duration is None else self.duration - count)
        new._batch_shape = state.batch_shape[:-1]
        return new

    def _from(self, model: Regimes, duration: int | None) -> Self:
        """This model with other parameters."""
        new = copy.copy(self)
        new.model, new.duration = model, duration
        new._event_shape = Size((1 if duration is None else duration, self.obs_dim))
        return new

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw sequences of observations, missing ones too."""
        return self.sample_path(sample_shape).observations

    def sample_path(self, sample_shape: ShapeLike = Size()) -> SwitchingPath:
        """Draw regimes, states and observations together. Shapes: -> (*sample_shape, *batch, T), and so on."""
        with torch.no_grad():
            return SwitchingPath(*switching_draw(self.model, (*sample_shape, *self.batch_shape), self._length()))

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each observation. Shapes: (*batch, T, d)."""
        length = self._length()
        state = switching_moments(self.model, length)
        space = self.model.space.over(length)
        h = space.observation.mT.movedim(-4, -3)
        share = state.log_weight[..., 0, :, None].exp()
        state = Mixture(share, state.loc[..., 0, :, :, :], state.cov[..., 0, :, :, :])
        loc = (h @ state.loc).squeeze(-1) + space.observation_loc.movedim(-3, -2)
        cov = h @ state.cov @ h.mT + space.observation_cov.movedim(-4, -3)
        mean = (share * loc).sum(-2)
        spread = cov.diagonal(dim1=-2, dim2=-1) + (loc - mean[..., None, :]).square()
        return mean, (share * spread).sum(-2)

    @property
    def mean(self) -> Tensor:
        """The exact mean, whatever `exact` says."""
        return self._moments()[0].expand(self.shape())

    @property
    def variance(self) -> Tensor:
        """The exact variance, whatever `exact` says."""
        return self._moments()[1].expand(self.shape())


def _check_regimes(size: int, batches: dict[str, Size]) -> None:
    """Whether the last batch dim of each parameter can be the regime; ValueError naming the one whose cannot."""
    for argument, batch in batches.items():
        if batch[-1:] not in ((), (1,), (size,)):
            raise ValueError(
                f"SwitchingLinearHMM: the rightmost batch dim of '{argument}' must be the regime, of size {size} (or 1), "
                f"but its batch shape is {tuple(batch)}. Time stands left of the regime."
            )


def _start_by_regime(initial: NormalVector) -> tuple[Tensor, Tensor]:
    """Mean and covariance with one batch dim for the regime in both. Shapes: -> (*, S or 1, n), (*, S or 1, n, n)."""
    loc, cov = initial.loc, initial.covariance
    batch = torch.broadcast_shapes(loc.shape[:-1], cov.shape[:-2]) or (1,)
    return loc.expand((*batch, *loc.shape[-1:])), cov.expand((*batch, *cov.shape[-2:]))


def _regime_first(x: Tensor, event_dim: int, size: int) -> Tensor:
    """Regimes as the last batch dim of a model whose time comes next.

    Shapes: (*batch, T, S, *event) -> (*batch, S, T, *event), where T and S may be absent, and S is 1 or `size`.
    """
    missing = 2 + event_dim - x.dim()
    x = x.reshape((1,) * missing + x.shape) if missing > 0 else x
    event = x.shape[x.dim() - event_dim :]
    x = x.expand((*x.shape[: x.dim() - event_dim - 1], size, *event))
    return x.movedim(-1 - event_dim, -2 - event_dim)


def _mvn(loc: Tensor, cov: Tensor) -> MultivariateNormal:
    """As given by a user, time before regimes. Shapes: (*batch, S, T, n), (*batch, S, T, n, n)."""
    return MultivariateNormal(loc.movedim(-3, -2), cov.movedim(-4, -3), validate_args=False)
