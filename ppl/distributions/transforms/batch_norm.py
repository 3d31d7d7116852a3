"""Batch normalisation as a transform."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ppl.distributions import constraints
from ppl.distributions.transforms.module import TransformModule


class BatchNorm(TransformModule):
    """The inverse standardises each of `input_dim` entries: x = gamma (y - mean) / sqrt(variance + epsilon) + beta.

    In training mode the inverse (which density evaluation takes) uses mean and variance of the batch it is given, over
    all dims but the last, and moves `moving_mean` and `moving_variance` towards them; in evaluation mode it uses these,
    as the forward map does always. So in training mode forward does not undo the inverse, unless remembered, and an
    update in place excludes `vmap`. Elementwise: `log_abs_det_jacobian` has the shape of x, and takes the batch's
    statistics as given.

    Args:   momentum, by how much the moving statistics move in a step, in 0 to 1; epsilon, added to variances.
    Raises: ValueError for a batch of less than two in training mode.
    Source: Dinh et al. 2017, section 3.7; Papamakarios et al. 2017, appendix B.
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True
    sign = 1
    moving_mean: Tensor
    moving_variance: Tensor

    def __init__(self, input_dim: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__(cache_size=1)
        self.input_dim, self.momentum, self.epsilon = input_dim, momentum, epsilon
        self.log_gamma = nn.Parameter(torch.zeros(input_dim))
        self.beta = nn.Parameter(torch.zeros(input_dim))
        self.register_buffer("moving_mean", torch.zeros(input_dim))
        self.register_buffer("moving_variance", torch.ones(input_dim))

    @property
    def gamma(self) -> Tensor:
        """The scale, positive."""
        return self.log_gamma.exp()

    def _log_slope(self, variance: Tensor) -> Tensor:
        return 0.5 * (variance + self.epsilon).log() - self.log_gamma

    def _batch(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of a batch."""
        rows = y.reshape(-1, y.shape[-1])
        if len(rows) < 2:
            raise ValueError(
                f"BatchNorm: in training mode the batch needs two rows at least, but its shape is {tuple(y.shape)}; "
                "call .eval() to use the moving statistics."
            )
        return rows.mean(0), rows.var(0, correction=0)

    def _call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_slope = self._log_slope(self.moving_variance)
        return (x - self.beta) * log_slope.exp() + self.moving_mean, log_slope.expand(x.shape)

    def _inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = self.moving_mean, self.moving_variance
        if self.training:
            mean, variance = self._batch(y)
            with torch.no_grad():
                self.moving_mean.lerp_(mean.detach(), self.momentum)
                self.moving_variance.lerp_(variance.detach(), self.momentum)
        log_slope = self._log_slope(variance)
        return (y - mean) * (-log_slope).exp() + self.beta, log_slope.expand(y.shape)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |dy/dx|, entry by entry: by the batch's statistics in training mode, if y was not made by the forward map."""
        if not self.training or (self._cache_size and self._find(x=x, y=y) is not None):
            return super().log_abs_det_jacobian(x, y)
        return self._log_slope(self._batch(y)[1]).expand(y.shape)


def batchnorm(input_dim: int, **kwargs: Any) -> BatchNorm:
    """A `BatchNorm`."""
    return BatchNorm(input_dim, **kwargs)
