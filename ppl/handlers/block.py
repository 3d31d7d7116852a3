"""Hide sites from the outer handlers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ppl.site import Kind, Site
from ppl.stack import Handler, perform, settle


class block(Handler):
    """Hide some sites: they are drawn here, and no outer handler sees them.

    Say which in one way: by a function of the site, by names, by kinds, or all of them, which is the default. With
    names or kinds to hide, the rest is seen; with names or kinds to expose, the rest is hidden; with both, what is
    exposed is seen.

    Raises: ValueError for contradictory choices.
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        hide_fn: Callable[[Site], bool] | None = None,
        expose_fn: Callable[[Site], bool] | None = None,
        hide_all: bool | None = None,
        expose_all: bool | None = None,
        hide: Sequence[str] | None = None,
        expose: Sequence[str] | None = None,
        hide_types: Sequence[Kind] | None = None,
        expose_types: Sequence[Kind] | None = None,
    ) -> None:
        super().__init__(fn)
        lists = [x for x in (hide, expose, hide_types, expose_types) if x is not None]
        if sum((hide_fn is not None, expose_fn is not None, bool(lists))) > 1 or (hide_all and expose_all):
            raise ValueError(
                "handlers.block: choose the sites in one way only: hide_fn, expose_fn, names and kinds, or one of "
                "hide_all and expose_all."
            )
        for names in (hide, expose, hide_types, expose_types):
            if isinstance(names, str):
                raise ValueError(
                    f"handlers.block: expected a list of names, got the string {names!r}; write [{names!r}]."
                )
        self.hide_fn, self.expose_fn = hide_fn, expose_fn
        self.hide, self.hide_types = set(hide or ()), set(hide_types or ())
        self.expose, self.expose_types = set(expose or ()), set(expose_types or ())
        exposes = expose is not None or expose_types is not None
        hides = hide is not None or hide_types is not None
        self.hide_rest = hide_all if hide_all is not None else not expose_all and (exposes or not hides)
        if exposes and hides and hide_all is None:
            self.hide_rest = False

    def hides(self, site: Site) -> bool:
        """Whether a site is hidden."""
        if self.hide_fn is not None:
            return bool(self.hide_fn(site))
        if self.expose_fn is not None:
            return not self.expose_fn(site)
        if site.name in self.expose or site.kind in self.expose_types:
            return False
        return self.hide_rest or site.name in self.hide or site.kind in self.hide_types

    def handle(self, site: Site) -> Site:
        return settle(site) if self.hides(site) else perform(site)
