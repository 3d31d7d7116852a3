"""What the draws weigh that stand in an enumerated site's place.

Each of the n draws of a site has weight p/(n q), with q the density that it was drawn with. Where each set of draws is
drawn from the site's own distribution given its parents' values, p = q and the weight is 1/n. Under `tmc` one set serves
all draws of the parents, and q is the even mixture of the distributions given these: for "mixture" by definition; for
"diagonal", draw k of component k, by the balance heuristic, because Σ_k E_{x ~ q_k}[f(x) / Σ_l q_l(x)] = ∫ f.

Sums over all combinations of draws are then unbiased estimates of the sum or integral over all values: given the
parents' draws, the draws of different sites, and in different places of plates, are independent.

Sources: Aitchison 2019, Tensor Monte Carlo: particle methods for the GPU era; Veach & Guibas 1995 (balance heuristic).
"""

from __future__ import annotations

import math

import torch

from ppl.site import Site
from ppl.tensors.factor import Factor, union
from ppl.tensors.semiring import log_sum_exp


def is_monte_carlo(site: Site) -> bool:
    """Whether a site's values are draws, made where it stands, in place of its support."""
    return site.drawn and site.infer.enumerate == "parallel" and site.infer.num_samples is not None


def log_proposal(site: Site, log_prob: Factor) -> Factor:
    """The log density that draws were drawn with, from their log densities given each draw of their parents."""
    mixed = [axis for axis in log_prob.axes if axis in site.mixed]
    if not mixed:
        return log_prob
    outer = tuple(axis for axis in log_prob.axes if axis not in mixed)
    components = log_prob.aligned((*outer, *mixed))
    if site.infer.tmc == "diagonal":
        for _ in mixed[1:]:
            components = components.diagonal(dim1=-2, dim2=-1)
    else:
        components = components.flatten(len(outer))
    return Factor(outer, log_sum_exp(components, (-1,)) - math.log(components.shape[-1]))


def log_source(site: Site, log_prob: Factor, proposal: Factor) -> Factor:
    """The log densities that draws had when they were drawn: under "diagonal", each given its own parents' draws."""
    mixed = [axis for axis in log_prob.axes if axis in site.mixed]
    if not mixed or site.infer.tmc != "diagonal":
        return proposal
    outer = tuple(axis for axis in log_prob.axes if axis not in mixed and axis != site.name)
    components = log_prob.aligned((*outer, site.name, *mixed))
    for _ in mixed:
        components = components.diagonal(dim1=-2, dim2=-1)
    return Factor((*outer, site.name), components)


def log_share(site: Site, log_prob: Factor, proposal: Factor, mask: Factor | None = None) -> Factor:
    """log p/(n q) of each draw; where a mask is false, 1/n, so that a masked place adds nothing."""
    count = site.infer.num_samples or 1
    if proposal is log_prob:
        return Factor(log_prob.axes, torch.zeros_like(log_prob.tensor.detach()) - math.log(count))
    gap = masked_factor(Factor(log_prob.axes, log_prob.tensor - proposal.aligned(log_prob.axes)), mask)
    return Factor(gap.axes, gap.tensor - math.log(count))


def masked_factor(factor: Factor, mask: Factor | None) -> Factor:
    """A factor with zeros where a mask is false."""
    if mask is None:
        return factor
    axes = union((factor, mask))
    tensor = factor.aligned(axes)
    return Factor(axes, torch.where(mask.aligned(axes), tensor, torch.zeros_like(tensor)))


def check_score(site: Site) -> None:
    """Draws whose gradient is partly pathwise cannot be told apart by the mixture that they came from.

    Raises: ValueError naming the site.
    """
    if site.mixed and site.fn.has_rsample:
        raise ValueError(
            f"{site}: the draws of {type(site.fn).__name__} are differentiated in part only, so its num_samples cannot go "
            "with tmc. Write infer={…, 'tmc': None} for a set of draws for each of its parents' draws."
        )


def refuse_monte_carlo(sites: dict[str, Site], what: str) -> None:
    """Raises: ValueError naming the sites that stand for their support by draws, where exact sums are needed."""
    found = [name for name, site in sites.items() if is_monte_carlo(site)]
    if found:
        raise ValueError(
            f"{what}: sites {found} are marked with num_samples, so that they are summed over a few draws instead of their "
            "support, and the result would be no exact posterior. Mark discrete ones without num_samples; condition the "
            "model on values of the others, or replay a guide's: replay(model, guide_trace)."
        )
