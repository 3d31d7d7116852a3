"""The base of all distributions here: what a probabilistic program asks of one beyond torch.

The contract, for a draw of sample shape S:

    d.sample(S).shape  == S + d.batch_shape + d.event_shape
    d.log_prob(x).shape == S + d.batch_shape           (up to broadcasting of x)

Batch dims are independent repetitions; event dims are one draw. The three wrappers that the base's own methods return
(`expand`, `to_event`, `mask`) stand here with it.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any, NamedTuple, Self

import torch
from torch import Size, Tensor

from ppl.distributions import validation

ShapeLike = Size | tuple[int, ...] | list[int]


class ScoreParts(NamedTuple):
    """What a gradient estimator needs of a guide's site.

    `log_prob` is the density itself; `score_function` the part whose gradient is weighted by the learning signal
    (0 for a reparameterised draw); `entropy_term` the part of the entropy that is differentiated pathwise.
    """

    log_prob: Tensor
    score_function: Tensor | float
    entropy_term: Tensor | float


class DistributionMeta(type):
    """Lets a badly built distribution inside a program be reported by the `sample` statement, with its site."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except ValueError as error:
            for argument in (*args, *kwargs.values()):
                if isinstance(argument, validation.Invalid):  # built from one that was badly built itself
                    return argument
            if any(is_running() for is_running in validation.is_program_running):
                return validation.Invalid(error)
            raise


class Distribution(torch.distributions.Distribution, metaclass=DistributionMeta):
    """A distribution that programs can name, expand, mask and enumerate.

    Write one by inheriting and giving `arg_constraints`, `support`, `sample` (or `rsample`) and `log_prob`; a torch
    distribution becomes one by `class Mine(torch.distributions.Theirs, Distribution)`, or by `lift(d)`.
    """

    # Set true by a class whose __init__ differs from torch's but whose fields do not: torch's `expand` serves it and
    # its subclasses without an __init__ of their own.
    expands_without_init = False

    def __init__(
        self,
        batch_shape: ShapeLike = Size(),
        event_shape: ShapeLike = Size(),
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(Size(batch_shape), Size(event_shape), validate_args=False)
        self._check(validate_args)

    def _check(self, validate_args: bool | None) -> None:
        """Check the arguments in our words, for an __init__ that has kept torch's from doing so in its own."""
        self._validate_args = validation.is_validation_enabled() if validate_args is None else validate_args
        if self._validate_args:
            validation.check_arguments(self)

    def __call__(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw once: reparameterised if the distribution can, otherwise not."""
        return self.rsample(Size(sample_shape)) if self.has_rsample else self.sample(Size(sample_shape))

    def shape(self, sample_shape: ShapeLike = Size()) -> Size:
        """The shape of `sample(sample_shape)`: sample + batch + event."""
        return Size((*sample_shape, *self.batch_shape, *self.event_shape))

    @property
    def event_dim(self) -> int:
        """The number of event dims."""
        return len(self.event_shape)

    def _validate_sample(self, value: Tensor) -> None:
        if not validation.is_trusted():
            validation.check_value(self, value)

    def _get_checked_instance(self, cls: type, _instance: Any = None) -> Any:
        if _instance is not None:
            return _instance
        owner = next(c for c in type(self).__mro__ if "__init__" in vars(c))
        if vars(owner).get("expands_without_init", False):
            return self._hand_on(self.__new__(type(self)))
        return self._hand_on(super()._get_checked_instance(cls, _instance))  # type: ignore[no-untyped-call]

    def _hand_on(self, new: Any) -> Any:
        """Give a derived distribution what `has_rsample_` has decided for this one."""
        if "has_rsample" in vars(self):
            vars(new)["has_rsample"] = self.has_rsample
        return new

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        """The same distribution repeated to a larger batch shape, without copying."""
        return ExpandedDistribution(self, batch_shape)

    def expand_by(self, sample_shape: ShapeLike) -> Any:
        """Expand by new dims to the left of the batch shape."""
        return expanded(self, Size((*sample_shape, *self.batch_shape)))

    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> Any:
        """Declare the last batch dims (all of them by default) to be event dims: one draw, dependent or not."""
        count = len(self.batch_shape) if reinterpreted_batch_ndims is None else reinterpreted_batch_ndims
        return self if count == 0 else Independent(self, count)

    def mask(self, mask: Tensor | bool) -> MaskedDistribution:
        """The same draws, with the log density counted only where the mask is true."""
        return MaskedDistribution(self, mask)

    def has_rsample_(self, value: bool) -> Self:
        """Force (False) or restore (True) the choice of the score-function estimator for this object; returns itself."""
        vars(self).pop("has_rsample", None)
        if value and not self.has_rsample:
            raise ValueError(
                f"{type(self).__name__} has no reparameterised sampler, so has_rsample_(True) cannot hold."
            )
        if not value:
            vars(self)["has_rsample"] = False
        return self

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values of a finite discrete support, on a new leftmost dim.

        Shapes: (K, *batch, *event), or with expand=False (K, 1, …, 1, *event).
        Raises: ValueError for a support that is not finite.
        """
        raise ValueError(
            f"{type(self).__name__} cannot be enumerated: its support is not a finite set. Leave the site unmarked, "
            "or use a distribution with a finite support such as Categorical or Bernoulli."
        )

    @property
    def is_discrete(self) -> bool:
        """Whether draws are discrete."""
        support: Any = self.support
        return bool(support.is_discrete)

    def score_parts(self, x: Tensor) -> ScoreParts:
        """The parts of the log density that gradient estimators treat differently, at a draw `x` of this object."""
        log_prob = self.log_prob(x)
        if self.has_rsample:
            return ScoreParts(log_prob, 0.0, log_prob)
        return ScoreParts(log_prob, log_prob, 0.0)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        """Batch and event shape from the shapes of the arguments; no tensor is made.

        Args: arg_shapes, each argument's shape by name (`()` for a number).
        """
        constraints: Any = cls.arg_constraints
        if not isinstance(constraints, dict):
            raise ValueError(f"{cls.__name__} declares no static arg_constraints: build one and read its shapes.")
        batches, event = [], Size()
        for name, shape in arg_shapes.items():
            if name not in constraints:
                known = ", ".join(constraints)
                raise ValueError(f"{cls.__name__} has no argument '{name}'; it has {known}.")
            event_dim = cls._argument_event_dim(name)
            cut = len(shape) - event_dim
            batches.append(Size(shape[:cut]))
            candidate = Size(shape[cut:])[: cls._event_dim_of_draw()]
            event = candidate if len(candidate) > len(event) else event
        return torch.broadcast_shapes(*batches), event

    @classmethod
    def _argument_event_dim(cls, name: str) -> int:
        return int(cls.arg_constraints[name].event_dim)  # type: ignore[index]

    @classmethod
    def _event_dim_of_draw(cls) -> int:
        support: Any = cls.support
        return 0 if isinstance(support, property) else int(support.event_dim)


def forceable(own: Any) -> Any:
    """A property `has_rsample` of torch's that `has_rsample_` can overrule."""
    return property(lambda self: vars(self)["has_rsample"] if "has_rsample" in vars(self) else own.fget(self))


def forced(d: torch.distributions.Distribution, has_rsample: bool) -> Distribution:
    """A copy of a wrapper's base with `has_rsample_` called, so that whoever else holds the base sees no change."""
    return copy.copy(lift(d)).has_rsample_(has_rsample)


def expanded(d: Distribution, batch_shape: ShapeLike) -> Distribution:
    """`d.expand(batch_shape)`, also for classes that forgot to implement it."""
    if d.batch_shape == batch_shape:
        return d
    try:
        return lift(d.expand(Size(batch_shape)))
    except NotImplementedError:
        return Distribution.expand(d, batch_shape)  # type: ignore[no-any-return]


def broadcast_shape(*shapes: ShapeLike) -> Size:
    """torch.broadcast_shapes, with a fast way out for equal shapes."""
    first = Size(shapes[0])
    if all(s == first for s in shapes[1:]):
        return first
    shape: Size = torch.broadcast_shapes(*shapes)
    return shape


class ExpandedDistribution(Distribution):
    """A distribution repeated to a larger batch shape, each repetition drawn by itself.

    For distributions that have no `expand` of their own.

    Args: batch_shape, to which `base_dist.batch_shape` broadcasts.
    Raises: ValueError naming both shapes where it does not.
    """

    arg_constraints = {}

    def __init__(self, base_dist: torch.distributions.Distribution, batch_shape: ShapeLike) -> None:
        batch_shape = Size(batch_shape)
        base = base_dist.batch_shape
        fits = len(base) <= len(batch_shape) and all(
            old in (1, new) for old, new in zip(reversed(base), reversed(batch_shape), strict=False)
        )
        if not fits:
            raise ValueError(
                f"{type(base_dist).__name__}: batch shape {tuple(base)} does not expand to {tuple(batch_shape)}; each "
                "dim must be equal or 1, counted from the right."
            )
        self.base_dist = base_dist
        super().__init__(batch_shape, base_dist.event_shape, validate_args=False)
        aligned = (1,) * (len(batch_shape) - len(base)) + tuple(base)
        # dims that the base does not have, or has at size 1: drawn anew as sample dims, then moved into place
        self._fresh = [i for i, (old, new) in enumerate(zip(aligned, batch_shape, strict=True)) if old != new]
        self._aligned = Size(aligned)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return bool(self.base_dist.has_rsample)

    def has_rsample_(self, value: bool) -> Self:
        self.base_dist = forced(self.base_dist, value)
        return self

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return bool(self.base_dist.has_enumerate_support)

    @property
    def support(self) -> Any:
        return self.base_dist.support

    def _place(self, draw: Tensor, sample_dim: int) -> Tensor:
        fresh, batch = len(self._fresh), len(self.batch_shape)
        head = sample_dim + fresh
        event = tuple(self.event_shape)
        draw = draw.reshape(draw.shape[:head] + self._aligned + event)
        for order, position in enumerate(self._fresh):
            axis, target = sample_dim + order, head + position
            draw = draw.transpose(axis, target)
        draw = draw.squeeze(tuple(range(sample_dim, head))) if fresh else draw
        return draw.reshape(draw.shape[:sample_dim] + self.batch_shape + event) if batch else draw

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        shape = (*sample_shape, *(self.batch_shape[i] for i in self._fresh))
        return self._place(self.base_dist.sample(Size(shape)), len(sample_shape))

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        shape = (*sample_shape, *(self.batch_shape[i] for i in self._fresh))
        return self._place(self.base_dist.rsample(Size(shape)), len(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        batch = value.shape[: value.dim() - len(self.event_shape)]
        return self.base_dist.log_prob(value).expand(torch.broadcast_shapes(batch, self.batch_shape))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values: Tensor = self.base_dist.enumerate_support(expand=False)
        missing = len(self.batch_shape) - len(self.base_dist.batch_shape)
        values = values.reshape(values.shape[:1] + (1,) * missing + values.shape[1:])
        return values.expand((-1, *self.batch_shape, *self.event_shape)) if expand else values

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        return ExpandedDistribution(self.base_dist, batch_shape)

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean.expand(self.shape())

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance.expand(self.shape())

    def entropy(self) -> Tensor:
        return self.base_dist.entropy().expand(self.batch_shape)

    def __repr__(self) -> str:
        return f"ExpandedDistribution({self.base_dist}, {tuple(self.batch_shape)})"


class Independent(torch.distributions.Independent[torch.distributions.Distribution], Distribution):
    """The last batch dims of a distribution read as event dims (`d.to_event(n)`); log densities sum over them."""

    arg_constraints = {}

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return bool(self.base_dist.has_rsample)

    def has_rsample_(self, value: bool) -> Self:
        self.base_dist = forced(self.base_dist, value)
        return self

    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> Any:
        count = len(self.batch_shape) if reinterpreted_batch_ndims is None else reinterpreted_batch_ndims
        return self if count == 0 else Independent(self.base_dist, self.reinterpreted_batch_ndims + count)

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        inner = self.event_shape[: self.reinterpreted_batch_ndims]
        base = expanded(lift(self.base_dist), Size((*batch_shape, *inner)))
        return Independent(base, self.reinterpreted_batch_ndims, self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return sum_rightmost(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        if self.reinterpreted_batch_ndims:
            raise ValueError(
                f"{type(self.base_dist).__name__}.to_event({self.reinterpreted_batch_ndims}) cannot be enumerated: its "
                "support is a product over the event dims. Leave the dims to a plate instead of to_event."
            )
        return self.base_dist.enumerate_support(expand)

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return self.reinterpreted_batch_ndims == 0 and bool(self.base_dist.has_enumerate_support)

    def score_parts(self, x: Tensor) -> ScoreParts:
        count = self.reinterpreted_batch_ndims
        parts = lift(self.base_dist).score_parts(x)
        return ScoreParts(*(sum_rightmost(p, count) if isinstance(p, Tensor) else p for p in parts))  # type: ignore[arg-type]


def sum_rightmost(value: Tensor, count: int) -> Tensor:
    """The sum over the last `count` dims; over none it is the value itself."""
    return value.sum(tuple(range(-count, 0))) if count else value


class MaskedDistribution(Distribution):
    """The draws of a distribution, its log density counted only where a mask is true.

    Entries whose mask is false have log density 0 and give no gradient, whatever the value there.

    Args: mask, a bool or a boolean tensor that broadcasts with the batch shape.
    Raises: ValueError for a mask that is not boolean or does not broadcast.
    """

    arg_constraints = {}

    def __init__(self, base_dist: torch.distributions.Distribution, mask: Tensor | bool) -> None:
        batch_shape = base_dist.batch_shape
        if isinstance(mask, Tensor):
            if mask.dtype != torch.bool:
                raise ValueError(
                    f"{type(base_dist).__name__}.mask: expected a bool or a tensor of dtype torch.bool, got {mask.dtype}; "
                    "write mask.bool()."
                )
            try:
                batch_shape = torch.broadcast_shapes(mask.shape, batch_shape)
            except RuntimeError:
                raise ValueError(
                    f"{type(base_dist).__name__}.mask: the mask's shape {tuple(mask.shape)} does not broadcast with batch "
                    f"shape {tuple(base_dist.batch_shape)}."
                ) from None
            mask = mask.expand(batch_shape)
        elif not isinstance(mask, bool):
            raise ValueError(
                f"{type(base_dist).__name__}.mask: expected a bool or a boolean tensor, got {type(mask).__name__}."
            )
        self._mask = mask
        self.base_dist = expanded(lift(base_dist), batch_shape)
        super().__init__(batch_shape, base_dist.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return bool(self.base_dist.has_rsample)

    def has_rsample_(self, value: bool) -> Self:
        self.base_dist = forced(self.base_dist, value)
        return self

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return bool(self.base_dist.has_enumerate_support)

    @property
    def support(self) -> Any:
        return self.base_dist.support

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.base_dist.sample(Size(sample_shape))

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.base_dist.rsample(Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return masked_log_prob(self.base_dist, value, self._mask)

    def score_parts(self, x: Tensor) -> ScoreParts:
        if isinstance(self._mask, bool):
            parts = self.base_dist.score_parts(x)
            return parts if self._mask else ScoreParts(torch.zeros_like(parts.log_prob), 0.0, 0.0)
        parts = self.base_dist.score_parts(mask_value(self.base_dist, x, self._mask))
        return ScoreParts(
            *(torch.where(self._mask, p, torch.zeros_like(p)) if isinstance(p, Tensor) else p for p in parts)  # type: ignore[arg-type]
        )

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return self.base_dist.enumerate_support(expand)

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        mask = self._mask if isinstance(self._mask, bool) else self._mask.expand(Size(batch_shape))
        return MaskedDistribution(expanded(self.base_dist, batch_shape), mask)

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance

    def __repr__(self) -> str:
        return f"MaskedDistribution({self.base_dist})"


def mask_value(d: torch.distributions.Distribution, value: Tensor, mask: Tensor) -> Tensor:
    """The value with its masked-out entries moved to a point inside the support.

    A NaN or an impossible value under a false mask would otherwise turn gradients into NaN, because 0 · inf is NaN.
    """
    event = len(d.event_shape)
    keep = mask.reshape(mask.shape + (1,) * event)
    return torch.where(keep, value, feasible(d, value))


def masked_log_prob(d: torch.distributions.Distribution, value: Tensor, mask: Tensor | bool) -> Tensor:
    """`d.log_prob(value)` where the mask is true and 0 elsewhere, with gradients that are never NaN for it."""
    if mask is True:
        return d.log_prob(value)
    if mask is False:
        batch = value.shape[: value.dim() - len(d.event_shape)]
        return value.new_zeros(torch.broadcast_shapes(batch, d.batch_shape), dtype=_float_dtype(value))
    log_prob = d.log_prob(mask_value(d, value, mask))
    return torch.where(mask, log_prob, torch.zeros_like(log_prob))


def _float_dtype(value: Tensor) -> torch.dtype:
    return value.dtype if value.is_floating_point() else torch.get_default_dtype()


def feasible(d: torch.distributions.Distribution, like: Tensor) -> Tensor:
    """Some point inside the support, of the shape and dtype of `like` (of its event shape where that is enough)."""
    try:
        support: Any = d.support
    except NotImplementedError:  # a foreign distribution without one
        return torch.zeros(d.event_shape, dtype=like.dtype, device=like.device)
    while hasattr(support, "base_constraint") and (
        support.is_discrete or not hasattr(support, "reinterpreted_batch_ndims")
    ):
        support = support.base_constraint  # of a mixture's support, or of a discrete product's
    if not support.is_discrete:
        try:
            transform = torch.distributions.biject_to(support)
        except NotImplementedError:  # no bijection to, say, positive definite matrices
            transform = torch.distributions.transform_to(support)
        shape = transform.inverse_shape(d.event_shape)
        point: Tensor = transform(torch.zeros(shape, dtype=_float_dtype(like), device=like.device))
        if hasattr(support, "lower_bound"):  # an interval may have an infinite end
            point = torch.where(point.isfinite(), point, support.lower_bound)
        return point.detach().to(like.dtype)
    if not hasattr(support, "lower_bound") and d.has_enumerate_support:
        return d.enumerate_support(expand=False)[0].to(like.dtype)
    low = getattr(support, "lower_bound", 0)
    return (torch.zeros(d.event_shape, dtype=like.dtype, device=like.device) + low).to(like.dtype)


_lifted: dict[type, type] = {}


def lift(d: torch.distributions.Distribution) -> Distribution:
    """Any torch distribution as one of ours: the same object's fields, with this framework's methods added.

    The result is still an instance of the original class. Ours come back as they are. Unless the object was told
    itself whether to check values, it does so where validation is enabled here and now.
    """
    if isinstance(d, Distribution):
        return d
    cls = type(d)
    ours = _lifted.get(cls)
    if ours is None:
        ours = _lifted[cls] = _lifted_class(cls)
    new: Distribution = object.__new__(ours)
    new.__dict__.update(d.__dict__)
    if "_validate_args" not in vars(d):
        new._validate_args = d._validate_args and validation.is_validation_enabled()
    return new


def _lifted_class(cls: type) -> type:
    def expand(self: Any, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        try:
            return self._hand_on(lift(cls.expand(self, Size(batch_shape), _instance)))  # type: ignore[attr-defined]
        except NotImplementedError:
            return Distribution.expand(self, batch_shape)

    namespace: dict[str, Any] = {"__reduce__": _reduce_lifted, "_foreign": cls, "expand": expand}
    own: Any = inspect.getattr_static(cls, "has_rsample")
    if isinstance(own, property):
        namespace["has_rsample"] = forceable(own)
    meta: type = DistributionMeta
    if not issubclass(meta, type(cls)):  # the foreign class has a metaclass too, such as ABCMeta
        meta = type("LiftedMeta", (DistributionMeta, type(cls)), {})
    ours: type = meta(cls.__name__, (cls, Distribution), namespace)
    return ours


def _expand_lifted(self: Any, batch_shape: ShapeLike, _instance: Any = None) -> Distribution:
    return lift(self._foreign.expand(self, Size(batch_shape), _instance))  # a user's own may know nothing of ours


def _reduce_lifted(self: Any) -> tuple[Any, ...]:
    return _rebuild_lifted, (self._foreign, self.__dict__)


def _rebuild_lifted(cls: type, state: dict[str, Any]) -> Distribution:
    original: Any = object.__new__(cls)
    original.__dict__.update(state)
    return lift(original)
