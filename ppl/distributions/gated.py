"""What zero-inflated and hurdle distributions share: a gate that decides for zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import Distribution, ShapeLike, broadcast_shape, expanded
from ppl.distributions.prototype import like, unchecked

Number = Tensor | float


class Gated(Distribution):
    """A distribution that is zero with probability `gate` (or sigmoid(gate_logits)), and otherwise one of another."""

    arg_constraints = {"gate": constraints.unit_interval, "gate_logits": constraints.real}
    expands_without_init = True
    base_dist: Distribution
    gate: Tensor | None  # as given; None where gate_logits was given
    gate_logits: Tensor | None

    def _take(
        self,
        base_dist: torch.distributions.Distribution,
        gate: Number | None,
        gate_logits: Number | None,
        validate_args: bool | None,
    ) -> None:
        family = type(self).__name__
        if (gate is None) == (gate_logits is None):
            raise ValueError(
                f"{family}: give either gate (a probability) or gate_logits (log odds), not both or neither."
            )
        if base_dist.event_shape:
            raise ValueError(
                f"{family}: base_dist must be univariate, but {type(base_dist).__name__} has event shape "
                f"{tuple(base_dist.event_shape)}."
            )
        given = gate if gate is not None else gate_logits
        source = like(base_dist)
        if not isinstance(given, Tensor):
            given = torch.full((), float(given), dtype=source.dtype, device=source.device)  # type: ignore[arg-type]
        try:
            batch = broadcast_shape(base_dist.batch_shape, given.shape)
        except RuntimeError:
            raise ValueError(
                f"{family}: the gate's shape {tuple(given.shape)} does not broadcast with base_dist's batch shape "
                f"{tuple(base_dist.batch_shape)}."
            ) from None
        self.base_dist = expanded(unchecked(base_dist), batch)
        self.gate = None if gate is None else given.expand(batch)
        self.gate_logits = None if gate_logits is None else given.expand(batch)
        Distribution.__init__(self, batch, Size(), validate_args)

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        shape = Size(batch_shape)
        fields = vars(new)
        fields.update(vars(self))
        fields["base_dist"] = expanded(self.base_dist, shape)
        for name in ("gate", "gate_logits"):
            if fields[name] is not None:
                fields[name] = fields[name].expand(shape)
        fields["_batch_shape"] = shape
        return new

    def _gate(self) -> Tensor:
        """The probability of a zero from the gate."""
        if self.gate is not None:
            return self.gate
        assert self.gate_logits is not None
        return self.gate_logits.sigmoid()

    def _log_gate(self, where: Tensor) -> Tensor:
        """The log probability of a zero from the gate where a mask is true; elsewhere anything, without a gradient."""
        if self.gate is not None:
            return torch.where(where, self.gate, torch.ones_like(self.gate)).log()
        assert self.gate_logits is not None
        return torch.nn.functional.logsigmoid(self.gate_logits)

    def _log_not_gate(self, where: Tensor) -> Tensor:
        """The log probability of passing the gate where a mask is true; elsewhere anything, without a gradient."""
        if self.gate is not None:
            return torch.log1p(-torch.where(where, self.gate, torch.zeros_like(self.gate)))
        assert self.gate_logits is not None
        return torch.nn.functional.logsigmoid(-self.gate_logits)

    def _is_gated(self, sample_shape: ShapeLike) -> Tensor:
        gate = self._gate()
        return torch.rand(self.shape(sample_shape), dtype=gate.dtype, device=gate.device) < gate

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_dist})"


def as_tensors(*values: Any) -> list[Any]:
    """Numbers beside tensors as tensors of their dtype and device; numbers alone, and None, as they are."""
    source = next((v for v in values if isinstance(v, Tensor) and v.is_floating_point()), None)
    if source is None:
        return list(values)
    return [
        v if v is None or isinstance(v, Tensor) else torch.full((), float(v), dtype=source.dtype, device=source.device)
        for v in values
    ]
