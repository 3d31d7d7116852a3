"""Counts of K categories."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributions as td
from torch import Size, Tensor

from ppl.distributions import constraints
from ppl.distributions.choice import Choice
from ppl.distributions.count import largest_number
from ppl.distributions.distribution import ShapeLike, broadcast_shape
from ppl.distributions.family import Family
from ppl.distributions.odds import one_of
from ppl.distributions.validation import InvalidArgument, describe_entries
from ppl.tensors.count_draws import draw_log_gamma, draw_multinomial
from ppl.tensors.mass import chances_of_probs, count_deviance, log_binomial, log_dirichlet_multinomial
from ppl.tensors.special import factorial_excess


class _Counts:
    """What distributions over the counts of K categories share. Stands before their other bases."""

    total_count: Any  # a number, a tensor of the batch's shape, or None
    total_count_max: int | None

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        if self.total_count is None:
            return constraints.independent(constraints.nonnegative_integer, 1)
        exactly: Any = constraints.multinomial
        return exactly(self.total_count)

    @property
    def cardinality(self) -> int:
        """The number of values of the support, (n + K - 1)! / (n! (K - 1)!); for differing counts n, of the largest."""
        this: Any = self
        size = this.event_shape[-1]
        total = largest_number(1 if self.total_count is None else self.total_count)
        return math.comb(total + size - 1, size - 1)

    def _total(self, like: Tensor) -> Tensor:
        """The total count for arithmetic with a tensor."""
        if isinstance(self.total_count, Tensor):
            return self.total_count.to(like.dtype)
        total = 1 if self.total_count is None else self.total_count
        return torch.tensor(total, dtype=like.dtype, device=like.device)

    def _check_total(self) -> None:
        """Check what the shared checks cannot see: a number, and the bound.

        Raises: ValueError naming the argument.
        """
        family, total, bound = type(self).__name__, self.total_count, self.total_count_max
        if isinstance(total, Tensor):
            whole = (total >= 0) & (total == total.floor())
            if not bool(whole.all()):
                found = describe_entries(~whole, total)
                nan = " (NaN: a parameter or an input has diverged)" if bool(total.isnan().any()) else ""
                raise InvalidArgument(
                    f"{family}: argument 'total_count' must satisfy nonnegative_integer, but {found}{nan}.", ~whole
                )
            if bound is not None and bool((above := total > bound).any()):
                found = describe_entries(above, total)
                raise InvalidArgument(
                    f"{family}: argument 'total_count' must be at most total_count_max = {bound}, but {found}.", above
                )
        elif total is not None and (total < 0 or total != int(total)):
            raise ValueError(f"{family}: argument 'total_count' must satisfy nonnegative_integer, but got {total}.")

    def _feasible(self, value: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """The counts, made zero where they are not of `total_count` draws, and where they are."""
        value = value.to(like.dtype)
        inside = ((value >= 0) & (value == value.floor())).all(-1)
        if self.total_count is not None:
            inside = inside & (value.sum(-1) == self.total_count)
        return torch.where(inside.unsqueeze(-1), value, 0.0), inside

    def __repr__(self) -> str:
        this: Any = self
        total = tuple(self.total_count.shape) if isinstance(self.total_count, Tensor) else self.total_count
        return (
            f"{type(self).__name__}(total_count: {total}, batch {tuple(this.batch_shape)}, K = {this.event_shape[-1]})"
        )


class Multinomial(_Counts, Choice, td.Multinomial):
    """Counts of K categories in `total_count` draws.

    The log density is a sum of saddle-point forms, which keep their digits for millions of draws. A value that does
    not add up to `total_count` has log density -inf; with total_count=None every value is scored given its own sum, and
    draws are of one.

    Args: total_count, a number, or a tensor that broadcasts with the batch; total_count_max, a bound of it, which
        NumPyro needs, and which only has to hold here.
    """

    arg_constraints = {
        "probs": constraints.simplex,
        "logits": constraints.real_vector,
        "total_count": constraints.nonnegative_integer,
    }

    def __init__(
        self,
        total_count: Tensor | int | None = 1,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        total_count_max: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if isinstance(total_count, Tensor):
            name, weights = one_of("Multinomial", probs, logits)
            batch = broadcast_shape(total_count.shape, weights.shape[:-1])
            total_count, weights = total_count.expand(batch), weights.expand((*batch, -1))
            probs, logits = (weights, None) if name == "probs" else (None, weights)
        self.total_count, self.total_count_max = total_count, total_count_max
        self._take_weights(probs, logits, 1, validate_args)
        if self._validate_args:
            self._check_total()

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        if isinstance(self.total_count, Tensor):
            new.total_count = self.total_count.expand(Size(batch_shape))
        return new

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        total = self._total(self.probs).expand(Size((*sample_shape, *self.batch_shape)))
        return draw_multinomial(total, self.probs.detach())

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value, inside = self._feasible(value, self.probs)
        total = value.sum(-1)
        log_total = torch.where(total == 0, 1.0, total).log().unsqueeze(-1)
        logits = torch.where((value == 0) & (self.logits == -math.inf), 0.0, self.logits)
        gap = count_deviance(value, total.unsqueeze(-1) * self.probs, log_total + logits)
        log_prob = factorial_excess(total) - (factorial_excess(value) + gap).sum(-1)
        return torch.where(inside, log_prob, -math.inf)

    @property
    def mean(self) -> Tensor:
        return self.probs * self._total(self.probs).unsqueeze(-1)

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.probs)

    def entropy(self) -> Tensor:
        """The entropy, by sums over the binomial law of each category's count, for one `total_count` of the batch."""
        if isinstance(self.total_count, Tensor):
            raise NotImplementedError("Multinomial has no entropy for a total_count that is a tensor; give a number.")
        n = 1 if self.total_count is None else self.total_count
        counts = torch.arange(n + 1, dtype=self.probs.dtype, device=self.probs.device)
        counts = counts.reshape((-1,) + (1,) * self.probs.dim())
        chances = chances_of_probs(self.probs, counts, n - counts)
        from_each = log_binomial(counts, n - counts, chances).exp() * torch.lgamma(counts + 1)
        alone = -(self.probs * torch.where(self.logits == -math.inf, 0.0, self.logits)).sum(-1)
        return n * alone - math.lgamma(n + 1) + from_each.sum(0).sum(-1)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        total = Size(arg_shapes.pop("total_count", ()))
        arg_shapes.pop("total_count_max", None)
        batch, event = super().infer_shapes(**arg_shapes)
        return broadcast_shape(batch, total), event


class DirichletMultinomial(_Counts, Family):
    """Counts of K categories in `total_count` draws whose probabilities are one Dirichlet draw.

    Args: concentration, positive, over the categories in the last dim; total_count and total_count_max, as in
        `Multinomial`; is_sparse, whether most counts are 0: `log_prob` then works out the others only, looking at them.
    """

    arg_constraints = {
        "concentration": constraints.independent(constraints.positive, 1),
        "total_count": constraints.nonnegative_integer,
    }
    concentration: Tensor

    def __init__(
        self,
        concentration: Tensor,
        total_count: Tensor | int | None = 1,
        is_sparse: bool = False,
        total_count_max: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.is_sparse, self.total_count_max = is_sparse, total_count_max
        given = {"concentration": concentration}
        if isinstance(total_count, Tensor):
            given["total_count"] = total_count
        else:
            self.total_count = total_count
        self._take(given, concentration.shape[-1:], validate_args)
        if self._validate_args:
            self._check_total()

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        shape = Size((*sample_shape, *self.batch_shape))
        logs = draw_log_gamma(self.concentration.expand((*shape, -1)))
        total = self._total(self.concentration)
        return draw_multinomial(total.expand(shape), torch.softmax(logs, -1))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value, inside = self._feasible(value, self.concentration)
        log_prob = log_dirichlet_multinomial(value, self.concentration, self.is_sparse)
        return torch.where(inside, log_prob, -math.inf)

    @property
    def mean(self) -> Tensor:
        probs = self.concentration / self.concentration.sum(-1, keepdim=True)
        return probs * self._total(probs).unsqueeze(-1)

    @property
    def variance(self) -> Tensor:
        total = self.concentration.sum(-1, keepdim=True)
        n = self._total(total).unsqueeze(-1)
        return self.mean * (1 - self.concentration / total) * ((n + total) / (1 + total))

    @classmethod
    def infer_shapes(cls, **arg_shapes: Any) -> tuple[Size, Size]:
        concentration = Size(arg_shapes["concentration"])
        return broadcast_shape(concentration[:-1], Size(arg_shapes.get("total_count", ()))), concentration[-1:]
