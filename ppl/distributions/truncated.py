"""Distributions cut off below, above or on both sides, exact however little mass is left."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import Distribution, ShapeLike, broadcast_shape, expanded
from ppl.distributions.prototype import like, unchecked
from ppl.tensors.logspace import log_sum
from ppl.tensors.quadrature import gauss_legendre
from ppl.tensors.special import log_diff_exp

Bound = Tensor | float


class TruncatedDistribution(Distribution):
    """A continuous univariate distribution conditioned on lying between `low` and `high`; either may be left out.

    The mass between the bounds, the distribution function and the sampler (by inversion) work with logarithms on that
    side of the base where the mass is small, so that a normal between 38 and 40 standard deviations is as exact as one
    between -1 and 1. Draws carry gradients in the base's parameters and in the bounds, implicitly (Figurnov et al.,
    2018): the base needs `cdf` and `icdf`, or better the logarithms of `Distribution.log_cdf` and its three kin.

    Shapes: low, high and the base's batch shape broadcast. An entry of low or high may be infinite, except where a latent
        site is mapped to all reals: torch has no bijection to an interval that is infinite in some entries only.
    Raises: ValueError for a base that is discrete or not univariate, and where low is not below high.
    """

    arg_constraints = {}
    expands_without_init = True
    low: Tensor | None
    high: Tensor | None

    def __init__(
        self,
        base_dist: torch.distributions.Distribution,
        low: Bound | None = None,
        high: Bound | None = None,
        validate_args: bool | None = None,
    ) -> None:
        family = type(self).__name__
        base = unchecked(base_dist)
        if base.event_shape or base.is_discrete:
            what = f"of event shape {tuple(base.event_shape)}" if base.event_shape else "that is discrete"
            raise ValueError(
                f"{family}: base_dist must be continuous and univariate, but got {type(base_dist).__name__} {what}."
            )
        bounds = {k: _as_tensor(v, base) for k, v in (("low", low), ("high", high)) if v is not None}
        try:
            batch = broadcast_shape(base.batch_shape, *(b.shape for b in bounds.values()))
        except RuntimeError:
            shapes = "".join(f", {k} {tuple(b.shape)}" for k, b in bounds.items())
            raise ValueError(
                f"{family}: the shapes of its arguments do not broadcast: base_dist {tuple(base.batch_shape)}{shapes}."
            ) from None
        self.base_dist: Distribution = expanded(base, batch)
        self.low, self.high = (bounds[k].expand(batch) if k in bounds else None for k in ("low", "high"))
        super().__init__(batch, Size(), validate_args)
        if self._validate_args and self.low is not None and self.high is not None:
            bad = ~(self.low < self.high)
            if bool(bad.any()):
                at = bad.nonzero()[0].tolist()
                where = f" at index {tuple(at)}" if at else ""
                raise ValueError(
                    f"{family}: low must be below high, but low is {self.low[bad][0]:.6g} and high {self.high[bad][0]:.6g}"
                    f"{where}."
                )

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether draws carry gradients: always, unless switched off."""
        return bool(vars(self).get("has_rsample", True))

    @property
    def support(self) -> Any:
        """From low to high, cut down further by the base's own bounds."""
        low, high = self._base_bounds()
        if self.low is not None:
            low = self.low if low is None else self.low.clamp(min=low)
        if self.high is not None:
            high = self.high if high is None else self.high.clamp(max=high)
        if low is None:
            return self.base_dist.support if high is None else constraints.less_than(high)
        return constraints.greater_than_eq(low) if high is None else constraints.interval(low, high)

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        shape = Size(batch_shape)
        fields = vars(new)
        fields.update(vars(self))
        fields["base_dist"] = expanded(self.base_dist, shape)
        for name in ("low", "high"):
            if fields[name] is not None:
                fields[name] = fields[name].expand(shape)
        fields["_batch_shape"] = shape
        return new

    def _base_bounds(self) -> tuple[Any, Any]:
        support: Any = self.base_dist.support
        return getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)

    def _anchor(self) -> Tensor | float:
        """A point inside the base's support, for entries whose result is not used."""
        low, high = self._base_bounds()
        if low is None:
            return 0.0 if high is None else high - 1.0
        return low + 1.0 if high is None else (low + high) / 2  # type: ignore[no-any-return]

    def _within_base(self, x: Tensor) -> Tensor:
        """Where x is finite and inside the base's support, so that the base's functions have gradients."""
        low, high = self._base_bounds()
        inside = x.isfinite()
        inside = inside if low is None else inside & (x > low)
        return inside if high is None else inside & (x < high)

    def _lower(self, x: Tensor) -> Tensor:
        """The base's log_cdf, also at and beyond the ends of its support."""
        inside, anchor = self._within_base(x), self._anchor()
        log_p = self.base_dist.log_cdf(torch.where(inside, x, anchor))
        return torch.where(inside, log_p, torch.where(x > anchor, 0.0, -torch.inf).to(log_p.dtype))

    def _upper(self, x: Tensor) -> Tensor:
        """The base's log_survival, also at and beyond the ends of its support."""
        inside, anchor = self._within_base(x), self._anchor()
        log_q = self.base_dist.log_survival(torch.where(inside, x, anchor))
        return torch.where(inside, log_q, torch.where(x > anchor, -torch.inf, 0.0).to(log_q.dtype))

    def _tails(self) -> _Tails:
        return _Tails(self)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        if self.low is None and self.high is None:
            return self.base_dist.log_prob(value)
        inside = torch.ones_like(value, dtype=torch.bool)
        if self.low is not None:
            inside = inside & (value >= self.low)
        if self.high is not None:
            inside = inside & ((value < self.high) if self._is_open_above() else (value <= self.high))
        density = self.base_dist.log_prob(torch.where(inside, value, self._anchor())) - self._tails().log_mass
        return torch.where(inside, density, torch.full_like(density, -torch.inf))

    def _is_open_above(self) -> bool:
        """Whether the support is `less_than(high)`: there is no closed one without a lower bound."""
        return self.low is None and self._base_bounds()[0] is None

    def cdf(self, value: Tensor) -> Tensor:
        return self.log_cdf(value).exp()

    def icdf(self, value: Tensor) -> Tensor:
        return self._tails().draw(value)

    def log_cdf(self, value: Tensor) -> Tensor:
        return self._tails().log_below(self._within(value))

    def log_survival(self, value: Tensor) -> Tensor:
        return self._tails().log_above(self._within(value))

    def _within(self, value: Tensor) -> Tensor:
        value = value if self.low is None else torch.maximum(value, self.low)
        return value if self.high is None else torch.minimum(value, self.high)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        with torch.no_grad():
            return self.rsample(Size(sample_shape))

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        source = like(self)
        uniform = torch.rand(self.shape(sample_shape), dtype=source.dtype, device=source.device)
        finfo = torch.finfo(source.dtype)
        return self._tails().draw(uniform.clamp(finfo.tiny, 1 - finfo.eps))

    def __repr__(self) -> str:
        bounds = ", ".join(f"{k}: {v}" for k, v in (("low", self.low), ("high", self.high)) if v is not None)
        return f"{type(self).__name__}({self.base_dist}, {bounds})"


class LeftTruncatedDistribution(TruncatedDistribution):
    """A distribution conditioned on lying above `low`."""

    def __init__(
        self, base_dist: torch.distributions.Distribution, low: Bound = 0.0, validate_args: bool | None = None
    ) -> None:
        super().__init__(base_dist, low, None, validate_args)


class RightTruncatedDistribution(TruncatedDistribution):
    """A distribution conditioned on lying below `high`."""

    def __init__(
        self, base_dist: torch.distributions.Distribution, high: Bound = 0.0, validate_args: bool | None = None
    ) -> None:
        super().__init__(base_dist, None, high, validate_args)


class TwoSidedTruncatedDistribution(TruncatedDistribution):
    """A distribution conditioned on lying between `low` and `high`."""

    def __init__(
        self,
        base_dist: torch.distributions.Distribution,
        low: Bound = 0.0,
        high: Bound = 1.0,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(base_dist, low, high, validate_args)


class _Tails:
    """The base's log probabilities at the bounds, from the side on which they are small.

    `upper` says which side: true, probabilities are measured above a point, `near` being the larger one, at low; false,
    below a point, `near` being at high. The mass is exp(near) - exp(far).
    """

    def __init__(self, d: TruncatedDistribution) -> None:
        self.d, self.base = d, d.base_dist
        self.upper: Tensor | bool
        self.far: Tensor | None = None
        self.narrow: Tensor | None = None
        low, high = d.low, d.high
        if low is None or high is None:
            self.upper = low is not None
            if low is not None:
                self.near = d._upper(low)
            elif high is not None:
                self.near = d._lower(high)
            else:
                source = like(d)
                self.near = torch.zeros(d.batch_shape, dtype=source.dtype, device=source.device)
            self.log_mass = self.near
            return
        above, below = d._upper(low), d._lower(high)
        self.upper = above < below
        self.near = torch.where(self.upper, above, below)
        self.far = torch.where(self.upper, d._upper(high), d._lower(low))
        # Between bounds so close that the difference has lost its digits, the density is all but constant.
        limit = 2.0**-24 if self.near.dtype == torch.float64 else 2.0**-9
        self.narrow = (self.near - self.far < limit) & low.isfinite() & high.isfinite()
        wide = log_diff_exp(self.near, torch.where(self.narrow, self.near.detach() - 1, self.far))
        self.log_mass = torch.where(self.narrow, self._log_mass_between(low, high), wide)

    def _log_mass_between(self, low: Tensor, high: Tensor) -> Tensor:
        """By three-point quadrature of the density."""
        narrow = self.narrow
        assert narrow is not None
        left = torch.where(narrow, low, torch.zeros_like(low))
        width = torch.where(narrow, high - low, torch.ones_like(low))
        terms = [
            self.base.log_prob(torch.where(narrow, left + width * node, self.d._anchor())) + math.log(weight)
            for node, weight in zip(*gauss_legendre(3), strict=True)
        ]
        return log_sum(torch.stack(terms, -1)) + width.log()

    def _at(self, x: Tensor) -> Tensor:
        """The log probability beyond x, on the side chosen."""
        if isinstance(self.upper, bool):
            return self.d._upper(x) if self.upper else self.d._lower(x)
        return torch.where(self.upper, self.d._upper(x), self.d._lower(x))

    def _share(self, x: Tensor, towards_near: bool) -> Tensor:
        """The log of the share of the mass between x and the near end (or the far one)."""
        at = self._at(x)
        if towards_near:
            part = log_diff_exp(self.near, torch.minimum(at, self.near))
        else:
            part = at if self.far is None else log_diff_exp(torch.maximum(at, self.far), self.far)
        return (part - self.log_mass).clamp(max=0.0)

    def log_below(self, x: Tensor) -> Tensor:
        """log P(X <= x) after truncation, for x between the bounds."""
        return self._choose(x, below=True)

    def log_above(self, x: Tensor) -> Tensor:
        """log P(X > x) after truncation, for x between the bounds."""
        return self._choose(x, below=False)

    def _choose(self, x: Tensor, below: bool) -> Tensor:
        if isinstance(self.upper, bool):
            return self._share(x, towards_near=self.upper == below)
        share = torch.where(self.upper == below, self._share(x, True), self._share(x, False))
        low, high, narrow = self.d.low, self.d.high, self.narrow
        assert low is not None and high is not None and narrow is not None
        width = torch.where(narrow, high - low, torch.ones_like(low))
        part = torch.where(narrow, (x - low if below else high - x) / width, torch.ones_like(x))
        return torch.where(narrow, part.clamp(min=0).log(), share)

    def draw(self, u: Tensor) -> Tensor:
        """The value below which lies the share u of the mass, with gradients in everything but u.

        At a fixed u the probability beyond x is a fixed mixture of those beyond the bounds: its total differential gives
        the derivative of x by the base's parameters and by the bounds, from the derivatives of log probabilities alone.
        """
        low, high = self.d.low, self.d.high
        with torch.no_grad():
            x, weight = self._invert(u)
            x = x.to(u.dtype)
            if low is not None:
                x = torch.maximum(x, low)
            if high is not None:
                inner = torch.nextafter(high, torch.full_like(high, -torch.inf))
                x = torch.minimum(x, inner if low is None else high)
        if not torch.is_grad_enabled():
            return x
        at, density = self._at(x), self.base.log_prob(x).detach()
        change = _change(at, density, 0.0) - _change(self.near, density, weight.log())
        if self.far is not None:
            change = change - _change(self.far, density, torch.log1p(-weight))
        sign = torch.where(torch.as_tensor(self.upper, device=x.device), 1.0, -1.0).to(x.dtype)
        moved = x + sign * change
        if self.narrow is not None and low is not None and high is not None:
            left, right = (torch.where(self.narrow, bound, torch.zeros_like(bound)) for bound in (low, high))
            share = ((x - low) / (high - low)).detach()
            linear = x + share * (right - right.detach()) + (1 - share) * (left - left.detach())
            moved = torch.where(self.narrow, linear, moved)
        return moved

    def _invert(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The value, and the weight of the near end in the probability beyond it."""
        if isinstance(self.upper, bool):
            weight = 1 - u if self.upper else u
            beyond = weight.log() + self.near
            return (self.base.inverse_log_survival if self.upper else self.base.inverse_log_cdf)(beyond), weight
        low, high, narrow = self.d.low, self.d.high, self.narrow
        assert self.far is not None and low is not None and high is not None and narrow is not None
        weight = torch.where(self.upper, 1 - u, u)
        beyond = torch.logaddexp(weight.log() + self.near, torch.log1p(-weight) + self.far)
        x = torch.where(self.upper, self.base.inverse_log_survival(beyond), self.base.inverse_log_cdf(beyond))
        return torch.where(narrow, low + u * (high - low), x), weight


def _change(log_p: Tensor, density: Tensor, log_weight: Tensor | float) -> Tensor:
    """Zero, with the gradient of weight * exp(log_p) / exp(density)."""
    finite = log_p > -torch.inf
    log_p = torch.where(finite, log_p, torch.zeros_like(log_p))
    factor = torch.exp(log_p.detach() + log_weight - density)
    return torch.where(finite, factor, torch.zeros_like(factor)) * (log_p - log_p.detach())


def _as_tensor(bound: Bound, base: torch.distributions.Distribution) -> Tensor:
    source = like(base)
    if isinstance(bound, Tensor):
        return bound if bound.is_floating_point() else bound.to(source.dtype)
    return torch.full((), float(bound), dtype=source.dtype, device=source.device)
