"""Leave a program in the middle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ppl.site import Site
from ppl.stack import Handler, perform


class NonlocalExit(Exception):
    """Raised by `escape`; `site` is where the program was left, without a value."""

    def __init__(self, site: Site) -> None:
        super().__init__(f"left the program at site '{site.name}'")
        self.site = site


class escape(Handler):
    """Leave the program, by raising NonlocalExit, at the first sample site for which `escape_fn(site)` is true."""

    def __init__(self, fn: Callable[..., Any] | None = None, escape_fn: Callable[[Site], bool] | None = None) -> None:
        super().__init__(fn)
        if not callable(escape_fn):
            raise TypeError(f"handlers.escape: escape_fn must be a function of a site, got {escape_fn!r}.")
        self.escape_fn = escape_fn

    def handle(self, site: Site) -> Site:
        if site.kind == "sample" and self.escape_fn(site):
            raise NonlocalExit(site)
        return perform(site)
