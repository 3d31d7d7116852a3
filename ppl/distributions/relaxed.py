"""Differentiable relaxations of coins and categories: concrete distributions, and their straight-through versions.

Sources: Maddison et al. 2017, The concrete distribution; Jang et al. 2017, Categorical reparameterization with
Gumbel-softmax; Bengio et al. 2013 for the straight-through estimator.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.distributions as td
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.relaxed_bernoulli import LogitRelaxedBernoulli
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical

from ppl.distributions.bernoulli import Bernoulli
from ppl.distributions.choice import Choice
from ppl.distributions.distribution import Distribution, ShapeLike, broadcast_shape
from ppl.distributions.odds import Odds, one_of
from ppl.distributions.one_hot import OneHotCategorical
from ppl.distributions.validation import check_arguments

_FIELD = cast(Tensor, None)  # stands where torch has a property, so that the object's own field is found


class RelaxedBernoulli(Odds, td.RelaxedBernoulli, Distribution):
    """A differentiable coin on the unit interval; the lower the `temperature`, the closer to 0 and 1.

    The density of y is T e^l (y (1 - y))^(T - 1) / (e^l (1 - y)^T + y^T)^2 for a temperature T and log odds l: infinite
    at both ends for T < 1, and 0 for T > 1. Draws are kept from rounding to the ends.
    """

    arg_constraints = {
        "temperature": constraints.positive,
        "probs": constraints.unit_interval,
        "logits": constraints.real,
    }
    support: Any = constraints.unit_interval
    has_rsample = True
    parameters = ("temperature", "probs", "logits")
    temperature = _FIELD
    lowest = 0.5  # a value inside
    transforms: Any = (td.SigmoidTransform(),)

    def __init__(
        self,
        temperature: Tensor | float,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._take_odds(probs, logits, validate_args, temperature=_as_scalar(temperature))

    def _before(self) -> LogitRelaxedBernoulli:
        return LogitRelaxedBernoulli(validate_args=False, **{name: getattr(self, name) for name in self.parameters})

    base_dist: Any = property(_before, doc="The distribution of the draw's logit.")

    def _soft(self, shape: Size) -> Tensor:
        noise = torch.rand(shape, dtype=self._like.dtype, device=self._like.device)
        tiny, eps = torch.finfo(noise.dtype).tiny, torch.finfo(noise.dtype).eps
        noise = noise.clamp(min=tiny, max=1 - eps)
        logistic = noise.log() - torch.log1p(-noise)
        return torch.sigmoid((self.logits + logistic) / self.temperature).clamp(min=tiny, max=1 - eps)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self._soft(self.shape(sample_shape))

    def _draw(self, shape: Size) -> Tensor:
        return self._soft(shape)

    def _log_mass(self, value: Tensor) -> Tensor:
        t, logits = self.temperature, self.logits
        low, high = value == 0, value == 1
        # at the ends a power of 0 is left out, with its gradient
        log_y = torch.where(low & (t == 1), 1.0, value).log()
        log_z = torch.log1p(-torch.where(high & (t == 1), 0.0, value))
        inner = torch.where(low | high, 0.5, value)
        both = torch.logaddexp(logits + t * torch.log1p(-inner), t * inner.log())
        both = torch.where(low, logits, torch.where(high, 0.0, both))
        return t.log() + logits + (t - 1) * (log_y + log_z) - 2 * both

    def cdf(self, value: Tensor) -> Tensor:
        inside = value.clamp(0, 1)
        return torch.sigmoid(self.temperature * torch.logit(inside) - self.logits)

    def icdf(self, value: Tensor) -> Tensor:
        """The y at which `cdf` is the value."""
        return torch.sigmoid((self.logits + torch.logit(value)) / self.temperature)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        return super().infer_shapes(**_with_scalar_temperature(arg_shapes))


class RelaxedBernoulliStraightThrough(RelaxedBernoulli):
    """A coin, 0 or 1, whose gradient is that of the relaxed draw which was rounded to it.

    A draw is 1 with probability `probs` exactly, whatever the temperature, and `log_prob` is a Bernoulli's, linear in the
    value so that gradients pass through it.
    """

    support = constraints.boolean
    has_enumerate_support = True
    lowest = 0

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        soft = self._soft(self.shape(sample_shape))
        return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())

    def _draw(self, shape: Size) -> Tensor:
        return torch.bernoulli(self.probs.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        inside = (value == 0) | (value == 1)
        if self._validate_args:
            self._validate_sample(value)
        coin = Bernoulli(validate_args=False, **{name: getattr(self, name) for name in self.parameters[1:]})
        return torch.where(inside, coin.log_prob(torch.where(inside, value, 0.0)), -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        failure = self._failure()
        return torch.where(value < 0, 0.0, torch.where(value < 1, failure, 1.0))

    def icdf(self, value: Tensor) -> Tensor:
        """The least value at which `cdf` reaches the probability."""
        return (value > self._failure()).to(value.dtype)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def variance(self) -> Tensor:
        return self.probs * self._failure()

    def _number_of_values(self) -> int:
        return 2


class RelaxedOneHotCategorical(Choice, td.RelaxedOneHotCategorical):
    """A differentiable one-hot draw on the simplex; the lower the `temperature`, the closer to its corners.

    Entries that round to 0 are taken to be the least positive number of their dtype, in draws as in `log_prob`.

    Shapes: temperature (*batch), a number or one entry as a rule; probs or logits (*batch, K).
    """

    arg_constraints = {
        "temperature": constraints.positive,
        "probs": constraints.simplex,
        "logits": constraints.real_vector,
    }
    support: Any = constraints.simplex
    has_rsample = True
    temperature = _FIELD
    transforms: Any = (td.ExpTransform(),)

    def __init__(
        self,
        temperature: Tensor | float,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        name, weights = one_of(type(self).__name__, probs, logits)
        weights = torch.as_tensor(weights)
        temperature = torch.as_tensor(_as_scalar(temperature), dtype=weights.dtype, device=weights.device)
        batch = broadcast_shape(temperature.shape, weights.shape[:-1])
        vars(self)["temperature"] = temperature.expand(batch)
        weights = weights.expand((*batch, *weights.shape[-1:]))
        probs, logits = (weights, None) if name == "probs" else (None, weights)
        self._take_weights(probs, logits, 1, validate_args)
        if self._validate_args and not bool((temperature > 0).all()):
            check_arguments(self)

    def _before(self) -> ExpRelaxedCategorical:
        temperature = self.temperature.unsqueeze(-1) if self.batch_shape else self.temperature
        return ExpRelaxedCategorical(temperature, validate_args=False, **{self._given: self._weights})

    base_dist: Any = property(_before, doc="The distribution of the draw's logarithm.")

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        vars(new)["temperature"] = self.temperature.expand(Size(batch_shape))
        return new

    def _soft(self, sample_shape: ShapeLike) -> Tensor:
        noise = torch.empty(self.shape(sample_shape), dtype=self._weights.dtype, device=self._weights.device)
        gumbel = -noise.exponential_().log()
        soft = torch.softmax((self.logits + gumbel) / self.temperature.unsqueeze(-1), -1)
        return soft.clamp(min=torch.finfo(soft.dtype).tiny)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self._soft(sample_shape)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        k, t = self.num_categories, self.temperature
        if self._validate_args:
            self._validate_sample(value)
            inside = None
        else:
            finfo = torch.finfo(value.dtype)
            gap = (value.detach().sum(-1) - 1).abs()
            inside = (value >= 0).all(-1) & (gap < max(1e-6, 10 * k * finfo.eps))
            value = torch.where(inside.unsqueeze(-1), value, 1 / k)
        log_y = value.clamp(min=torch.finfo(value.dtype).tiny).log()
        scores = self.logits - t.unsqueeze(-1) * log_y
        log_prob = math.lgamma(k) + (k - 1) * t.log() + (scores - log_y).sum(-1) - k * scores.logsumexp(-1)
        return log_prob if inside is None else torch.where(inside, log_prob, -math.inf)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return Distribution.enumerate_support(self, expand)

    @property
    def cardinality(self) -> int:
        """None: the support is not finite, and asking raises a ValueError."""
        return Distribution.cardinality.fget(self)  # type: ignore[attr-defined, no-any-return]

    def entropy(self) -> Tensor:
        raise NotImplementedError("RelaxedOneHotCategorical has no closed form for its entropy.")

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        shapes = _with_scalar_temperature(arg_shapes)
        temperature = Size(shapes.pop("temperature", ()))
        batch, event = super().infer_shapes(**shapes)
        return broadcast_shape(batch, temperature), event


class RelaxedOneHotCategoricalStraightThrough(RelaxedOneHotCategorical):
    """A one-hot vector whose gradient is that of the relaxed draw which was rounded to it.

    Draws have the probabilities `probs` exactly, whatever the temperature, and `log_prob` is a OneHotCategorical's, linear
    in the value so that gradients pass through it.
    """

    support = constraints.one_hot
    has_enumerate_support = True

    @property
    def _hard(self) -> OneHotCategorical:
        return OneHotCategorical(validate_args=False, **{self._given: self._weights})

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        soft = self._soft(sample_shape)
        categories = torch.arange(self.num_categories, device=soft.device)
        hard = (soft.argmax(-1, keepdim=True) == categories).to(soft.dtype)
        return hard + (soft - soft.detach())

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self._hard.log_prob(value)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return self._hard.enumerate_support(expand)

    @property
    def cardinality(self) -> int:
        """The number of values of the support."""
        return self.num_categories

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def entropy(self) -> Tensor:
        return self._hard.entropy()


def _as_scalar(temperature: Tensor | float) -> Tensor | float:
    """A temperature of one entry, which does not make a batch whatever its shape."""
    return temperature.reshape(()) if isinstance(temperature, Tensor) and temperature.numel() == 1 else temperature


def _with_scalar_temperature(shapes: dict[str, ShapeLike]) -> dict[str, ShapeLike]:
    """The arguments' shapes as `_as_scalar` makes them."""
    if math.prod(shapes.get("temperature", (0,))) == 1:
        return {**shapes, "temperature": ()}
    return shapes
