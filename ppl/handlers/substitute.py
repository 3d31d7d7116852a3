"""Decide values without observing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ppl.site import Site, part_for
from ppl.stack import Handler, perform


class substitute(Handler):
    """Give param sites and latent sample sites the given (constrained) values; they stay what they are.

    Args: data, values by name; substitute_fn, a function from a site to its value or None.
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        data: Mapping[str, Tensor] | None = None,
        substitute_fn: Callable[[Site], Tensor | None] | None = None,
    ) -> None:
        super().__init__(fn)
        if (data is None) == (substitute_fn is None):
            raise ValueError("handlers.substitute: give either data (values by name) or substitute_fn.")
        values = data or {}
        self.lookup = substitute_fn or (lambda site: part_for(site, values.get(site.name)))

    def handle(self, site: Site) -> Site:
        if site.kind == "param" or (site.kind == "sample" and not site.observed):
            value = self.lookup(site)
            if value is not None:
                if not isinstance(value, Tensor):
                    raise ValueError(
                        f"handlers.substitute: the value for site '{site.name}' must be a torch.Tensor, but got "
                        f"{type(value).__name__}; write torch.as_tensor(value)."
                    )
                site = site.replace(value=value)
        return perform(site)
