"""Guides over all latent entries as one unconstrained vector."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ppl.distributions import Delta, Normal, constraints
from ppl.distributions.distribution import Distribution
from ppl.handlers import plate
from ppl.infer.autoguide.guide import AutoGuide
from ppl.site import Infer, Site
from ppl.stack import perform
from ppl.statements import sample


class AutoContinuous(AutoGuide):
    """A guide that draws one vector of all latent entries and cuts it into sites.

    A subclass gives `make_parameters` and `posterior`, a distribution over that vector.
    """

    @abstractmethod
    def posterior(self) -> Distribution:
        """The distribution over the vector, event shape (D,)."""

    def first_loc(self) -> Tensor:
        """The first values of all sites as one unconstrained vector, (D,).

        Raises: ValueError for a latent site in a subsampled plate, which a vector of fixed length cannot hold.
        """
        for name, latent in self.latents.items():
            for frame in latent.site.plates:
                if frame.subsample_size != frame.size:
                    raise ValueError(
                        f"{type(self).__name__}: site '{name}' is local to plate '{frame.name}', which is subsampled, so "
                        "no fixed vector holds it. Use AutoNormal or AutoDelta, or do not subsample."
                    )
        return torch.cat([latent.first.flatten() for latent in self.latents.values()])

    def counted(self) -> Tensor | bool:
        """Which entries of the vector the model counts, (D,): all but those under a false mask."""
        if all(latent.site.mask is None for latent in self.latents.values()):
            return True
        parts = []
        for latent in self.latents.values():
            site, shape, batch = latent.site, latent.first.shape, latent.site.fn.batch_shape
            given = torch.as_tensor(True if site.mask is None else site.mask, device=site.tensor.device).expand(batch)
            parts.append(given.reshape(batch + (1,) * (len(shape) - len(batch))).expand(shape).flatten())
        return torch.cat(parts)

    def propose(self, plates: Mapping[str, plate]) -> dict[str, Tensor]:
        vector = sample(f"_{self.prefix}_latent", self.posterior(), infer=Infer(is_auxiliary=True))
        drawn = {}
        for name, part in self._cut(vector).items():
            site, transform = self.latents[name].site, self.latents[name].transform
            value = transform(part)
            event = len(site.fn.event_shape)
            log_det = transform.log_abs_det_jacobian(part, value)
            batch_dims = value.dim() - event
            log_density = -(log_det.flatten(batch_dims).sum(-1) if log_det.dim() > batch_dims else log_det)
            with self.within(site, plates):
                drawn[name] = sample(name, Delta(value, log_density, event_dim=event, validate_args=False))
        return drawn

    def _cut(self, vector: Tensor) -> dict[str, Tensor]:
        """The vector's part for each site, shaped like the site's unconstrained value (with batch dims of the vector's own)."""
        parts, start = {}, 0
        batch = vector.shape[:-1]
        for name, latent in self.latents.items():
            own = latent.first.shape
            stop = start + own.numel()
            kept = batch[: max(len(batch) - len(latent.site.fn.batch_shape), 0)]
            parts[name] = vector[..., start:stop].reshape(kept + own)
            start = stop
        return parts

    def _sites_of(self, vector: Tensor) -> dict[str, Tensor]:
        return {name: self.latents[name].transform(part) for name, part in self._cut(vector).items()}


class AutoDiagonalNormal(AutoContinuous):
    """An independent normal for each entry of the vector of all latent sites.

    Parameters: `{prefix}_loc` and `{prefix}_scale`, both (D,).

    Args: init_scale, the first standard deviation, > 0.
    """

    def __init__(self, model: Any, *, init_scale: float = 0.1, **options: Any) -> None:
        if init_scale <= 0:
            raise ValueError(f"AutoDiagonalNormal: init_scale must be positive, got {init_scale}.")
        super().__init__(model, **options)
        self.init_scale = init_scale

    def make_parameters(self) -> None:
        loc = self.first_loc()
        self.loc = nn.Parameter(loc)
        self.log_scale = nn.Parameter(torch.full_like(loc, self.init_scale).log())

    def _loc_scale(self) -> tuple[Tensor, Tensor]:
        loc = perform(Site(f"{self.prefix}_loc", "param", leaf=self.loc)).tensor
        scale = Site(f"{self.prefix}_scale", "param", leaf=self.log_scale, constraint=constraints.positive)
        return loc, perform(scale).tensor

    def posterior(self) -> Distribution:
        loc, scale = self._loc_scale()
        counted = self.counted()
        base = Normal(loc, scale, validate_args=False)
        return (base if counted is True else base.mask(counted)).to_event(1)  # type: ignore[no-any-return]

    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The image of the vector's centre."""
        self._ready(args, kwargs)
        return self._sites_of(self._loc_scale()[0].detach())

    def quantiles(self, quantiles: Sequence[float] | Tensor, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Quantiles of each latent entry, for sites whose support is reached entry by entry.

        Shapes: (Q, *site).
        """
        self._ready(args, kwargs)
        loc, scale = (x.detach() for x in self._loc_scale())
        rows = [self._sites_of(loc + scale * torch.special.ndtri(torch.as_tensor(q).to(loc))) for q in quantiles]
        return {name: torch.stack([row[name] for row in rows]) for name in self.latents}
