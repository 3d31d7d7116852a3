"""Run a program once for all values of its discrete sites."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from ppl.distributions.distribution import Distribution
from ppl.site import Site, Step, expand_to_plates
from ppl.stack import Handler, perform
from ppl.tensors.sharing import shared
from ppl.tensors.timeline import at_step, before
from ppl.trace import Trace


class PlateTooDeepError(ValueError):
    """A plate stands on a dim that is meant for enumeration."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The dim on which an enumerated site's values lie."""

    name: str
    dim: int
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Lagged:
    """The dims of a site of a scan: `dim` has its value at the step in question, dim - j its value j steps before."""

    name: str
    dim: int
    scan: object
    history: int
    length: int

    def dims(self) -> range:
        """All dims that it owns."""
        return range(self.dim, self.dim - self.history - 1, -1)

    def live(self, site: Site) -> list[tuple[int, str]]:
        """Which of its values another site may depend on, and their dims."""
        moment = next((m for m in site.moments if m.scan is self.scan), None)
        if moment is None:  # the scan is over
            steps = range(self.length - 1, max(self.length - 1 - self.history, -1), -1)
            return [(self.dim - lag, at_step(self.name, step)) for lag, step in enumerate(steps)]
        lags = range(moment.back, self.history + 1)
        if moment.together or not isinstance(moment.index, int):
            return [(self.dim - lag, before(self.name, lag)) for lag in lags]
        target = moment.index + moment.back
        return [(self.dim - lag, at_step(self.name, target - lag)) for lag in lags if target >= lag]


class enum(Handler):
    """Give each latent site marked `parallel` its whole support, on a batch dim of its own left of all plates.

    Every site is told the enumeration dims in use (`site.enum_dims`), because inside `markov` a dim is used again once
    no later step may look back at it.

    Args: first_available_dim, the rightmost dim to use, left of all plates: -1 - (the number of plate dims).
        axes, dims already taken by an enumerated guide.
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        first_available_dim: int | None = None,
        axes: Iterable[Axis] = (),
    ) -> None:
        super().__init__(fn)
        if first_available_dim is None or first_available_dim >= 0:
            raise ValueError(
                f"handlers.enum: first_available_dim must be a negative int left of all plates, got "
                f"{first_available_dim!r}; without plates it is -1."
            )
        self.first_available_dim = first_available_dim
        self._given = tuple(axes)
        self.axes = list(self._given)
        self.lagged: dict[str, Lagged] = {}  # the sites of scans
        self._first_dim = (
            max(first_available_dim, *(a.dim for a in self._given)) if self._given else first_available_dim
        )

    def fresh(self) -> Self:
        new = copy.copy(self)
        new.axes, new.lagged = list(self._given), {}
        return new

    def __enter__(self) -> Any:
        self.axes, self.lagged = list(self._given), {}
        return super().__enter__()

    def handle(self, site: Site) -> Site:
        if site.kind != "sample":
            return perform(site)
        self._check_plates(site)
        live = self._visible(site)
        if site.infer.enumerate == "parallel" and site.value is None and not site.observed:
            if site.moments:
                return self._at_step(site, live)
            dim = self._free_dim(live)
            axis = Axis(site.name, dim, site.steps)
            site = site.replace(value=support_on_dim(site, dim))
            self.axes = [a for a in self.axes if a.dim != dim or a in live]
            self.axes.append(axis)
            live.append(axis)
        return perform(site.replace(enum_dims=self._dims(live, site)))

    def _dims(self, live: list[Axis], site: Site) -> tuple[tuple[int, str], ...]:
        dims = [(a.dim, a.name) for a in live]
        for lagged in self.lagged.values():
            dims += lagged.live(site)
        return tuple(dims)

    def _at_step(self, site: Site, live: list[Axis]) -> Site:
        """A site of a scan: its dims are the same at all steps."""
        if len(site.moments) > 1:
            raise ValueError(
                f"{site}: a scan within a scan cannot have enumerated sites. Write the outer one as a loop, "
                "`for t in ppl.markov(range(T)):`, with other names in each step."
            )
        (moment,) = site.moments
        if site.name not in self.lagged:
            first = self._free_dim(live, moment.history + 1)
            self.lagged[site.name] = Lagged(site.name, first, moment.scan, moment.history, moment.length)
        dims = self._dims(live, site)
        if moment.back > moment.history:  # too long ago to matter: any value will do
            d = expand_to_plates(site, site.fn)
            return perform(site.replace(value=support_on_dim(site, -1 - len(d.batch_shape))[0].expand(d.shape())))
        value = support_on_dim(site, self.lagged[site.name].dim - moment.back)
        return perform(site.replace(value=value, enum_dims=dims))

    def _check_plates(self, site: Site) -> None:
        for frame in site.plates:
            if frame.dim is not None and frame.dim <= self._first_dim:
                raise PlateTooDeepError(
                    f"{site}: plate '{frame.name}' uses dim {frame.dim}, but enumeration starts at dim "
                    f"{self._first_dim}. Leave out max_plate_nesting, or give at least {-frame.dim}."
                )

    def _visible(self, site: Site) -> list[Axis]:
        here = {step.loop: step for step in site.steps}
        return [axis for axis in self.axes if all(self._reaches(step, here) for step in axis.steps)]

    def _reaches(self, step: Step, here: dict[int, Step]) -> bool:
        now = here.get(step.loop)
        if now is not None:
            return now.step - step.step <= now.history
        # The loop is over: its last steps may still be looked at.
        last = max(s.step for a in self.axes for s in a.steps if s.loop == step.loop)
        return last - step.step < max(step.history, 1)

    def _free_dim(self, live: list[Axis], count: int = 1) -> int:
        """The first of `count` neighbouring free dims."""
        taken = {axis.dim for axis in live}.union(*(lagged.dims() for lagged in self.lagged.values()))
        dim = self.first_available_dim
        while not taken.isdisjoint(range(dim, dim - count, -1)):
            dim -= 1
        if dim < -64:
            raise ValueError(
                f"handlers.enum: {len(taken)} sites are enumerated at once, more than the 64 dims of a tensor hold. In a "
                "loop over time, write `for t in ppl.markov(range(T)):`."
            )
        return dim


def enumerated_sites(trace: Trace) -> list[str]:
    """The sites of a run that were enumerated; inside `markov`, several may have used one dim in turn."""
    return [name for name, site in trace.nodes.items() if any(axis == name for _, axis in site.enum_dims)]


def support_on_dim(site: Site, dim: int) -> Tensor:
    """The support of a site's distribution along one batch dim.

    Shapes: (K, 1, …, 1, *event) with K at `dim`; with `infer["expand"]`, broadcast with the batch shape.
    Raises: ValueError naming the site where the distribution has no finite support.
    """
    d = expand_to_plates(site, site.fn)
    if not d.has_enumerate_support:
        raise ValueError(
            f"{site}: {type(d).__name__} cannot be enumerated, because its support is not a finite set. Remove "
            "infer={'enumerate': …}; a continuous or unbounded site is drawn, or integrated by a guide."
        )
    if isinstance(d, (torch.distributions.Categorical, torch.distributions.Bernoulli)):
        like = d._param
        size = like.shape[-1] if isinstance(d, torch.distributions.Categorical) else 2
        values = shared(_values, d, dim, key=(type(d), size, dim, like.dtype, like.device))
    else:
        values = _values(d, dim)
    event = tuple(d.event_shape)
    if site.infer.expand:
        batch = torch.broadcast_shapes(values.shape[:-dim] if not event else values.shape[: -len(event)], d.batch_shape)
        values = values.expand(batch + d.event_shape)
    return values


def _values(d: Distribution, dim: int) -> Tensor:
    values = d.enumerate_support(expand=False)
    return values.reshape((values.size(0),) + (1,) * (-dim - 1) + tuple(d.event_shape))
