"""From the log densities of two traces to named factors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions import validation
from ppl.distributions.distribution import Distribution, ScoreParts
from ppl.distributions.prototype import has_varying_support
from ppl.infer.elbo.monte_carlo import check_score, is_monte_carlo, log_proposal, log_share, log_source
from ppl.site import Site
from ppl.tensors.factor import Factor
from ppl.tensors.timeline import Timeline
from ppl.trace import Trace, density, masked

Names = frozenset[str]


def plate_axis(name: str) -> str:
    """The axis of a plate, which cannot be taken for the axis of a site."""
    return f"plate {name}"


def is_time(axis: str) -> bool:
    """Whether an axis is the time of a scan, whose entries depend on each other."""
    return axis.startswith("time ")


def check_dims(shape: Size, site: Site) -> None:
    """Every batch dim must belong to a plate, to an enumerated site, or to the steps of a scan.

    Raises: ValueError naming the site, the dim and the fix.
    """
    shape = shape[len(site.spans) :]
    if not shape:
        return
    owned = {f.dim for f in site.plates} | {dim for dim, _ in site.enum_dims}
    for position, size in enumerate(shape):
        dim = position - len(shape)
        if size != 1 and dim not in owned:
            plates = ", ".join(f"'{f.name}' at dim {f.dim}" for f in site.plates if f.dim is not None) or "none"
            raise ValueError(
                f"site '{site.name}' has a batch dim of size {size} at dim {dim} that is under no plate (plates around "
                f"it: {plates}). If its entries are independent, write `with ppl.plate('…', {size}):` around the "
                f"statement; if they are one draw, write fn.to_event({-dim})."
            )


Known = dict[tuple[int, ...], Tensor]


def to_factor(tensor: Tensor, site: Site, event_dim: int = 0, known: Known | None = None) -> Factor:
    """A tensor of a site's batch shape with its dims named: plates always, enumerated sites where it varies.

    Args:
        event_dim: how many dims of the tensor come after the batch; they become the axes of `event_axes`.
        known: what one tensor became for other sites, and becomes for this one too.
    """
    shape = tensor.shape
    count, end = len(site.spans), len(shape) - event_dim
    own, full, sizes = _named(site, shape[count:end], shape[:count])
    target = (*shape[:count], *sizes, *shape[end:])
    axes = (*(span.axis for span in site.spans), *own, *event_axes(event_dim))
    if shape == target:
        return Factor(axes, tensor)
    key = (id(tensor), *target)
    if known is not None and key in known:
        return Factor(axes, known[key])
    tensor = _spread(tensor, count, full, event_dim).reshape(target)
    if known is not None:
        known[key] = tensor
    return Factor(axes, tensor)


def _named(site: Site, batch: Size, steps: Size) -> tuple[tuple[str, ...], list[int], list[int]]:
    """The axes that a batch shape has at a site, the shape within its plates, and what is left of that without size 1.

    Raises: ValueError where a dim is nobody's.
    """
    full, owners = [*batch], dict(site.enum_dims)
    for frame in site.plates:
        dim = frame.dim
        if dim is not None:
            owners[dim] = plate_axis(frame.name)
            if -dim > len(full):
                full[:0] = [1] * (-dim - len(full))
            if full[dim] == 1:
                full[dim] = frame.subsample_size
    plates = [frame.dim for frame in site.plates]
    axes: list[str] = []
    sizes: list[int] = []
    for dim, size in enumerate(full, -len(full)):
        if size != 1 or dim in plates:
            owner = owners.get(dim)
            if owner is None:
                check_dims(Size((*steps, *batch)), site)
            else:
                axes.append(owner)
                sizes.append(size)
    return tuple(axes), full, sizes


def _spread(tensor: Tensor, count: int, full: list[int], event_dim: int) -> Tensor:
    """A tensor with its batch expanded, which lies between `count` first dims and its event dims."""
    shape = tensor.shape
    steps, event = shape[:count], shape[len(shape) - event_dim :]
    whole = (*steps, *full, *event)
    if shape == whole:
        return tensor
    missing = len(whole) - len(shape)
    return tensor.reshape((*steps, *(1,) * missing, *shape[count:])).expand(whole)


def event_axes(count: int) -> tuple[str, ...]:
    """The axes of event dims, which cannot be taken for those of sites or plates."""
    return tuple(f"event {i}" for i in range(count)) if count else ()


@dataclass(slots=True)
class Terms:
    """What the estimator needs of one pair of traces."""

    model: dict[str, Factor] = field(default_factory=dict)  # log densities, with masks, without scales
    guide: dict[str, Factor] = field(default_factory=dict)  # -(log densities), masked and scaled, for their values
    scores: dict[str, Factor] = field(default_factory=dict)  # score functions of the drawn sites
    weights: dict[str, Factor] = field(default_factory=dict)  # log probabilities of the guide's enumerated sites
    scales: dict[str, Tensor | float] = field(default_factory=dict)  # of the sites
    scaled: dict[str, Factor] = field(default_factory=dict)  # the scales that are tensors, as factors
    timelines: dict[str, Timeline] = field(default_factory=dict)  # the model's time axes

    def take_guide(self, other: Terms) -> None:
        """Take over the guide's part of other terms."""
        self.guide, self.scores, self.weights = other.guide, {**self.scores, **other.scores}, other.weights


def guide_terms(trace: Trace, enumerated: Names, into: Terms) -> Terms:
    """Add the terms of a guide's trace."""
    for name, site in trace.nodes.items():
        if site.kind != "sample":
            continue
        log_q = trace.log_prob(name)
        if name in enumerated and not is_monte_carlo(site):
            into.weights[name] = to_factor(unmasked(trace, name), site)
            into.guide[name] = to_factor(-log_q, site)
            continue
        parts = _score_parts(site)
        if parts is not None and isinstance(parts.score_function, Tensor):
            into.scores[name] = to_factor(parts.score_function, site)
        if name in enumerated:
            into.weights[name] = _weight_of_draws(trace, name, name in into.scores)
        if parts is not None and name in into.scores:
            pathwise = parts.entropy_term
            if isinstance(pathwise, Tensor):
                pathwise = masked(pathwise, site.mask) * site.scale
            log_q = log_q.detach() + (pathwise - pathwise.detach() if isinstance(pathwise, Tensor) else 0.0)
        into.guide[name] = to_factor(-log_q, site)
    return into


def _score_parts(site: Site) -> ScoreParts | None:
    """What a draw's density falls into; None where all of it is differentiated pathwise."""
    if site.fn.has_rsample and type(site.fn).score_parts is Distribution.score_parts:
        return None
    with validation.trusted():
        return site.fn.score_parts(site.tensor)


def _weight_of_draws(trace: Trace, name: str, scored: bool) -> Factor:
    """What draws weigh that stand for a guide's site; what has a score function gets its gradient from that alone."""
    site = trace[name]
    log_q = to_factor(unmasked(trace, name), site)
    if scored:
        check_score(site)
        log_q = Factor(log_q.axes, log_q.tensor.detach())
    return log_share(site, log_q, log_proposal(site, log_q))


def score_of_draws(trace: Trace, name: str, log_prob: Factor, proposal: Factor) -> Factor | None:
    """The score function of a site's draws given their parents'; None where they are reparameterised."""
    site = trace[name]
    with validation.trusted():
        score = site.fn.score_parts(site.tensor).score_function
    if not isinstance(score, Tensor):
        return None
    check_score(site)
    return log_source(site, log_prob, proposal) if site.mixed else to_factor(score, site)


def mask_factor(site: Site) -> Factor | None:
    """A site's mask with its dims named."""
    return None if site.mask is None else to_factor(torch.as_tensor(site.mask), site)


def model_terms(trace: Trace, into: Terms, summed: Names = frozenset(), maximised: bool = False) -> Terms:
    """Add the terms of a model's trace.

    Args:
        summed: the sites to sum out. Where such a site is masked, it counts as uniform and not as 1 at each of its K
            values, so that a masked place adds nothing to the bound instead of log K.
        maximised: whether these are maximised over instead; then a masked place counts as 1 at each of its values,
            of which there may be more for one choice than for another.
    """
    together = _factors_together(trace)
    known: Known = {}
    for name, site in trace.nodes.items():
        if site.kind == "sample":
            take_scale(name, site, into)
            if is_monte_carlo(site):
                log_p = to_factor(unmasked(trace, name), site)
                proposal = log_proposal(site, log_p)
                into.model[name] = log_share(site, log_p, proposal, mask_factor(site))
                score = score_of_draws(trace, name, log_p, proposal)
                if score is not None:
                    into.scores[name] = score
                continue
            if name in together:
                into.model[name] = together[name]
                continue
            kept = log_prob = trace.unscaled_log_prob(name)
            if name in summed and site.mask is not None:
                log_prob = log_prob + masked(_weight_of_masked(site, log_prob, maximised), ~torch.as_tensor(site.mask))
            # a tensor that the trace keeps cannot give its id to another one
            into.model[name] = to_factor(log_prob, site, known=known if log_prob is kept else None)
    return into


def _factors_together(trace: Trace) -> dict[str, Factor]:
    """The factors of sites whose densities are computed together, and whose dims are therefore alike but for their names."""
    factors: dict[str, Factor] = {}
    for which, stacked in trace.compute_together():
        named = {name: _named(trace[name], stacked.shape[1:], Size()) for name in which}
        _, full, sizes = next(iter(named.values()))
        parts = _spread(stacked, 1, full, 0).reshape((len(stacked), *sizes)).unbind(0)
        factors.update((name, Factor(axes, parts[which[name]])) for name, (axes, *_) in named.items())
    return factors


def _weight_of_masked(site: Site, like: Tensor, maximised: bool) -> Tensor:
    """Log weights of an enumerated site's values, alike at all that are possible at a place: of sum or of maximum 1."""
    values = site.fn.enumerate_support(expand=False)
    if not has_varying_support(site.fn):
        return torch.zeros_like(like) if maximised else -torch.full_like(like, values.size(0)).log()
    support: Any = site.fn.support
    count = support.check(values).sum(0).to(like.dtype)
    weight = torch.zeros_like(count) if maximised else -count.log()
    return torch.where(support.check(site.tensor), weight, -torch.inf).expand_as(like)


def take_scale(name: str, site: Site, into: Terms) -> None:
    """Add a site's scale."""
    into.scales[name] = site.scale
    if isinstance(site.scale, Tensor) and site.scale.dim():
        into.scaled[name] = to_factor(site.scale, site)


def unmasked(trace: Trace, name: str) -> Tensor:
    """The log density of a sample site without its mask and scale."""
    site = trace[name]
    if site.mask is None:
        return trace.unscaled_log_prob(name)
    with validation.trusted():
        return density(site, site.tensor)
