"""Normal vectors in whatever form they come: their mean, covariance, and which entries a mask shows."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl.distributions.expanded import ExpandedDistribution
from ppl.distributions.masked import MaskedDistribution


class NormalVector(NamedTuple):
    """Moments of a normal vector. Shapes: (*batch, n), (*batch, n, n), and (*batch, n) or None for all."""

    loc: Tensor
    covariance: Tensor
    observed: Tensor | None


def normal_vector(owner: str, argument: str, d: Any, masks: bool = False) -> NormalVector:
    """The moments of a `MultivariateNormal`, a low-rank one, or a `Normal(...).to_event(1)`.

    Args: masks, whether the vector, or under `to_event` its entries, may be masked.
    Raises: ValueError naming owner and argument for anything else.
    """
    td = torch.distributions
    if isinstance(d, ExpandedDistribution):
        return normal_vector(owner, argument, d.base_dist, masks)
    if isinstance(d, MaskedDistribution) and masks:
        loc, covariance, observed = normal_vector(owner, argument, d.base_dist, masks)
        mask = torch.as_tensor(d.given_mask, device=loc.device).expand(d.batch_shape)[..., None].expand(d.shape())
        return NormalVector(loc, covariance, mask if observed is None else mask & observed)
    if isinstance(d, (td.MultivariateNormal, td.LowRankMultivariateNormal)):
        return NormalVector(d.loc, d.covariance_matrix, None)
    if isinstance(d, td.Independent) and d.reinterpreted_batch_ndims == 1:
        base: Any = d.base_dist
        observed = None
        while isinstance(base, (MaskedDistribution, ExpandedDistribution)):
            if isinstance(base, MaskedDistribution):
                if not masks:
                    break
                mask = torch.as_tensor(base.given_mask, device=base.mean.device).expand(base.batch_shape)
                observed = mask if observed is None else observed & mask
            base = base.base_dist
        if isinstance(base, td.Normal):
            return NormalVector(base.loc, torch.diag_embed(base.scale.square()), observed)
    raise ValueError(
        f"{owner}: argument '{argument}' must be a normal vector, MultivariateNormal(...) or Normal(...).to_event(1), "
        f"but it is {d if isinstance(d, td.Distribution) else type(d).__name__}."
    )
