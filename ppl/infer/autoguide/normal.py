"""Independent normals, site by site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ppl.distributions import Normal, TransformedDistribution, biject_to, constraints
from ppl.distributions.distribution import Distribution
from ppl.handlers import plate
from ppl.infer.autoguide.guide import AutoGuide
from ppl.site import Site
from ppl.statements import sample


class AutoNormal(AutoGuide):
    """An independent normal for each entry of each latent site, in unconstrained space.

    Parameters: `{site}_{prefix}_loc` and `{site}_{prefix}_scale`, unconstrained coordinates.

    Args: init_scale, the first standard deviation, > 0.
    """

    def __init__(self, model: Any, *, init_scale: float = 0.1, **options: Any) -> None:
        if init_scale <= 0:
            raise ValueError(f"AutoNormal: init_scale must be positive, got {init_scale}.")
        super().__init__(model, **options)
        self.init_scale = init_scale

    def make_parameters(self) -> None:
        self.locs, self.log_scales = nn.ParameterDict(), nn.ParameterDict()
        for site in self.latents.values():
            loc = self.unconstrained(site)
            self.own(self.locs, site, loc)
            self.own(self.log_scales, site, torch.full_like(loc, self.init_scale).log())

    def _loc_scale(self, site: Site) -> tuple[Tensor, Tensor, int]:
        """The normal's parameters, and how many of their dims are event dims."""
        event = self.unconstrained(site).dim() - len(site.fn.batch_shape)
        loc = self.read(self.locs, site, "loc", event)
        return loc, self.read(self.log_scales, site, "scale", event, constraints.positive), event

    def _distribution(self, site: Site) -> Distribution:
        loc, scale, event = self._loc_scale(site)
        base = Normal(loc, scale, validate_args=False).to_event(event)
        support = site.fn.support
        if support is constraints.real or (event and site.fn.event_shape and _is_real(support)):
            return base  # type: ignore[no-any-return]
        return TransformedDistribution(base, [biject_to(support).with_cache()], validate_args=False)

    def propose(self, plates: Mapping[str, plate]) -> dict[str, Tensor]:
        drawn = {}
        for name, site in self.latents.items():
            with self.within(site, plates):
                drawn[name] = sample(name, self._distribution(site))
        return drawn

    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The image of each normal's centre."""
        self._ready(args, kwargs)
        return {name: q.squeeze(0) for name, q in self.quantiles([0.5]).items()}

    def quantiles(self, quantiles: Sequence[float] | Tensor, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Quantiles of each latent entry, for sites whose support is reached entry by entry.

        Shapes: (Q, *site).
        """
        self._ready(args, kwargs)
        found = {}
        for name, site in self.latents.items():
            loc, scale = (x.detach() for x in self._loc_scale(site)[:2])
            q = torch.as_tensor(quantiles, dtype=loc.dtype, device=loc.device)
            z = torch.special.ndtri(q).reshape((-1,) + (1,) * loc.dim())
            found[name] = biject_to(site.fn.support)(loc + scale * z)
        return found


def _is_real(support: Any) -> bool:
    return isinstance(support, constraints.independent) and support.base_constraint is constraints.real
