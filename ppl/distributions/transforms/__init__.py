"""Invertible maps with known Jacobians."""

from torch.distributions.transforms import *  # noqa: F403
