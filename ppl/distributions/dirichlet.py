"""Laws on the simplex: vectors of probabilities."""

from __future__ import annotations

import torch
from torch import Size, Tensor

from ppl.distributions import constraints, noise, validation
from ppl.distributions.distribution import ShapeLike
from ppl.distributions.family import Family
from ppl.tensors.precision import widened


class Dirichlet(Family, torch.distributions.Dirichlet):
    """Probability vectors, with one `concentration` > 0 a category.

    Draws are normalised gamma draws; an entry too small for its dtype is the smallest normal number instead of 0, so
    that every draw has a finite density.

    Shapes: concentration (*batch, k) -> event (k,).
    """

    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None:
        if not isinstance(concentration, Tensor) or concentration.dim() < 1:
            raise ValueError(
                "Dirichlet: 'concentration' must be a tensor with one entry a category in its last dim, but got "
                f"{concentration!r}; write torch.tensor([a, b, …])."
            )
        self._take({"concentration": concentration}, concentration.shape[-1:], validate_args)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        concentration = self.concentration.expand(self.shape(sample_shape))
        tiny = torch.finfo(concentration.dtype).tiny
        return torch.softmax(noise.log_gamma(concentration), -1).clamp(min=tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        inside = self._is_inside(value)
        x, a = widened(value), widened(self.concentration)
        if not inside:
            # log x, but 0 where it is not asked for: at an edge that is as likely as any other point, and outside
            x = torch.where((x > 0) | ((x == 0) & (a != 1)), x, 1.0)
        elif not validation.holds(constraints.positive, value):
            x = x.masked_fill((x == 0) & (a == 1), 1.0)
        log_density = (((a - 1) * x.log()).sum(-1) - _log_normaliser(a)).to(self.concentration.dtype)
        return log_density if inside else torch.where(constraints.simplex.check(value), log_density, -torch.inf)

    def conjugate_update(self, other: Dirichlet) -> tuple[Dirichlet, Tensor]:
        """The normalised product of two densities of the same variable, and the log of its integral.

        For all x: self.log_prob(x) + other.log_prob(x) = updated.log_prob(x) + log_normalizer.
        Raises: ValueError for another family, or where the product has no finite integral.
        """
        if not isinstance(other, torch.distributions.Dirichlet):
            raise ValueError(f"Dirichlet.conjugate_update: expected a Dirichlet, but got {type(other).__name__}.")
        updated = Dirichlet(self.concentration + other.concentration - 1, validate_args=self._validate_args)
        a, b, c = (widened(d.concentration) for d in (self, other, updated))
        log_normalizer = _log_normaliser(c) - _log_normaliser(a) - _log_normaliser(b)
        return updated, log_normalizer.to(updated.concentration.dtype)


def _log_normaliser(a: Tensor) -> Tensor:
    """The log of the multivariate beta function."""
    return torch.lgamma(a).sum(-1) - torch.lgamma(a.sum(-1))
