"""Set inference options by a function of the site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ppl.site import Infer, Site
from ppl.stack import Handler, perform


class infer_config(Handler):
    """Update the inference options of sample sites with what `config_fn(site)` returns: options, a dict, or None."""

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        config_fn: Callable[[Site], Infer | Mapping[str, Any] | None] | None = None,
    ) -> None:
        super().__init__(fn)
        if not callable(config_fn):
            raise TypeError(f"handlers.infer_config: config_fn must be a function of a site, got {config_fn!r}.")
        self.config_fn = config_fn

    def handle(self, site: Site) -> Site:
        options = self.config_fn(site) if site.kind == "sample" else None
        if options is None:
            return perform(site)
        infer = options if isinstance(options, Infer) else site.infer.updated(options, site.name)
        return perform(site.replace(infer=infer))
