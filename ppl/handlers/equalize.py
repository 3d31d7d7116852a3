"""Give several sites one value."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any, Self

from torch import Tensor

from ppl.site import Kind, Site
from ppl.stack import Handler, perform


class equalize(Handler):
    """Give all matching sites the value of the first one.

    Args:
        sites: a regular expression, or several, that the whole name must match.
        type: the kind of the sites.
        keep_dist: count the densities of the later sites too, as if the model were conditioned on equality; otherwise
            they become deterministic.
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        sites: str | Sequence[str] = (),
        type: Kind = "sample",
        keep_dist: bool = False,
    ) -> None:
        super().__init__(fn)
        self.patterns = [re.compile(p) for p in ([sites] if isinstance(sites, str) else sites)]
        if not self.patterns:
            raise ValueError("handlers.equalize: give sites, a regular expression or several.")
        self.kind, self.keep_dist = type, keep_dist
        self._value: Tensor | None = None

    def fresh(self) -> Self:
        return copy.copy(self)

    def __enter__(self) -> Any:
        self._value = None
        return super().__enter__()

    def handle(self, site: Site) -> Site:
        if site.kind != self.kind or not any(p.fullmatch(site.name) for p in self.patterns):
            return perform(site)
        if self._value is None:
            first = perform(site)
            self._value = first.value
            return first
        if self.keep_dist or site.kind != "sample":
            return perform(site.replace(value=self._value, observed=site.kind == "sample"))
        return perform(site.replace(kind="deterministic", value=self._value, distribution=None, observed=False))
