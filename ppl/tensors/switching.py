"""Filtering of linear Gaussian state space models whose parameters a finite Markov chain chooses at each step.

The law of the state given the observations so far is a mixture of normals, one for each path of regimes. It is kept
whole, and grows S-fold at each step, or is merged into one normal for each regime of the last step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ppl.tensors.kalman import LOG_2PI, StateSpace, affine_path, seen, symmetric
from ppl.tensors.log_matrix import chain_maps, draw_index, log_matmul
from ppl.tensors.scan import associative_scan
from ppl.tensors.semiring import log_sum_exp


@dataclass(frozen=True, slots=True)
class Regimes:
    """S state space models, and a Markov chain that says which of them makes each step.

    Shapes: `space` has S as its last batch dim (*batch, S, T, …), its initial state perhaps 1 in its place, for one that
    all share; initial (*batch, S) and transition (*batch, T, S, S) are normalised log probabilities.
    """

    space: StateSpace
    initial: Tensor
    transition: Tensor

    @property
    def shares_start(self) -> bool:
        """Whether the initial state's law is one for all regimes, so that nothing is lost with the first of them."""
        return self.space.initial_loc.shape[-2] == 1 == self.space.initial_cov.shape[-3]

    def over(self, length: int) -> Regimes:
        """The same with all parameters repeated to `length` steps."""
        t = self.transition
        return Regimes(self.space.over(length), self.initial, t.expand((*t.shape[:-3], length, *t.shape[-2:])))


@dataclass(frozen=True, slots=True)
class Mixture:
    """Weighted normals by history of regimes, and by the latest regime.

    Shapes: log_weight (*batch, P, S), loc (*batch, P, S, n, 1), cov (*batch, P, S, n, n); batch dims broadcast.
    """

    log_weight: Tensor
    loc: Tensor
    cov: Tensor

    def log_total(self) -> Tensor:
        """The log of the sum of the weights. Shapes: -> (*batch)."""
        return log_sum_exp(self.log_weight, (-2, -1))

    def merged(self) -> Mixture:
        """One normal for each regime, with the mean and covariance of its mixture (P = 1).

        A regime that cannot be has the plain average of its normals.
        """
        total = log_sum_exp(self.log_weight, (-2,))[..., None, :]
        weight = torch.where(total > -torch.inf, self.log_weight, torch.zeros_like(self.log_weight))
        share = weight.softmax(-2)[..., None, None]
        loc = (share * self.loc).sum(-4, keepdim=True)
        off = self.loc - loc
        cov = (share * (self.cov + off @ off.mT)).sum(-4, keepdim=True)
        return Mixture(total, loc, symmetric(cov))


def switching_density(model: Regimes, value: Tensor, merge: bool) -> Tensor:
    """The log density of observations; see `switching_filter`. Shapes: value (*batch, T, d) -> (*batch)."""
    length = value.shape[-2]
    if length == 0:
        return value.sum((-1, -2))
    model = model.over(length)
    sight = seen(model.space, value[..., None, :, :])
    state = _run(model, sight, length - 1, merge)
    return _weigh(_predict(state, model, length - 1, merge), sight, length - 1)[0].log_total()


def switching_filter(model: Regimes, value: Tensor, merge: bool) -> Mixture:
    """What observations say of the last regime and state.

    Args: merge, whether to merge the normals of each regime before every step: the second order generalised
        pseudo-Bayesian filter, in O(T S²). Otherwise nothing is lost, in O(Sᵀ).
    Shapes: value (*batch, T, d) -> (*batch).
    Source: Murphy (1998), "Switching Kalman filters", on GPB(2); Kim (1994), "Dynamic linear models with
        Markov-switching", section 2.
    """
    length = value.shape[-2]
    if length == 0:
        n, batch = value.sum((-1, -2))[..., None, None], _start(model)
        return Mixture(n + batch.log_weight, batch.loc, batch.cov)
    model = model.over(length)
    return _run(model, seen(model.space, value[..., None, :, :]), length, merge)


def switching_smoother(model: Regimes, value: Tensor, merge: bool) -> Tensor:
    """Log probabilities of each step's regime given all observations.

    Args: merge, as in `switching_filter`; what comes later then tells of a regime only by the regime that follows it.
    Shapes: value (*batch, T, d) -> (*batch, T, S), T at least 1.
    Source: Kim (1994), equation 19.
    """
    length, size = value.shape[-2], model.initial.shape[-1]
    model = model.over(length)
    sight = seen(model.space, value[..., None, :, :])
    if not merge:  # the histories are all there, the latest regime as the fastest index
        weight = _run(model, sight, length, merge).log_weight.flatten(-2)
        sides = [weight.unflatten(-1, (-1, size, size ** (length - 1 - t))) for t in range(length)]
        return torch.stack([log_sum_exp(side, (-3, -1)) for side in sides], -2).log_softmax(-1)
    state, found = _start(model), []
    for t in range(length):
        state = _update(*_weigh(_predict(state, model, t, merge), sight, t)).merged()
        found.append(state.log_weight.squeeze(-2).log_softmax(-1))
    smooth = [found[-1]]
    for t in reversed(range(length - 1)):
        joint = found[t][..., :, None] + model.transition[..., t + 1, :, :]
        ahead = log_sum_exp(joint, (-2,))[..., None, :]
        back = joint - torch.where(ahead > -torch.inf, ahead, torch.zeros_like(ahead))
        smooth.append(log_sum_exp(back + smooth[-1][..., None, :], (-1,)))
    return torch.stack(smooth[::-1], -2)


def switching_moments(model: Regimes, length: int) -> Mixture:
    """Regimes and states before anything is observed: exact means and covariances by regime.

    Shapes: -> (*batch, 1, S) with time before them: (*batch, T, 1, S).
    """
    model = model.over(length)
    state, found = _start(model), []
    for t in range(length):
        state = _predict(state, model, t, True).merged()
        found.append(state)
    return Mixture(
        torch.stack([s.log_weight for s in found], -3),
        torch.stack([s.loc for s in found], -5),
        torch.stack([s.cov for s in found], -5),
    )


def switching_draw(model: Regimes, batch: tuple[int, ...], length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw regimes, states and observations. Shapes: -> (*batch, T), (*batch, T, n), (*batch, T, d)."""
    size = model.initial.shape[-1]
    model = model.over(length)
    first = draw_index(model.initial.expand((*batch, size)))
    maps = draw_index(model.transition.expand((*batch, length, size, size)))
    (paths,) = associative_scan(chain_maps, (maps,), -2)
    regimes = paths.gather(-1, first[..., None, None].expand((*batch, length, 1))).squeeze(-1)
    space = model.space
    start = (
        (space.initial_loc[..., None, :], first[..., None], 1),
        (space.initial_cov[..., None, :, :], first[..., None], 2),
    )
    initial = _noisy(*(_chosen(*part, size) for part in start)).squeeze(-2)

    def steps(loc: Tensor, cov: Tensor) -> Tensor:
        return _noisy(_chosen(loc, regimes, 1, size), _chosen(cov, regimes, 2, size))

    matrix = _chosen(space.transition, regimes, 2, size)
    states = affine_path(matrix, steps(space.transition_loc, space.transition_cov), initial)
    images = (states[..., None, :] @ _chosen(space.observation, regimes, 2, size)).squeeze(-2)
    return regimes, states, images + steps(space.observation_loc, space.observation_cov)


def _chosen(x: Tensor, regimes: Tensor, event_dim: int, size: int) -> Tensor:
    """The parameters of given regimes. Shapes: (*, S or 1, T, *event), regimes (*batch, T) -> (*batch, T, *event)."""
    batch, steps = regimes.shape[:-1], x.shape[x.dim() - event_dim - 1 :]
    index = regimes.unsqueeze(-2)[(..., *(None,) * event_dim)].expand((*batch, 1, *steps))
    return x.expand((*batch, size, *steps)).gather(len(batch), index).squeeze(len(batch))


def _noisy(loc: Tensor, cov: Tensor) -> Tensor:
    """A normal draw around each mean."""
    noise: Tensor = torch.linalg.cholesky(cov) @ torch.randn_like(loc)[..., None]
    return loc + noise.squeeze(-1)


def _start(model: Regimes) -> Mixture:
    """The law before the first step."""
    space = model.space
    s, n = model.initial.shape[-1], space.initial_loc.shape[-1]
    loc = space.initial_loc.expand((*space.initial_loc.shape[:-2], s, n))
    cov = space.initial_cov.expand((*space.initial_cov.shape[:-3], s, n, n))
    return Mixture(model.initial[..., None, :], loc[..., None, :, :, None], cov[..., None, :, :, :])


Sight = tuple[Tensor, Tensor, Tensor, Tensor]


def _run(model: Regimes, sight: Sight, length: int, merge: bool) -> Mixture:
    state = _start(model)
    for t in range(length):
        state = _update(*_weigh(_predict(state, model, t, merge), sight, t))
    return state


def _predict(state: Mixture, model: Regimes, t: int, merge: bool) -> Mixture:
    """The state after a step of each regime: the regimes before it join the history."""
    space, transition = model.space, model.transition[..., t, :, :]
    if t == 0 and model.shares_start:
        weight = log_matmul(state.log_weight, transition)
        loc, cov = state.loc[..., :1, :, :], state.cov[..., :1, :, :]
    else:
        state = state.merged() if merge else state
        weight = (state.log_weight[..., None] + transition[..., None, :, :]).flatten(-3, -2)
        loc, cov = state.loc.flatten(-4, -3)[..., None, :, :], state.cov.flatten(-4, -3)[..., None, :, :]
    f = space.transition[..., None, :, t, :, :].mT
    b, q = space.transition_loc[..., None, :, t, :, None], space.transition_cov[..., None, :, t, :, :]
    return Mixture(weight, f @ loc + b, symmetric(f @ cov @ f.mT + q))


_Gain = tuple[Tensor, Tensor, Tensor, Tensor]


def _weigh(state: Mixture, sight: Sight, t: int) -> tuple[Mixture, _Gain]:
    """Multiply each weight by the density of an observation; also what `_update` needs."""
    y, h, r = sight[0][..., None, :, t, :, None], sight[1][..., None, :, t, :, :], sight[2][..., None, :, t, :, :]
    hp = h @ state.cov
    chol = torch.linalg.cholesky(symmetric(hp @ h.mT + r))
    residual = y - h @ state.loc
    white = torch.linalg.solve_triangular(chol, residual, upper=False)
    log_det = 2 * chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    count = sight[3][..., None, :, t, :].sum(-1)
    density = -0.5 * (log_det + white.square().sum((-1, -2)) + count * LOG_2PI)
    return Mixture(state.log_weight + density, state.loc, state.cov), (
        h,
        r,
        residual,
        torch.cholesky_solve(hp, chol).mT,
    )


def _update(state: Mixture, known: _Gain) -> Mixture:
    """Kalman's update of each normal, its covariance in Joseph's form."""
    h, r, residual, gain = known
    rest = torch.eye(h.shape[-1], dtype=h.dtype, device=h.device) - gain @ h
    cov = rest @ state.cov @ rest.mT + gain @ r @ gain.mT
    return Mixture(state.log_weight, state.loc + gain @ residual, symmetric(cov))
