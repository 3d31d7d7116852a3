"""Normal observations in groups, with the groups' normal means integrated out."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from ppl.distributions import constraints
from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.family import Family
from ppl.distributions.normal import Normal


class GroupedNormalNormal(Family):
    """N observations, each normal around the mean of its group; the G means are normal, and integrated out.

        mean_g ~ Normal(prior_loc_g, prior_scale_g),    value_n ~ Normal(mean_{group_idx_n}, obs_scale_n)

    All observations are one event. `get_posterior(value)` is the law of the means given the observations.

    Shapes: prior_loc, prior_scale (*batch, G), obs_scale (*batch, N) (or (*batch, 1) for all), group_idx (N,) of
        integers from 0 to G - 1, in any order; value (*batch, N).
    """

    arg_constraints = {
        "prior_loc": constraints.real_vector,
        "prior_scale": constraints.independent(constraints.positive, 1),
        "obs_scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    has_rsample = True
    prior_loc: Tensor
    prior_scale: Tensor
    obs_scale: Tensor

    def __init__(
        self,
        prior_loc: Tensor,
        prior_scale: Tensor,
        obs_scale: Tensor,
        group_idx: Tensor,
        validate_args: bool | None = None,
    ) -> None:
        obs_scale = torch.as_tensor(obs_scale, dtype=prior_loc.dtype, device=prior_loc.device)
        prior_scale = torch.as_tensor(prior_scale, dtype=prior_loc.dtype, device=prior_loc.device)
        if group_idx.dim() != 1 or prior_loc.dim() == 0 or group_idx.is_floating_point():
            raise ValueError(
                "GroupedNormalNormal: group_idx must be a vector of integers and prior_loc have a last dim of groups, but "
                f"their shapes are {tuple(group_idx.shape)} ({group_idx.dtype}) and {tuple(prior_loc.shape)}."
            )
        groups, count = prior_loc.size(-1), group_idx.size(0)
        if obs_scale.dim() == 0 or obs_scale.size(-1) == 1:
            obs_scale = obs_scale.reshape((*obs_scale.shape[:-1], 1)).expand((*obs_scale.shape[:-1], count))
        prior_scale = prior_scale.expand(torch.broadcast_shapes(prior_scale.shape, (groups,)))
        if obs_scale.size(-1) != count:
            raise ValueError(
                f"GroupedNormalNormal: obs_scale has {obs_scale.size(-1)} entries in its last dim, but group_idx {count}; "
                "give one for each observation, or one for all."
            )
        self.group_idx = group_idx
        self.num_groups, self.num_data_per_batch = groups, count
        self._take(
            {"prior_loc": prior_loc, "prior_scale": prior_scale, "obs_scale": obs_scale}, (count,), validate_args
        )
        if self._validate_args and count and not bool(((group_idx >= 0) & (group_idx < groups)).all()):
            raise ValueError(f"GroupedNormalNormal: group_idx must lie from 0 to {groups - 1}, but got {group_idx}.")

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        batches = (Size(s)[:-1] for name, s in arg_shapes.items() if name != "group_idx")
        return torch.broadcast_shapes(*batches), Size(arg_shapes["group_idx"])

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw means, then observations."""
        shape = (*sample_shape, *self.batch_shape)
        like = self.prior_loc
        noise = torch.randn((*shape, self.num_groups), dtype=like.dtype, device=like.device)
        means = (self.prior_loc + self.prior_scale * noise).index_select(-1, self.group_idx)
        noise = torch.randn((*shape, self.num_data_per_batch), dtype=like.dtype, device=like.device)
        return means + self.obs_scale * noise

    def _sum_groups(self, values: Tensor) -> Tensor:
        """Sums over the observations of each group."""
        zeros = values.new_zeros((*values.shape[:-1], self.num_groups))
        return zeros.index_add(-1, self.group_idx, values)

    def _posterior(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The residuals from the prior means, and per group the ratio of precisions and the posterior's shift."""
        residual = value - self.prior_loc.index_select(-1, self.group_idx)
        precision = self.obs_scale**-2
        prior = self.prior_scale**2
        # relative to the prior's precision, so that a wide prior and a narrow one are both exact
        ratio = prior * self._sum_groups(precision.expand(residual.shape))
        shift = prior * self._sum_groups(precision * residual) / (1 + ratio)
        return residual, ratio, shift

    def get_posterior(self, value: Tensor) -> Distribution:
        """The posterior of the groups' means, `Normal` of batch shape (*batch, G), given observations."""
        _, ratio, shift = self._posterior(value)
        return Normal(self.prior_loc + shift, self.prior_scale * (1 + ratio).rsqrt(), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        residual, ratio, shift = self._posterior(value)
        # Σ r²/σ² - s²(1 + ratio)/τ², as squares of what is left around the posterior means: nothing cancels
        left = (residual - shift.index_select(-1, self.group_idx)) / self.obs_scale
        square = (left * left).sum(-1) + ((shift / self.prior_scale) ** 2).sum(-1)
        log_det = 2 * self.obs_scale.log().sum(-1) + torch.log1p(ratio).sum(-1)
        return -0.5 * (square + log_det + self.num_data_per_batch * math.log(2 * math.pi))

    @property
    def mean(self) -> Tensor:
        """The prior mean of each observation."""
        return self.prior_loc.index_select(-1, self.group_idx)

    @property
    def variance(self) -> Tensor:
        """The marginal variance of each observation."""
        return (self.prior_scale**2).index_select(-1, self.group_idx) + self.obs_scale**2

    def entropy(self) -> Tensor:
        """The entropy of all observations together."""
        ratio = self.prior_scale**2 * self._sum_groups(self.obs_scale**-2)
        log_det = 2 * self.obs_scale.log().sum(-1) + torch.log1p(ratio).sum(-1)
        return 0.5 * (log_det + self.num_data_per_batch * (1 + math.log(2 * math.pi)))
