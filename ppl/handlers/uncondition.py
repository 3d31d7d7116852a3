"""Turn data back into latent sites."""

from __future__ import annotations

from ppl.distributions.delta import Unit
from ppl.site import Site
from ppl.stack import Handler, perform


class uncondition(Handler):
    """Draw the observed sites anew instead of keeping their data; factors stay."""

    def handle(self, site: Site) -> Site:
        if site.kind == "sample" and site.observed and not isinstance(site.distribution, Unit):
            return perform(site.replace(value=None, observed=False))
        return perform(site)
