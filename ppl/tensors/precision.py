"""Wider floating point numbers for steps that would lose digits."""

from __future__ import annotations

from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """In double precision where the device has it, for sums of large terms that cancel."""
    return x if x.device.type == "mps" else x.double()
