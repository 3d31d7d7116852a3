"""A density of 1 over any set, however large."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.prototype import NoSampler, log_prob_shape


class ImproperUniform(Distribution):
    """Log density 0 everywhere on a support: an improper prior.

    Guides, NUTS, conditioning and initial values work with it; a draw does not exist, and asking for one says so.

    Args: support, a constraint; batch_shape; event_shape, of one draw.
    """

    arg_constraints = {}

    def __init__(
        self,
        support: Any,
        batch_shape: ShapeLike = Size(),
        event_shape: ShapeLike = Size(),
        validate_args: bool | None = None,
    ) -> None:
        batch, event = Size(batch_shape), Size(event_shape)
        if len(event) < support.event_dim:
            raise ValueError(
                f"ImproperUniform: the support {support} is one of draws with {support.event_dim} event dims, but event_shape "
                f"is {tuple(event)}; write event_shape=(…), the shape of one draw."
            )
        rest = len(event) - support.event_dim
        self._support = torch.distributions.constraints.independent(support, rest) if rest else support
        super().__init__(batch, event, validate_args)

    @property
    def support(self) -> Any:
        return self._support

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return False

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        return ImproperUniform(self._support, batch_shape, self.event_shape, self._validate_args)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        raise NoSampler(
            "ImproperUniform cannot be sampled: it has no finite mass. Give its site a value (condition, obs=…), or let an "
            "inference start without a draw (init_to_uniform, init_to_feasible, init_to_value); for prior predictions use "
            "a proper prior."
        )

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        zero = value.new_zeros(log_prob_shape(self, value))
        if value.numel() == 0:
            return zero
        return torch.where(self._support.check(value), zero, torch.full_like(zero, -torch.inf))
