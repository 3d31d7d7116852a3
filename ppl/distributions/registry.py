"""From all reals to a constraint's set: `biject_to` and `transform_to`.

`biject_to(constraint)` is a bijection with a Jacobian, for samplers and guides; `transform_to(constraint)` need not be
injective, and treats entries alike, for optimisers. Both leave torch's registries alone and read them for constraints
they do not know. A constraint of one's own is made known by three lines:

    @biject_to.register(MyConstraint)
    @transform_to.register(MyConstraint)
    def _(constraint): return MyTransform(constraint.bound)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor

from ppl.distributions import constraints, transforms
from ppl.distributions.transforms import ComposeTransform, IndependentTransform

Factory = Callable[[Any], Any]


class ConstraintRegistry:
    """Makes transforms to the sets of constraints, by the constraint's class or the nearest of its bases."""

    def __init__(self, name: str, fallback: torch.distributions.constraint_registry.ConstraintRegistry) -> None:
        self.name = name
        self.fallback = fallback
        self._factories: dict[type, Factory] = {}

    @overload
    def register(self, constraint: Any) -> Callable[[Factory], Factory]: ...
    @overload
    def register(self, constraint: Any, factory: Factory) -> Factory: ...
    def register(self, constraint: Any, factory: Factory | None = None) -> Any:
        """Say how to reach a class of constraints (or that of the given one); a decorator if no factory is given."""
        if factory is None:
            return lambda factory: self.register(constraint, factory)
        cls = constraint if isinstance(constraint, type) else type(constraint)
        if not issubclass(cls, torch.distributions.constraints.Constraint):
            raise TypeError(
                f"{self.name}.register needs a class of constraints or one of its objects, got {constraint!r}."
            )
        self._factories[cls] = factory
        return factory

    def __call__(self, constraint: Any) -> Any:
        """A transform from all reals to the constraint's set.

        Raises: NotImplementedError saying how to register one.
        """
        for cls in type(constraint).__mro__:
            factory = self._factories.get(cls)
            if factory is not None:
                return factory(constraint)
        try:
            return self.fallback(constraint)
        except NotImplementedError:
            raise NotImplementedError(self._advice(constraint)) from None

    def _advice(self, constraint: Any) -> str:
        if constraints.is_dependent(constraint):
            return f"{self.name}: this constraint depends on parameters; ask for the support of a distribution object."
        kind = type(constraint).__name__
        if constraint.is_discrete:
            return f"{self.name}: the constraint {constraint} is discrete, and no transform of real numbers reaches it."
        return (
            f"{self.name} does not know the constraint {constraint} of class {kind}. Tell it how to reach it:\n"
            f"    @{self.name}.register({kind})\n"
            f"    def _(constraint):\n"
            f"        return MyTransform(…)  # a ppl.distributions.transforms.Transform from all reals"
        )


biject_to = ConstraintRegistry("biject_to", torch.distributions.biject_to)
transform_to = ConstraintRegistry("transform_to", torch.distributions.transform_to)


def _both(*known: Any) -> Callable[[Factory], Factory]:
    """Register a bijection in both registries."""

    def register(factory: Factory) -> Factory:
        for constraint in known:
            biject_to.register(constraint, factory)
            transform_to.register(constraint, factory)
        return factory

    return register


# -- numbers


@_both(constraints.real)
def _real(constraint: Any) -> Any:
    return transforms.identity_transform


@_both(constraints.greater_than)
def _greater_than(constraint: Any) -> Any:
    if isinstance(constraint.lower_bound, (int, float)) and constraint.lower_bound == 0:
        return transforms.ExpTransform()
    return transforms.GreaterThanTransform(constraint.lower_bound)


@_both(constraints.greater_than_eq)
def _greater_than_eq(constraint: Any) -> Any:
    return transforms.GreaterThanTransform(constraint.lower_bound)


@_both(constraints.softplus_positive)
def _softplus_positive(constraint: Any) -> Any:
    return transforms.SoftplusTransform()


@_both(constraints.less_than)
def _less_than(constraint: Any) -> Any:
    return transforms.LessThanTransform(constraint.upper_bound)


@_both(constraints.interval)
def _interval(constraint: Any) -> Any:
    low, high = constraint.lower_bound, constraint.upper_bound
    if isinstance(low, (int, float)) and isinstance(high, (int, float)) and (low, high) == (0, 1):
        return transforms.SigmoidTransform()
    return transforms.IntervalTransform(low, high)


@_both(constraints.half_open_interval)
def _half_open_interval(constraint: Any) -> Any:
    return transforms.IntervalTransform(constraint.lower_bound, constraint.upper_bound, is_half_open=True)


@_both(constraints.complex)
def _complex(constraint: Any) -> Any:
    return transforms.ComplexTransform()


# -- vectors


@biject_to.register(constraints.simplex)
def _bijection_to_simplex(constraint: Any) -> Any:
    return transforms.StickBreakingTransform()


@transform_to.register(constraints.simplex)
def _transform_to_simplex(constraint: Any) -> Any:
    return transforms.SoftmaxTransform()


@_both(constraints.ordered_vector)
def _ordered(constraint: Any) -> Any:
    return transforms.OrderedTransform()


@_both(constraints.positive_ordered_vector)
def _positive_ordered(constraint: Any) -> Any:
    return transforms.PositiveOrderedTransform()


@_both(constraints.l1_ball)
def _l1_ball(constraint: Any) -> Any:
    return transforms.L1BallTransform()


@_both(constraints.zero_sum)
def _zero_sum(constraint: Any) -> Any:
    return transforms.ZeroSumTransform(constraint.event_dim)


@_both(constraints.positive_definite_circulant_vector)
def _circulant(constraint: Any) -> Any:
    return transforms.CirculantTransform(constraint.size)


@transform_to.register(constraints.sphere)
def _transform_to_sphere(constraint: Any) -> Any:
    return transforms.Normalize(constraint.p)


@biject_to.register(constraints.sphere)
def _bijection_to_sphere(constraint: Any) -> Any:
    raise NotImplementedError(
        "biject_to: a sphere is no continuous image of all reals under a bijection. For optimisation use "
        "transform_to(constraints.sphere), which normalises; for sampling sample a normal vector instead and use its "
        "direction, x / x.norm(dim=-1, keepdim=True)."
    )


# -- matrices


def _matrices(constraint: Any, transform: Any) -> None:
    """A bijection from the vector of free entries; for optimisers, from a matrix, of which the upper half is not used."""
    biject_to.register(constraint, lambda _: transform(packed=True))
    transform_to.register(constraint, lambda _: transform(packed=False))


_matrices(constraints.lower_cholesky, transforms.LowerCholeskyTransform)
_matrices(constraints.softplus_lower_cholesky, transforms.SoftplusLowerCholeskyTransform)
_matrices(constraints.scaled_unit_lower_cholesky, transforms.ScaledUnitLowerCholeskyTransform)
_matrices(constraints.unit_lower_cholesky, transforms.UnitLowerCholeskyTransform)


@_both(constraints.corr_cholesky)
def _corr_cholesky(constraint: Any) -> Any:
    return transforms.CorrCholeskyTransform()


@_both(constraints.corr_matrix)
def _corr_matrix(constraint: Any) -> Any:
    return ComposeTransform([transforms.CorrCholeskyTransform(), transforms.CorrMatrixCholeskyTransform().inv])


@biject_to.register(constraints.positive_definite)
@biject_to.register(constraints.positive_semidefinite)
def _bijection_to_positive_definite(constraint: Any) -> Any:
    return ComposeTransform([transforms.LowerCholeskyTransform(packed=True), transforms.CholeskyTransform().inv])


@transform_to.register(constraints.positive_definite)
@transform_to.register(constraints.positive_semidefinite)
def _transform_to_positive_definite(constraint: Any) -> Any:
    return transforms.PositiveDefiniteTransform()


# -- combinations


def _combinations(registry: ConstraintRegistry) -> None:
    @registry.register(constraints.independent)
    def _independent(constraint: Any) -> Any:
        return IndependentTransform(registry(constraint.base_constraint), constraint.reinterpreted_batch_ndims)

    @registry.register(constraints.MixtureSameFamilyConstraint)
    def _mixture(constraint: Any) -> Any:
        return registry(_shared_by_components(constraint.base_constraint, -1 - constraint.event_dim))

    @registry.register(torch.distributions.constraints.cat)
    def _cat(constraint: Any) -> Any:
        parts = [registry(part) for part in constraint.cseq]
        changes = {t.codomain.event_dim - t.domain.event_dim for t in parts}
        dim = constraint.dim
        if dim < 0 and len(changes) == 1 and dim < -max(part.event_dim for part in constraint.cseq):
            dim += changes.pop()
        lengths = [
            n if not -t.codomain.event_dim <= dim < 0 else t.inverse_shape(torch.Size((n,) + (1,) * (-dim - 1)))[dim]
            for t, n in zip(parts, constraint.lengths, strict=True)
        ]
        return transforms.CatTransform(parts, dim, lengths)

    @registry.register(torch.distributions.constraints.stack)
    def _stack(constraint: Any) -> Any:
        parts = [registry(part) for part in constraint.cseq]
        changes = {t.codomain.event_dim - t.domain.event_dim for t in parts}
        dim = constraint.dim
        if dim < 0 and len(changes) == 1 and dim < -max(part.event_dim for part in constraint.cseq):
            dim += changes.pop()
        return transforms.StackTransform(parts, dim)


_combinations(biject_to)
_combinations(transform_to)


def _shared_by_components(constraint: Any, dim: int) -> Any:
    """The set of the values that satisfy a constraint for every component of a mixture, whose dim in bounds is `dim`."""
    if isinstance(constraint, constraints.independent):
        # the base's bounds have no event dims of its own
        inner = _shared_by_components(constraint.base_constraint, dim)
        return constraints.independent(inner, constraint.reinterpreted_batch_ndims)
    low, high = getattr(constraint, "lower_bound", None), getattr(constraint, "upper_bound", None)
    if not any(isinstance(bound, Tensor) and bound.dim() >= -dim for bound in (low, high)):
        return constraint
    bounds = {}
    if low is not None:
        bounds["lower_bound"] = low.amax(dim) if isinstance(low, Tensor) and low.dim() >= -dim else low
    if high is not None:
        bounds["upper_bound"] = high.amin(dim) if isinstance(high, Tensor) and high.dim() >= -dim else high
    return type(constraint)(**bounds)
