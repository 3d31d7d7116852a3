"""Mixtures of normal vectors with diagonal covariances, whose draws have pathwise derivatives.

A draw x of density p = Σ w_j p_j moves with a velocity v that solves the transport equation ∂p + ∇·(p v) = 0:

- location and scale of component j move x as they move the component's own draws, times p(j | x);
- for a logit l_j, ∂p = w_j Σ_k w_k (p_j - p_k), so v = w_j Σ_k w_k F_jk / p with a flux F_jk that carries the mass of
  component k to component j: ∇·F_jk = p_k - p_j. Changing one coordinate after the other from component k's law to j's
  gives one: in coordinate d it is (Φ_k - Φ_j) of that coordinate times the densities of j before d and of k after d.
  The mean of this and the same in reverse order is used.

Everything is exact; only first derivatives are meant to be taken.

Source: Jankowiak & Karaletsos 2018, Pathwise Derivatives for Multivariate Distributions, for the transport equation.
"""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from ppl.distributions import constraints, noise
from ppl.distributions.distribution import ShapeLike, broadcast_shape
from ppl.distributions.family import Family
from ppl.tensors.special import log_ndtr_diff

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class _DiagonalMixture(Family):
    """What the three share. A subclass gives `_components`, the locations and scales of all components."""

    has_rsample = True
    support = constraints.real_vector
    component_logits: Tensor

    def _components(self) -> tuple[Tensor, Tensor]:
        """Locations and scales, both (*batch, K, k)."""
        raise NotImplementedError

    def _log_weights(self) -> Tensor:
        return self.component_logits.log_softmax(-1)

    @property
    def mean(self) -> Tensor:
        loc, _ = self._components()
        return (self._log_weights().exp().unsqueeze(-1) * loc).sum(-2)

    @property
    def variance(self) -> Tensor:
        loc, scale = self._components()
        weights = self._log_weights().exp().unsqueeze(-1)
        spread = loc - (weights * loc).sum(-2, keepdim=True)
        return (weights * (scale.square() + spread.square())).sum(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        loc, scale = self._components()
        return _log_joint(value, self._log_weights(), loc, scale).logsumexp(-1)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        with torch.no_grad():
            loc, scale = self._components()
            shape = self.shape(sample_shape)
            log_weights = self._log_weights().expand(*shape[:-1], -1)
            uniform = torch.rand_like(log_weights).clamp(min=torch.finfo(loc.dtype).tiny)
            chosen = (log_weights - (-uniform.log()).log()).argmax(-1)[..., None, None]  # Gumbel's way to a category
            index = chosen.expand(*chosen.shape[:-1], shape[-1])
            loc, scale = (v.expand(*shape[:-1], *v.shape[-2:]).gather(-2, index).squeeze(-2) for v in (loc, scale))
            return loc + scale * noise.normal_of(loc, shape)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        x = self.sample(sample_shape)
        loc, scale = self._components()
        fixed_loc, fixed_scale, log_weights = loc.detach(), scale.detach(), self._log_weights().detach()
        with torch.no_grad():
            log_joint = _log_joint(x, log_weights, fixed_loc, fixed_scale)
            share = log_joint.softmax(-1).unsqueeze(-1)
            z = (x.unsqueeze(-2) - fixed_loc) / fixed_scale
            field = _logit_field(x, log_weights, fixed_loc, fixed_scale, log_joint.logsumexp(-1))
        # each of these is zero, and has the velocity as its gradient
        moved = (share * ((loc - fixed_loc) + (scale - fixed_scale) * z)).sum(-2)
        logits = self.component_logits.clamp(min=torch.finfo(x.dtype).min)  # a weight of 0 has a logit of -inf
        pushed = (field * (logits - logits.detach()).unsqueeze(-1)).sum(-2)
        return x + moved + pushed


def _log_joint(x: Tensor, log_weights: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """log w_j p_j(x). Shapes: x (*batch, k), log_weights (*batch, K), loc and scale (*batch, K, k) -> (*batch, K)."""
    z = (x.unsqueeze(-2) - loc) / scale
    return log_weights + (-0.5 * z.square() - scale.log() - _HALF_LOG_2PI).sum(-1)


def _logit_field(x: Tensor, log_weights: Tensor, loc: Tensor, scale: Tensor, log_p: Tensor) -> Tensor:
    """The velocity of x in each logit. Shapes as in `_log_joint` -> (*batch, K, k)."""
    z = (x.unsqueeze(-2) - loc) / scale
    log_density = -0.5 * z.square() - scale.log() - _HALF_LOG_2PI
    before = log_density.cumsum(-1) - log_density
    after = log_density.flip(-1).cumsum(-1).flip(-1) - log_density
    z_j, z_k = z.unsqueeze(-2), z.unsqueeze(-3)
    gap = log_ndtr_diff(torch.minimum(z_j, z_k), torch.maximum(z_j, z_k))
    sign = torch.sign(z_k - z_j)
    pairs = log_weights.unsqueeze(-1) + log_weights.unsqueeze(-2) - log_p[..., None, None]
    log_flux = gap + pairs.unsqueeze(-1)
    forwards = (log_flux + before.unsqueeze(-2) + after.unsqueeze(-3)).exp()
    backwards = (log_flux + after.unsqueeze(-2) + before.unsqueeze(-3)).exp()
    return 0.5 * (sign * (forwards + backwards)).sum(-2)


def _fit(owner: object, expected: str, fits: bool, **tensors: Tensor) -> None:
    """ValueError naming the shapes that were expected and the ones that came."""
    if not fits:
        came = ", ".join(f"{k} {tuple(t.shape)}" for k, t in tensors.items())
        raise ValueError(f"{type(owner).__name__}: expected the shapes {expected}, but got {came}.")


class MixtureOfDiagNormals(_DiagonalMixture):
    """A mixture of K normal vectors with diagonal covariances, with pathwise derivatives in all of its parameters.

    Shapes: locs (*batch, K, k), coord_scale (*batch, K, k), component_logits (*batch, K) -> event (k,).
    """

    arg_constraints = {
        "locs": constraints.independent(constraints.real, 2),
        "coord_scale": constraints.independent(constraints.positive, 2),
        "component_logits": constraints.real_vector,
    }
    locs: Tensor
    coord_scale: Tensor

    def __init__(
        self, locs: Tensor, coord_scale: Tensor, component_logits: Tensor, validate_args: bool | None = None
    ) -> None:
        fits = locs.dim() > 1 and coord_scale.shape[-2:] == locs.shape[-2:]
        _fit(
            self,
            "locs (*batch, K, k), coord_scale (*batch, K, k), component_logits (*batch, K)",
            fits and component_logits.shape[-1:] == locs.shape[-2:-1],
            locs=locs,
            coord_scale=coord_scale,
            component_logits=component_logits,
        )
        arguments = {"locs": locs, "coord_scale": coord_scale, "component_logits": component_logits}
        self._take(arguments, locs.shape[-1:], validate_args)

    def _components(self) -> tuple[Tensor, Tensor]:
        return self.locs, self.coord_scale

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        locs, scale, logits = (Size(arg_shapes[k]) for k in ("locs", "coord_scale", "component_logits"))
        return broadcast_shape(locs[:-2], scale[:-2], logits[:-1]), locs[-1:]


class MixtureOfDiagNormalsSharedCovariance(_DiagonalMixture):
    """A mixture of K normal vectors with one diagonal covariance, with pathwise derivatives in all of its parameters.

    Shapes: locs (*batch, K, k), coord_scale (*batch, k), component_logits (*batch, K) -> event (k,).
    """

    arg_constraints = {
        "locs": constraints.independent(constraints.real, 2),
        "coord_scale": constraints.independent(constraints.positive, 1),
        "component_logits": constraints.real_vector,
    }
    locs: Tensor
    coord_scale: Tensor

    def __init__(
        self, locs: Tensor, coord_scale: Tensor, component_logits: Tensor, validate_args: bool | None = None
    ) -> None:
        fits = locs.dim() > 1 and coord_scale.shape[-1:] == locs.shape[-1:]
        _fit(
            self,
            "locs (*batch, K, k), coord_scale (*batch, k), component_logits (*batch, K)",
            fits and component_logits.shape[-1:] == locs.shape[-2:-1],
            locs=locs,
            coord_scale=coord_scale,
            component_logits=component_logits,
        )
        arguments = {"locs": locs, "coord_scale": coord_scale, "component_logits": component_logits}
        self._take(arguments, locs.shape[-1:], validate_args)

    def _components(self) -> tuple[Tensor, Tensor]:
        return self.locs, self.coord_scale.unsqueeze(-2).expand_as(self.locs)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        locs, scale, logits = (Size(arg_shapes[k]) for k in ("locs", "coord_scale", "component_logits"))
        return broadcast_shape(locs[:-2], scale[:-1], logits[:-1]), locs[-1:]


class GaussianScaleMixture(_DiagonalMixture):
    """A mixture of K normal vectors around 0 with scales `component_scale[j] * coord_scale`, pathwise differentiable.

    Shapes: coord_scale (*batch, k), component_logits (*batch, K), component_scale (*batch, K) -> event (k,).
    """

    arg_constraints = {
        "coord_scale": constraints.independent(constraints.positive, 1),
        "component_logits": constraints.real_vector,
        "component_scale": constraints.independent(constraints.positive, 1),
    }
    coord_scale: Tensor
    component_scale: Tensor

    def __init__(
        self,
        coord_scale: Tensor,
        component_logits: Tensor,
        component_scale: Tensor,
        validate_args: bool | None = None,
    ) -> None:
        _fit(
            self,
            "coord_scale (*batch, k), component_logits (*batch, K), component_scale (*batch, K)",
            coord_scale.dim() > 0
            and component_logits.dim() > 0
            and component_logits.shape[-1:] == component_scale.shape[-1:],
            coord_scale=coord_scale,
            component_logits=component_logits,
            component_scale=component_scale,
        )
        arguments = {
            "coord_scale": coord_scale,
            "component_logits": component_logits,
            "component_scale": component_scale,
        }
        self._take(arguments, coord_scale.shape[-1:], validate_args)

    def _components(self) -> tuple[Tensor, Tensor]:
        scale = self.component_scale.unsqueeze(-1) * self.coord_scale.unsqueeze(-2)
        return torch.zeros_like(scale), scale

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        coord, logits, scale = (Size(arg_shapes[k]) for k in ("coord_scale", "component_logits", "component_scale"))
        return broadcast_shape(coord[:-1], logits[:-1], scale[:-1]), coord[-1:]
