"""The image of a distribution under transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions import constraints, validation
from ppl.distributions.distribution import Distribution, ShapeLike, expanded
from ppl.distributions.independent import Independent, sum_rightmost
from ppl.distributions.lifting import Wraps, lift
from ppl.distributions.registry import biject_to
from ppl.distributions.transforms import AffineTransform, ComposeTransform, IdentityTransform, IndependentTransform
from ppl.distributions.transforms.image import between
from ppl.distributions.transforms.transform import remembers


class TransformedDistribution(Wraps, torch.distributions.TransformedDistribution, Distribution):
    """The distribution of a draw of `base_distribution` after one or more transforms, applied first to last.

    A transform of whole vectors or matrices makes as many of the base's batch dims event dims. Draws of a transform
    without an inverse in closed form have a density while they live, if the transform was made with `cache_size=1`.
    Outside the support the log density is -inf, where the support is given by bounds.

    Shapes: the base's draws, after the transforms' `forward_shape`.
    Raises: ValueError for something that is no transform, and for a base with fewer dims than the transforms need.
    """

    arg_constraints = {}

    def __init__(
        self,
        base_distribution: torch.distributions.Distribution,
        transforms: Any,
        validate_args: bool | None = None,
    ) -> None:
        parts = list(transforms) if isinstance(transforms, Sequence) else [transforms]
        for part in parts:
            if not isinstance(part, torch.distributions.transforms.Transform):
                raise ValueError(
                    f"TransformedDistribution: transforms must be a transform or a list of them, but got a "
                    f"{type(part).__name__}. A conditional one is conditioned first: transform.condition(context)."
                )
        whole = ComposeTransform(parts)
        shape = Size((*base_distribution.batch_shape, *base_distribution.event_shape))
        base = lift(base_distribution)
        event_dim = base.event_dim
        needed = whole.domain.event_dim
        if len(shape) < needed:
            raise ValueError(
                f"TransformedDistribution: the transforms {parts} take events of {needed} dims, but "
                f"{type(base).__name__} has the batch shape {tuple(base.batch_shape)} and the event shape "
                f"{tuple(base.event_shape)}; expand it first."
            )
        image_shape = whole.forward_shape(shape)
        full_shape = whole.inverse_shape(image_shape)
        if full_shape != shape:  # parameters of the transforms have more batch dims than the base
            base = expanded(base, full_shape[: len(full_shape) - event_dim])
        if needed > event_dim:
            base = Independent(base, needed - event_dim)
        self.base_dist = base
        self.transforms = parts
        new_event_dim = max(whole.codomain.event_dim, event_dim + whole.codomain.event_dim - needed)
        cut = len(image_shape) - new_event_dim
        Distribution.__init__(self, image_shape[:cut], image_shape[cut:], validate_args=False)
        self._check(validate_args)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        raise ValueError(f"{cls.__name__}: shapes follow from the base and the transforms; build one and read them.")

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        new = self._get_checked_instance(TransformedDistribution, _instance)
        shape = Size((*batch_shape, *self.event_shape))
        for transform in reversed(self.transforms):
            shape = transform.inverse_shape(shape)
        new.base_dist = expanded(lift(self.base_dist), shape[: len(shape) - len(self.base_dist.event_shape)])
        new.transforms = self.transforms
        Distribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """The base's support after the transforms, where that is a half line or an interval; else the last's codomain."""
        support: Any = getattr(self.base_dist, "support", None)
        for transform in self.transforms:
            support = _image(support, transform)
        missing = len(self.event_shape) - support.event_dim
        return constraints.independent(support, missing) if missing > 0 else support

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        """False: densities are transformed, not probabilities."""
        return False

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        with torch.no_grad():
            return self._forward(self.base_dist.sample(Size(sample_shape)))

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self._forward(self.base_dist.rsample(Size(sample_shape)))

    def _forward(self, x: Tensor) -> Tensor:
        for transform in self.transforms:
            x = transform(x)
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        return self._pulled_back(value, self.base_dist.log_prob)

    def log_prob_of_draw(self, draw: Tensor) -> Tensor:
        if type(self) is not TransformedDistribution:  # one of its families may draw in another way
            return self.log_prob(draw)
        return self._pulled_back(draw, lift(self.base_dist).log_prob_of_draw)

    def _pulled_back(self, value: Tensor, base_log_prob: Callable[[Tensor], Tensor]) -> Tensor:
        checked = self._validate_args or (validation.is_trusted() and validation.is_validation_enabled())
        if self._validate_args:
            self._validate_sample(value)
        event_dim = self.event_dim
        log_prob: Any = 0.0
        inside: Tensor | None = None
        y = value
        for transform in reversed(self.transforms):
            if not checked and _is_bounded(transform.codomain) and not remembers(transform, y):
                ok = transform.codomain.check(y)
                middle = biject_to(transform.codomain)(torch.zeros_like(y))
                keep = ok.reshape(ok.shape + (1,) * transform.codomain.event_dim)
                y = torch.where(keep, y, middle)  # outside, the inverse may be NaN, and its gradient
                for _ in range(event_dim - transform.codomain.event_dim):
                    ok = ok.all(-1)
                inside = ok if inside is None else inside & ok
            x = transform.inv(y)
            event_dim += transform.domain.event_dim - transform.codomain.event_dim
            log_det = transform.log_abs_det_jacobian(x, y)
            log_prob = log_prob - sum_rightmost(log_det, event_dim - transform.domain.event_dim)
            y = x
        log_prob = log_prob + sum_rightmost(base_log_prob(y), event_dim - len(self.base_dist.event_shape))
        return log_prob if inside is None else torch.where(inside, log_prob, -torch.inf)

    def _sign(self) -> Any:
        if self.event_dim:
            raise NotImplementedError("TransformedDistribution: only a distribution of numbers has a cdf.")
        sign: Any = 1
        for transform in self.transforms:
            sign = sign * transform.sign
        return sign

    def cdf(self, value: Tensor) -> Tensor:
        sign = self._sign()
        for transform in reversed(self.transforms):
            value = transform.inv(_clamped(value, transform.codomain))
        return _flipped(self.base_dist.cdf(value), sign)

    def icdf(self, value: Tensor) -> Tensor:
        return self._forward(self.base_dist.icdf(_flipped(value, self._sign())))

    def _affine(self, what: str) -> list[AffineTransform]:
        """The transforms, if all are affine and entry by entry."""
        parts = [_unwrapped(t) for t in self.transforms]
        affine = [part for part in parts if not isinstance(part, IdentityTransform)]
        if not all(isinstance(part, AffineTransform) for part in affine):
            raise NotImplementedError(
                f"TransformedDistribution: the {what} has no closed form, except after affine maps."
            )
        return affine

    @property
    def mean(self) -> Tensor:
        """In closed form after affine maps; NotImplementedError after others."""
        mean = self.base_dist.mean
        for part in self._affine("mean"):
            mean = part.loc + part.scale * mean
        return mean.expand(self.shape())

    @property
    def variance(self) -> Tensor:
        """In closed form after affine maps; NotImplementedError after others."""
        variance = self.base_dist.variance
        for part in self._affine("variance"):
            variance = part.scale**2 * variance
        return variance.expand(self.shape())

    def entropy(self) -> Tensor:
        """In closed form after affine maps; NotImplementedError after others."""
        entropy = self.base_dist.entropy()
        for part in self._affine("entropy"):
            log_scale = torch.as_tensor(part.scale, dtype=entropy.dtype, device=entropy.device).abs().log()
            entropy = entropy + sum_rightmost(log_scale.expand(self.shape()), self.event_dim)
        return entropy.expand(self.batch_shape)

    def __repr__(self) -> str:
        return f"TransformedDistribution({self.base_dist}, {self.transforms})"


def _unwrapped(transform: Any) -> Any:
    return _unwrapped(transform.base_transform) if isinstance(transform, IndependentTransform) else transform


def _image(support: Any, transform: Any) -> Any:
    """The set that a transform takes a support to: at least its codomain, or less of it."""
    if isinstance(transform, ComposeTransform):
        for part in transform.parts:
            support = _image(support, part)
        return support
    codomain = transform.codomain
    if isinstance(transform, IdentityTransform) and support is not None:
        return support
    if not _is_bounded(support) or transform.domain.event_dim or codomain.event_dim:
        return codomain
    try:
        sign = transform.sign
    except NotImplementedError:
        return codomain
    if isinstance(sign, Tensor):
        return codomain
    if isinstance(support, constraints.independent):
        return constraints.independent(_image(support.base_constraint, transform), support.reinterpreted_batch_ndims)
    ends: list[Any] = []
    for name in ("lower_bound", "upper_bound") if sign > 0 else ("upper_bound", "lower_bound"):
        bound, edge = getattr(support, name, None), getattr(transform.domain, name, None)
        own = ("lower_bound", "upper_bound")[len(ends)]
        if bound is None or _equals(bound, edge):
            ends.append(getattr(codomain, own, None))  # the edge of the domain goes to the edge of the codomain
        elif isinstance(bound, Tensor):
            ends.append(transform(bound))
        else:
            ends.append(transform(torch.tensor(bound, dtype=torch.float64)).tolist())
    return between(ends[0], ends[1], is_closed=sign > 0 and isinstance(support, constraints.greater_than_eq))


def _equals(bound: Any, edge: Any) -> bool:
    equal = False if edge is None else bound == edge
    return bool(equal.all()) if isinstance(equal, Tensor) else equal


def _is_bounded(constraint: Any) -> bool:
    """Whether a set is given by bounds of each entry."""
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return (
        constraint is not None
        and not constraint.is_discrete
        and (hasattr(constraint, "lower_bound") or hasattr(constraint, "upper_bound"))
    )


def _clamped(value: Tensor, constraint: Any) -> Tensor:
    """The nearest value within a set's bounds."""
    low, high = getattr(constraint, "lower_bound", None), getattr(constraint, "upper_bound", None)
    for bound, choose in ((low, torch.maximum), (high, torch.minimum)):
        if bound is not None:
            value = choose(value, torch.as_tensor(bound, dtype=value.dtype, device=value.device))
    return value


def _flipped(probability: Tensor, sign: Any) -> Tensor:
    """1 - p where the transforms decrease."""
    if isinstance(sign, Tensor):
        return torch.where(sign < 0, 1 - probability, probability)
    return 1 - probability if sign < 0 else probability
