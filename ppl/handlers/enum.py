"""Run a program once for all values of its discrete sites."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from ppl.distributions.distribution import Distribution
from ppl.distributions.draws import draws_on_dim
from ppl.site import Site, Step, expand_to_plates, plate_shape
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
    num_samples: int | None = None  # how many draws stand there; None for the whole support


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

    With `infer["num_samples"]`, n independent draws stand there instead. Draws that depend on enumerated sites are a set
    of n for each of their values, and so have their dims too. With `infer["tmc"]` they have not the dims of parents that
    are draws themselves: "diagonal" draws number k given the parents' number k (parents of another number of draws count
    as exact ones), "mixture" each one given parents' draws that are chosen at random (and values of exact parents, where
    these are of another step of a markov loop). A single draw needs no dim.

    Every site is told the enumeration dims in use (`site.enum_dims`), because inside `markov` a dim is used again once
    no later step may look back at it.

    Args: first_available_dim, the rightmost dim to use, left of all plates: -1 - (the number of plate dims).
        axes, the dims of an enumerated guide's sites, whose values are replayed. Each is in use from the first
            value on that has it, for as long as this program's own `markov` says.
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
        self.axes: list[Axis] = []  # in use
        self.left = first_available_dim + 1  # the leftmost dim ever used
        self._covered: dict[int, Axis] = {}  # by dim, the last one whose dim another took over
        self.lagged: dict[str, Lagged] = {}  # the sites of scans
        self._first_dim = (
            max(first_available_dim, *(a.dim for a in self._given)) if self._given else first_available_dim
        )

    def fresh(self) -> Self:
        new = copy.copy(self)
        new._forget()
        return new

    def __enter__(self) -> Any:
        self._forget()
        return super().__enter__()

    def _forget(self) -> None:
        self.axes, self._covered, self.left = [], {}, self.first_available_dim + 1
        self.lagged = {}

    def handle(self, site: Site) -> Site:
        if site.kind != "sample":
            return perform(site)
        self._check_plates(site)
        here = {step.loop: step for step in site.steps}
        live = [axis for axis in self.axes if not axis.steps or self._sees(here, axis)]
        if self._covered:
            self._check_uncovered(site, here)
        if site.infer.enumerate == "parallel" and site.value is None and not site.observed:
            if site.moments:
                return self._at_step(site, live)
            count = site.infer.num_samples
            if count == 1:
                _check_kept(site, _parents(site, live))
            else:
                axis = Axis(site.name, self._free_dim(live), site.steps, count)
                given = {axis.name for axis in self._given}
                value = support_on_dim(site, axis.dim) if count is None else None
                site = _draw(site, axis, live, given) if value is None else site
                self._add(axis, live)
                if value is not None:
                    return perform(site.replace(value=value, enum_dims=self._dims(live, site)))
        elif self._given and site.value is not None and not site.observed and site.enum_dims:
            site = site.replace(value=self._slim(site, live))
            for dim, name in site.enum_dims:
                batch = site.tensor.shape[: site.tensor.dim() - len(site.fn.event_shape)]
                varies = name == site.name or (-dim <= len(batch) and batch[dim] != 1)
                if varies and all(axis.name != name for axis in live):
                    self._check_free(name, dim, live, site)
                    drawn = next((a.num_samples for a in self._given if a.name == name), None)
                    self._add(Axis(name, dim, site.steps, drawn), live)
        dims = self._dims(live, site)
        return perform(site if dims == site.enum_dims else site.replace(enum_dims=dims))

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
        if site.infer.num_samples is not None:
            raise ValueError(
                f"{site}: num_samples does not go with a scan, whose steps share one draw's dim. Enumerate the site's support, "
                "or write the scan as a loop, `for t in ppl.markov(range(T)):`."
            )
        (moment,) = site.moments
        if site.name not in self.lagged:
            first = self._free_dim(live, moment.history + 1)
            self.left = min(self.left, first - moment.history)
            self.lagged[site.name] = Lagged(site.name, first, moment.scan, moment.history, moment.length)
        dims = self._dims(live, site)
        if moment.back > moment.history:  # too long ago to matter: any value will do
            d = expand_to_plates(site, site.fn)
            return perform(site.replace(value=support_on_dim(site, -1 - len(d.batch_shape))[0].expand(d.shape())))
        value = support_on_dim(site, self.lagged[site.name].dim - moment.back)
        return perform(site.replace(value=value, enum_dims=dims))

    def _add(self, axis: Axis, live: list[Axis]) -> None:
        """Put an axis in use. Those before it on its dim, which nothing may look back at, make room: chains are long."""
        kept = []
        for a in self.axes:
            if a.dim == axis.dim:
                self._covered[a.dim] = a
            else:
                kept.append(a)
        self.axes = [*kept, axis]
        live.append(axis)
        self.left = min(self.left, axis.dim)

    def _slim(self, site: Site, live: list[Axis]) -> Tensor:
        """A value of the guide without the dims that it was merely expanded to there, but which mean nothing here."""
        value, known = site.tensor, {axis.name for axis in live} if not site.steps else set()
        batch_dims = value.dim() - len(site.fn.event_shape)
        for dim, name in site.enum_dims:
            position = batch_dims + dim
            if name != site.name and name not in known and position >= 0 and value.stride(position) == 0:
                value = value.narrow(position, 0, 1)
        return value

    def _check_uncovered(self, site: Site, here: dict[int, Step]) -> None:
        """Back from a recursive call, an earlier value may be in sight whose dim has been used again meanwhile."""
        batch = site.fn.batch_shape
        for dim, axis in self._covered.items():
            if -dim <= len(batch) and batch[dim] != 1 and self._sees(here, axis):
                last = next(a.name for a in self.axes if a.dim == dim)
                raise ValueError(
                    f"{site} stands behind an inner call of a markov function, and depends on site '{axis.name}' or "
                    f"'{last}', which have been enumerated on one dim in turn. Make the statement before the inner call, or "
                    "give markov a history as long as the calls are deep."
                )

    def _check_free(self, name: str, dim: int, live: list[Axis], site: Site) -> None:
        """A guide's site brings its dim along, which must not be in use here."""
        for axis in live:
            if axis.dim == dim:
                raise ValueError(
                    f"sites '{axis.name}' and '{name}' were enumerated on one dim in turn in the guide's markov loop, but the "
                    f"model looks at both of them together at site '{site.name}'. Use markov in both programs alike, with "
                    "one history, or loop over a plain range in the guide."
                )

    def _check_plates(self, site: Site) -> None:
        for frame in site.plates:
            if frame.dim is not None and frame.dim <= self._first_dim:
                raise PlateTooDeepError(
                    f"{site}: plate '{frame.name}' uses dim {frame.dim}, but enumeration starts at dim "
                    f"{self._first_dim}. Leave out max_plate_nesting, or give at least {-frame.dim}."
                )

    def _sees(self, here: dict[int, Step], axis: Axis) -> bool:
        """Whether a site may look at an axis. Args: here, the markov steps around the site, by their loops."""
        for step in axis.steps:
            now = here.get(step.loop)
            if now is None:  # the loop is over: its last steps may still be looked at
                last = max((s.step for a in self.axes for s in a.steps if s.loop == step.loop), default=step.step)
                if last - step.step >= max(step.history, 1):
                    return False
            elif now.step - step.step > now.history:
                return False
        return True

    def _free_dim(self, live: list[Axis], count: int = 1) -> int:
        """The first of `count` neighbouring free dims."""
        taken = {axis.dim for axis in live}
        for lagged in self.lagged.values():
            taken.update(lagged.dims())
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

    Shapes: (K, 1, …, 1, *event) with K at `dim`; with `infer["expand"]`, broadcast with the batch shape (inside
        `markov`, with the plates alone). Values that differ along the batch have its dims, too.
    Raises: ValueError naming the site where the distribution has no finite support.
    """
    d = expand_to_plates(site, site.fn, only_check=not site.infer.expand)
    if not d.has_enumerate_support:
        raise ValueError(
            f"{site}: {type(d).__name__} cannot be enumerated, because its support is not a finite set. Remove "
            "infer={'enumerate': …}; a continuous or unbounded site is drawn, or integrated by a guide."
        )
    if isinstance(d, (torch.distributions.Categorical, torch.distributions.Bernoulli)):
        like = d._param
        size = like.shape[-1] if isinstance(d, torch.distributions.Categorical) else 2
        values = shared(_values, d, dim, key=(type(d), size, dim, like.dtype, like.device))
        d.note_support(values, dim)
    else:
        values = _values(d, dim)
    event = tuple(d.event_shape)
    if site.infer.expand:
        full = plate_shape(site.plates) if site.steps else d.batch_shape  # later steps know no dims of earlier choices
        shape = torch.broadcast_shapes(values.shape[: values.dim() - len(event)], full)
        values = values.expand(shape + d.event_shape)
    return values


def _values(d: Distribution, dim: int) -> Tensor:
    """The support with its index at `dim`; values that differ along the batch have its dims, too."""
    values = d.enumerate_support(expand=False)
    event = tuple(d.event_shape)
    if not event and values.numel() == len(values):
        return values.reshape((-1, *(1,) * (-1 - dim)))
    batch = list(values.shape[1 : values.dim() - len(event)])  # of size 1, where the values do not differ along it
    while batch and batch[0] == 1:
        batch.pop(0)
    width = max(len(batch), -dim)
    values = values.reshape((-1, *(1,) * (width - len(batch)), *batch, *event))
    return values.transpose(0, 1 + width + dim).squeeze(0)


def _parents(site: Site, live: Sequence[Axis]) -> list[Axis]:
    """The enumerated sites whose values a site's distribution varies with."""
    batch = site.fn.batch_shape
    return [axis for axis in live if -axis.dim <= len(batch) and batch[axis.dim] != 1]


def _draw(site: Site, axis: Axis, live: Sequence[Axis], given: Set[str]) -> Site:
    """A site with draws on an axis of its own."""
    assert axis.num_samples is not None
    parents, tmc = _parents(site, live), site.infer.tmc
    if tmc == "mixture":
        mixed = [p for p in parents if p.num_samples is not None or not (_is_kept(site, p) or p.name in given)]
    else:
        mixed = [p for p in parents if tmc == "diagonal" and p.num_samples == axis.num_samples]
    _check_kept(site, [parent for parent in parents if parent not in mixed])
    d = expand_to_plates(site, site.fn)
    value = draws_on_dim(d, axis.num_samples, axis.dim, [parent.dim for parent in mixed], tmc == "diagonal")
    return site.replace(value=value, drawn=True, mixed=tuple(parent.name for parent in mixed))


def _is_kept(site: Site, parent: Axis) -> bool:
    """Whether the dim of an enumerated site is in use for as long as a site's own, and not again in the next step."""
    here = {step.loop: step.step for step in site.steps}
    return all(here.get(step.loop, step.step) == step.step for step in parent.steps)


def _check_kept(site: Site, parents: Sequence[Axis]) -> None:
    """Draws for each value of another step's site would have its dim, which the loop uses again."""
    for parent in parents:
        if not _is_kept(site, parent):
            raise ValueError(
                f"{site}: draws for each value of site '{parent.name}', which is of another step of the markov loop, would "
                "need that one's dim, which is used again. Write infer={…, 'tmc': 'mixture'} with num_samples above 1, or "
                "loop over a plain range."
            )
