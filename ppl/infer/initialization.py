"""Where to start: functions from a latent site to its first value.

Each can be given as it is (`init_loc_fn=init_to_median`) or with options (`init_to_median(num_samples=50)`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ppl.distributions import biject_to
from ppl.distributions.distribution import Distribution
from ppl.distributions.prototype import like
from ppl.site import Site, expand_to_plates

Strategy = Callable[[Site], Tensor | None]


def _optional_site(strategy: Callable[..., Any]) -> Callable[..., Any]:
    """Let a strategy be called without a site, to set its options first."""

    @functools.wraps(strategy)
    def either(site: Site | None = None, **options: Any) -> Any:
        if site is None:
            return functools.partial(strategy, **options)
        return strategy(site, **options)

    return either


def _latent(site: Site) -> Distribution | None:
    if site.kind != "sample" or site.observed or site.value is not None:
        return None
    d = expand_to_plates(site, site.fn)
    return None if d.is_discrete else d


def _middle(d: Distribution) -> Tensor:
    """The image of 0 under the map from all reals to the support."""
    transform = biject_to(d.support)
    source = like(d)
    shape = transform.inverse_shape(d.shape())
    value: Tensor = transform(torch.zeros(shape, dtype=source.dtype, device=source.device))
    return value.expand(d.shape()).clone()


@_optional_site
def init_to_feasible(site: Site) -> Tensor | None:
    """The middle of the support: where the unconstrained value is 0."""
    d = _latent(site)
    return None if d is None else _middle(d)


@_optional_site
def init_to_sample(site: Site) -> Tensor | None:
    """A draw from the prior, or from (-2, 2) in unconstrained space where the prior has no sampler."""
    d = _latent(site)
    if d is None:
        return None
    try:
        return d.sample()
    except NotImplementedError:
        return init_to_uniform(site)  # type: ignore[no-any-return]


@_optional_site
def init_to_median(site: Site, num_samples: int = 15) -> Tensor | None:
    """The elementwise median of some draws from the prior, or the middle of the support where that lies outside it."""
    d = _latent(site)
    if d is None:
        return None
    try:
        value: Tensor = d.sample(torch.Size((num_samples,))).median(0).values
    except NotImplementedError:
        return _middle(d)
    return value if _inside(d, value) else _middle(d)


@_optional_site
def init_to_mean(site: Site) -> Tensor | None:
    """The prior's mean, or its median where there is none or it is not finite."""
    d = _latent(site)
    if d is None:
        return None
    try:
        value = d.mean.detach().clone()
    except NotImplementedError:
        return init_to_median(site)  # type: ignore[no-any-return]
    return value if _inside(d, value) else init_to_median(site)


@_optional_site
def init_to_uniform(site: Site, radius: float = 2.0) -> Tensor | None:
    """A uniform draw from (-radius, radius) in unconstrained space."""
    d = _latent(site)
    if d is None:
        return None
    transform = biject_to(d.support)
    source = like(d)
    shape = transform.inverse_shape(d.shape())
    noise = torch.rand(shape, dtype=source.dtype, device=source.device)
    value: Tensor = transform(radius * (2 * noise - 1))
    return value


@_optional_site
def init_to_value(
    site: Site, values: Mapping[str, Tensor] | None = None, fallback: Strategy | None = init_to_uniform
) -> Tensor | None:
    """The given value, by site name; the fallback's for other sites."""
    if site.kind == "sample" and not site.observed and values and site.name in values:
        return values[site.name]
    return None if fallback is None else fallback(site)


def _inside(d: Distribution, value: Tensor) -> bool:
    return bool(value.isfinite().all()) and bool(d.support.check(value).all())  # type: ignore[union-attr]
