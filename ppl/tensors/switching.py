"""Filtering of linear Gaussian state space models whose parameters a finite Markov chain chooses at each step.

The law of the state given the observations so far is a mixture of normals, one for each path of regimes. It is kept
whole, and grows S-fold at each step, or is merged into one normal for each regime of the last step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ppl.tensors.kalman import LOG_2PI, StateSpace, affine_path, seen, symmetric
from ppl.tensors.log_matrix import chain_maps, draw_index
from ppl.tensors.scan import associative_scan

#: The log weight of what cannot be: finite, so that no step needs to look for weights that are all zero and have no
#: shares, and far below all others.
NEVER = -1e30


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
        return possible(self.log_weight.logsumexp((-2, -1)))

    def merged(self) -> Mixture:
        """One normal for each regime, with the mean and covariance of its mixture (P = 1)."""
        total = self.log_weight.logsumexp(-2, True)
        share = self.log_weight.softmax(-2)[..., None, None]  # sums to 1 even where no weight counts
        loc = (share * self.loc).sum(-4, True)
        off = self.loc - loc
        return Mixture(total, loc, symmetric((share * (self.cov + off * off.mT)).sum(-4, True)))


def possible(log_weight: Tensor) -> Tensor:
    """Log weights as they are meant: -inf where a regime cannot be."""
    return log_weight.masked_fill(log_weight < 0.1 * NEVER, -torch.inf)


def switching_density(model: Regimes, value: Tensor, merge: bool) -> Tensor:
    """The log density of observations; see `switching_filter`. Shapes: value (*batch, T, d) -> (*batch)."""
    if value.shape[-2] == 0:
        return value.sum((-1, -2))
    dynamics, looks = _dynamics(model, value.shape[-2]), _looks(model, value)
    *_, state = _run(model, dynamics[:-1], looks[:-1], merge)
    return _weigh(_predict(state, dynamics[-1], merge), looks[-1])[0].log_total()


def switching_filter(model: Regimes, value: Tensor, merge: bool) -> Mixture:
    """What observations say of the last regime and state, with one normal for each regime.

    Args: merge, whether to merge the normals of each regime before every step: the second order generalised
        pseudo-Bayesian filter, in O(T S²). Otherwise they are merged at the end alone, in O(Sᵀ).
    Shapes: value (*batch, T, d) -> (*batch, 1, S).
    Source: Murphy (1998), "Switching Kalman filters", on GPB(2); Kim (1994), "Dynamic linear models with
        Markov-switching", section 2.
    """
    length = value.shape[-2]
    *_, state = _run(model, _dynamics(model, length), _looks(model, value), merge)
    return state.merged()


def switching_smoother(model: Regimes, value: Tensor, merge: bool) -> Tensor:
    """Log probabilities of each step's regime given all observations.

    Args: merge, as in `switching_filter`; what comes later then tells of a regime only by the regime that follows it.
    Shapes: value (*batch, T, d) -> (*batch, T, S), T at least 1.
    Source: Kim (1994), section 3.
    """
    length, size = value.shape[-2], model.initial.shape[-1]
    states = _run(model, _dynamics(model, length), _looks(model, value), merge)
    if not merge:  # the histories are all there, the latest regime as the fastest index
        weight = states[-1].log_weight.flatten(-2)
        sides = [weight.unflatten(-1, (-1, size, size ** (length - 1 - t))) for t in range(length)]
        return torch.stack([side.logsumexp((-3, -1)) for side in sides], -2).log_softmax(-1)
    found = [state.merged().log_weight.squeeze(-2).log_softmax(-1) for state in states[1:]]
    smooth = [found[-1]]
    for filtered, transition in zip(found[:-1][::-1], _chain(model, length)[1:][::-1], strict=True):
        back = (filtered[..., :, None] + transition.squeeze(-3)).log_softmax(-2)
        smooth.append((back + smooth[-1][..., None, :]).logsumexp(-1))
    return torch.stack(smooth[::-1], -2)


def switching_moments(model: Regimes, length: int) -> Mixture:
    """Regimes and states before anything is observed: exact means and covariances by regime.

    Shapes: -> (*batch, T, 1, S).
    """
    state, found = _start(model), []
    for step in _dynamics(model, length):
        state = _predict(state, step, True).merged()
        found.append(state)
    return Mixture(
        torch.stack([s.log_weight for s in found], -3),
        torch.stack([s.loc for s in found], -5),
        torch.stack([s.cov for s in found], -5),
    )


def switching_draw(model: Regimes, batch: tuple[int, ...], length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw regimes, states and observations. Shapes: -> (*batch, T), (*batch, T, n), (*batch, T, d)."""
    size = model.initial.shape[-1]
    first = draw_index(model.initial.expand((*batch, size)))
    maps = draw_index(model.transition.expand((*batch, length, size, size)))
    (paths,) = associative_scan(chain_maps, (maps,), -2)
    regimes = paths.gather(-1, first[..., None, None].expand((*batch, length, 1))).squeeze(-1)
    space = model.space.over(length)
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


class _Step(NamedTuple):
    """A step's parameters, a dim for the histories left of the regimes. Shapes: (*, 1, S, …)."""

    transition: Tensor
    f: Tensor
    b: Tensor
    q: Tensor


class _Look(NamedTuple):
    """An observation less its mean, and how it comes from the state. Shapes: (*, 1, S, …); constant (*, 1, S)."""

    y: Tensor
    h: Tensor
    r: Tensor
    constant: Tensor


def _chain(model: Regimes, length: int) -> tuple[Tensor, ...]:
    chain = _never(model.transition)
    return chain.expand((*chain.shape[:-3], length, *chain.shape[-2:])).unsqueeze(-4).unbind(-3)


def _dynamics(model: Regimes, length: int) -> list[_Step]:
    space = model.space.over(length)
    parts = space.transition.mT, space.transition_loc[..., None], space.transition_cov
    steps = (part.unsqueeze(-5).unbind(-3) for part in parts)
    return [_Step(*step) for step in zip(_chain(model, length), *steps, strict=True)]


def _looks(model: Regimes, value: Tensor) -> list[_Look]:
    y, h, r, count = seen(model.space.over(value.shape[-2]), value[..., None, :, :])
    parts = (part.unsqueeze(-5).unbind(-3) for part in (y[..., None], h, r))
    constant = (-0.5 * LOG_2PI * count.sum(-1)).unsqueeze(-3).unbind(-1)
    return [_Look(*look) for look in zip(*parts, constant, strict=True)]


def _never(logits: Tensor) -> Tensor:
    return logits.clamp(min=NEVER)


def _start(model: Regimes) -> Mixture:
    """The law before the first step; one normal if all regimes share it."""
    space = model.space
    loc, cov = space.initial_loc[..., None, :, :, None], space.initial_cov[..., None, :, :, :]
    return Mixture(_never(model.initial)[..., None, :], loc, cov)


def _run(model: Regimes, dynamics: Sequence[_Step], looks: Sequence[_Look], merge: bool) -> list[Mixture]:
    """The states at the start and after each step."""
    states = [_start(model)]
    for step, look in zip(dynamics, looks, strict=True):
        states.append(_update(*_weigh(_predict(states[-1], step, merge), look)))
    return states


def _predict(state: Mixture, step: _Step, merge: bool) -> Mixture:
    """The state after a step of each regime: the regimes before it join the history."""
    if state.log_weight.shape[-1] != 1 == state.loc.shape[-3]:  # what differs is the regimes' weights alone
        weight = (state.log_weight[..., None] + step.transition).logsumexp(-2)
        loc, cov = state.loc, state.cov
    else:
        state = state.merged() if merge and state.loc.shape[-4] > 1 else state
        weight = (state.log_weight[..., None] + step.transition).flatten(-3, -2)
        loc, cov = state.loc.flatten(-4, -3).unsqueeze(-3), state.cov.flatten(-4, -3).unsqueeze(-3)
    return Mixture(weight, step.f @ loc + step.b, step.f @ cov @ step.f.mT + step.q)


_Gain = tuple[_Look, Tensor, Tensor, Tensor]


def _weigh(state: Mixture, look: _Look) -> tuple[Mixture, _Gain]:
    """Multiply each weight by the density of an observation; also what `_update` needs."""
    hp = look.h @ state.cov
    chol = torch.linalg.cholesky(hp @ look.h.mT + look.r)
    residual = look.y - look.h @ state.loc
    white = torch.linalg.solve_triangular(chol, residual, upper=False)
    log_det = chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    density = look.constant - log_det - 0.5 * white.square().sum((-1, -2))
    return Mixture(state.log_weight + density, state.loc, state.cov), (look, hp, chol, residual)


def _update(state: Mixture, known: _Gain) -> Mixture:
    """Kalman's update of each normal, its covariance in Joseph's form."""
    look, hp, chol, residual = known
    gain = torch.cholesky_solve(hp, chol).mT
    rest = torch.eye(hp.shape[-1], dtype=hp.dtype, device=hp.device) - gain @ look.h
    cov = rest @ state.cov @ rest.mT + gain @ look.r @ gain.mT
    return Mixture(state.log_weight, state.loc + gain @ residual, cov)
