"""Sites of the steps of a scan, as their recorders are to have them: one site with the steps on its first dim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl.distributions.distribution import Distribution
from ppl.distributions.steps import MixedSteps, Steps, take_apart
from ppl.site import Site, Span
from ppl.tensors.nest import leaves, refill_tensors
from ppl.trace import log_density

Recorder = Callable[..., None]


class Kept(NamedTuple):
    """A site that a recorder waits for."""

    add: Recorder
    site: Site


def hand_over(one: Kept, site: Site, log_prob: Tensor | None) -> None:
    """Give a site to its recorder, or to the scan around this one, which keeps it until its own steps are there."""
    outer = one.site.moments[:-1]
    if outer:
        outer[-1].keep(one.add, site.replace(moments=outer))
    else:
        one.add(site.replace(moments=()), log_prob)


def join_sites(rows: list[list[Kept]], span: Span) -> None:
    """Record the sites of steps that ran one after another as one site each."""
    names = [[one.site.name for one in row] for row in rows]
    for index, row in enumerate(names):
        if row != names[0]:
            raise ValueError(
                f"scan: the step has sites {names[0]} at step 0, but {row} at step {index}. Every step must have the same "
                "sites; mask those that a step does not need with handlers.mask."
            )
    for steps in zip(*rows, strict=True):
        packs = [packed(one.site, density=False) for one in steps]
        whole = [
            [_shape(leaf) for leaf in leaves(pack[1:])] + _law_shapes(one.site)
            for pack, one in zip(packs, steps, strict=True)
        ]
        for index, shape in enumerate(whole):
            if shape != whole[0]:
                raise ValueError(
                    f"scan: {steps[0].site} has another shape at step {index} ({_shapes(steps[index].site)}) than at step 0 "
                    f"({_shapes(steps[0].site)}). Give `init` the shape that the carry has later."
                )
        laws = [one.site.distribution for one in steps]
        parts = [[type(law), *map(_shape, pack[0])] for law, pack in zip(laws, packs, strict=True)]
        mixed = [law for law in laws if law is not None] if any(part != parts[0] for part in parts) else []
        if mixed:
            packs = [[[], *pack[1:]] for pack in packs]
        columns = zip(*([leaf for leaf in leaves(pack) if isinstance(leaf, Tensor)] for pack in packs), strict=True)
        tensors = [
            column[0].expand(len(rows), *column[0].shape)
            if all(t is column[0] for t in column)
            else torch.stack(column)
            for column in columns
        ]
        site, log_prob = unpacked(steps[-1], refill_tensors(packs[-1], tensors), span, mixed)
        hand_over(steps[-1], site, log_prob)


def packed(site: Site, density: bool, checked_later: bool = False) -> list[Any]:
    """What of a site is tensors: its distribution's, its value, mask, scale and, if wanted, its log density.

    Args: checked_later, whether an observed value will be checked before anybody sees its density.
    """
    d, value = site.distribution, site.tensor
    event = len(d.event_shape) if d is not None else 0
    rank = max(len(d.batch_shape) if d is not None else 0, value.dim() - event)
    value = value.reshape((1,) * (rank + event - value.dim()) + value.shape)
    later = checked_later and site.observed
    log_prob = log_density(site, checked_later=later) if density and site.kind == "sample" else None
    mask = site.mask if not isinstance(site.mask, Tensor) else _padded(site.mask, rank)
    scale = site.scale if not isinstance(site.scale, Tensor) or not site.scale.dim() else _padded(site.scale, rank)
    return [take_apart(d)[0] if d is not None else [], value, mask, scale, log_prob]


def unpacked(one: Kept, pack: list[Any], span: Span, mixed: Sequence[Distribution] = ()) -> tuple[Site, Tensor | None]:
    """A site and its log density. Args: mixed, the steps' distributions where they are not of one kind."""
    tensors, value, mask, scale, log_prob = pack
    d = one.site.distribution
    if d is not None:
        rank = value.dim() - 1 - len(d.event_shape)
        d = MixedSteps(mixed, rank) if mixed else Steps(d, tensors, span.size, rank)
    spans = (span, *one.site.spans)
    site = one.site.replace(distribution=d, value=value, mask=mask, scale=scale, spans=spans)
    return site, log_prob


def _law_shapes(site: Site) -> list[Any]:
    return [] if site.distribution is None else [site.distribution.batch_shape, site.distribution.event_shape]


def _shape(leaf: Any) -> Any:
    return leaf.shape if isinstance(leaf, Tensor) else None


def _padded(tensor: Tensor, rank: int) -> Tensor:
    return tensor.reshape((1,) * (rank - tensor.dim()) + tensor.shape)


def _shapes(site: Site) -> str:
    batch = f"batch {tuple(site.distribution.batch_shape)}, " if site.distribution is not None else ""
    return f"{batch}value {tuple(site.tensor.shape)}"
