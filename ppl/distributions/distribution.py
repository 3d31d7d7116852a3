"""The base of all distributions here: what a probabilistic program asks of one beyond torch.

The contract, for a draw of sample shape S:

    d.sample(S).shape  == S + d.batch_shape + d.event_shape
    d.log_prob(x).shape == S + d.batch_shape           (up to broadcasting of x)

Batch dims are independent repetitions; event dims are one draw.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Size, Tensor

from ppl.distributions import validation
from ppl.tensors.logspace import log_positive
from ppl.tensors.shapes import broadcast_shape as broadcast_shape
from ppl.tensors.sharing import active_sharing, unwatched

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
        active = active_sharing()
        if active is None:
            try:
                return super().__call__(*args, **kwargs)
            except (ValueError, RuntimeError) as error:
                return cls._failed(args, kwargs, error)
        with unwatched():
            if not cls.__module__.startswith("ppl.distributions."):  # who knows what its __init__ does
                return cls._made(*args, **kwargs)
            return active.share(cls._made, args, kwargs, validation.is_validation_enabled())

    def _made(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except (ValueError, RuntimeError) as error:
            return cls._failed(args, kwargs, error)

    def _failed(cls, args: Any, kwargs: Any, error: ValueError | RuntimeError) -> Any:
        """What stands for a distribution that could not be made while a program runs; otherwise the error is raised."""
        if isinstance(error, ValueError):
            for argument in (*args, *kwargs.values()):
                if isinstance(argument, validation.Invalid):  # built from one that was badly built itself
                    return argument
            if any(is_running() for is_running in validation.is_program_running):
                return validation.Invalid(error)
            raise error
        explained = _explained(cls, args, kwargs, error)  # torch's, of shapes that do not fit
        if explained is None:
            raise error
        if any(is_running() for is_running in validation.is_program_running):
            return validation.Invalid(explained)
        raise explained from error


def _explained(cls: type, args: Any, kwargs: Any, error: RuntimeError) -> ValueError | None:
    """What torch said of arguments that do not fit together, with their names and shapes; None if it is not that."""
    if isinstance(error, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
        return None
    signatures = (inspect.signature(vars(c)["__init__"]) for c in cls.__mro__ if "__init__" in vars(c))
    plain = (s for s in signatures if all(p.kind is not p.VAR_POSITIONAL for p in s.parameters.values()))
    try:
        arguments = next(plain).bind(None, *args, **kwargs).arguments
    except TypeError:
        return None
    shapes = {name: v.shape for name, v in arguments.items() if isinstance(v, Tensor)}
    if len(shapes) < 2:
        return None
    told = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    return ValueError(
        f"{cls.__name__}: the shapes of its arguments do not fit together: {told}. Batch dims must broadcast, counted from "
        f"the right; add a dim with unsqueeze, or check which dims are meant to be events. (torch: {error})"
    )


class Distribution(torch.distributions.Distribution, metaclass=DistributionMeta):
    """A distribution that programs can name, expand, mask and enumerate.

    Write one by inheriting and giving `arg_constraints`, `support`, `sample` (or `rsample`) and `log_prob`; a torch
    distribution becomes one by `class Mine(torch.distributions.Theirs, Distribution)`, or by `lift(d)`.
    """

    # Set true by a class whose __init__ differs from torch's but whose fields do not: torch's `expand` serves it and
    # its subclasses without an __init__ of their own.
    expands_without_init = False
    # Fields that are worked out from others when they are first asked for, and kept.
    _derived: ClassVar[tuple[str, ...]] = ()
    _is_copied = False  # whether that holds for this class
    # What `expand`, `to_event` and `mask` return: distributions themselves, so that they enter themselves here.
    wrappers: ClassVar[dict[str, Callable[..., Any]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        owner = next(c for c in cls.__mro__ if "__init__" in vars(c))
        cls._is_copied = vars(owner).get("expands_without_init", False)

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

    def _event_shape_of(self, value: Tensor) -> Size:
        """The event shape to check a value against; a law of sequences of any length overrides it."""
        return self.event_shape

    def _counted(self, value: Tensor) -> Tensor:
        """The value to check; a law that leaves some entries out of its density moves those into the support."""
        return value

    def _validate_sample(self, value: Tensor) -> None:
        if not validation.is_trusted():
            validation.check_value(self, value)

    def _is_inside(self, value: Tensor) -> bool:
        """Check a value where values are to be checked, and say whether it is known to lie in the support."""
        if not self._validate_args:
            return False
        if validation.is_trusted():
            return validation.is_known_inside()
        validation.check_value(self, value)
        return True

    def _check_form(self, value: Tensor) -> None:
        """Check that a value is a tensor of a shape that fits, for a distribution whose base checks the rest."""
        if self._validate_args and not validation.is_trusted():
            validation.check_tensor(self, value)
            validation.check_shape(self, value)

    def _get_checked_instance(self, cls: type, _instance: Any = None) -> Any:
        if _instance is not None:
            return _instance
        if self._is_copied:
            return self._hand_on(self.__new__(type(self)))
        return self._hand_on(super()._get_checked_instance(cls, _instance))  # type: ignore[no-untyped-call]

    def _hand_on(self, new: Any) -> Any:
        """Give a derived distribution what `has_rsample_` has decided for this one."""
        if "has_rsample" in vars(self):
            vars(new)["has_rsample"] = self.has_rsample
        return new

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        """The same distribution repeated to a larger batch shape, without copying."""
        return self.wrappers["expand"](self, batch_shape)

    def expand_by(self, sample_shape: ShapeLike) -> Any:
        """Expand by new dims to the left of the batch shape."""
        return expanded(self, Size((*sample_shape, *self.batch_shape)))

    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> Any:
        """Declare the last batch dims (all of them by default) to be event dims: one draw, dependent or not."""
        count = len(self.batch_shape) if reinterpreted_batch_ndims is None else reinterpreted_batch_ndims
        return self if count == 0 else self.wrappers["to_event"](self, count)

    def mask(self, mask: Tensor | bool) -> Any:
        """The same draws, with the log density counted only where the mask is true."""
        return self.wrappers["mask"](self, mask)

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

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw, differentiably.

        Raises: NotImplementedError for a distribution that cannot.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no reparameterised sampler: use sample(), or call the object, which draws as well "
            "as it can. (`has_rsample` tells which.)"
        )

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values of a finite discrete support, on a new leftmost dim.

        Shapes: (K, *batch, *event), or with expand=False (K, 1, …, 1, *event).
        Raises: ValueError for a support that is not finite.
        """
        raise ValueError(
            f"{type(self).__name__} cannot be enumerated: its support is not a finite set. Leave the site unmarked, "
            "or use a distribution with a finite support such as Categorical or Bernoulli."
        )

    def note_support(self, values: Tensor, dim: int) -> None:
        """Hear that a tensor is the whole support, along one negative batch dim: a family may know its density there."""

    # Tails. A family that knows its distribution function far out overrides these four, which truncation, censoring,
    # mixtures and copulas use; where a result is -inf its gradient must be 0, not NaN.

    def log_cdf(self, value: Tensor) -> Tensor:
        """The log probability of a draw at or below a value."""
        return log_positive(self.cdf(value))

    def log_survival(self, value: Tensor) -> Tensor:
        """The log probability of a draw above a value."""
        return log_positive(1 - self.cdf(value))

    def inverse_log_cdf(self, log_p: Tensor) -> Tensor:
        """The value at or below which a draw lies with log probability `log_p`."""
        return self.icdf(log_p.exp())

    def inverse_log_survival(self, log_q: Tensor) -> Tensor:
        """The value above which a draw lies with log probability `log_q`."""
        limit = 0.6 * math.log(torch.finfo(log_q.dtype).eps)
        x = self.icdf(-log_q.clamp(min=limit).expm1())
        if type(self).log_survival is not Distribution.log_survival:
            deep = log_q < limit  # where 1 - p has no digits left: Newton's method on the log survival function
            for _ in range(8):
                log_tail = self.log_survival(x)
                x = x + torch.where(deep, (log_tail - log_q) * torch.exp(log_tail - self.log_prob(x)), 0.0)
        return x

    @property
    def cardinality(self) -> int:
        """The number of values of a finite discrete support, without listing them.

        Raises: ValueError, as `enumerate_support` does, where there is no such number.
        """
        if self.has_enumerate_support:  # a foreign distribution can only be asked for the list
            return len(self.enumerate_support(expand=False))
        raise ValueError(
            f"{type(self).__name__} has no cardinality: its support is not a finite set. Only distributions with a finite "
            "support, such as Categorical or Bernoulli, have one."
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

    def log_prob_of_draw(self, draw: Tensor) -> Tensor:
        """The log density at a reparameterised draw of this object, to be differentiated by its parameters alone.

        Equal to `log_prob(draw)`, total derivatives by the parameters included; but a family may leave out what cancels in
        them, so that derivatives by the draw itself mean nothing.
        """
        return self.log_prob(draw)

    def conjugate_update(self, other: Any) -> tuple[Any, Tensor]:
        """This density times another one in the same variable, as a distribution and the log integral of the product.

        Raises: NotImplementedError for a pair that has no such form.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no closed form for its product with {type(other).__name__}; Beta, Dirichlet, Gamma "
            "and GaussianHMM have one with their own kind."
        )

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


def expanded(d: Distribution, batch_shape: ShapeLike) -> Distribution:
    """`d.expand(batch_shape)`, also for a user's class that cannot because its __init__ differs from its parent's."""
    if d.batch_shape == batch_shape:
        return d
    try:
        return d.expand(Size(batch_shape))  # type: ignore[no-any-return]
    except NotImplementedError:
        return Distribution.expand(d, batch_shape)  # type: ignore[no-any-return]
