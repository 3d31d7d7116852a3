"""Mark discrete sites for enumeration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ppl.handlers.infer_config import infer_config
from ppl.site import Enumerate, Infer, Site


def config_enumerate(
    fn: Callable[..., Any] | None = None, default: Enumerate | None = "parallel", expand: bool = False
) -> Any:
    """Mark all latent sites with a finite support for enumeration; those that are marked already stay as they are.

    Args: default, "parallel", "sequential" or None; expand, whether enumerated values get the full batch shape.
    Raises: ValueError for another default.
    """
    if default not in ("parallel", "sequential", None):
        raise ValueError(f"config_enumerate: default must be 'parallel', 'sequential' or None, got {default!r}.")

    def mark(site: Site) -> Infer | None:
        if site.observed or site.infer.enumerate is not None or not site.fn.has_enumerate_support:
            return None
        return site.infer.updated({"enumerate": default, "expand": expand}, site.name)

    return infer_config(fn, mark)
