"""Counts at a rate."""

from __future__ import annotations

import torch
import torch.distributions as td
from torch import Size, Tensor

from ppl.distributions.count import Count
from ppl.distributions.distribution import Distribution
from ppl.tensors.incomplete import gammaincc
from ppl.tensors.mass import log_poisson


class Poisson(Count, td.Poisson, Distribution):
    """Counts at the given `rate` >= 0.

    Args: is_sparse, whether most values are 0: `log_prob` then works out the density at the others only. This looks at
        the values, so that it stays out of vmap, and a graph of it holds for values with as many zeros.
    """

    parameters = ("rate",)
    _kept = ("is_sparse",)

    def __init__(self, rate: Tensor | float, *, is_sparse: bool = False, validate_args: bool | None = None) -> None:
        self.is_sparse = is_sparse
        self._take((rate,), validate_args)

    def _draw(self, shape: Size) -> Tensor:
        return torch.poisson(self.rate.expand(shape))

    def _log_mass(self, value: Tensor) -> Tensor:
        if not self.is_sparse:
            return _log_mass(value, self.rate)
        value, rate = torch.broadcast_tensors(value, self.rate)
        shape, value, rate = value.shape, value.reshape(-1), rate.reshape(-1)
        places = value.nonzero(as_tuple=True)
        log_mass: Tensor = (-rate).index_put(places, _log_mass(value[places], rate[places]))
        return log_mass.reshape(shape)

    def _cumulative(self, value: Tensor) -> Tensor:
        sure = self.rate == 0
        return torch.where(sure, 1.0, gammaincc(value + 1, torch.where(sure, 1.0, self.rate)))

    @property
    def mode(self) -> Tensor:
        floor: Tensor = self.rate.floor()
        return floor


def _log_mass(value: Tensor, rate: Tensor) -> Tensor:
    never = rate == 0
    log_rate = torch.where(never & (value != 0), -torch.inf, torch.where(never, 1.0, rate).log())
    return log_poisson(value, rate, log_rate)
