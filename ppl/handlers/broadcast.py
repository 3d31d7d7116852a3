"""Expand distributions early."""

from __future__ import annotations

from ppl.site import Site, expand_to_plates
from ppl.stack import Handler, perform


class broadcast(Handler):
    """Expand distributions to the plates inside this handler at once.

    Every site ends up expanded to its plates anyway; this is for handlers further out that look at shapes before the
    site has its value.
    """

    def handle(self, site: Site) -> Site:
        if site.kind == "sample":
            site = site.replace(distribution=expand_to_plates(site, site.fn))
        return perform(site)
