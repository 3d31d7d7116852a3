"""Truncated normal, Cauchy and gamma distributions by their own parameters, with moments."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions.cauchy import Cauchy
from ppl.distributions.distribution import ShapeLike, broadcast_shape
from ppl.distributions.gamma import Gamma
from ppl.distributions.normal import Normal
from ppl.distributions.truncated import (
    Bound,
    LeftTruncatedDistribution,
    RightTruncatedDistribution,
    TruncatedDistribution,
    TwoSidedTruncatedDistribution,
)
from ppl.tensors.quadrature import gauss_legendre
from ppl.tensors.special import log1mexp


class _Family(TruncatedDistribution):
    """Truncations that are built from the base's parameters and the bounds, whose shapes all broadcast."""

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        return broadcast_shape(*(Size(s) for s in arg_shapes.values())), Size()


class TruncatedNormal(_Family):
    """A normal draw conditioned on lying between `low` and `high`, either of which may be left out."""

    def __init__(
        self,
        loc: Bound = 0.0,
        scale: Bound = 1.0,
        low: Bound | None = None,
        high: Bound | None = None,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(Normal(*_alike(loc, scale, low, high), validate_args), low, high, validate_args)

    loc = property(lambda self: self.base_dist.loc, doc="The normal's mean.")
    scale = property(lambda self: self.base_dist.scale, doc="The normal's standard deviation.")

    def log_prob(self, value: Tensor) -> Tensor:
        """As the base class does, but in a tail relative to the density at the bound, where nothing large cancels."""
        log_prob = super().log_prob(value)
        if self.low is None and self.high is None:
            return log_prob
        upper = self._tails().upper
        one = torch.ones_like(self.loc)
        low, high = (None if b is None else torch.where(b.isfinite(), b, self.loc) for b in (self.low, self.high))
        above = one * 0 if low is None else (low - self.loc) / self.scale
        below = one * 0 if high is None else (self.loc - high) / self.scale
        upper = torch.as_tensor(upper, device=self.loc.device)
        near = torch.where(upper, above, below)
        tail = near > 1.0
        near = torch.where(tail, near, one)
        step = torch.zeros_like(value) if low is None else torch.where(upper, value - low, 0)
        step = step if high is None else torch.where(upper, step, high - value)
        step = torch.where(tail & log_prob.isfinite(), step / self.scale, 1.0)
        log_mass = _log_mills(near)
        if low is not None and high is not None and self.low is not None and self.high is not None:
            finite = tail & self.low.isfinite() & self.high.isfinite()
            width = torch.where(finite, torch.where(finite, high - low, one) / self.scale, one)
            gap = width * (near + 0.5 * width)
            narrow = gap < 1e-2
            wide = log1mexp(torch.where(narrow, -one, _log_mills(near + width) - log_mass - gap))
            nodes, weights = gauss_legendre(3)
            terms = [
                weight * torch.exp(-width * node * (near + 0.5 * width * node))
                for node, weight in zip(nodes, weights, strict=True)
            ]
            inside = torch.where(narrow, width.log() + torch.stack(terms).sum(0).log(), log_mass + wide)
            log_mass = torch.where(finite, inside, log_mass)
        relative = -step * (near + 0.5 * step) - log_mass - self.scale.log()
        return torch.where(tail & log_prob.isfinite(), relative, log_prob)

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the standardised draw, by quadrature over where the density is not negligible.

        Counted from that end of the interval which is nearest to the mode, every term is positive: nothing cancels, in
        the middle or far in a tail.
        """
        infinite = torch.full_like(self.loc, torch.inf)
        a = -infinite if self.low is None else (self.low - self.loc) / self.scale
        b = infinite if self.high is None else (self.high - self.loc) / self.scale
        below = b < -a  # more of the interval is below the mode: reflect
        a, b = torch.where(below, -b, a), torch.where(below, -a, b)
        start = a.clamp(min=-9.0)
        width = torch.minimum(b - start, torch.where(start > 0, 40 / (start.clamp(min=0) + 4), 9 - start))
        nodes, weights = (torch.tensor(v, dtype=a.dtype, device=a.device) for v in gauss_legendre(64))
        t = width.unsqueeze(-1) * nodes
        s = start.unsqueeze(-1)
        mass = weights * torch.exp(-t * (s.clamp(min=0) + 0.5 * t) - torch.where(s < 0, s * t + 0.5 * s * s, 0 * t))
        mass = mass / mass.sum(-1, keepdim=True)
        step = (mass * t).sum(-1)
        variance = (mass * (t - step.unsqueeze(-1)) ** 2).sum(-1)
        return torch.where(below, -1.0, 1.0) * (start + step), variance

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * self._moments()[0]  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        return self.scale**2 * self._moments()[1]  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        mean, variance = self._moments()
        mass = self._tails().log_mass
        return self.scale.log() + 0.5 * math.log(2 * math.pi) + mass + 0.5 * (variance + mean**2)  # type: ignore[no-any-return]


class TruncatedCauchy(_Family):
    """A Cauchy draw conditioned on lying between `low` and `high`, either of which may be left out."""

    def __init__(
        self,
        loc: Bound = 0.0,
        scale: Bound = 1.0,
        low: Bound | None = None,
        high: Bound | None = None,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(Cauchy(*_alike(loc, scale, low, high), validate_args), low, high, validate_args)

    loc = property(lambda self: self.base_dist.loc, doc="The Cauchy's median.")
    scale = property(lambda self: self.base_dist.scale, doc="The Cauchy's half width at half maximum.")

    def _standardised(self) -> tuple[Tensor, Tensor, Tensor] | None:
        if self.low is None or self.high is None:
            return None
        a, b = ((bound - self.loc) / self.scale for bound in (self.low, self.high))
        return a, b, self._tails().log_mass.exp() * math.pi

    @property
    def mean(self) -> Tensor:
        """Infinite, or undefined, unless both bounds are given."""
        found = self._standardised()
        if found is None:
            infinite = torch.full_like(self.loc, torch.inf)
            return torch.nan * infinite if self.low is self.high else infinite if self.high is None else -infinite
        a, b, angle = found
        return self.loc + self.scale * 0.5 * (torch.log1p(b * b) - torch.log1p(a * a)) / angle  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """Infinite, or undefined, unless both bounds are given."""
        found = self._standardised()
        if found is None:
            return torch.full_like(self.loc, torch.nan if self.low is self.high else torch.inf)
        a, b, angle = found
        mean = 0.5 * (torch.log1p(b * b) - torch.log1p(a * a)) / angle
        return self.scale**2 * ((b - a) / angle - 1 - mean**2)  # type: ignore[no-any-return]


class TruncatedGamma(_Family):
    """A gamma draw conditioned on lying between `low` and `high`, either of which may be left out."""

    def __init__(
        self,
        concentration: Bound,
        rate: Bound = 1.0,
        low: Bound | None = None,
        high: Bound | None = None,
        validate_args: bool | None = None,
    ) -> None:
        base: Any = Gamma(*_alike(concentration, rate, low, high), validate_args=validate_args)
        super().__init__(base, low, high, validate_args)

    concentration = property(lambda self: self.base_dist.concentration, doc="The gamma's shape.")
    rate = property(lambda self: self.base_dist.rate, doc="The gamma's inverse scale.")

    @property
    def mean(self) -> Tensor:
        return _gamma_mean(self)

    @property
    def variance(self) -> Tensor:
        return _gamma_variance(self)


class LeftTruncatedGamma(LeftTruncatedDistribution):
    """A `Gamma` conditioned on lying above `low`."""

    def __init__(self, base_dist: Gamma, low: Bound = 0.0, validate_args: bool | None = None) -> None:
        _require_gamma(type(self).__name__, base_dist)
        super().__init__(base_dist, low, validate_args)

    mean = property(lambda self: _gamma_mean(self))
    variance = property(lambda self: _gamma_variance(self))


class RightTruncatedGamma(RightTruncatedDistribution):
    """A `Gamma` conditioned on lying below `high`."""

    def __init__(self, base_dist: Gamma, high: Bound = 1.0, validate_args: bool | None = None) -> None:
        _require_gamma(type(self).__name__, base_dist)
        super().__init__(base_dist, high, validate_args)

    mean = property(lambda self: _gamma_mean(self))
    variance = property(lambda self: _gamma_variance(self))


class TwoSidedTruncatedGamma(TwoSidedTruncatedDistribution):
    """A `Gamma` conditioned on lying between `low` and `high`."""

    def __init__(
        self, base_dist: Gamma, low: Bound = 0.0, high: Bound = 1.0, validate_args: bool | None = None
    ) -> None:
        _require_gamma(type(self).__name__, base_dist)
        super().__init__(base_dist, low, high, validate_args)

    mean = property(lambda self: _gamma_mean(self))
    variance = property(lambda self: _gamma_variance(self))


def _log_mills(z: Tensor) -> Tensor:
    """The log of P(Z > z) / density(z), for z > 0."""
    return torch.log(math.sqrt(math.pi / 2) * torch.special.erfcx(math.sqrt(0.5) * z))


def _gamma_moment(d: TruncatedDistribution, order: int) -> Tensor:
    """E[X^order]: the ratio of the masses at concentration + order and at concentration, times the untruncated one."""
    base: Any = d.base_dist
    shifted: Any = Gamma(base.concentration + order, base.rate, validate_args=False)
    mass = TruncatedDistribution(shifted, d.low, d.high, False)._tails().log_mass - d._tails().log_mass
    powers = torch.lgamma(base.concentration + order) - torch.lgamma(base.concentration) - order * base.rate.log()
    return (mass + powers).exp()  # type: ignore[no-any-return]


def _gamma_mean(d: TruncatedDistribution) -> Tensor:
    return _gamma_moment(d, 1)


def _gamma_variance(d: TruncatedDistribution) -> Tensor:
    return _gamma_moment(d, 2) - _gamma_moment(d, 1) ** 2


def _require_gamma(family: str, base: object) -> None:
    if not isinstance(base, torch.distributions.Gamma):
        raise ValueError(
            f"{family}: base_dist must be a Gamma, but got {type(base).__name__}; for others write TruncatedDistribution."
        )


def _alike(first: Bound, second: Bound, *others: Bound | None) -> tuple[Bound, Bound]:
    """Two parameters as tensors where any argument is one, so that all have its dtype and device."""
    given = (first, second, *others)
    source = next((v for v in given if isinstance(v, Tensor) and v.is_floating_point()), None)
    if source is None:
        return first, second
    a, b = (
        v if isinstance(v, Tensor) else torch.full((), v, dtype=source.dtype, device=source.device)
        for v in (first, second)
    )
    return a, b
