"""Negative binomial counts with log-normal noise on their mean."""

from __future__ import annotations

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.count import Count
from ppl.distributions.distribution import Distribution
from ppl.tensors.count_draws import draw_gamma_poisson
from ppl.tensors.gauss_hermite import gauss_hermite
from ppl.tensors.mass import chances_of_logits, log_negative_binomial

_NEWTON_STEPS = 6


class LogNormalNegativeBinomial(Count, Distribution):
    """A negative binomial whose log odds have normal noise: its mean is multiplied by exp(scale · ε), ε standard normal.

    The density is an integral over ε, by Gauss-Hermite quadrature around the mode of what is integrated and with its
    curvature there (Liu & Pierce 1994). Its log is right to 1e-10 for a `multiplicative_noise_scale` up to 1, 1e-6 up to
    2 and 1e-5 up to 3; with 8 nodes only to 1e-7 up to a scale of 0.5, 2e-5 up to 1 and 1e-3 up to 2.

    Args: multiplicative_noise_scale, the standard deviation of the noise; num_quad_points, the number of nodes.
    """

    arg_constraints = {
        "total_count": constraints.nonnegative,
        "logits": constraints.real,
        "multiplicative_noise_scale": constraints.positive,
    }
    support = constraints.nonnegative_integer
    parameters = ("total_count", "logits", "multiplicative_noise_scale")
    _kept = ("num_quad_points",)
    total_count: Tensor
    logits: Tensor
    multiplicative_noise_scale: Tensor

    def __init__(
        self,
        total_count: Tensor | float,
        logits: Tensor | float,
        multiplicative_noise_scale: Tensor | float,
        *,
        num_quad_points: int = 32,
        validate_args: bool | None = None,
    ) -> None:
        if num_quad_points < 1:
            raise ValueError(
                f"LogNormalNegativeBinomial: num_quad_points must be at least 1, but got {num_quad_points}."
            )
        self.num_quad_points = num_quad_points
        self._take((total_count, logits, multiplicative_noise_scale), validate_args)

    def _draw(self, shape: Size) -> Tensor:
        noise = torch.randn(shape, dtype=self.logits.dtype, device=self.logits.device)
        odds = torch.addcmul(self.logits, self.multiplicative_noise_scale, noise).exp()
        return draw_gamma_poisson(self.total_count.expand(shape), odds)

    def _log_mass(self, value: Tensor) -> Tensor:
        value, r, logits, scale = torch.broadcast_tensors(
            value, self.total_count, self.logits, self.multiplicative_noise_scale
        )
        with torch.no_grad():  # any centre and width are right: they only make the rule converge sooner
            centre, width = _mode(value, r, logits, scale)
        z, log_weights = gauss_hermite(self.num_quad_points, value)
        z = z.reshape((-1,) + (1,) * value.dim())
        noise = centre + width * z
        odds = logits + scale * noise
        log_mass = log_negative_binomial(value, r, chances_of_logits(odds, value, r.expand(odds.shape)))
        # the ratio of the normal density at the noise to that of the node
        ratio = 0.5 * (z - noise) * (z + noise) + width.log()
        return torch.logsumexp(log_mass + ratio + log_weights.reshape(z.shape), 0)

    @property
    def mean(self) -> Tensor:
        return self.total_count * (self.logits + 0.5 * self.multiplicative_noise_scale.square()).exp()

    @property
    def variance(self) -> Tensor:
        square = self.multiplicative_noise_scale.square()
        one, two = (self.logits + 0.5 * square).exp(), (2 * self.logits + 2 * square).exp()
        return self.total_count * (one + two) + self.total_count.square() * (two - one.square())


def _mode(value: Tensor, r: Tensor, logits: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Where value · η - (value + r) · log(1 + e^η) - ε²/2, with η = logits + scale · ε, is largest, and its width there.

    There η + c · sigmoid(η) = a, for a = logits + scale² · value and c = scale² · (value + r). Were the sigmoid an
    exponential, Lambert's function W would solve it (Winitzki's approximation here); Newton steps then converge from
    above, as long as η is negative. The case η > 0 is the same with successes and failures exchanged.
    """
    square = scale * scale
    c = square * (value + r)
    flip = logits + square * value > 0.5 * c
    a = torch.where(flip, square * r - logits, square * value + logits)
    log = torch.nn.functional.softplus(a + c.log())
    odds = (a - log * (1 - torch.log1p(log) / (2 + log))).clamp(max=0)
    for _ in range(_NEWTON_STEPS):
        p = torch.sigmoid(odds)
        odds = (odds + (a - odds - c * p) / (1 + c * p * (1 - p))).clamp(max=0)
    p = torch.sigmoid(odds)
    return (torch.where(flip, -odds, odds) - logits) / scale, (1 + c * p * (1 - p)).rsqrt()
