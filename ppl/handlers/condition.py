"""Turn latent sites into data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ppl.site import Site, part_for
from ppl.stack import Handler, perform
from ppl.trace import Trace

Data = Mapping[str, Tensor | None] | Trace


class condition(Handler):
    """Observe the named sample sites at the given values.

    Args: data, values by name, or a trace; condition_fn, a function from a site to its value or None.
    Raises: ValueError for a value that is no tensor.
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        data: Data | None = None,
        condition_fn: Callable[[Site], Tensor | None] | None = None,
    ) -> None:
        super().__init__(fn)
        if (data is None) == (condition_fn is None):
            raise ValueError("handlers.condition: give either data (values by name) or condition_fn.")
        self.lookup = condition_fn or lookup_in(data or {}, "condition")

    def handle(self, site: Site) -> Site:
        value = self.lookup(site) if site.kind == "sample" else None
        return perform(site if value is None else site.replace(value=value, observed=True))


def lookup_in(data: Data, handler: str) -> Callable[[Site], Tensor | None]:
    """A function from a site to its value in some data, None where there is none."""
    values = {name: site.value for name, site in data.nodes.items()} if isinstance(data, Trace) else dict(data)
    for name, value in values.items():
        if value is not None and not isinstance(value, Tensor):
            raise ValueError(
                f"handlers.{handler}: the value for site '{name}' must be a torch.Tensor, but got "
                f"{type(value).__name__}; write torch.as_tensor(value)."
            )
    return lambda site: part_for(site, values.get(site.name))
