"""Intervene."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ppl.site import Site, part_for
from ppl.stack import Handler, perform
from ppl.trace import Trace


class do(Handler):
    """Set sites to values, cutting them from their parents: later statements see the value set.

    The outer handlers still see the site itself, drawn from its distribution as if nobody had intervened (its natural
    value), so that counterfactuals can be asked of one trace. For the density of the intervened program alone, leave
    these sites out of the trace: `block(do(model, data), hide=list(data))`.

    Args: data, values by name.
    Source: Richardson and Robins 2013, single world intervention graphs.
    """

    def __init__(
        self, fn: Callable[..., Any] | None = None, data: Mapping[str, Tensor | None] | Trace | None = None
    ) -> None:
        super().__init__(fn)
        if data is None:
            raise ValueError("handlers.do: give data, the values to set by name.")
        self.values = {name: site.value for name, site in data.nodes.items()} if isinstance(data, Trace) else dict(data)

    def handle(self, site: Site) -> Site:
        value = self.values.get(site.name) if site.kind == "sample" else None
        natural = perform(site)
        if value is None:
            return natural
        if not isinstance(value, Tensor):
            raise ValueError(
                f"handlers.do: the value for site '{site.name}' must be a torch.Tensor, but got {type(value).__name__}."
            )
        return natural.replace(value=part_for(site, value), intervened=True)
