"""One estimate of the evidence lower bound, and of its gradient, from named terms.

The bound is E_q[log p - log q]. Three estimators meet in it:

- pathwise: a reparameterised draw is differentiated through;
- score function: a draw that is not gets ∇ log q(z) times its learning signal, the later costs minus a baseline;
- enumerated: a site with its whole support is summed exactly, in the guide as an expectation under its
  probabilities, in the model inside the logarithm.

Source: Ranganath et al. 2014 (score function, Rao-Blackwellised by plates), Schulman et al. 2015 (mixed graphs).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ppl.infer.elbo.terms import Names, Terms, is_time, to_factor
from ppl.site import Baseline, Site
from ppl.tensors.carried import carry
from ppl.tensors.chunks import Query, TooLarge, eliminate_all_within
from ppl.tensors.elimination import Intractable, components, contract
from ppl.tensors.factor import Factor, add, union, weigh


class Baselines:
    """Running means of learning signals, by site: the state of the score-function estimator."""

    def __init__(self) -> None:
        self.means: dict[str, Tensor] = {}

    def subtract(self, site: Site, signal: Factor) -> Factor:
        """A learning signal minus its baseline; then the running mean learns the signal, if it is finite."""
        options: Baseline = site.infer.baseline
        centred = signal
        if options.decaying_average:
            carry(self.means)
            mean, now = self.means.get(site.name), signal.tensor.detach().mean()
            if mean is not None:
                centred = Factor(centred.axes, centred.tensor - mean)
            now = torch.where(now.isfinite(), now, torch.zeros_like(now) if mean is None else mean)
            self.means[site.name] = now if mean is None else options.beta * mean + (1 - options.beta) * now
        if options.value is not None:
            centred = add([centred, to_factor(-options.value.detach(), site)])
        return centred


def sum_out_model(
    terms: Terms, home: Mapping[str, Names], guide_axes: Names, memory_limit: int | None = None
) -> list[Factor]:
    """The model's costs with its enumerated sites summed out, scaled.

    Args:
        home: the plates of each enumerated site, the model's and the guide's.
        memory_limit: bytes that summing out may hold.
    Raises: ValueError naming sites for an intractable structure, for unequal scales within one sum, or for one that
        does not fit the limit.
    """
    variables = {name: plates for name, plates in home.items() if name not in guide_axes}
    carried = {name: home[name] for name in guide_axes}
    all_plates = frozenset(axis for f in terms.model.values() for axis in f.axes if axis not in home)
    names = {id(factor): name for name, factor in terms.model.items()}
    for name, factor in terms.model.items():
        check_home(name, factor, home)
    costs = []
    alias = {name: v for line in terms.timelines.values() for v in line.variables for name in line.names(v)}
    timelines = tuple(terms.timelines.items())
    jobs: list[tuple[list[Factor], Query]] = []
    scales: list[Factor | Tensor | float] = []
    for component in components(list(terms.model.values()), variables, alias):
        members = [names[id(factor)] for factor in component]
        inside = set(variables).intersection(union(component))
        if not inside:
            costs += [_scaled(terms, name) for name in members]
            continue
        keep = all_plates.intersection(*(f.axes for f in component)).difference(terms.timelines)
        scales.append(_common_scale(terms, members, keep))
        summed = tuple((v, plates) for v, plates in variables.items() if v in inside or v in alias)
        jobs.append((component, Query(summed, all_plates, keep, tuple(carried.items()), timelines=timelines)))
    try:
        found = [query(f) for f, query in jobs] if memory_limit is None else eliminate_all_within(memory_limit, jobs)
    except Intractable as error:
        raise ValueError(explain_intractable(error, terms.model)) from error
    except TooLarge as error:
        raise ValueError(explain_too_large(error)) from error
    return costs + [_times(f, scale) for factors, scale in zip(found, scales, strict=True) for f in factors]


def check_home(name: str, factor: Factor, home: Mapping[str, Names]) -> None:
    """A site may depend on an enumerated one only within all of that one's plates.

    Raises: ValueError naming both sites and the plates.
    """
    for axis in factor.axes:
        if axis in home and not home[axis] <= frozenset(factor.axes):
            plates = sorted(p.removeprefix("plate ") for p in home[axis] - frozenset(factor.axes))
            raise ValueError(
                f"site '{name}' depends on site '{axis}', which is enumerated within plates {plates}, but stands outside of "
                f"them. Move '{name}' into these plates, or make them sequential (`for i in ppl.plate(…)`)."
            )


def explain_intractable(error: Intractable, factors: Mapping[str, Factor]) -> str:
    """An intractable structure in the words of the program: its plates, its sites, and the way out."""
    meeting = [name for name, factor in factors.items() if error.plates <= frozenset(factor.axes)]
    plates = ", ".join(f"'{p.removeprefix('plate ')}'" for p in sorted(error.plates))
    return (
        f"sites {sorted(error.variables)} cannot be summed out together: within plates {plates} they meet in "
        f"{meeting}, which would take time exponential in a plate's size. Make one of the plates sequential "
        "(`for i in ppl.plate(…)`), or give one of the sites to the guide."
    )


def explain_too_large(error: TooLarge) -> str:
    """A sum that does not fit its limit in the words of the program: its sites, its plates, the bytes, and the way out."""
    plates = ", ".join(f"'{p.removeprefix('plate ')}'" for p in sorted(error.plates))
    where = f"even for one element of plate {plates} at a time" if plates else "and they are within no plate to cut up"
    return (
        f"summing out sites {sorted(error.variables)} takes {error.needed:,} bytes, {where}, but memory_limit is "
        f"{error.limit:,}. Raise the limit, mark one of the sites 'sequential', or give it to the guide."
    )


def _scaled(terms: Terms, name: str) -> Factor:
    factor, scale = terms.model[name], terms.scales[name]
    if name in terms.scaled:
        return multiply(factor, terms.scaled[name])
    return _times(factor, scale)


def _common_scale(terms: Terms, members: list[str], keep: Names) -> Factor | Tensor | float:
    """The scale of factors that are summed together, which may differ along the plates that they all lie in."""
    scales = [terms.scales[name] for name in members]
    first = scales[0]
    for name, scale in zip(members, scales, strict=True):
        if scale is not first and not _is_same(scale, first):
            raise ValueError(
                f"sites {members} are summed together because enumerated sites connect them, so they must share one "
                f"scale, but site '{members[0]}' has {first} and site '{name}' has {scale}. Subsample only plates that "
                "contain the enumerated sites, and put handlers.scale around all of them."
            )
    if not isinstance(first, Tensor) or first.numel() == 1:
        return first.reshape(()) if isinstance(first, Tensor) else first
    varying = _without_repeats(terms.scaled[members[0]])
    if not keep.issuperset(varying.axes):
        plates = sorted(axis.removeprefix("plate ") for axis in frozenset(varying.axes) - keep)
        raise ValueError(
            f"sites {members} are summed together across plates {plates}, so their scale must not vary there. Give "
            "handlers.scale one number, or a tensor along plates that contain all of these sites."
        )
    return varying


def _times(factor: Factor, scale: Factor | Tensor | float) -> Factor:
    if isinstance(scale, Factor):
        return multiply(factor, scale)
    return factor if isinstance(scale, (int, float)) and scale == 1 else Factor(factor.axes, factor.tensor * scale)


def _is_same(a: Tensor | float, b: Tensor | float) -> bool:
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    return a.numel() == b.numel() and bool((a.flatten() == b.flatten()).all())


def _without_repeats(factor: Factor) -> Factor:
    """Without the axes along which nothing changes because the tensor was expanded."""
    for axis, stride in zip(factor.axes, factor.tensor.stride(), strict=True):
        if stride == 0:
            dim = factor.axes.index(axis)
            factor = Factor(tuple(a for a in factor.axes if a != axis), factor.tensor.select(dim, 0))
    return factor


def multiply(a: Factor, b: Factor) -> Factor:
    """The product of two factors, broadcast over their axes."""
    axes = union((a, b))
    return Factor(axes, a.aligned(axes) * b.aligned(axes))


class Expectation:
    """Exact expectations under the enumerated sites of a guide."""

    def __init__(self, weights: Mapping[str, Factor], home: Mapping[str, Names]) -> None:
        self.weights, self.home = weights, home
        self.parents = {v: frozenset(f.axes).intersection(weights) - {v} for v, f in weights.items()}
        self._rank = _ranks(self.parents)
        self._known: dict[Names, Factor] = {}

    def _closure(self, axes: Names) -> Names:
        """Some enumerated sites with all those that they depend on."""
        found, front = set(axes), set(axes)
        while front:
            front = {parent for v in front for parent in self.parents[v]} - found
            found |= front
        return frozenset(found)

    def of(self, cost: Factor, plates: Names | None = None) -> Factor:
        """E[cost], over all enumerated sites, or over those that do not live within the given plates."""
        axes = frozenset(cost.axes).intersection(self.weights)
        over = self._closure(axes)
        if plates is not None:
            over = frozenset(v for v in over if not self.home[v] <= plates)
        if not over:
            return cost
        log_weight = self._marginal(axes) if plates is None or over >= self._closure(axes) else None
        if log_weight is None:
            log_weight = contract([self.weights[v] for v in sorted(over)], over - axes)
        return weigh(log_weight, cost).sum(over)

    def _marginal(self, axes: Names) -> Factor | None:
        """The joint log probability of some sites, going back from the last of them to the sites that it depends on.

        What is met on the way is kept, so that all marginals of a chain take time linear in its length. None where the
        way back becomes wide: other orders may then be better.
        """
        steps: list[tuple[Names, str]] = []
        front = axes
        while front and front not in self._known:
            if len(front) > len(axes) + 2 or not self._rank:
                return None
            last = max(front, key=self._rank.__getitem__)
            steps.append((front, last))
            front = front - {last} | self.parents[last]
        for wanted, last in reversed(steps):
            before = wanted - {last} | self.parents[last]
            factors = [self.weights[last], *([self._known[before]] if before else [])]
            self._known[wanted] = contract(factors, before - wanted)
        return self._known[axes]


def _ranks(parents: Mapping[str, Names]) -> dict[str, int]:
    """Numbers for sites that grow from parents to children; none where sites depend on each other in a circle."""
    ranks: dict[str, int] = {}
    waiting = list(parents)
    while waiting:
        late = []
        for v in waiting:  # mostly in the order of the program, in which one pass is enough
            if parents[v] <= ranks.keys():
                ranks[v] = len(ranks)
            else:
                late.append(v)
        if len(late) == len(waiting):
            return {}
        waiting = late
    return ranks


def estimate(
    costs: list[Factor],
    scores: Mapping[str, Factor],
    expectation: Expectation,
    sites: Mapping[str, Site],
    baselines: Baselines,
) -> Tensor:
    """The bound: a scalar whose value estimates it and whose gradient estimates its gradient.

    Args: costs, log p and -log q terms; scores and sites, of the guide's drawn sites.
    """
    total = sum_all([expectation.of(cost).tensor for cost in costs])
    if not torch.is_grad_enabled():  # a look at the value teaches the baselines nothing
        return total
    for name, score in scores.items():
        signal = _signal(name, score, costs, expectation, sites, baselines)
        # zero in value, so that the product has the score's gradient alone and none of the expectation's weights
        gradient_only = Factor(score.axes, score.tensor - score.tensor.detach())
        total = total + expectation.of(multiply(gradient_only, signal)).tensor.sum()
    return total


def _signal(
    name: str,
    score: Factor,
    costs: list[Factor],
    expectation: Expectation,
    sites: Mapping[str, Site],
    baselines: Baselines,
) -> Factor:
    """The costs that a draw may have caused, within its plates, minus the baseline."""
    plates = frozenset(axis for axis in score.axes if axis not in expectation.weights and not is_time(axis))
    seen = []
    for cost in costs:
        known = Factor(cost.axes, cost.tensor.detach())
        known = expectation.of(known, plates)
        seen.append(known.sum(axis for axis in known.axes if axis not in plates and axis not in expectation.weights))
    return baselines.subtract(sites[name], add(seen))


def sum_all(tensors: list[Tensor]) -> Tensor:
    """The sum of all entries of all tensors, a scalar."""
    total = tensors[0].sum() if tensors[0].dim() else tensors[0]
    for tensor in tensors[1:]:
        total = total + (tensor.sum() if tensor.dim() else tensor)
    return total
