"""Observations of which only a bound is known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import Distribution, ShapeLike, broadcast_shape, expanded
from ppl.distributions.lifting import Wraps
from ppl.distributions.masked import mask_value
from ppl.distributions.prototype import unchecked
from ppl.tensors.special import log_diff_exp


class _Censored(Wraps):
    """What the three have in common: a univariate base and flags that broadcast with its batch."""

    expands_without_init = True
    base_dist: Distribution
    flags: tuple[str, ...] = ()

    def _take(
        self,
        base_dist: torch.distributions.Distribution,
        flags: dict[str, Any],
        event: Size,
        validate_args: bool | None,
    ) -> None:
        family = type(self).__name__
        if base_dist.event_shape:
            raise ValueError(
                f"{family}: base_dist must be univariate, but {type(base_dist).__name__} has event shape "
                f"{tuple(base_dist.event_shape)}."
            )
        tensors = {k: torch.as_tensor(v) for k, v in flags.items()}
        try:
            batch = broadcast_shape(base_dist.batch_shape, *(t.shape for t in tensors.values()))
        except RuntimeError:
            shapes = "".join(f", {k} {tuple(t.shape)}" for k, t in tensors.items())
            raise ValueError(
                f"{family}: the shapes of its arguments do not broadcast: base_dist {tuple(base_dist.batch_shape)}{shapes}."
            ) from None
        self.base_dist = expanded(unchecked(base_dist), batch)
        for name, flag in tensors.items():
            vars(self)[name] = flag.expand(batch)
        Distribution.__init__(self, batch, event, validate_args)

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        shape = Size(batch_shape)
        fields = vars(new)
        fields.update(vars(self))
        fields["base_dist"] = expanded(self.base_dist, shape)
        for name in self.flags:
            fields[name] = fields[name].expand(shape)
        fields["_batch_shape"] = shape
        return new

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.base_dist.sample(Size(sample_shape))

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        return self.base_dist.rsample(Size(sample_shape))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_dist})"


class _OneSided(_Censored):
    """What left and right censoring share: one flag, and a tail where it is set."""

    arg_constraints = {"censored": constraints.boolean}
    flags = ("censored",)
    censored: Tensor

    def __init__(
        self,
        base_dist: torch.distributions.Distribution,
        censored: Tensor | bool,
        validate_args: bool | None = None,
    ) -> None:
        self._take(base_dist, {"censored": censored}, Size(), validate_args)

    @property
    def support(self) -> Any:
        return self.base_dist.support

    def _log_tail(self, value: Tensor) -> Tensor:
        raise NotImplementedError

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        base, censored = self.base_dist, self.censored.bool()
        censored = censored.expand(broadcast_shape(censored.shape, value.shape))
        density = base.log_prob(mask_value(base, value, ~censored))
        # each branch sees only values of its own, so that the other's gradients are never NaN
        return torch.where(censored, self._log_tail(mask_value(base, value, censored)), density)


class LeftCensoredDistribution(_OneSided):
    """Draws of the base, of which some are known only to lie at or below the value given.

    The log density is `base_dist.log_cdf(value)` where `censored` is true, and the base's own elsewhere. It is the
    likelihood of what was seen and does not integrate to 1. Draws are uncensored.

    Args: censored, boolean or 0 and 1, broadcasts with the base's batch shape.
    """

    def _log_tail(self, value: Tensor) -> Tensor:
        return self.base_dist.log_cdf(value)


class RightCensoredDistribution(_OneSided):
    """Draws of the base, of which some are known only to lie above the value given.

    The log density is `base_dist.log_survival(value)` where `censored` is true, and the base's own elsewhere. It is the
    likelihood of what was seen and does not integrate to 1. Draws are uncensored.

    Args: censored, boolean or 0 and 1, broadcasts with the base's batch shape.
    """

    def _log_tail(self, value: Tensor) -> Tensor:
        return self.base_dist.log_survival(value)


class IntervalCensoredDistribution(_Censored):
    """Draws of the base, each known only to lie in an interval, whose ends are the last dim of the value.

    The log density of a pair (lower, upper) is
        log P(X <= upper)          where left_censored: there is no lower end,
        log P(X > lower)           where right_censored: there is no upper end,
        log P(lower < X <= upper)  where neither,
        0                          where both: nothing is known,
    and where lower equals upper and neither flag is set, X was seen exactly: the base's log density there. The
    difference is taken on the side where the probabilities are small. An end that is not used may be anything, NaN too.

    Shapes: flags broadcast with the base's batch shape; a value is (*sample, *batch, 2). Draws are exact: pairs of equals.
    """

    arg_constraints = {"left_censored": constraints.boolean, "right_censored": constraints.boolean}
    flags = ("left_censored", "right_censored")
    left_censored: Tensor
    right_censored: Tensor

    def __init__(
        self,
        base_dist: torch.distributions.Distribution,
        left_censored: Tensor | bool,
        right_censored: Tensor | bool,
        validate_args: bool | None = None,
    ) -> None:
        flags = {"left_censored": left_censored, "right_censored": right_censored}
        self._take(base_dist, flags, Size((2,)), validate_args)

    @property
    def support(self) -> Any:
        return constraints.independent(self.base_dist.support, 1)

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return False

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return Distribution.enumerate_support(self, expand)

    def _validate_sample(self, value: Tensor) -> None:
        left, right = self.left_censored.bool(), self.right_censored.bool()
        lower, upper = value.unbind(-1)
        used = torch.stack(
            [
                mask_value(self.base_dist, lower, ~left.expand_as(lower)),
                mask_value(self.base_dist, upper, ~right.expand_as(upper)),
            ],
            -1,
        )
        super()._validate_sample(used)
        wrong = (lower > upper) & ~left & ~right
        if bool(wrong.any()):
            raise ValueError(
                f"{type(self).__name__}: a value is a pair (lower, upper), but lower is above upper in "
                f"{int(wrong.sum())} of {wrong.numel()} entries."
            )

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        draw = self.base_dist.sample(Size(sample_shape))
        return torch.stack([draw, draw], -1)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        draw = self.base_dist.rsample(Size(sample_shape))
        return torch.stack([draw, draw], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_form(value)
        base = self.base_dist
        left, right = self.left_censored.bool(), self.right_censored.bool()
        lower, upper = value.unbind(-1)
        left, right = (
            left.expand(broadcast_shape(left.shape, lower.shape)),
            right.expand(broadcast_shape(right.shape, lower.shape)),
        )
        if self._validate_args:
            self._validate_sample(value)
        exact = ~left & ~right & (lower == upper)
        between = ~left & ~right & ~exact
        at = base.log_prob(mask_value(base, upper, exact))
        lower = mask_value(base, lower, ~left & ~exact)
        upper = mask_value(base, upper, ~right & ~exact)
        below, above = base.log_cdf(upper), base.log_survival(lower)
        down = above < below  # the interval is in the upper tail: subtract what lies above its ends
        near = torch.where(down, above, below)
        far = torch.where(down, base.log_survival(upper), base.log_cdf(lower))
        inside = log_diff_exp(
            torch.where(between, near, torch.ones_like(near)), torch.where(between, far, torch.zeros_like(far))
        )
        one_sided = torch.where(left, below, above)
        one_sided = torch.where(left & right, torch.zeros_like(one_sided), one_sided)
        return torch.where(exact, at, torch.where(between, inside, one_sided))
