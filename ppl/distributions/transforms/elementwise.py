"""Maps of each number by itself."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import transforms as torchs
from torch.nn.functional import logsigmoid

from ppl.distributions import constraints
from ppl.distributions.distribution import broadcast_shape
from ppl.distributions.transforms.transform import Transform, sum_rightmost


class Elementwise(Transform):
    """The base of increasing bijections of the real line into part of it."""

    domain: Any = constraints.real
    codomain: Any = constraints.real
    bijective: bool = True
    sign: Any = 1


class IdentityTransform(Elementwise):
    """The map that changes nothing."""

    def _call(self, x: Tensor) -> Tensor:
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(x)


identity_transform = IdentityTransform()


class ExpTransform(Elementwise, torchs.ExpTransform):
    """y = exp(x)."""

    def __init__(self, cache_size: int = 0, *, domain: Any = constraints.real) -> None:
        super().__init__(cache_size)
        self.domain = domain
        self.codomain = constraints.positive if domain is constraints.real else image(domain, torch.exp, 1)

    def _call(self, x: Tensor) -> Tensor:
        return x.exp()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x


class SigmoidTransform(Elementwise, torchs.SigmoidTransform):
    """y = 1 / (1 + exp(-x)), kept off 0 and 1 by rounding: its inverse is finite there, too."""

    codomain = constraints.unit_interval

    def _call(self, x: Tensor) -> Tensor:
        return _inside_unit(x.sigmoid())

    def _inverse(self, y: Tensor) -> Tensor:
        y = _inside_unit(y)
        return y.log() - (-y).log1p()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return logsigmoid(x) + logsigmoid(-x)


class SoftplusTransform(Elementwise, torchs.SoftplusTransform):
    """y = log(1 + exp(x)), without torch's switch to a line at 20, which is wrong by 2e-9 there."""

    codomain = constraints.positive

    def _call(self, x: Tensor) -> Tensor:
        return softplus(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return softplus_inverse(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return logsigmoid(x)


class TanhTransform(Elementwise, torchs.TanhTransform):
    """y = tanh(x), kept off -1 and 1 by rounding: its inverse is finite there, too."""

    codomain = constraints.interval(-1.0, 1.0)

    def _call(self, x: Tensor) -> Tensor:
        end = 1 - torch.finfo(x.dtype).eps / 2
        return x.tanh().clamp(-end, end)

    def _inverse(self, y: Tensor) -> Tensor:
        end = 1 - torch.finfo(y.dtype).eps / 2
        return y.clamp(-end, end).atanh()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return log_sech2(x)


class ELUTransform(Elementwise):
    """y = x for positive x, exp(x) - 1 otherwise."""

    codomain = constraints.greater_than(-1.0)

    def _call(self, x: Tensor) -> Tensor:
        lowest = torch.finfo(x.dtype).eps / 2 - 1
        return torch.where(x > 0, x, x.clamp(max=0.0).expm1().clamp(min=lowest))

    def _inverse(self, y: Tensor) -> Tensor:
        lowest = torch.finfo(y.dtype).eps / 2 - 1
        return torch.where(y > 0, y, y.clamp(lowest, 0.0).log1p())

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.clamp(max=0.0)


def elu() -> ELUTransform:
    """An `ELUTransform`."""
    return ELUTransform()


class LeakyReLUTransform(Elementwise):
    """y = x for positive x, `negative_slope` times x otherwise."""

    def __init__(self, negative_slope: float = 0.01, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        if not negative_slope > 0:
            raise ValueError(f"LeakyReLUTransform: negative_slope must be positive, got {negative_slope}.")
        self.negative_slope = negative_slope

    def _call(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x * self.negative_slope)

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.where(y > 0, y, y / self.negative_slope)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(x > 0, 0.0, math.log(self.negative_slope)).to(x.dtype)


def leaky_relu(negative_slope: float = 0.01) -> LeakyReLUTransform:
    """A `LeakyReLUTransform`."""
    return LeakyReLUTransform(negative_slope)


class AbsTransform(Transform, torchs.AbsTransform):
    """y = |x|, which is not injective: its pseudoinverse is the identity."""

    domain = constraints.real
    codomain: Any = constraints.nonnegative

    def _call(self, x: Tensor) -> Tensor:
        return x.abs()

    def _inverse(self, y: Tensor) -> Tensor:
        return y


class AffineTransform(Transform, torchs.AffineTransform):
    """y = loc + scale * x, with numbers or tensors that broadcast against x.

    Args: event_dim, how many of x's last dims are one event; domain, a half line or an interval, if not all reals.
    """

    bijective = True

    def __init__(
        self,
        loc: Tensor | float,
        scale: Tensor | float,
        event_dim: int = 0,
        cache_size: int = 0,
        *,
        domain: Any = None,
    ) -> None:
        Transform.__init__(self, cache_size)
        self.loc: Any = loc
        self.scale: Any = scale
        self._event_dim = event_dim
        self._domain = None if domain is constraints.real else domain

    @property
    def event_dim(self) -> int:
        return self._event_dim

    @property
    def domain(self) -> Any:  # type: ignore[override]
        domain = constraints.real if self._domain is None else self._domain
        return constraints.independent(domain, self._event_dim) if self._event_dim else domain

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        if self._domain is None:
            return self.domain
        sign = self.sign
        if isinstance(sign, Tensor):
            sign = 1 if bool((sign > 0).all()) else -1 if bool((sign < 0).all()) else 0
        codomain = image(self._domain, self._call, sign)
        return constraints.independent(codomain, self._event_dim) if self._event_dim else codomain

    @property
    def sign(self) -> Any:
        scale = self.scale
        return scale.sign() if isinstance(scale, Tensor) else (scale > 0) - (scale < 0)

    def _call(self, x: Any) -> Any:
        return self.loc + self.scale * x

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.loc) / self.scale  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        scale = self.scale
        if isinstance(scale, Tensor):
            result = scale.abs().log().expand(broadcast_shape(x.shape, scale.shape))
        else:
            result = torch.full_like(x, math.log(abs(scale)))
        return sum_rightmost(result, self._event_dim)

    def forward_shape(self, shape: Size) -> Size:
        return broadcast_shape(shape, shape_of(self.loc), shape_of(self.scale))

    def inverse_shape(self, shape: Size) -> Size:
        return self.forward_shape(shape)

    def __repr__(self) -> str:
        return f"AffineTransform({self.loc}, {self.scale})"


class PowerTransform(Transform, torchs.PowerTransform):
    """y = x ** exponent, of positive numbers; the exponent is not 0."""

    domain = constraints.positive
    codomain = constraints.positive
    bijective = True

    def __init__(self, exponent: Tensor | float, cache_size: int = 0) -> None:
        Transform.__init__(self, cache_size)
        self.exponent: Any = exponent

    @property
    def sign(self) -> Any:
        exponent = self.exponent
        return exponent.sign() if isinstance(exponent, Tensor) else (exponent > 0) - (exponent < 0)

    def _call(self, x: Tensor) -> Tensor:
        return x**self.exponent  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return y ** (1 / self.exponent)  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return _log_power_slope(x, self.exponent)

    def forward_shape(self, shape: Size) -> Size:
        return broadcast_shape(shape, shape_of(self.exponent))

    def inverse_shape(self, shape: Size) -> Size:
        return self.forward_shape(shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.exponent})"


class PositivePowerTransform(Elementwise):
    """y = sign(x) |x| ** exponent, of all reals, with a positive exponent.

    At x = 0 the Jacobian is 0 or infinite, unless the exponent is 1.
    """

    def __init__(self, exponent: Tensor | float, *, cache_size: int = 0, validate_args: bool | None = None) -> None:
        super().__init__(cache_size)
        if validate_args is not False and not bool((torch.as_tensor(exponent) > 0).all()):
            raise ValueError(f"PositivePowerTransform: the exponent must be positive, got {exponent}.")
        self.exponent: Any = exponent

    def _call(self, x: Tensor) -> Tensor:
        return x.sign() * x.abs() ** self.exponent  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return y.sign() * y.abs() ** (1 / self.exponent)  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return _log_power_slope(x.abs(), self.exponent)

    def forward_shape(self, shape: Size) -> Size:
        return broadcast_shape(shape, shape_of(self.exponent))

    def inverse_shape(self, shape: Size) -> Size:
        return self.forward_shape(shape)

    def __repr__(self) -> str:
        return f"PositivePowerTransform({self.exponent})"


class CumulativeDistributionTransform(Transform, torchs.CumulativeDistributionTransform):
    """y = the cumulative probability of x under a continuous univariate distribution."""

    bijective = True
    codomain = constraints.unit_interval
    sign = 1

    def __init__(self, distribution: torch.distributions.Distribution, cache_size: int = 0) -> None:
        Transform.__init__(self, cache_size)
        self.distribution = distribution

    @property
    def domain(self) -> Any:  # type: ignore[override]
        return self.distribution.support

    def _call(self, x: Tensor) -> Tensor:
        return self.distribution.cdf(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.distribution.icdf(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.distribution.log_prob(x)

    def forward_shape(self, shape: Size) -> Size:
        return broadcast_shape(shape, self.distribution.batch_shape)

    def inverse_shape(self, shape: Size) -> Size:
        return self.forward_shape(shape)

    def __repr__(self) -> str:
        return f"CumulativeDistributionTransform({self.distribution})"


class ComplexTransform(Transform):
    """A complex number from its real and its imaginary part, two entries of the last dim."""

    domain = constraints.real_vector
    codomain = constraints.complex
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        return torch.complex(x[..., 0], x[..., 1])

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.stack([y.real, y.imag], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(x[..., 0])

    def forward_shape(self, shape: Size) -> Size:
        if len(shape) < 1 or shape[-1] != 2:
            raise ValueError(f"ComplexTransform: the last dim must have the size 2, got the shape {tuple(shape)}.")
        return shape[:-1]

    def inverse_shape(self, shape: Size) -> Size:
        return Size((*shape, 2))


def image(domain: Any, monotone: Any, sign: int) -> Any:
    """The image of a half line or an interval under an increasing (sign 1) or decreasing (-1) function."""

    def at(bound: Any) -> Any:
        if isinstance(bound, Tensor):
            return monotone(bound)
        value = monotone(torch.tensor(bound, dtype=torch.float64))
        return value if value.dim() else value.item()

    if isinstance(domain, constraints.independent):
        return constraints.independent(image(domain.base_constraint, monotone, sign), domain.reinterpreted_batch_ndims)
    if constraints.same(domain, constraints.real) and sign:
        return constraints.real
    low, high = getattr(domain, "lower_bound", None), getattr(domain, "upper_bound", None)
    if domain.is_discrete or not sign or (low is None and high is None):
        raise ValueError(f"the image of {domain} is not known: use an interval, a half line or all reals.")
    new_low, new_high = (None if bound is None else at(bound) for bound in ((low, high) if sign > 0 else (high, low)))
    return between(new_low, new_high, is_closed=sign > 0 and isinstance(domain, constraints.greater_than_eq))


def between(low: Any, high: Any, is_closed: bool = False) -> Any:
    """The numbers between two bounds, of which None or an infinite number is none.

    Args: is_closed, whether a lower bound alone belongs to the set.
    """
    low = None if isinstance(low, float) and low == -math.inf else low
    high = None if isinstance(high, float) and high == math.inf else high
    if low is None:
        return constraints.real if high is None else constraints.less_than(high)
    if high is None:
        return (constraints.greater_than_eq if is_closed else constraints.greater_than)(low)
    return constraints.interval(low, high)


def shape_of(value: Tensor | float) -> Size:
    """The shape of a tensor or a number."""
    return value.shape if isinstance(value, Tensor) else Size()


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to the last digit."""
    return torch.nn.functional.softplus(x, threshold=40.0)


def softplus_inverse(y: Tensor) -> Tensor:
    """log(exp(y) - 1), of positive y."""
    return (-(-y).expm1()).log() + y


def log_sech2(x: Tensor) -> Tensor:
    """log(1 - tanh(x)^2)."""
    size = x.abs()
    return 2 * (math.log(2) - size - (-2 * size).exp().log1p())


def _inside_unit(y: Tensor) -> Tensor:
    finfo = torch.finfo(y.dtype)
    return y.clamp(finfo.tiny, 1 - finfo.eps / 2)


def _log_power_slope(x: Tensor, exponent: Any) -> Tensor:
    log_size = exponent.abs().log() if isinstance(exponent, Tensor) else math.log(abs(exponent))
    return log_size + (exponent - 1) * x.log()  # type: ignore[no-any-return]
