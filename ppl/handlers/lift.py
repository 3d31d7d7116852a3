"""Turn parameters into random variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ppl.distributions.lifting import lift as extend
from ppl.site import Site
from ppl.stack import Handler, perform

Prior = torch.distributions.Distribution


class lift(Handler):
    """Draw param sites from a prior instead of reading the store.

    Args: prior, one distribution for all, distributions by name, or a function from a site to its distribution;
        a site for which it gives None stays a parameter. The site has no value yet, only `init`, `leaf`, `constraint`.
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        prior: Prior | Mapping[str, Prior] | Callable[[Site], Prior | None] | None = None,
    ) -> None:
        super().__init__(fn)
        if prior is None:
            raise ValueError("handlers.lift: give a prior: a distribution, distributions by name, or a function.")
        self.prior = prior

    def _prior_of(self, site: Site) -> Prior | None:
        if isinstance(self.prior, Prior):
            return self.prior
        return self.prior.get(site.name) if isinstance(self.prior, Mapping) else self.prior(site)

    def handle(self, site: Site) -> Site:
        prior = self._prior_of(site) if site.kind == "param" else None
        if prior is None:
            return perform(site)
        if not isinstance(prior, Prior):
            raise ValueError(f"site '{site.name}': the prior must be a distribution, but got {type(prior).__name__}.")
        return perform(site.replace(kind="sample", distribution=extend(prior), init=None, leaf=None, constraint=None))
