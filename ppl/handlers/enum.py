"""Run a program once for all values of its discrete sites."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from ppl.site import Site, Step, expand_to_plates
from ppl.stack import Handler, perform
from ppl.trace import Trace


class PlateTooDeepError(ValueError):
    """A plate stands on a dim that is meant for enumeration."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The dim on which an enumerated site's values lie."""

    name: str
    dim: int
    steps: tuple[Step, ...] = ()


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
        self._first_dim = (
            max(first_available_dim, *(a.dim for a in self._given)) if self._given else first_available_dim
        )

    def fresh(self) -> Self:
        new = copy.copy(self)
        new.axes = list(self._given)
        return new

    def __enter__(self) -> Any:
        self.axes = list(self._given)
        return super().__enter__()

    def handle(self, site: Site) -> Site:
        if site.kind != "sample":
            return perform(site)
        self._check_plates(site)
        live = self._visible(site)
        if site.infer.enumerate == "parallel" and site.value is None and not site.observed:
            dim = self._free_dim(live)
            axis = Axis(site.name, dim, site.steps)
            site = site.replace(value=support_on_dim(site, dim))
            self.axes = [a for a in self.axes if a.dim != dim or a in live]
            self.axes.append(axis)
            live.append(axis)
        dims = tuple((a.dim, a.name) for a in live)
        return perform(site if dims == site.enum_dims else site.replace(enum_dims=dims))

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

    def _free_dim(self, live: list[Axis]) -> int:
        taken = {axis.dim for axis in live}
        dim = self.first_available_dim
        while dim in taken:
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
    values = d.enumerate_support(expand=False)
    event = tuple(d.event_shape)
    values = values.reshape((values.size(0),) + (1,) * (-dim - 1) + event)
    if site.infer.expand:
        batch = torch.broadcast_shapes(values.shape[:-dim] if not event else values.shape[: -len(event)], d.batch_shape)
        values = values.expand(batch + d.event_shape)
    return values
