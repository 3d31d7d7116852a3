"""Vectors of probabilities made of a normal vector."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Size, Tensor
from torch.distributions.transforms import StickBreakingTransform

from ppl.distributions import constraints, noise
from ppl.distributions.distribution import ShapeLike, broadcast_shape
from ppl.distributions.family import Family
from ppl.distributions.multivariate_normal import LOG_2PI
from ppl.distributions.normal import Normal


class LogisticNormal(Family, torch.distributions.LogisticNormal):
    """Probability vectors of one more entry than the normal vector behind them.

    Entry j of the normal vector, minus log(number of entries left), is the logit of the j-th piece broken off a stick.

    Shapes: loc and scale (*batch, k) -> event (k + 1,).
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.simplex
    has_rsample = True
    transforms: Any = (StickBreakingTransform(),)
    loc = cast(Tensor, None)  # stand where torch has properties, so that the object's own fields are found
    scale = cast(Tensor, None)

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        tensors = [v for v in (loc, scale) if isinstance(v, Tensor) and v.dim()]
        if not tensors:
            raise ValueError("LogisticNormal: 'loc' or 'scale' must be a tensor with the vector in its last dim.")
        like = tensors[0]
        loc, scale = (
            v.to(like.dtype)
            if isinstance(v, Tensor)
            else torch.full((), float(v), dtype=like.dtype, device=like.device)
            for v in (loc, scale)
        )
        size = broadcast_shape(loc.shape[-1:], scale.shape[-1:])
        loc, scale = (v.expand(v.shape[:-1] + size) for v in (loc, scale))
        self._take({"loc": loc, "scale": scale}, Size((size[0] + 1,)), validate_args)

    def _before(self) -> Any:
        return Normal(self.loc, self.scale, validate_args=False).to_event(1)

    base_dist: Any = property(_before, doc="The distribution of the normal vector.")

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        shape = self.shape(sample_shape)
        normal = self.loc + self.scale * noise.normal_of(self.loc, (*shape[:-1], shape[-1] - 1))
        logits = normal - self._offset()
        broken, kept = torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
        before = torch.nn.functional.pad(kept.cumsum(-1), (1, 0))
        log_x = before + torch.nn.functional.pad(broken, (0, 1))
        return log_x.exp().clamp(min=torch.finfo(log_x.dtype).tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        inside = constraints.simplex.check(value)
        positive = (value > 0).all(-1)
        x = torch.where((inside & positive).unsqueeze(-1), value, 1.0 / value.shape[-1])
        left = x.flip(-1).cumsum(-1).flip(-1).log()  # what is left of the stick, from its far end: no cancellation
        log_x = x.log()
        y = log_x[..., :-1] - left[..., 1:] + self._offset()
        z = (y - self.loc) / self.scale
        log_density = -0.5 * (z.square() + LOG_2PI) - self.scale.log()
        jacobian = log_x[..., :-1] + left[..., 1:] - left[..., :-1]
        total = (log_density - jacobian).sum(-1)
        return torch.where(inside & positive, total, -torch.inf)

    def _offset(self) -> Tensor:
        """The log of how many pieces are left after each break, which centres the law."""
        size = self.event_shape[0] - 1
        return torch.arange(size, 0, -1, dtype=self.loc.dtype, device=self.loc.device).log()

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        shape = broadcast_shape(*(Size(s) for s in arg_shapes.values()))
        return shape[:-1], Size((shape[-1] + 1,))
