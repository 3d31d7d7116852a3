"""Draw before the transforms."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import TransformedDistribution

from ppl.distributions.distribution import Distribution
from ppl.distributions.lifting import lift
from ppl.statements import sample


class TransformReparam:
    """Replace a TransformedDistribution by its base, the site `{name}_base`, and apply the transforms to its draw.

    Raises: ValueError for any other distribution, or an observed site.
    """

    def __call__(self, name: str, fn: Distribution, obs: Tensor | None) -> tuple[Distribution | None, Tensor | None]:
        if obs is not None:
            raise ValueError(f"site '{name}': TransformReparam is for latent sites, but this one is observed.")
        if not isinstance(fn, TransformedDistribution):  # torch's, which families such as LogNormal inherit
            raise ValueError(
                f"site '{name}': TransformReparam needs a TransformedDistribution, but got {type(fn).__name__}."
            )
        value = sample(f"{name}_base", lift(fn.base_dist))
        for transform in fn.transforms:
            value = transform(value)
        return None, value
