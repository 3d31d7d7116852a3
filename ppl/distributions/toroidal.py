"""Laws of pairs and vectors of angles."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions import constraints
from ppl.distributions.distribution import Distribution, ShapeLike, expanded
from ppl.distributions.family import Family
from ppl.distributions.lifting import lift
from ppl.distributions.von_mises import VonMises
from ppl.tensors.directions import draw_toroidal, log_toroidal
from ppl.tensors.precision import widened


def wrapped(angle: Tensor) -> Tensor:
    """The same angle from -pi up to pi."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


class SineBivariateVonMises(Family):
    """Two angles φ and ψ that depend on each other through the product of their sines.

    Density: proportional to exp(κ_φ cos(φ - φ_0) + κ_ψ cos(ψ - ψ_0) + ρ sin(φ - φ_0) sin(ψ - ψ_0)); with one peak where
    ρ² < κ_φ κ_ψ, else with two. A `weighted_correlation` w in place of ρ means ρ = w sqrt(κ_φ κ_ψ).

    Shapes: all parameters (*batch) -> event (2,): φ and ψ.
    Raises: ValueError where not exactly one of the correlations is given.
    Source: Singh, Hnizdo & Demchuk 2002, Probabilistic model for two dependent circular variables.
    """

    arg_constraints = {
        "phi_loc": constraints.real,
        "psi_loc": constraints.real,
        "phi_concentration": constraints.positive,
        "psi_concentration": constraints.positive,
        "correlation": constraints.real,
    }
    support = constraints.independent(constraints.circular, 1)
    phi_loc: Tensor
    psi_loc: Tensor
    phi_concentration: Tensor
    psi_concentration: Tensor
    correlation: Tensor

    def __init__(
        self,
        phi_loc: Tensor | float,
        psi_loc: Tensor | float,
        phi_concentration: Tensor | float,
        psi_concentration: Tensor | float,
        correlation: Tensor | float | None = None,
        weighted_correlation: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if (correlation is None) == (weighted_correlation is None):
            raise ValueError("SineBivariateVonMises: give exactly one of 'correlation' and 'weighted_correlation'.")
        arguments = {
            "phi_loc": phi_loc,
            "psi_loc": psi_loc,
            "phi_concentration": phi_concentration,
            "psi_concentration": psi_concentration,
            "correlation": weighted_correlation if correlation is None else correlation,
        }
        self._take(arguments, (2,), validate_args)
        if correlation is None:
            self.correlation = self.correlation * (self.phi_concentration * self.psi_concentration).sqrt()

    @property
    def mean(self) -> Tensor:
        """The circular mean."""
        return torch.stack([self.phi_loc, self.psi_loc], -1)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw without gradients, by rejection with all rounds at once."""
        with torch.no_grad():
            shape = Size(sample_shape)
            parameters = (self.phi_concentration, self.psi_concentration, self.correlation)
            k1, k2, correlation = (widened(v) for v in parameters)
            phi = draw_toroidal(k1, k2, correlation, shape.numel())
            pull = correlation * phi.sin()
            psi = VonMises(torch.atan2(pull, k2.expand_as(pull)), (k2.square() + pull.square()).sqrt(), False).sample()
            loc = self.mean
            around = torch.stack([phi, psi], -1).to(loc.dtype).reshape(self.shape(shape))
            return wrapped(loc + around)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        k1, k2, correlation = (widened(v) for v in (self.phi_concentration, self.psi_concentration, self.correlation))
        a, b = (widened(value) - widened(self.mean)).unbind(-1)
        kernel = -2 * (k1 * (0.5 * a).sin().square() + k2 * (0.5 * b).sin().square()) + correlation * a.sin() * b.sin()
        return (kernel - log_toroidal(k1, k2, correlation)).to(self.phi_loc.dtype)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        if "weighted_correlation" in arg_shapes:
            arg_shapes["correlation"] = arg_shapes.pop("weighted_correlation")
        batch, _ = super().infer_shapes(**arg_shapes)
        return batch, Size((2,))


class SineSkewed(Distribution):
    """A law of angles that is symmetric around its mean, leaned over: its density times 1 + Σ skewness · sin(x - mean).

    Shapes: skewness (*batch, *event) for a `base_dist` of angles with event shape () or (k,); Σ |skewness| <= 1.
    Source: Ameijeiras-Alonso & Ley 2021, Sine-skewed toroidal distributions and their application in protein
    bioinformatics.
    """

    expands_without_init = True
    has_rsample = False

    def __init__(
        self,
        base_dist: torch.distributions.Distribution,
        skewness: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        base = lift(base_dist)
        loc = base.mean
        skewness = torch.as_tensor(skewness, dtype=loc.dtype, device=loc.device)
        event = base.event_shape
        if len(event) > 1 or skewness.shape[skewness.dim() - len(event) :] != event:
            raise ValueError(
                f"SineSkewed: 'skewness' must end in the event shape of base_dist {tuple(event)}, one number an angle, "
                f"but its shape is {tuple(skewness.shape)}; write base_dist.to_event(1) for independent angles."
            )
        batch = torch.broadcast_shapes(base.batch_shape, skewness.shape[: skewness.dim() - len(event)])
        self.base_dist = expanded(base, batch)
        self.skewness = skewness.expand(batch + event)
        super().__init__(batch, event, validate_args)

    @property
    def arg_constraints(self) -> dict[str, Any]:
        return {"skewness": constraints.l1_ball if self.event_dim else constraints.interval(-1.0, 1.0)}

    @property
    def support(self) -> Any:
        return self.base_dist.support

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        shape = Size(batch_shape)
        new = self._get_checked_instance(type(self), _instance)
        vars(new).update(vars(self))
        new.base_dist = expanded(self.base_dist, shape)
        new.skewness = self.skewness.expand(shape + self.event_shape)
        new._batch_shape = shape
        return new

    def _lean(self, centred: Tensor) -> Tensor:
        terms = self.skewness * centred.sin()
        return terms.sum(-1) if self.event_dim else terms

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw from the base, and reflect around its mean as often as the density leans to the other side."""
        with torch.no_grad():
            loc = self.base_dist.mean
            centred = self.base_dist.sample(Size(sample_shape)) - loc
            lean = self._lean(centred)
            stay = 2 * torch.rand_like(lean) - 1 <= lean
            stay = stay.unsqueeze(-1) if self.event_dim else stay
            return wrapped(loc + torch.where(stay, centred, -centred))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self.base_dist.log_prob(value) + torch.log1p(self._lean(value - self.base_dist.mean))
