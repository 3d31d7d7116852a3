"""Closed forms of KL divergences that torch lacks, or gets wrong at the edges."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributions as td
from torch import Tensor

from ppl.distributions.delta import Delta, Unit
from ppl.distributions.distribution import broadcast_shape
from ppl.distributions.expanded import ExpandedDistribution
from ppl.distributions.gamma import InverseGamma
from ppl.distributions.independent import Independent, sum_rightmost
from ppl.distributions.kl import kl_divergence, no_formula, register_kl
from ppl.distributions.masked import MaskedDistribution
from ppl.distributions.mixture import MixtureGeneral, MixtureSameFamily


@register_kl(Delta, td.Distribution)
def _delta(p: Delta, q: Any) -> Tensor:
    """The point's own log density stands for the volume it was changed by."""
    divergence: Tensor = p.log_density - q.log_prob(p.v)
    return divergence


@register_kl(Unit, Unit)
def _unit(p: Unit, q: Unit) -> Tensor:
    return p.log_factor - q.log_factor


@register_kl(td.Independent, td.Independent)
def _independent(p: Any, q: Any) -> Tensor:
    """Unwraps as many dims as both have; what is left over stays with the side that has more."""
    count = min(p.reinterpreted_batch_ndims, q.reinterpreted_batch_ndims)
    p, q = _inner(p, count), _inner(q, count)
    if len(p.event_shape) != len(q.event_shape):
        raise NotImplementedError(no_formula(p, q))
    return sum_rightmost(_whole(kl_divergence(p, q), p, q), count)


def _inner(d: Any, count: int) -> Any:
    rest = d.reinterpreted_batch_ndims - count
    return Independent(d.base_dist, rest) if rest else d.base_dist


def _whole(divergence: Tensor, p: Any, q: Any) -> Tensor:
    """A divergence at its full batch shape, so that sums over dims count every entry."""
    return divergence.expand(broadcast_shape(divergence.shape, p.batch_shape, q.batch_shape))


@register_kl(td.Independent, td.MultivariateNormal)
def _diagonal_normal(p: Any, q: Any) -> Tensor:
    if p.reinterpreted_batch_ndims != 1 or not isinstance(p.base_dist, td.Normal):
        raise NotImplementedError(no_formula(p, q))
    covariance = torch.diag_embed(p.base_dist.stddev)
    vector = td.MultivariateNormal(p.base_dist.mean, scale_tril=covariance, validate_args=False)
    return kl_divergence(vector, q)


@register_kl(td.MultivariateNormal, td.Independent)
def _normal_diagonal(p: Any, q: Any) -> Tensor:
    if q.reinterpreted_batch_ndims != 1 or not isinstance(q.base_dist, td.Normal):
        raise NotImplementedError(no_formula(p, q))
    scale = torch.diag_embed(q.base_dist.stddev)
    vector = td.MultivariateNormal(q.base_dist.mean, scale_tril=scale, validate_args=False)
    return kl_divergence(p, vector)


@register_kl(ExpandedDistribution, ExpandedDistribution)
def _both_expanded(p: ExpandedDistribution, q: ExpandedDistribution) -> Tensor:
    return _whole(kl_divergence(p.base_dist, q.base_dist), p, q)


@register_kl(ExpandedDistribution, td.Distribution)
def _expanded_left(p: ExpandedDistribution, q: Any) -> Tensor:
    return _whole(kl_divergence(p.base_dist, q), p, q)


@register_kl(td.Distribution, ExpandedDistribution)
def _expanded_right(p: Any, q: ExpandedDistribution) -> Tensor:
    return _whole(kl_divergence(p, q.base_dist), p, q)


def _masked(p: Any, q: Any) -> Tensor:
    """Counted where both masks are true: an entry that either side does not count adds nothing."""
    mask: Any = True
    inner = []
    for d in (p, q):
        while isinstance(d, MaskedDistribution):
            mask = d.given_mask if mask is True else mask & d.given_mask
            d = d.base_dist
        inner.append(d)
    divergence = _whole(kl_divergence(*inner), p, q)
    mask = torch.as_tensor(mask, device=divergence.device)
    return torch.where(mask, divergence, torch.zeros_like(divergence))


register_kl(MaskedDistribution, MaskedDistribution)(_masked)
register_kl(MaskedDistribution, td.Distribution)(_masked)
register_kl(td.Distribution, MaskedDistribution)(_masked)
register_kl(MaskedDistribution, ExpandedDistribution)(_masked)
register_kl(ExpandedDistribution, MaskedDistribution)(_masked)
register_kl(Delta, ExpandedDistribution)(_delta)


@register_kl(Delta, MaskedDistribution)
def _delta_masked(p: Delta, q: MaskedDistribution) -> Tensor:
    return _masked(p, q)


@register_kl(td.TransformedDistribution, td.TransformedDistribution)
def _transformed(p: Any, q: Any) -> Tensor:
    """An invertible map that both share changes nothing."""
    if list(p.transforms) != list(q.transforms) or not all(t.bijective for t in p.transforms):
        raise NotImplementedError(
            no_formula(p, q)
            + " (Of transformed distributions there is one only where both have equal, bijective transforms.)"
        )
    if p.event_shape != q.event_shape:
        raise ValueError(f"KL: the event shapes {tuple(p.event_shape)} and {tuple(q.event_shape)} differ.")
    divergence = kl_divergence(p.base_dist, q.base_dist)
    extra = len(p.event_shape) - len(p.base_dist.event_shape)
    codomain = sum_rightmost(divergence, extra) if extra > 0 else divergence
    return _whole(codomain, p, q)


@register_kl(td.LogNormal, td.LogNormal)
def _log_normal(p: Any, q: Any) -> Tensor:
    return _gaussian(p.loc, p.scale, q.loc, q.scale)


def _gaussian(loc: Tensor, scale: Tensor, other_loc: Tensor, other_scale: Tensor) -> Tensor:
    ratio = scale / other_scale
    return 0.5 * (ratio * ratio - 1 + ((loc - other_loc) / other_scale) ** 2) - ratio.log()


@register_kl(td.HalfCauchy, td.HalfCauchy)
def _half_cauchy(p: Any, q: Any) -> Tensor:
    """As of two whole ones around the same centre."""
    a, b = p.scale, q.scale
    divergence: Tensor = 2 * (a + b).log() - (4 * a).log() - b.log()
    return divergence


@register_kl(InverseGamma, InverseGamma)
def _inverse_gamma(p: Any, q: Any) -> Tensor:
    """The reciprocals' divergence: gamma draws with the same parameters."""
    return kl_divergence(
        td.Gamma(p.concentration, p.rate, validate_args=False), td.Gamma(q.concentration, q.rate, validate_args=False)
    )


@register_kl(td.Weibull, td.Weibull)
def _weibull(p: Any, q: Any) -> Tensor:
    """Source: Bauckhage 2013, Computing the Kullback-Leibler divergence between two Weibull distributions."""
    k, m = p.concentration, q.concentration
    log_ratio = p.scale.log() - q.scale.log()
    euler = 0.57721566490153286
    expected = torch.exp(m * log_ratio + torch.lgamma(1 + m / k))
    divergence: Tensor = k.log() - m.log() - m * log_ratio + (k - m) * (-euler / k) + expected - 1
    return divergence


@register_kl(td.Categorical, td.Categorical)
def _categorical(p: Any, q: Any) -> Tensor:
    """Sums over the categories that p can draw; infinite where q cannot draw one of them."""
    probs, log_p, log_q = p.probs, torch.log_softmax(p.logits, -1), torch.log_softmax(q.logits, -1)
    clamped = (q.probs == 0) & (log_q > -80.0)  # logits that torch made from a probability of 0 stop short of -inf
    log_q = torch.where(clamped, torch.full_like(log_q, -torch.inf), log_q)
    probs, log_p, log_q = torch.broadcast_tensors(probs, log_p, log_q)
    drawn = probs > 0
    terms = torch.where(drawn, log_p, 0.0) - torch.where(drawn, log_q, 0.0)
    return torch.where(drawn, probs * terms, 0.0).sum(-1)


register_kl(td.OneHotCategorical, td.OneHotCategorical)(_categorical)


@register_kl(td.VonMises, td.VonMises)
def _von_mises(p: Any, q: Any) -> Tensor:
    bessel: Tensor = torch.special.i0e(p.concentration)
    resultant: Tensor = torch.special.i1e(p.concentration) / bessel
    shift: Tensor = torch.special.i0e(q.concentration).log() + q.concentration - bessel.log() - p.concentration
    divergence: Tensor = shift + resultant * (p.concentration - q.concentration * torch.cos(p.loc - q.loc))
    return divergence


@register_kl(td.Bernoulli, td.Bernoulli)
def _bernoulli(p: Any, q: Any) -> Tensor:
    def part(a: Tensor, b: Tensor, log_a: Tensor, log_b: Tensor) -> Tensor:
        a, b, log_a, log_b = torch.broadcast_tensors(a, b, log_a, log_b)
        drawn, possible = a > 0, b > 0
        term = torch.where(drawn, a * (torch.where(drawn, log_a, 0.0) - torch.where(drawn & possible, log_b, 0.0)), 0.0)
        return torch.where(drawn & ~possible, torch.inf, term)

    softplus = torch.nn.functional.softplus
    p_logits, q_logits = p.logits, q.logits
    one = part(p.probs, q.probs, -softplus(-p_logits), -softplus(-q_logits))
    return one + part(1 - p.probs, 1 - q.probs, -softplus(p_logits), -softplus(q_logits))


@register_kl(td.Wishart, td.Wishart)
def _wishart(p: Any, q: Any) -> Tensor:
    """Source: Soch & Allefeld 2016, Kullback-Leibler divergence for the normal-gamma and Wishart distributions."""
    size = p.event_shape[-1]
    p_tril, q_tril = _scale_tril(p), _scale_tril(q)
    shape = broadcast_shape(p_tril.shape, q_tril.shape)
    ratio = torch.linalg.solve_triangular(q_tril.expand(shape), p_tril.expand(shape), upper=False)
    trace = (ratio * ratio).sum((-1, -2))
    log_det = 2 * (q_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) - p_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1))
    half_p, half_q = 0.5 * p.df, 0.5 * q.df
    digammas = sum(torch.digamma(half_p - 0.5 * i) for i in range(size))
    divergence: Tensor = (
        half_q * log_det
        + half_p * (trace - size)
        + torch.mvlgamma(half_q, size)
        - torch.mvlgamma(half_p, size)
        + (half_p - half_q) * digammas
    )
    return divergence


def _scale_tril(d: Any) -> Tensor:
    tril: Tensor = d.scale_tril
    return tril


def _mixture(p: Any, q: Any) -> Tensor:
    raise NotImplementedError(no_formula(p, q) + " (A mixture's logarithm of a sum has no closed expectation.)")


for _family in (MixtureSameFamily, MixtureGeneral, td.MixtureSameFamily):
    register_kl(_family, td.Distribution)(_mixture)
    register_kl(td.Distribution, _family)(_mixture)


__all__ = ["kl_divergence", "register_kl"]
