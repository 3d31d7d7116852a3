"""Normal vectors whose pathwise gradients follow other velocity fields than the usual one, with less variance.

A draw's gradient in the Cholesky factor is the gradient of a test function along a velocity field that moves draws as
the factor moves. Fields that solve the transport equation are many; all are unbiased, and they differ in variance.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions import constraints, noise
from ppl.distributions.distribution import Distribution, ShapeLike
from ppl.distributions.multivariate_normal import MultivariateNormal
from ppl.tensors import triangular


class OMTMultivariateNormal(MultivariateNormal):
    """A normal vector whose draws follow the optimal mass transport field when `scale_tril` moves.

    The field of a change dΣ of the covariance is S (x - loc), with the symmetric S that solves S Σ + Σ S = dΣ: of all
    fields the shortest. First derivatives of draws are exact; second ones are not meant to be taken.

    Shapes: as `MultivariateNormal`.
    Source: Jankowiak & Obermeyer 2018, Pathwise Derivatives Beyond the Reparameterization Trick.
    """

    arg_constraints = {"loc": constraints.real_vector, "scale_tril": constraints.lower_cholesky}

    def __init__(self, loc: Tensor | float, scale_tril: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(loc, scale_tril=scale_tril, validate_args=validate_args)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        fixed = self._factor.detach()
        x = triangular.multiply(fixed, noise.normal_of(self.loc, self.shape(sample_shape)))
        axes, lengths, _ = torch.linalg.svd(fixed.tril())
        squares = lengths.square()
        square = self._factor @ self._factor.mT
        change = axes.mT @ (square - square.detach()) @ axes  # zero, but for its gradient
        field = change / (squares.unsqueeze(-1) + squares.unsqueeze(-2))
        return self.loc + (x + triangular.multiply(axes @ field @ axes.mT, x))


class AVFMultivariateNormal(MultivariateNormal):
    """A normal vector whose draws follow a learned velocity field when `scale_tril` moves.

    To the usual field of entry (a, b) of the factor it adds w_ab times a rotation of the whitened draw in the plane of a
    and b, which leaves the law as it is, so that gradients stay unbiased for any weights w = Bᵀ C. Backward passes give
    `control_var` the gradient of the squared norm of the gradient of `scale_tril`: descending it lowers the variance.
    First derivatives only.

    Args: control_var (2, m, k), B and C, shared by the batch.
    Shapes: loc (*batch, k), scale_tril (*batch, k, k) -> event (k,).
    Source: Jankowiak & Obermeyer 2018, Pathwise Derivatives Beyond the Reparameterization Trick, adaptive velocity
    fields.
    """

    arg_constraints = {"loc": constraints.real_vector, "scale_tril": constraints.lower_cholesky}
    control_var: Tensor

    def __init__(
        self, loc: Tensor | float, scale_tril: Tensor, control_var: Tensor, validate_args: bool | None = None
    ) -> None:
        super().__init__(loc, scale_tril=scale_tril, validate_args=validate_args)
        size = self.event_shape[0]
        if control_var.dim() != 3 or control_var.shape[0] != 2 or control_var.shape[2] != size:
            raise ValueError(
                f"AVFMultivariateNormal: 'control_var' must have shape (2, m, {size}) with any m, but its shape is "
                f"{tuple(control_var.shape)}."
            )
        self.control_var = control_var

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        z = noise.normal_of(self.loc, self.shape(sample_shape))
        factor = self.scale_tril.expand(self.shape(sample_shape) + self.event_shape)
        weights = (self.control_var[0].mT @ self.control_var[1]).expand_as(factor)
        moved: Tensor = _AdaptiveField.apply(factor, weights, z)  # type: ignore[no-untyped-call]
        return self.loc + moved

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        arg_shapes.pop("control_var", None)
        return Distribution.infer_shapes.__func__(cls, **arg_shapes)  # type: ignore[attr-defined, no-any-return]


class _AdaptiveField(torch.autograd.Function):
    """L z, with the gradient of the field in L, and in the weights w that of the squared norm of the gradient in L.

    Each draw brings its own expanded copy of L and w, so that autograd sums over draws; the squared norm is therefore
    that of one draw's gradient, whose mean is the variance plus a constant.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(lower: Tensor, weights: Tensor, z: Tensor) -> Tensor:
        return (lower @ z.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        lower, weights, z = ctx.saved_tensors
        (gradient,) = gradients
        whitened = (lower.mT @ gradient.unsqueeze(-1)).squeeze(-1)
        turn = whitened.unsqueeze(-1) * z.unsqueeze(-2)
        turn = turn - turn.mT
        of_lower = (gradient.unsqueeze(-1) * z.unsqueeze(-2) + weights * turn).tril()
        return of_lower, 2 * of_lower * turn, None
