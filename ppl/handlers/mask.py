"""Leave out densities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppl.site import Site
from ppl.stack import Handler, combine_masks, perform


class mask(Handler):
    """Count the log densities of the sites inside only where the mask is true; draws stay as they are.

    A site that is enumerated and masked weighs all its values alike, with weights that sum to 1.

    Args: mask, a bool or a boolean tensor that broadcasts with the sites' batch shapes.
    Raises: ValueError for anything else.
    """

    def __init__(self, fn: Callable[..., Any] | None = None, mask: Tensor | bool = True) -> None:
        super().__init__(fn)
        if not isinstance(mask, bool) and not (isinstance(mask, Tensor) and mask.dtype == torch.bool):
            came = str(mask.dtype) if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(
                f"handlers.mask: expected a bool or a tensor of dtype torch.bool, got {came}; write m.bool()."
            )
        self.mask = mask

    def handle(self, site: Site) -> Site:
        if site.kind not in ("sample", "param"):  # a param has a density once `lift` gives it a prior
            return perform(site)
        return perform(site.replace(mask=combine_masks(site.mask, self.mask)))
