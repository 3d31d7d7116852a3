"""Normal laws that read NaN as "not observed"."""

from __future__ import annotations

import torch
from torch import Tensor

from ppl.distributions.multivariate_normal import LOG_2PI, MultivariateNormal
from ppl.distributions.normal import Normal
from ppl.tensors import triangular


class NanMaskedNormal(Normal):
    """A normal distribution whose log density is 0 at NaN, where a value is missing; gradients are 0 there, too."""

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        missing = value.isnan()
        return torch.where(missing, 0.0, super().log_prob(torch.where(missing, self.loc.detach(), value)))

    def _validate_sample(self, value: Tensor) -> None:
        super()._validate_sample(value.nan_to_num() if isinstance(value, Tensor) else value)


class NanMaskedMultivariateNormal(MultivariateNormal):
    """A normal vector whose log density at a value with NaN entries is that of the other entries alone.

    The missing entries are integrated out: each value costs a Cholesky decomposition of its own. Gradients are never NaN.

    Shapes: as `MultivariateNormal`; a value may have NaN in any of its entries.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        missing = value.isnan()
        centred = torch.where(missing, 0.0, torch.where(missing, 0.0, value) - self.loc)
        missing = missing.expand(centred.shape)
        present = (~missing).unsqueeze(-1) & (~missing).unsqueeze(-2)
        # a missing entry becomes an independent one, whose own density at its mean is then taken off
        eye = torch.eye(value.shape[-1], dtype=centred.dtype, device=centred.device)
        factor = triangular.cholesky(torch.where(present, self.covariance_matrix, eye))
        z = triangular.solve(factor, centred)
        count = (~missing).sum(-1).to(centred.dtype)
        return -0.5 * (z.square().sum(-1) + count * LOG_2PI) - triangular.log_diagonal(factor)

    def _validate_sample(self, value: Tensor) -> None:
        super()._validate_sample(value.nan_to_num() if isinstance(value, Tensor) else value)
