"""Mixtures: of one family along a batch dim, and of different families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl.distributions.distribution import Distribution, ShapeLike, broadcast_shape, expanded
from ppl.distributions.prototype import log_prob_anywhere, own, unchecked
from ppl.tensors.logspace import log_positive, log_sum

Foreign = torch.distributions.Distribution


class _Mixture(Distribution):
    """What both mixtures share; a subclass says what its components' densities, draws and moments are.

    Reparameterised draws (of univariate continuous components that know their `log_cdf`) differentiate implicitly: at a
    draw x, the mixture's distribution function F stays at its value, so dx = -dF / density (Figurnov et al., 2018).
    """

    arg_constraints = {}
    expands_without_init = True
    _mixture_distribution: Any
    _num_component: int

    def component_log_probs(self, value: Tensor) -> Tensor:
        """The log of weight times density of each component; over the last dim they sum, in log space, to log_prob.

        Shapes: value (*sample, *batch, *event) -> (*sample, *batch, component).
        """
        return self._log_weights() + self._densities(value)

    def _log_weights(self) -> Tensor:
        mixing = self._mixture_distribution
        probs = vars(mixing).get("probs")
        if probs is not None and probs is vars(mixing).get("_param"):  # torch's logits of them stop at log(1e-16)
            return log_positive(probs)
        return torch.log_softmax(mixing.logits, -1)

    def _weights(self) -> Tensor:
        """Shape (*batch, component, *event dims of size 1)."""
        weights = self._log_weights().exp()
        return weights.reshape(weights.shape + (1,) * len(self.event_shape))

    def _densities(self, value: Tensor) -> Tensor:
        """The components' log densities on a new last dim."""
        raise NotImplementedError

    def _tails(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The components' log_cdf and log_survival on a new last dim."""
        raise NotImplementedError

    def _draws(self, sample_shape: Size) -> Tensor:
        """A draw of each component, shaped (*sample, *batch, component, *event)."""
        raise NotImplementedError

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the components, shaped (*batch, component, *event)."""
        raise NotImplementedError

    def _can_differentiate(self) -> bool:
        raise NotImplementedError

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether draws carry gradients: implicitly, where all components know their log_cdf."""
        return bool(vars(self).get("has_rsample", self._can_differentiate()))

    @property
    def mixing_distribution(self) -> Any:
        """The distribution of the component's index."""
        return self._mixture_distribution

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return log_sum(self.component_log_probs(value), -1)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        shape = Size(sample_shape)
        with torch.no_grad():
            draws = self._draws(shape)
            index = self._mixture_distribution.sample(shape)
            axis = len(shape) + len(self.batch_shape)
            index = index.reshape(index.shape + (1,) * (1 + len(self.event_shape)))
            return draws.gather(axis, index.expand((*draws.shape[:axis], 1, *self.event_shape))).squeeze(axis)

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        if not self._can_differentiate():
            raise NotImplementedError(
                f"{type(self).__name__} has no reparameterised draws: its components must be univariate, continuous and "
                "know their log_cdf. Use sample(), or sum over the component with an enumerated site."
            )
        x = self.sample(sample_shape)
        if not torch.is_grad_enabled():
            return x
        below, above = self._tails(x)
        log_weights = self._log_weights()
        below, above = log_sum(below + log_weights), log_sum(above + log_weights)
        density = self.log_prob(x).detach()
        lower = below < above  # the tail whose probability is small tells more digits of the change
        return x + torch.where(lower, -_change(below, density), _change(above, density))

    def cdf(self, value: Tensor) -> Tensor:
        return self.log_cdf(value).exp()

    def log_cdf(self, value: Tensor) -> Tensor:
        if self.event_shape:
            raise NotImplementedError(
                f"{type(self).__name__}: a draw of event shape {tuple(self.event_shape)} has no cdf."
            )
        return log_sum(self._tails(value)[0] + self._log_weights())

    def log_survival(self, value: Tensor) -> Tensor:
        if self.event_shape:
            raise NotImplementedError(
                f"{type(self).__name__}: a draw of event shape {tuple(self.event_shape)} has no cdf."
            )
        return log_sum(self._tails(value)[1] + self._log_weights())

    @property
    def mean(self) -> Tensor:
        return (self._weights() * self._moments()[0]).sum(len(self.batch_shape))

    @property
    def variance(self) -> Tensor:
        axis, weights = len(self.batch_shape), self._weights()
        means, variances = self._moments()
        mean = (weights * means).sum(axis, keepdim=True)
        return (weights * (variances + (means - mean) ** 2)).sum(axis)


class MixtureSameFamily(_Mixture, torch.distributions.MixtureSameFamily):
    """A mixture along the last batch dim of `component_distribution`, with the weights of a Categorical.

    Shapes: mixture (*batch or broadcasting with it), of K categories; components (*batch, K), event (*event).
    Args: mixing_distribution, another name of mixture_distribution.
    Raises: ValueError where the batch shapes or the numbers of components do not fit.
    """

    has_rsample: Any = _Mixture.has_rsample
    _component_distribution: Any

    def __init__(
        self,
        mixture_distribution: Foreign | None = None,
        component_distribution: Foreign | None = None,
        validate_args: bool | None = None,
        *,
        mixing_distribution: Foreign | None = None,
    ) -> None:
        mixing = mixture_distribution if mixing_distribution is None else mixing_distribution
        family = type(self).__name__
        if component_distribution is None:
            raise ValueError(f"{family}: give a component_distribution, whose last batch dim counts the components.")
        count = _check_mixing(family, mixing)
        components = unchecked(component_distribution)
        shape = components.batch_shape
        if not shape or shape[-1] != count:
            raise ValueError(
                f"{family}: the last batch dim of component_distribution, whose batch shape is {tuple(shape)}, must equal the "
                f"mixing distribution's number of categories, {count}."
            )
        assert mixing is not None
        try:
            batch = broadcast_shape(mixing.batch_shape, shape[:-1])
        except RuntimeError:
            raise ValueError(
                f"{family}: the mixing distribution's batch shape {tuple(mixing.batch_shape)} does not broadcast with the "
                f"components' {tuple(shape[:-1])} (the last dim counts components)."
            ) from None
        self._mixture_distribution = expanded(unchecked(mixing), batch)
        self._component_distribution = expanded(components, Size((*batch, count)))
        self._num_component, self._event_ndims = count, len(components.event_shape)
        torch.distributions.Distribution.__init__(self, batch, components.event_shape, validate_args=False)
        self._check(validate_args)

    @property
    def component_distribution(self) -> Any:
        """The distribution whose last batch dim counts the components."""
        return self._component_distribution

    @property
    def support(self) -> Any:
        """The components' support; where its bounds differ between components, the union of theirs."""
        support = self._component_distribution.support
        return support if _is_static(support) else _Union(support)

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return bool(self._component_distribution.has_enumerate_support)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values: Tensor = self._component_distribution.enumerate_support(expand=False)
        values = values.squeeze(-1 - len(self.event_shape))
        return values.expand((-1, *self.batch_shape, *self.event_shape)) if expand else values

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        shape = Size(batch_shape)
        fields = vars(new)
        fields.update(vars(self))
        fields["_mixture_distribution"] = expanded(self._mixture_distribution, shape)
        fields["_component_distribution"] = expanded(self._component_distribution, Size((*shape, self._num_component)))
        fields["_batch_shape"] = shape
        return new

    def _can_differentiate(self) -> bool:
        return _has_smooth_cdf(self._component_distribution)

    def _densities(self, value: Tensor) -> Tensor:
        value = value.unsqueeze(-1 - len(self.event_shape))
        return log_prob_anywhere(self._component_distribution, value)

    def _tails(self, value: Tensor) -> tuple[Tensor, Tensor]:
        value = value.unsqueeze(-1)
        return self._component_distribution.log_cdf(value), self._component_distribution.log_survival(value)

    def _draws(self, sample_shape: Size) -> Tensor:
        draws: Tensor = self._component_distribution.sample(sample_shape)
        return draws

    def _moments(self) -> tuple[Tensor, Tensor]:
        return self._component_distribution.mean, self._component_distribution.variance

    def __repr__(self) -> str:
        return f"{type(self).__name__}(\n  {self._mixture_distribution},\n  {self._component_distribution})"


class MixtureGeneral(_Mixture):
    """A mixture of distributions of different families with one event shape.

    Args:
        mixing_distribution: a Categorical with one category a component.
        component_distributions: of equal event shape, whose batch shapes broadcast.
        support: of the mixture; where it is not given, the components' must be one and the same.
    Raises: ValueError where numbers, shapes or supports do not fit.
    """

    def __init__(
        self,
        mixing_distribution: Foreign,
        component_distributions: Sequence[Foreign],
        support: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        family = type(self).__name__
        count = _check_mixing(family, mixing_distribution)
        components = [unchecked(d) for d in component_distributions]
        if len(components) != count:
            raise ValueError(
                f"{family}: there are {len(components)} component_distributions, but the mixing distribution has {count} "
                "categories."
            )
        names = ", ".join(f"{type(d).__name__} {tuple(d.event_shape)}" for d in components)
        if len({d.event_shape for d in components}) != 1:
            raise ValueError(f"{family}: the components must have one event shape, but they have: {names}.")
        if len({d.is_discrete for d in components}) != 1:
            raise ValueError(f"{family}: the components must be all discrete or all continuous, but they are {names}.")
        if support is None:
            support = components[0].support
            if not all(same_support(support, d.support) for d in components[1:]):
                supports = "; ".join(f"{type(d).__name__} {d.support}" for d in components)
                raise ValueError(
                    f"{family}: the components' supports differ ({supports}); give the mixture's as support=…."
                )
        try:
            batch = broadcast_shape(mixing_distribution.batch_shape, *(d.batch_shape for d in components))
        except RuntimeError:
            shapes = ", ".join(str(tuple(d.batch_shape)) for d in components)
            raise ValueError(
                f"{family}: the batch shapes do not broadcast: mixing {tuple(mixing_distribution.batch_shape)}, components "
                f"{shapes}."
            ) from None
        self._mixture_distribution = expanded(unchecked(mixing_distribution), batch)
        self._components = [expanded(d, batch) for d in components]
        self._num_component, self._support = count, support
        super().__init__(batch, components[0].event_shape, validate_args)

    @property
    def component_distributions(self) -> list[Distribution]:
        """The components."""
        return list(self._components)

    @property
    def support(self) -> Any:
        return self._support

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return all(d.has_enumerate_support for d in self._components)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """The union of the components' supports."""
        values = [d.enumerate_support(expand) for d in self._components]
        if any(v.shape != values[0].shape or not torch.equal(v, values[0].to(v.dtype)) for v in values[1:]):
            values = [torch.cat(values).unique(dim=0)]
        union: Tensor = values[0]
        return union

    def expand(self, batch_shape: ShapeLike, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        shape = Size(batch_shape)
        fields = vars(new)
        fields.update(vars(self))
        fields["_mixture_distribution"] = expanded(self._mixture_distribution, shape)
        fields["_components"] = [expanded(d, shape) for d in self._components]
        fields["_batch_shape"] = shape
        return new

    def _can_differentiate(self) -> bool:
        return all(_has_smooth_cdf(d) for d in self._components)

    def _densities(self, value: Tensor) -> Tensor:
        return torch.stack([log_prob_anywhere(d, value) for d in self._components], -1)

    def _tails(self, value: Tensor) -> tuple[Tensor, Tensor]:
        below = torch.stack([d.log_cdf(value) for d in self._components], -1)
        return below, torch.stack([d.log_survival(value) for d in self._components], -1)

    def _draws(self, sample_shape: Size) -> Tensor:
        axis = len(sample_shape) + len(self.batch_shape)
        draws = [d.sample(sample_shape) for d in self._components]
        dtype = torch.promote_types(draws[0].dtype, draws[-1].dtype)
        return torch.stack([x.to(dtype) for x in draws], axis)

    def _moments(self) -> tuple[Tensor, Tensor]:
        axis = len(self.batch_shape)
        means = torch.stack([d.mean for d in self._components], axis)
        return means, torch.stack([d.variance for d in self._components], axis)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._mixture_distribution}, {self._components})"


def Mixture(  # noqa: N802 (it chooses a class)
    mixing_distribution: Foreign,
    component_distributions: Foreign | Sequence[Foreign],
    validate_args: bool | None = None,
) -> Any:
    """A `MixtureGeneral` of a list of distributions, or a `MixtureSameFamily` of one with the components in its batch."""
    if isinstance(component_distributions, Foreign):
        return MixtureSameFamily(mixing_distribution, component_distributions, validate_args)
    return MixtureGeneral(mixing_distribution, component_distributions, validate_args=validate_args)


class _Union(constraints.MixtureSameFamilyConstraint):
    """The union of the components' supports. (Torch's check asks for a value in all of them, and over the whole batch.)"""

    def __init__(self, base_constraint: Any) -> None:
        super().__init__(base_constraint)  # type: ignore[no-untyped-call]

    def check(self, value: Tensor) -> Tensor:
        inside: Tensor = self.base_constraint.check(value.unsqueeze(-1 - self.event_dim))
        return inside.any(-1)


def _check_mixing(family: str, mixing: Foreign | None) -> int:
    """The number of categories of a mixing distribution; ValueError for anything but a Categorical."""
    if not isinstance(mixing, torch.distributions.Categorical):
        raise ValueError(f"{family}: the mixing distribution must be a Categorical, but got {type(mixing).__name__}.")
    return int(mixing.param_shape[-1])


def _is_static(support: Any) -> bool:
    """Whether a support is the same for every entry of a batch: it holds no tensors."""
    inner = [v for v in vars(support).values() if isinstance(v, constraints.Constraint)]
    return not any(isinstance(v, Tensor) for v in vars(support).values()) and all(_is_static(v) for v in inner)


def same_support(a: Any, b: Any) -> bool:
    """Whether two supports surely are one set for every entry of a batch."""
    if a is b:
        return True
    return type(a) is type(b) and _is_static(a) and _is_static(b) and str(a) == str(b)


def _has_smooth_cdf(d: Distribution) -> bool:
    """Whether draws can be differentiated implicitly: a class with its own log_cdf promises gradients in its parameters."""
    return not d.event_shape and not d.is_discrete and own(d, "log_cdf")


def _change(log_p: Tensor, density: Tensor) -> Tensor:
    """Zero, with the gradient of exp(log_p) / exp(density)."""
    finite = log_p > -torch.inf
    log_p = torch.where(finite, log_p, torch.zeros_like(log_p))
    return torch.where(finite, torch.exp(log_p.detach() - density), 0.0) * (log_p - log_p.detach())
