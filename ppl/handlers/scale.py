"""Weigh densities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ppl.site import Site
from ppl.stack import Handler, perform


class scale(Handler):
    """Multiply the log densities of the sites inside by a positive number or a tensor that broadcasts with them.

    Raises: ValueError for a number that is not positive.
    """

    def __init__(self, fn: Callable[..., Any] | None = None, scale: Tensor | float = 1.0) -> None:
        super().__init__(fn)
        if not isinstance(scale, Tensor) and not (isinstance(scale, (int, float)) and scale > 0):
            raise ValueError(f"handlers.scale: expected a positive number or a tensor, got {scale!r}.")
        self.scale = scale

    def handle(self, site: Site) -> Site:
        if site.kind not in ("sample", "param"):  # a param has a density once `lift` gives it a prior
            return perform(site)
        return perform(site.replace(scale=self.scale * site.scale))
