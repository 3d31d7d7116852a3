"""Inverses of the incomplete gamma and beta functions, differentiable in all arguments.

Newton's method on the log of the smaller tail, as a function of log x (for the beta: of its logit). With a log-concave
density both tails' logs are concave, so that it converges from everywhere. The search is an operator of its own: it looks
at values to know when it is done, which graphs, compilers, vmap and the meta device need not follow. One more step outside
of it carries the gradients of the implicit function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppl.tensors.incomplete import log_beta_tails, log_gamma_tails
from ppl.tensors.saddlepoint import log_beta_density, log_gamma_density
from ppl.tensors.special import log_beta

_MOST_STEPS = 60
Tails = tuple[Tensor, Tensor, Tensor]  # log P, log Q and the log density at z


def gammaincinv(a: Tensor, p: Tensor) -> Tensor:
    """The x at which P(a, x) = p."""
    return gamma_quantile(a, p.log(), torch.log1p(-p))


def gamma_quantile(a: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """The x at which log P(a, x) = log_p and log Q(a, x) = log_q, of which the smaller one counts."""
    a, log_p, log_q = torch.broadcast_tensors(a, log_p, log_q)
    with torch.no_grad():
        z: Tensor = torch.ops.ppl.log_gamma_quantile(a, log_p, log_q)
    return _last_step(log_p, log_q, z, _gamma_tails(a, z)).exp()


def betaincinv(a: Tensor, b: Tensor, p: Tensor) -> Tensor:
    """The x at which I_x(a, b) = p."""
    return logit_betaincinv(a, b, p).sigmoid()


def logit_betaincinv(a: Tensor, b: Tensor, p: Tensor) -> Tensor:
    """log(x / (1 - x)) for the x at which I_x(a, b) = p; keeps what x loses next to 1."""
    return logit_beta_quantile(a, b, p.log(), torch.log1p(-p))


def logit_beta_quantile(a: Tensor, b: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """The same, for the logs of both tails, of which the smaller one counts."""
    a, b, log_p, log_q = torch.broadcast_tensors(a, b, log_p, log_q)
    with torch.no_grad():
        z: Tensor = torch.ops.ppl.logit_beta_quantile(a, b, log_p, log_q)
    return _last_step(log_p, log_q, z, _beta_tails(a, b, z))


def _gamma_tails(a: Tensor, z: Tensor) -> Tails:
    x = z.exp()
    return (*log_gamma_tails(a, x), log_gamma_density(a, x) + z)


def _beta_tails(a: Tensor, b: Tensor, z: Tensor) -> Tails:
    x, y = z.sigmoid(), (-z).sigmoid()
    log_x, log_y = torch.nn.functional.logsigmoid(z), torch.nn.functional.logsigmoid(-z)
    return (*log_beta_tails(a, b, x, y), log_beta_density(a, b, x, y) + log_x + log_y)


def _step(log_p: Tensor, log_q: Tensor, tails: Tails) -> tuple[Tensor, Tensor]:
    """How far the log of the smaller tail is from its target, and its slope."""
    lower = log_p < log_q
    tail = torch.where(lower, tails[0], tails[1])
    slope = (tails[2] - tail).exp()
    return tail - torch.where(lower, log_p, log_q), torch.where(lower, slope, -slope)


def _last_step(log_p: Tensor, log_q: Tensor, z: Tensor, tails: Tails) -> Tensor:
    error, slope = _step(log_p, log_q, tails)
    found = z - error / slope.detach()
    return torch.where(log_p == -torch.inf, -torch.inf, torch.where(log_q == -torch.inf, torch.inf, found))


def _search(tails: Callable[..., Tails], parameters: tuple[Tensor, ...], logs: list[Tensor], start: Tensor) -> Tensor:
    """The z at which both tails are as asked, but for one step; entries leave the search when they are done."""
    limit = math.log(torch.finfo(start.dtype).tiny)
    tolerance = torch.finfo(start.dtype).eps ** 0.4  # the error of a step is the square of the last one's
    found = start.clamp(min=limit, max=-limit).reshape(-1)
    flat, (log_p, log_q) = [p.reshape(-1) for p in parameters], [t.reshape(-1) for t in logs]
    open_ = torch.arange(len(found), device=found.device)
    for _ in range(_MOST_STEPS):
        if not len(open_):
            break
        z = found[open_]
        error, slope = _step(log_p[open_], log_q[open_], tails(*(p[open_] for p in flat), z))
        moved = (z - error / slope).clamp(min=limit, max=-limit)
        found[open_] = moved
        open_ = open_[(moved - z).abs() > tolerance * (1 + z.abs())]
    return found.reshape(start.shape)


def _log_gamma_quantile(a: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    floor = (log_p + torch.lgamma(a + 1)) / a  # as P(a, x) <= x^a / Gamma(a + 1)
    start = torch.digamma(a) + torch.special.ndtri(log_p.exp()) * torch.polygamma(1, a).sqrt()
    rest = -log_q  # Laurent & Massart 2000, lemma 1; below 1 the exponential's tail is the heavier one
    ceiling = torch.where(a <= 1, rest, a + (2 * a * rest).sqrt() + rest).log()
    return _search(_gamma_tails, (a,), [log_p, log_q], torch.minimum(torch.maximum(start, floor), ceiling))


def _logit_beta_quantile(a: Tensor, b: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    size = log_beta(a, b)
    floor = (log_p + a.log() + size) / a  # as I_x(a, b) <= exp(a z) / (a B(a, b)), with z the logit of x
    ceiling = -(log_q + b.log() + size) / b
    spread = (torch.polygamma(1, a) + torch.polygamma(1, b)).sqrt()
    start = torch.digamma(a) - torch.digamma(b) + torch.special.ndtri(log_p.exp()) * spread
    return _search(_beta_tails, (a, b), [log_p, log_q], torch.minimum(torch.maximum(start, floor), ceiling))


def _batched(operator: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, int]]:
    """The rule of an elementwise operator under vmap."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Tensor, int]:
        moved = [
            t.movedim(dim, 0) if dim is not None else t.expand(info.batch_size, *t.shape)
            for t, dim in zip(tensors, in_dims, strict=True)
        ]
        return operator(*moved), 0

    return rule


_library = torch.library.Library("ppl", "FRAGMENT")
for _name, _signature, _function in (
    ("log_gamma_quantile", "Tensor a, Tensor log_p, Tensor log_q", _log_gamma_quantile),
    ("logit_beta_quantile", "Tensor a, Tensor b, Tensor log_p, Tensor log_q", _logit_beta_quantile),
):
    _library.define(f"{_name}({_signature}) -> Tensor")
    _library.impl(_name, _function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"ppl::{_name}", lambda first, *rest: torch.empty_like(first), lib=_library)
    torch.library.register_vmap(f"ppl::{_name}", _batched(getattr(torch.ops.ppl, _name)), lib=_library)
