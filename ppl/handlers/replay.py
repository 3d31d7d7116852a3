"""Run a program with the values of another run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ppl.site import Frame, Site, part_for
from ppl.stack import Handler, perform
from ppl.trace import Trace


class replay(Handler):
    """Give latent sites the values that they have in a trace, and plates its subsamples.

    Where a plate of the same name has another dim here, the value's dims are moved to where the plates are.
    Sites that the trace lacks are drawn as ever; observed sites keep their data, plates the indices given to them.

    Args: params, values for param sites by name.
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        trace: Trace | Mapping[str, Site] | None = None,
        params: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(fn)
        if trace is None and params is None:
            raise ValueError("handlers.replay: give a trace, params or both.")
        self.nodes = trace.nodes if isinstance(trace, Trace) else dict(trace or {})
        self.params = dict(params or {})

    def handle(self, site: Site) -> Site:
        if site.kind == "param" and site.name in self.params:
            return perform(site.replace(value=self.params[site.name]))
        recorded = self.nodes.get(site.name)
        given = site.observed or (site.kind == "plate" and site.value is not None)
        if recorded is None or given or site.kind not in ("sample", "plate"):
            return perform(site)
        if recorded.kind == site.kind == "plate":
            _check_plate(site, recorded)
        if recorded.kind != site.kind:
            raise ValueError(f"site '{site.name}' is a {site.kind} here, but a {recorded.kind} in the replayed trace.")
        value = recorded.value
        if site.kind == "sample":
            moved = _moved(recorded, site.plates) if site.plates and recorded.plates else value
            value = part_for(site, moved)
        site = site.replace(value=value, enum_dims=recorded.enum_dims)
        try:
            site = perform(site)
            _check_shape(site)
        except ValueError as error:
            raise ValueError(
                f"{error} The value was replayed from a trace; both programs must give site '{site.name}' one shape."
            ) from error
        return site


def _check_plate(site: Site, recorded: Site) -> None:
    ours, theirs = site.fn.event_shape.numel(), recorded.tensor.numel()
    if ours != theirs:
        raise ValueError(
            f"plate '{site.name}' has {ours} elements in this run, but {theirs} in the replayed trace. Use one size and "
            "subsample_size in both programs; an automatic guide that shall follow the data's size takes create_plates."
        )


def _moved(recorded: Site, here: tuple[Frame, ...]) -> Tensor:
    """The recorded value with its batch dims where the plates around the site have theirs in this program."""
    value, there = recorded.tensor, {frame.name: frame.dim for frame in recorded.plates}
    moves = {
        frame.dim: old
        for frame in here
        for old in (there.get(frame.name),)
        if frame.dim is not None and old is not None and old != frame.dim
    }  # from where each dim of a plate comes
    if not moves:
        return value
    event = recorded.fn.event_dim
    width = max(value.dim() - event, *(-dim for pair in moves.items() for dim in pair))
    value = value.reshape((1,) * (width + event - value.dim()) + value.shape)
    vacated = sorted(set(moves.values()) - set(moves))
    moves.update(zip(vacated, sorted(set(moves) - set(moves.values())), strict=True))  # dims of size 1 fill the gaps
    order = [width + moves.get(dim, dim) for dim in range(-width, 0)]
    return value.permute([*order, *range(width, width + event)])


def _check_shape(site: Site) -> None:
    """The replayed value must not be smaller than the site: a draw shared between repetitions is another model."""
    if any(name == site.name for _, name in site.enum_dims):  # a support, which broadcasts over the plates
        return
    value, d = site.tensor, site.fn
    batch = value.shape[: value.dim() - len(d.event_shape)]
    for frame in site.plates:
        if frame.dim is not None and frame.subsample_size != 1 and (-frame.dim > len(batch) or batch[frame.dim] == 1):
            raise ValueError(
                f"{site}: the value of shape {tuple(value.shape)} does not vary over plate '{frame.name}' of size "
                f"{frame.subsample_size} at dim {frame.dim}."
            )
