"""Values for enumerated sites, given everything else: backwards through the elimination."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ppl.infer.elbo.enumerated import Enumerated, has_one_support, support_of, supports
from ppl.infer.elbo.monte_carlo import refuse_monte_carlo
from ppl.infer.elbo.terms import event_axes, plate_axis
from ppl.site import Site, plate_shape
from ppl.tensors.factor import Factor, take
from ppl.tensors.semiring import log_sum_exp, maximum
from ppl.trace import Trace


def posterior(found: Enumerated, temperature: int, memory_limit: int | None = None) -> Trace:
    """A trace with values for the enumerated sites: a joint draw (temperature 1), or the most probable values (0).

    A site of a scan has its values of all steps.
    """
    refuse_monte_carlo({**found.names, **found.drawn}, "infer_discrete")
    chosen = (
        found.choose(log_sum_exp, _draw, memory_limit) if temperature else found.choose(maximum, _best, memory_limit)
    )
    decided = {name: _decide(found, site, chosen) for name, site in found.names.items()}
    decided.update({name: _select(found.drawn[name], value, chosen) for name, value in found.values.items()})
    trace = Trace()
    trace.nodes = {n: site for n, site in found.traces[0][1].nodes.items() if site.kind == "plate"}
    trace.nodes.update(join_steps(decided))
    return trace


def join_steps(sites: Mapping[str, Site]) -> dict[str, Site]:
    """The sites with those of a scan joined: the first steps, which stand by themselves, and all others."""
    parts: dict[str, list[Tensor]] = {}
    joined: dict[str, Site] = {}
    for name, site in sites.items():
        if site.step_of:
            parts.setdefault(site.step_of, []).append(site.tensor.unsqueeze(0))
            joined[site.step_of] = site.replace(name=site.step_of, step_of="", value=torch.cat(parts[site.step_of]))
        elif name in parts:
            joined[name] = site.replace(value=torch.cat([*parts[name], site.tensor]))
        else:
            joined[name] = site
    return joined


def _draw(log_weights: Tensor) -> Tensor:
    drawn: Tensor = torch.distributions.Categorical(logits=log_weights, validate_args=False).sample()
    return drawn


def _best(log_weights: Tensor) -> Tensor:
    return log_weights.argmax(-1)


def _batch(site: Site) -> tuple[list[str], list[int], torch.Size]:
    """The axes of a site's batch dims, their sizes, and its batch shape, with 1 where no plate stands."""
    frames = sorted((f for f in site.plates if f.dim is not None), key=lambda f: f.dim or 0)
    times = [span.size for span in site.spans]
    axes = [span.axis for span in site.spans] + [plate_axis(f.name) for f in frames]
    return axes, times + [f.subsample_size for f in frames], torch.Size((*times, *plate_shape(frames)))


def _select(site: Site, value: Factor, chosen: Mapping[str, Factor]) -> Site:
    """A site that was drawn for every choice, with the value that it has at the choice made."""
    axes, sizes, shape = _batch(site)
    event = event_axes(len(site.fn.event_shape))
    picked = take(value, {axis: chosen[axis] for axis in value.axes if axis in chosen}, axes, event)
    picked = picked.expand([*sizes, *site.fn.event_shape])
    return site.replace(value=picked.reshape(shape + site.fn.event_shape), enum_dims=())


def _decide(found: Enumerated, site: Site, chosen: Mapping[str, Factor]) -> Site:
    """A site with the chosen indices as its values, in a form to replay."""
    axes, sizes, shape = _batch(site)
    index = chosen.get(site.name)
    if index is None:  # a single value, which no factor shows as an axis
        index = Factor((), torch.zeros((), dtype=torch.long, device=site.tensor.device))
    if not has_one_support(found, site):
        return _select(site, supports(found, site), {**chosen, site.name: index})
    value = support_of(found, site)
    picked = value[index.aligned(axes).expand(sizes)]
    return site.replace(value=picked.reshape(shape + site.fn.event_shape), enum_dims=())
