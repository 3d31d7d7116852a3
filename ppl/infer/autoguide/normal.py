"""Independent normals, site by site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ppl.distributions import LogNormal, Normal, TransformedDistribution, constraints, transforms
from ppl.distributions.distribution import Distribution
from ppl.handlers import plate
from ppl.infer.autoguide.guide import AutoGuide, Latent
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
        for latent in self.latents.values():
            self.own(self.locs, latent.site, latent.first)
            self.own(self.log_scales, latent.site, torch.full_like(latent.first, self.init_scale).log())

    def _loc_scale(self, latent: Latent) -> tuple[Tensor, Tensor]:
        loc = self.read(self.locs, latent.site, "loc", latent.event)
        return loc, self.read(self.log_scales, latent.site, "scale", latent.event, constraints.positive)

    def _distribution(self, latent: Latent) -> Distribution:
        loc, scale = self._loc_scale(latent)
        transform = latent.transform
        while isinstance(transform, transforms.IndependentTransform):
            transform = transform.base_transform
        if _is_exp(transform):
            return LogNormal(loc, scale, validate_args=False).to_event(latent.event)  # type: ignore[no-any-return]
        base = Normal(loc, scale, validate_args=False).to_event(latent.event)
        if transform == transforms.identity_transform:
            return base  # type: ignore[no-any-return]
        return TransformedDistribution(base, [latent.transform.with_cache()], validate_args=False)

    def propose(self, plates: Mapping[str, plate]) -> dict[str, Tensor]:
        drawn = {}
        for name, latent in self.latents.items():
            with self.within(latent.site, plates):
                drawn[name] = sample(name, self._distribution(latent))
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
        for name, latent in self.latents.items():
            loc, scale = (x.detach() for x in self._loc_scale(latent))
            q = torch.as_tensor(quantiles, dtype=loc.dtype, device=loc.device)
            z = torch.special.ndtri(q).reshape((-1,) + (1,) * loc.dim())
            found[name] = latent.transform(loc + scale * z)
        return found


def _is_exp(transform: Any) -> bool:
    """Whether a transform is the exponential function, whatever set it was made for."""
    if isinstance(transform, transforms.GreaterThanTransform):
        return isinstance(transform.lower_bound, (int, float)) and transform.lower_bound == 0
    return isinstance(transform, transforms.ExpTransform)
