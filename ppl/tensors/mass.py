"""Log masses of the elementary count laws, each a sum of terms none of which is larger than the result deserves.

With log factorials, masses at counts of a million lose seven digits: all of float32. Loader's saddle-point form has
only the deviance of the count from its mean and the error of Stirling's formula. A binomial is then two Poisson
masses over a third, a negative binomial a binomial, and a beta-binomial two negative binomials over a third (for any
common probability, so that the one is taken which puts every term near its mode).

Counts may be any nonnegative reals, and everything is differentiable in them.

Source: Loader 2000, Fast and accurate computation of binomial probabilities.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ppl.tensors.special import deviance, factorial_excess


class Chances(NamedTuple):
    """A probability, its complement and their logs, each exact where the others are 0 or 1.

    A log belonging to a count of 0 is never minus infinity: see `chances_of_probs`.
    """

    p: Tensor
    q: Tensor
    log_p: Tensor
    log_q: Tensor


def chances_of_probs(p: Tensor, successes: Tensor, failures: Tensor) -> Chances:
    """The chances in `successes` and `failures`, given the probability of success.

    What cannot happen and does not happen gets the log 0 instead of minus infinity, whose product with the count 0
    would be NaN; what cannot and does gets minus infinity without a gradient, whose product with 0 would be NaN, too.
    """
    never, always = p == 0, p == 1
    log_p = torch.where(never & (successes != 0), -torch.inf, torch.where(never, 1.0, p).log())
    log_q = torch.where(always & (failures != 0), -torch.inf, torch.log1p(-torch.where(always, 0.0, p)))
    return Chances(p, 1 - p, log_p, log_q)


def chances_of_logits(logits: Tensor, successes: Tensor, failures: Tensor) -> Chances:
    """The same, given the log odds, which may be infinite."""
    log_p = torch.nn.functional.logsigmoid(torch.where((successes == 0) & (logits == -torch.inf), 0.0, logits))
    log_q = torch.nn.functional.logsigmoid(torch.where((failures == 0) & (logits == torch.inf), 0.0, -logits))
    return Chances(torch.sigmoid(logits), torch.sigmoid(-logits), log_p, log_q)


def count_deviance(x: Tensor, m: Tensor, log_m: Tensor) -> Tensor:
    """x log(x / m) + m - x for x, m >= 0; the mean may underflow as long as its log does not."""
    far = (m < 1e-3 * x) | (x == 0)
    log_x = torch.where(x == 0, 1.0, x).log()
    wide = x * (log_x - log_m) + (m - x)
    return torch.where(far, wide, deviance(torch.where(far, 1.0, x), torch.where(far, 1.0, m)))


def log_poisson(x: Tensor, m: Tensor, log_m: Tensor) -> Tensor:
    """log(m^x e^-m / x!)."""
    return -(count_deviance(x, m, log_m) + factorial_excess(x))


def log_binomial(successes: Tensor, failures: Tensor, chances: Chances) -> Tensor:
    """log of (s + f)! / (s! f!) p^s q^f."""
    # of one rank, because they are stacked
    successes, failures, *broadcast = torch.broadcast_tensors(successes, failures, *chances)
    chances = Chances(*broadcast)
    total = successes + failures
    log_total = torch.where(total == 0, 1.0, total).log()
    # one tensor of both, so that each function is called once
    counts = torch.stack([successes, failures])
    means = total * torch.stack([chances.p, chances.q])
    logs = log_total + torch.stack([chances.log_p, chances.log_q])
    gap = count_deviance(counts, means, logs).sum(0)
    excess = factorial_excess(torch.stack([successes, failures, total]))
    return excess[2] - (excess[0] + excess[1]) - gap


def log_negative_binomial(successes: Tensor, stop: Tensor, chances: Chances) -> Tensor:
    """log of Γ(s + r) / (Γ(r) s!) p^s q^r: successes before the r-th failure, for any real r >= 0."""
    total = successes + stop
    ratio = torch.where(total == 0, 1.0, stop) / torch.where(total == 0, 1.0, total)
    return ratio.log() + log_binomial(successes, stop, chances)


def log_dirichlet_multinomial(counts: Tensor, concentration: Tensor, is_sparse: bool = False) -> Tensor:
    """log of n! Γ(A) / Γ(n + A) times the product over the last dim of Γ(x + a) / (Γ(a) x!).

    Args: is_sparse, whether to look for the counts that are not 0 and work out their terms only.
    """
    total, both = counts.sum(-1, keepdim=True), concentration.sum(-1, keepdim=True)
    chances = _matching(total, both)
    counts, concentration = torch.broadcast_tensors(counts, concentration)
    if is_sparse:
        places = counts.nonzero(as_tuple=True)
        there = Chances(*(c.expand(counts.shape)[places] for c in chances))
        found = log_negative_binomial(counts[places], concentration[places], there)
        terms = (concentration * chances.log_q).index_put(places, found)
        return terms.sum(-1) - log_negative_binomial(total, both, chances).squeeze(-1)
    counts = torch.cat([counts, total.expand((*counts.shape[:-1], 1))], -1)
    concentration = torch.cat([concentration, both.expand((*counts.shape[:-1], 1))], -1)
    terms = log_negative_binomial(counts, concentration, chances)
    return terms[..., :-1].sum(-1) - terms[..., -1]


def log_beta_binomial(successes: Tensor, failures: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """log of (s + f)! / (s! f!) B(s + a, f + b) / B(a, b)."""
    counts = torch.stack(torch.broadcast_tensors(successes, failures), -1)
    return log_dirichlet_multinomial(counts, torch.stack(torch.broadcast_tensors(a, b), -1))


def _matching(total: Tensor, concentration: Tensor) -> Chances:
    """The chances under which a negative binomial count with this `concentration` has mean `total`."""
    both = total + concentration
    log_both = both.log()
    log_p = torch.where(total == 0, 1.0, total).log() - log_both
    return Chances(total / both, concentration / both, log_p, concentration.log() - log_both)
