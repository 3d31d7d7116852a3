"""Mark sites for enumeration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ppl.distributions import Delta, Independent
from ppl.handlers.infer_config import infer_config
from ppl.site import NO_OPTIONS, Enumerate, Infer, Site, TensorMonteCarlo


def config_enumerate(
    fn: Callable[..., Any] | None = None,
    default: Enumerate | None = "parallel",
    expand: bool = False,
    num_samples: int | None = None,
    tmc: TensorMonteCarlo | None = "diagonal",
) -> Any:
    """Mark all latent sites with a finite support for enumeration; those that are marked already stay as they are.

    Args:
        default: "parallel", "sequential" or None.
        expand: whether enumerated values get the full batch shape; draws have it in any case.
        num_samples: mark all latent sites, continuous ones too (but no Delta, of which there is one value only), for as
            many draws instead of the support. A site's own num_samples stays.
        tmc: how draws follow their parents' draws (`handlers.enum`): "diagonal", "mixture", or None for a set of draws
            for each of the parents', whose number multiplies from parent to child.
    Raises: ValueError for another default, num_samples below 1 or with "sequential", and another tmc.
    """
    if default not in ("parallel", "sequential", None):
        raise ValueError(f"config_enumerate: default must be 'parallel', 'sequential' or None, got {default!r}.")
    if default == "sequential" and num_samples is not None:
        raise ValueError(
            f"config_enumerate: num_samples={num_samples} is for parallel enumeration; leave out default='sequential'."
        )
    if num_samples is not None and (
        not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 1
    ):
        raise ValueError(f"config_enumerate: num_samples must be a positive int or None, got {num_samples!r}.")
    if tmc not in ("diagonal", "mixture", None):
        raise ValueError(f"config_enumerate: tmc must be 'diagonal', 'mixture' or None, got {tmc!r}.")

    usual = NO_OPTIONS.updated({"enumerate": default, "expand": expand})

    def mark(site: Site) -> Infer | None:
        own = site.infer
        if site.observed or own.enumerate is not None or default is None:
            return None
        if own.num_samples is not None:
            return own.updated({"enumerate": default}, site.name)
        if num_samples is None:
            finite = site.fn.has_enumerate_support
            if own is NO_OPTIONS:
                return usual if finite else None
            return own.updated({"enumerate": default, "expand": expand}, site.name) if finite else None
        if _is_point(site.fn):
            return None
        drawn = {"enumerate": default, "expand": expand, "num_samples": num_samples, "tmc": own.tmc or tmc}
        return own.updated(drawn, site.name)

    return infer_config(fn, mark)


def _is_point(d: torch.distributions.Distribution) -> bool:
    return isinstance(d, Delta) or (isinstance(d, Independent) and _is_point(d.base_dist))
