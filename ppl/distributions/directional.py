"""Laws of directions: unit vectors."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from ppl.distributions import constraints, noise
from ppl.distributions.distribution import ShapeLike
from ppl.distributions.family import Family
from ppl.tensors.directions import log_projected_integral
from ppl.tensors.precision import widened

_LOG_2PI = math.log(2 * math.pi)


def _on_sphere(value: Tensor) -> Tensor:
    """Whether vectors have length 1."""
    return (_length(value) - 1).abs() < 1e-4


def _length(vector: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vector, dim=-1)
    return length


class VonMises3D(Family):
    """The von Mises–Fisher law on the sphere in three dims: density proportional to exp(concentration · x).

    The concentration is a vector: its direction is the mode, its length says how concentrated the law is (0: uniform).

    Shapes: concentration (*batch, 3) -> event (3,).
    Source: Fisher 1953, Dispersion on a sphere; the sampler inverts the distribution function along the mode.
    """

    arg_constraints = {"concentration": constraints.real_vector}
    support = constraints.sphere
    has_rsample = True
    concentration: Tensor

    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None:
        if not isinstance(concentration, Tensor) or concentration.shape[-1:] != (3,):
            raise ValueError(
                f"VonMises3D: 'concentration' must have 3 entries in its last dim, but got "
                f"{concentration!r}; ProjectedNormal takes any number of dims."
            )
        self._take({"concentration": concentration}, (3,), validate_args)

    @property
    def mean(self) -> Tensor:
        length = _safe_norm(self.concentration).unsqueeze(-1)
        small = length < 0.3
        k, s = torch.where(small, 1.0, length), torch.where(small, length, 0.0).square()
        # coth(k) - 1/k over k, and its series
        exact = (1 / torch.tanh(k) - 1 / k) / k
        series = 1 / 3 - s * (1 / 45 - s * (2 / 945 - s * (1 / 4725 - s * (2 / 93555))))
        return self.concentration * torch.where(small, series, exact)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        shape = self.shape(sample_shape)
        length = _safe_norm(self.concentration).expand(shape[:-1])
        k = length.clamp(min=1e-8)
        uniform = torch.rand_like(k)
        # 1 - cos, by inversion: -log(1 - u (1 - exp(-2k))) / k
        versine = (-torch.log1p(uniform * torch.expm1(-2 * k)) / k).clamp(min=0.0, max=2.0)
        tiny = torch.finfo(k.dtype).tiny
        sine = (versine * (2 - versine)).clamp(min=tiny).sqrt().unsqueeze(-1)
        around = noise.normal_of(self.concentration, (*shape[:-1], 2))
        around = around / _length(around).unsqueeze(-1).clamp(min=tiny)
        x = torch.cat([1 - versine.unsqueeze(-1), sine * around], -1)
        mode = self.concentration / _safe_norm(self.concentration).clamp(min=1e-30).unsqueeze(-1)
        first = torch.eye(3, dtype=mode.dtype, device=mode.device)[0]
        # a reflection that carries the first axis to the mode, or to its opposite
        flip = torch.where(mode[..., :1] > 0, -1.0, 1.0).to(mode.dtype)
        axis = mode - flip * first
        axis = axis / _length(axis).unsqueeze(-1)
        reflected = x - 2 * (x * axis).sum(-1, keepdim=True) * axis
        return flip * reflected

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        c = widened(self.concentration)
        k = _safe_norm(c)
        small = k < 1e-3
        large = torch.where(small, 1.0, k)
        # log of k / (1 - exp(-2k)), which is 1/2 at 0
        exact = large.log() - torch.log1p(-(-2 * large).exp())
        scale = torch.where(small, k - k.square() / 6 - math.log(2.0), exact)
        total = scale - _LOG_2PI + ((c * widened(value)).sum(-1) - k)
        return torch.where(_on_sphere(value), total.to(self.concentration.dtype), -torch.inf)


class ProjectedNormal(Family):
    """The direction of a normal vector with mean `concentration` and unit covariance.

    Draws are reparameterised. The density is a moment of a normal law beyond 0, by its two-term recursion, or, where
    that would cancel, by quadrature to float precision.

    Shapes: concentration (*batch, k) with k >= 1 -> event (k,).
    Source: Hernandez-Stumpfhauser, Breidt & van der Woerd 2017, The general projected normal distribution of arbitrary
    dimension.
    """

    arg_constraints = {"concentration": constraints.real_vector}
    support = constraints.sphere
    has_rsample = True
    concentration: Tensor

    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None:
        if not isinstance(concentration, Tensor) or concentration.shape[-1:] in ((), (0,)):
            raise ValueError("ProjectedNormal: 'concentration' must be a tensor with a vector in its last dim.")
        self._take({"concentration": concentration}, concentration.shape[-1:], validate_args)

    @property
    def mode(self) -> Tensor:
        return self.concentration / _safe_norm(self.concentration).clamp(min=1e-30).unsqueeze(-1)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        x = self.concentration + noise.normal_of(self.concentration, self.shape(sample_shape))
        return x / _length(x).unsqueeze(-1).clamp(min=torch.finfo(x.dtype).tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        x, c = widened(value), widened(self.concentration)
        along = (c * x).sum(-1)
        # |c|² - along² as the square of what is perpendicular
        perpendicular = (c - along.unsqueeze(-1) * x).square().sum(-1)
        size = self.event_shape[0]
        total = log_projected_integral(along, size - 1) - 0.5 * perpendicular - 0.5 * size * _LOG_2PI
        return torch.where(_on_sphere(value), total.to(self.concentration.dtype), -torch.inf)


def _safe_norm(vector: Tensor) -> Tensor:
    """The length of a vector, with gradient 0 at 0."""
    zero = (vector == 0).all(-1, keepdim=True)
    return torch.where(zero.squeeze(-1), 0.0, _length(torch.where(zero, 1.0, vector)))
