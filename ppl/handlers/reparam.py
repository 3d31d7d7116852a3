"""Rewrite sites as deterministic functions of better-behaved ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from ppl.distributions.distribution import Distribution
from ppl.site import Site
from ppl.stack import Handler, inherit, perform


class Reparam(Protocol):
    """A rewriting of one site.

    Called with the site's name, distribution and data (None for a latent site), it makes statements of its own and
    returns what the site becomes: a distribution and no value (a sample site), no distribution and a value
    (deterministic), or both (observed).
    """

    def __call__(self, name: str, fn: Distribution, obs: Tensor | None) -> tuple[Distribution | None, Tensor | None]:
        """Rewrite the site."""
        ...


class reparam(Handler):
    """Rewrite sample sites: `reparam(model, config={"theta": LocScaleReparam(0.0)})`.

    Args: config, a Reparam by site name, or a function from a site to a Reparam or None.
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        config: Mapping[str, Reparam] | Callable[[Site], Reparam | None] | None = None,
    ) -> None:
        super().__init__(fn)
        if not isinstance(config, Mapping) and not callable(config):
            raise ValueError(f"handlers.reparam: config must map names to reparams, or be a function, got {config!r}.")
        self.config = config

    def handle(self, site: Site) -> Site:
        if site.kind != "sample":
            return perform(site)
        rewrite = self.config.get(site.name) if isinstance(self.config, Mapping) else self.config(site)
        if rewrite is None:
            return perform(site)
        with inherit(site):
            fn, value = rewrite(site.name, site.fn, site.value)
        if fn is None:
            return perform(site.replace(kind="deterministic", distribution=None, value=value, observed=False))
        return perform(site.replace(distribution=fn, value=value, observed=value is not None))
