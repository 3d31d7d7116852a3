"""Prefix names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ppl.site import Kind, Site
from ppl.stack import Handler, perform


class scope(Handler):
    """Put `prefix` and a divider before the names of all sites and plates inside, so that parts can be repeated.

    Args: hide_types, kinds of sites that keep their names, such as ["param"].
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        prefix: str = "",
        divider: str = "/",
        hide_types: Sequence[Kind] = (),
    ) -> None:
        super().__init__(fn)
        if not prefix or not isinstance(prefix, str):
            raise ValueError(f"handlers.scope: prefix must be a string that is not empty, got {prefix!r}.")
        self.prefix, self.divider, self.hide_types = prefix, divider, set(hide_types)

    def handle(self, site: Site) -> Site:
        start = f"{self.prefix}{self.divider}"
        if "plate" not in self.hide_types and site.plates:
            plates = tuple(dataclasses.replace(frame, name=start + frame.name) for frame in site.plates)
            site = site.replace(plates=plates)
        if site.kind in self.hide_types or site.kind == "subsample":
            return perform(site)
        return perform(site.replace(name=start + site.name))
