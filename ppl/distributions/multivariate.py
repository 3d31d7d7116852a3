"""Mixtures of one family."""

from __future__ import annotations

import torch.distributions as td

from ppl.distributions.distribution import Distribution


class MixtureSameFamily(td.MixtureSameFamily, Distribution):
    """A mixture along the last batch dim of `component_distribution`."""
