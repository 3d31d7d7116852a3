"""The uniform distribution, on a linear and on a log scale, and the continuous Bernoulli, which is one tilted."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributions as td
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions import noise
from ppl.distributions.bounded import Bounded, keep_inside_unit
from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.ordered_ends import check_ends
from ppl.tensors import tilted
from ppl.tensors.special import log_ratio


class Uniform(Bounded, td.Uniform, Distribution):
    """Equally likely anywhere from `low` to `high`."""

    parameters = ("low", "high")
    arg_constraints: Any = {"low": constraints.real, "high": constraints.real}  # and low < high, checked by itself

    def __init__(self, low: Tensor | float, high: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((low, high), validate_args)
        check_ends(self)

    def _ends(self) -> tuple[Tensor, Tensor]:
        return self.low, self.high

    def _inner(self) -> Tensor:
        return self.low

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.icdf(noise.uniform(self.low, sample_shape))

    def _log_density(self, x: Tensor) -> Tensor:
        return -(self.high - self.low).log() + torch.zeros_like(x)

    def cdf(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)

    def _log_cdf(self, x: Tensor) -> Tensor:
        return (x - self.low).log() - (self.high - self.low).log()

    def _log_survival(self, x: Tensor) -> Tensor:
        return (self.high - x).log() - (self.high - self.low).log()

    def icdf(self, value: Tensor) -> Tensor:
        return torch.lerp(self.low, self.high, value)

    @property
    def mean(self) -> Tensor:
        return 0.5 * (self.low + self.high)

    @property
    def mode(self) -> Tensor:
        return torch.full_like(self.low, torch.nan)

    @property
    def variance(self) -> Tensor:
        return (self.high - self.low).square() / 12

    @property
    def stddev(self) -> Tensor:
        return (self.high - self.low) / 12**0.5

    def entropy(self) -> Tensor:
        return (self.high - self.low).log()


class LogUniform(Bounded, Distribution):
    """The exponential of a draw that is uniform from log `low` to log `high`: density 1 / (x log(high / low))."""

    parameters = ("low", "high")
    arg_constraints = {"low": constraints.positive, "high": constraints.positive}
    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor | float, high: Tensor | float, validate_args: bool | None = None) -> None:
        self._take((low, high), validate_args)
        check_ends(self)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """From `low` to `high`."""
        return constraints.interval(self.low, self.high)

    def _ends(self) -> tuple[Tensor, Tensor]:
        return self.low, self.high

    def _inner(self) -> Tensor:
        return self.low

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.icdf(noise.uniform(self.low, sample_shape))

    def _length(self) -> Tensor:
        return log_ratio(self.high, self.low)

    def _log_density(self, x: Tensor) -> Tensor:
        return -x.log() - self._length().log()

    def cdf(self, value: Tensor) -> Tensor:
        low, high = self._placed(value)
        inner = torch.where(low | high, self.low, value)
        return torch.where(high, 1.0, log_ratio(inner, self.low) / self._length())

    def _log_cdf(self, x: Tensor) -> Tensor:
        return log_ratio(x, self.low).log() - self._length().log()

    def _log_survival(self, x: Tensor) -> Tensor:
        return log_ratio(self.high, x).log() - self._length().log()

    def icdf(self, value: Tensor) -> Tensor:
        x = self.low * (value * self._length()).exp()
        return torch.minimum(torch.maximum(x, self.low), self.high)

    @property
    def mean(self) -> Tensor:
        return (self.high - self.low) / self._length()

    @property
    def mode(self) -> Tensor:
        return self.low

    @property
    def variance(self) -> Tensor:
        length = self._length()
        first, second = tilted.log_normaliser(length), tilted.log_normaliser(2 * length)
        return self.low.square() * (2 * first).exp() * torch.expm1(second - 2 * first)

    def entropy(self) -> Tensor:
        length = self._length()
        return self.low.log() + 0.5 * length + length.log()


class ContinuousBernoulli(Bounded, td.ContinuousBernoulli, Distribution):
    """The density on the unit interval proportional to probs^x (1 - probs)^(1 - x): a uniform tilted by the logits.

    Source: Loaiza-Ganem & Cunningham 2019. `lims`, within which torch replaces the normaliser by a series, is accepted
    and has no effect: ours is accurate everywhere.
    """

    has_rsample = True

    def __init__(
        self,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        lims: tuple[float, float] = (0.499, 0.501),
        validate_args: bool | None = None,
    ) -> None:
        if (probs is None) == (logits is None):
            raise ValueError("ContinuousBernoulli: give either 'probs' or 'logits', and not both.")
        vars(self)["_lims"] = lims
        name, given = ("probs", probs) if logits is None else ("logits", logits)
        self.parameters = (name,)
        self._take((given,), validate_args)

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        """The same distribution repeated to a larger batch shape, without copying."""
        new = self._get_checked_instance(type(self), _instance)
        new._lims, new.parameters = self._lims, self.parameters
        vars(new).update({name: getattr(self, name).expand(batch_shape) for name in self.parameters})
        vars(new)["_batch_shape"], vars(new)["_event_shape"] = Size(batch_shape), Size()
        vars(new)["_validate_args"] = self._validate_args
        return new

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        return Size(arg_shapes["probs"] if "probs" in arg_shapes else arg_shapes["logits"]), Size()

    @property
    def _given(self) -> Tensor:
        return cast(Tensor, getattr(self, self.parameters[0]))

    def _tilt(self) -> Tensor:
        """The logits, unclamped as far as there are numbers."""
        if "logits" in vars(self):
            return self.logits
        p = keep_inside_unit(self.probs)
        return p.log() - torch.log1p(-p)

    def _ends(self) -> tuple[float, float]:
        return 0.0, 1.0

    def _inner(self) -> float:
        return 0.5

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.icdf(noise.uniform(self._given, sample_shape))

    def _log_density(self, x: Tensor) -> Tensor:
        c = self._tilt()
        size = c.abs()
        return -size * torch.where(c < 0, x, 1 - x) - tilted.log_normaliser(-size)

    def _log_cdf(self, x: Tensor) -> Tensor:
        return tilted.log_cdf(x, self._tilt())

    def _log_survival(self, x: Tensor) -> Tensor:
        return tilted.log_survival(x, self._tilt())

    def icdf(self, value: Tensor) -> Tensor:
        return tilted.icdf(value, self._tilt()).clamp(0.0, 1.0)

    @property
    def mean(self) -> Tensor:
        return tilted.mean(self._tilt())

    @property
    def mode(self) -> Tensor:
        c = self._tilt()
        return torch.where(c > 0, 1.0, torch.where(c < 0, 0.0, 0.5))

    @property
    def variance(self) -> Tensor:
        return tilted.variance(self._tilt())

    @property
    def stddev(self) -> Tensor:
        return self.variance.sqrt()

    def entropy(self) -> Tensor:
        c = self._tilt()
        return tilted.log_normaliser(c) - c * tilted.mean(c)
