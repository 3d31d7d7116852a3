"""What univariate discrete families share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions.distribution import ShapeLike
from ppl.distributions.scalar import Scalar


class Count(Scalar):
    """A mixin for univariate families over integers. Stands before torch's class.

    A subclass gives `_log_mass` (at values inside the support) and `_draw`; `_cumulative` (at integers inside the
    support) for `cdf`; `_number_of_values` where the support is finite and starts at 0.
    """

    expands_without_init = True
    lowest: Any = 0  # the least value of the support, a number or a tensor
    _kept: tuple[str, ...] = ()  # fields besides the parameters that `expand` hands on

    def _log_mass(self, value: Tensor) -> Tensor:
        raise NotImplementedError

    def _cumulative(self, value: Tensor) -> Tensor:
        raise NotImplementedError

    def _draw(self, shape: Size) -> Tensor:
        raise NotImplementedError

    def _take(self, values: tuple[Any, ...], validate_args: bool | None) -> None:
        """Keep the parameters as floating point tensors: counts often come as integers."""
        if any(isinstance(v, Tensor) and not v.is_floating_point() for v in values):
            floats = [v.dtype for v in values if isinstance(v, Tensor) and v.is_floating_point()]
            dtype = floats[0] if floats else torch.get_default_dtype()
            values = tuple(v.to(dtype) if isinstance(v, Tensor) else v for v in values)
        super()._take(values, validate_args)

    @property
    def _like(self) -> Tensor:
        """A parameter, for dtype and device."""
        like: Tensor = getattr(self, self.parameters[-1])
        return like

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        """The same distribution repeated to a larger batch shape, without copying."""
        new = super().expand(batch_shape, _instance)
        for name in ("parameters", *self._kept):
            if name in vars(self):
                vars(new)[name] = vars(self)[name]
        return new

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        this: Any = self
        with torch.no_grad():
            return self._draw(this.shape(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        this: Any = self
        if this._validate_args:  # then the value is inside
            this._validate_sample(value)
            return self._log_mass(value.to(self._like.dtype))
        inside = this.support.check(value)
        safe = torch.where(inside, value.to(self._like.dtype), self.lowest)
        return torch.where(inside, self._log_mass(safe), -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of draws up to the value, which may lie between and outside the integers of the support."""
        this: Any = self
        value = value.to(self._like.dtype).floor()
        highest = getattr(this.support, "upper_bound", math.inf)
        below, above = value < self.lowest, value >= highest
        probability = self._cumulative(torch.where(below | above, self.lowest, value))
        return torch.where(below, 0.0, torch.where(above, 1.0, probability))

    @classmethod
    def infer_shapes(cls, **arg_shapes: Any) -> tuple[Size, Size]:
        """Batch and event shape from the shapes of the arguments, among which options may be; no tensor is made."""
        return super().infer_shapes(**{k: v for k, v in arg_shapes.items() if k not in cls._kept})

    @property
    def cardinality(self) -> int:
        """The number of values that `enumerate_support` lists: where it differs along the batch, the largest."""
        this: Any = self
        if not this.has_enumerate_support:
            this.enumerate_support()  # raises, saying so
        return self._number_of_values()

    def _number_of_values(self) -> int:
        raise NotImplementedError

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """The values that any entry of the batch has; for an entry with fewer, the others have log density -inf."""
        this: Any = self
        if not this.has_enumerate_support:
            raise ValueError(infinite(this))
        values = torch.arange(self._number_of_values(), dtype=self._like.dtype, device=self._like.device) + self.lowest
        return along_batch(values, this.batch_shape, expand)


def infinite(d: torch.distributions.Distribution) -> str:
    """The error of a distribution that cannot be enumerated."""
    return (
        f"{type(d).__name__} cannot be enumerated: its support is not a finite set. Leave the site unmarked, "
        "or use a distribution with a finite support such as Categorical or Bernoulli."
    )


def along_batch(values: Tensor, batch_shape: Size, expand: bool) -> Tensor:
    """A list of values as `enumerate_support` returns it: (K, 1, …, 1), or (K, *batch)."""
    values = values.reshape((-1,) + (1,) * len(batch_shape))
    return values.expand((-1, *batch_shape)) if expand else values


def largest_number(value: Tensor | float) -> int:
    """The largest entry of a parameter that bounds the support, for enumeration.

    Where it differs along the batch, smaller rows are enumerated with values of probability zero.
    """
    if not isinstance(value, Tensor):
        return int(value)
    return int(value.max()) if value.numel() else 0


def summed_tails(
    d: torch.distributions.Distribution, total_count: Tensor | int, value: Tensor
) -> tuple[Tensor, Tensor]:
    """The log probabilities of draws up to each value, and above it, of a distribution over 0 … total_count.

    Each is a sum from its own end, so that both tails keep their digits.
    Shapes: value (*sample, *batch), of integers inside the support -> twice the same.
    """
    largest = int(total_count.max()) if isinstance(total_count, Tensor) and total_count.numel() else total_count
    like: Tensor = d._like  # type: ignore[attr-defined]
    values = torch.arange(int(largest) + 1 if like.numel() else 1, dtype=like.dtype, device=like.device)
    counts = along_batch(values, d.batch_shape, True)
    inside = counts <= total_count
    none = -1e30  # finite, so that sums of nothing have gradients
    mass = torch.where(inside, d._log_mass(torch.where(inside, counts, 0.0)).clamp(min=none), none)  # type: ignore[attr-defined]
    larger = torch.cat((mass[1:], torch.full_like(mass[:1], none)))
    sums = mass.logcumsumexp(0), larger.flip(0).logcumsumexp(0).flip(0)
    shape = torch.broadcast_shapes(value.shape, d.batch_shape)
    index = value.expand(shape).long()[..., None]
    below, above = (x.movedim(0, -1).expand((*shape, len(values))).gather(-1, index).squeeze(-1) for x in sums)
    return below.masked_fill(below < 0.1 * none, -math.inf), above.masked_fill(above < 0.1 * none, -math.inf)


def summed_entropy(d: torch.distributions.Distribution, total_count: Tensor | int) -> Tensor:
    """The entropy of a distribution over 0 … total_count, which may differ along the batch; it looks at the largest."""
    largest = int(total_count.max()) if isinstance(total_count, Tensor) and total_count.numel() else total_count
    like: Tensor = d._like  # type: ignore[attr-defined]
    values = torch.arange(int(largest) + 1 if like.numel() else 1, dtype=like.dtype, device=like.device)
    inside = along_batch(values, d.batch_shape, False) <= total_count
    log_mass = d._log_mass(torch.where(inside, along_batch(values, d.batch_shape, False), 0.0))  # type: ignore[attr-defined]
    possible = inside & (log_mass > -math.inf)
    log_mass = torch.where(possible, log_mass, 0.0)
    return torch.where(possible, -log_mass.exp() * log_mass, 0.0).sum(0)
