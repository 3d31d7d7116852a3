"""Values for enumerated sites, given everything else: backwards through the elimination."""

from __future__ import annotations

import torch
from torch import Tensor

from ppl.infer.elbo.enumerated import Enumerated, support_of
from ppl.infer.elbo.terms import event_axes, plate_axis
from ppl.site import Site, plate_shape
from ppl.tensors.elimination import Tape, backtrack
from ppl.tensors.factor import Factor, take
from ppl.tensors.semiring import log_sum_exp, maximum
from ppl.trace import Trace


def posterior(found: Enumerated, temperature: int) -> Trace:
    """A trace with values for the enumerated sites: a joint draw (temperature 1), or the most probable values (0)."""
    tape: Tape = []
    found.eliminate(log_sum_exp if temperature else maximum, tape)
    chosen = backtrack(tape, _draw if temperature else _best)
    decided = _decide(found, chosen)
    decided.nodes.update({n: site for n, site in found.traces[0][1].nodes.items() if site.kind == "plate"})
    for name, value in found.values.items():
        decided.nodes[name] = _select(found.drawn[name], value, chosen)
    return decided


def _select(site: Site, value: Factor, chosen: dict[str, Factor]) -> Site:
    """A site that was drawn for every choice, with the value that it has at the choice made."""
    frames = sorted((f for f in site.plates if f.dim is not None), key=lambda f: f.dim or 0)
    batch, event = [plate_axis(f.name) for f in frames], event_axes(len(site.fn.event_shape))
    picked = take(value, {axis: chosen[axis] for axis in value.axes if axis in chosen}, batch, event)
    picked = picked.expand([f.subsample_size for f in frames] + [*site.fn.event_shape])
    return site.replace(value=picked.reshape(plate_shape(frames) + site.fn.event_shape), enum_dims=())


def _draw(log_weights: Tensor) -> Tensor:
    drawn: Tensor = torch.distributions.Categorical(logits=log_weights, validate_args=False).sample()
    return drawn


def _best(log_weights: Tensor) -> Tensor:
    return log_weights.argmax(-1)


def _decide(found: Enumerated, chosen: dict[str, Factor]) -> Trace:
    """The chosen indices as values of the sites, in a trace to replay."""
    decided = Trace()
    for name, site in found.names.items():
        frames = [f for f in site.plates if f.dim is not None]
        batch = [plate_axis(f.name) for f in sorted(frames, key=lambda f: f.dim or 0)]
        value = support_of(found, site)
        index = chosen.get(name)
        if index is None:  # a single value, which no factor shows as an axis
            index = Factor((), torch.zeros((), dtype=torch.long, device=value.device))
        size = [frame.subsample_size for frame in sorted(frames, key=lambda f: f.dim or 0)]
        picked = value[index.aligned(batch).expand(size)]
        shape = plate_shape(frames)
        decided.nodes[name] = site.replace(value=picked.reshape(shape + site.fn.event_shape), enum_dims=())
    return decided
