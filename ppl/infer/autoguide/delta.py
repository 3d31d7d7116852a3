"""A point estimate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ppl.distributions import Delta, transform_to
from ppl.handlers import plate
from ppl.infer.autoguide.guide import AutoGuide
from ppl.statements import sample


class AutoDelta(AutoGuide):
    """Every latent site at one value: fitted by SVI, the maximum a posteriori in the model's own coordinates.

    Parameters: `{site}_{prefix}_loc`, within the site's support.
    """

    def make_parameters(self) -> None:
        self.locs = nn.ParameterDict()
        for latent in self.latents.values():
            site = latent.site
            self.own(self.locs, site, transform_to(latent.support).inv(site.tensor.detach()))

    def _value(self, name: str) -> Tensor:
        latent = self.latents[name]
        return self.read(self.locs, latent.site, "loc", len(latent.site.fn.event_shape), latent.support)

    def propose(self, plates: Mapping[str, plate]) -> dict[str, Tensor]:
        drawn = {}
        for name, latent in self.latents.items():
            with self.within(latent.site, plates):
                value, event = self._value(name), len(latent.site.fn.event_shape)
                drawn[name] = sample(name, Delta(value, event_dim=event, validate_args=False))
        return drawn

    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The values themselves."""
        self._ready(args, kwargs)
        return {name: self._value(name).detach() for name in self.latents}
