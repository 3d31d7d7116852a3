"""Between centred and non-centred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ppl.distributions import Independent, constraints
from ppl.distributions.distribution import Distribution
from ppl.statements import param, sample


class LocScaleReparam:
    """Decentre a location-scale family: draw around `centered * loc` with scale `scale ** centered`, then shift and stretch.

    With centered=0 the site's own noise is drawn (non-centred), with 1 nothing changes, with None the degree is learned
    for each entry, as the parameter `{name}_centered`.

    Args: shape_params, names of the family's other parameters, such as "df".
    Raises: ValueError for a site that is observed, bounded, or has no loc and scale.
    Source: Gorinova, Moore and Hoffman 2020, Automatic Reparameterisation of Probabilistic Programs.
    """

    def __init__(self, centered: float | None = None, shape_params: Sequence[str] = ()) -> None:
        if centered is not None and not 0 <= centered <= 1:
            raise ValueError(f"LocScaleReparam: centered must lie in [0, 1] or be None, got {centered}.")
        self.centered, self.shape_params = centered, tuple(shape_params)

    def __call__(self, name: str, fn: Distribution, obs: Tensor | None) -> tuple[Distribution | None, Tensor | None]:
        if obs is not None:
            raise ValueError(f"site '{name}': LocScaleReparam is for latent sites, but this one is observed.")
        base: Any = fn
        event_dims = 0
        while isinstance(base, Independent):
            event_dims += base.reinterpreted_batch_ndims
            base = base.base_dist
        if not (hasattr(base, "loc") and hasattr(base, "scale")) or base.event_shape or not _on_reals(base):
            raise ValueError(
                f"site '{name}': LocScaleReparam needs a scalar family on the reals with loc and scale, such as Normal or "
                f"StudentT, but got {type(base).__name__}."
            )
        loc, scale = base.loc, base.scale
        centered: Tensor | float
        if self.centered is None:
            shape = fn.event_shape
            centered = param(
                f"{name}_centered",
                lambda: torch.full(shape, 0.5, dtype=loc.dtype, device=loc.device),
                constraint=constraints.unit_interval,
            )
        else:
            centered = self.centered
        parameters = {key: getattr(base, key) for key in self.shape_params}
        parameters["loc"] = loc * centered
        parameters["scale"] = scale**centered
        decentered = sample(f"{name}_decentered", type(base)(**parameters).to_event(event_dims))
        return None, loc + scale ** (1 - centered) * (decentered - centered * loc)


def _on_reals(d: Any) -> bool:
    return d.support is constraints.real
