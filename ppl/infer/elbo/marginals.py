"""What is known of each enumerated site by itself, given the data: all marginals at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppl.distributions import Bernoulli, Categorical, Distribution, Empirical
from ppl.distributions.steps import Steps
from ppl.infer.elbo.enumerated import Enumerated, check_limit, enumerate_program, support_of
from ppl.infer.elbo.monte_carlo import refuse_monte_carlo
from ppl.infer.elbo.posterior import join_steps
from ppl.infer.elbo.terms import plate_axis
from ppl.site import Site, plate_shape
from ppl.tensors.factor import Factor
from ppl.tensors.semiring import log_sum_exp

Program = Callable[..., Any]


def compute_marginals(
    model: Program,
    *args: Any,
    first_available_dim: int | None = None,
    memory_limit: int | None = None,
    **kwargs: Any,
) -> dict[str, Distribution]:
    """The posterior distribution of every site marked for enumeration, each by itself, all else given.

    Shapes: each marginal has the batch shape of its plates.
    Args: memory_limit, the bytes that summing out may hold, as in `TraceEnum_ELBO`.
    Returns: by site, a Categorical over categories, a Bernoulli, or an Empirical over other supports.
    Raises: ValueError for a structure that cannot be summed out.
    """
    check_limit(memory_limit, "compute_marginals")
    found = enumerate_program(model, args, kwargs, first_available_dim)
    refuse_monte_carlo({**found.names, **found.drawn}, "compute_marginals")
    probabilities = marginal_probabilities(found, memory_limit)
    shaped = {name: site.replace(value=_in_plates(site, probabilities[name])) for name, site in found.names.items()}
    return {name: _distribution(found, site) for name, site in join_steps(shaped).items()}


def marginal_probabilities(found: Enumerated, memory_limit: int | None = None) -> dict[str, Factor]:
    """The posterior probabilities of each enumerated site's values, over its plates and its own axis.

    The derivative of the log evidence by a field added to a site's log probabilities is the site's posterior probability;
    one backward pass gives them all.
    """
    fields: dict[str, Factor] = {}
    for name, site in found.names.items():
        sizes = {axis: f.size(axis) for f in found.factors.values() for axis in f.axes}
        frames = sorted((f for f in site.plates if f.dim is not None), key=lambda f: f.dim or 0)
        axes = (*(span.axis for span in site.spans), *(plate_axis(f.name) for f in frames), name)
        times = [span.size for span in site.spans]
        shape = [*times, *(f.subsample_size for f in frames), sizes.get(name, 1)]
        like = next(iter(found.factors.values())).tensor
        fields[name] = Factor(axes, torch.zeros(shape, dtype=like.dtype, device=like.device, requires_grad=True))
    with torch.enable_grad():
        known = {name: Factor(f.axes, f.tensor.detach()) for name, f in found.factors.items()}
        fielded = Enumerated(
            {**known, **{f"{name} field": f for name, f in fields.items()}},
            found.names,
            found.sizes,
            found.traces,
            found.drawn,
            found.values,
        )
        evidence = torch.stack(
            [f.tensor.sum() for f in fielded.eliminate(log_sum_exp, memory_limit=memory_limit)]
        ).sum()
        grads = torch.autograd.grad(evidence, [f.tensor for f in fields.values()])
    return {name: Factor(f.axes, grad) for (name, f), grad in zip(fields.items(), grads, strict=True)}


def _in_plates(site: Site, probabilities: Factor) -> Tensor:
    """Probabilities in the shape of the site's plates, those of each entry on the last dim, summing to 1."""
    p = probabilities.tensor
    times = tuple(span.size for span in site.spans)
    p = p.reshape(times + plate_shape(f for f in site.plates if f.dim is not None) + p.shape[-1:])
    return p / p.sum(-1, keepdim=True)


def _distribution(found: Enumerated, site: Site) -> Distribution:
    """The marginal of a site that has its probabilities for a value."""
    p, like = site.tensor, site.fn
    if isinstance(like, Steps):
        like = like.step
    if isinstance(like, torch.distributions.Categorical):
        return Categorical(p)
    if isinstance(like, torch.distributions.Bernoulli):
        return Bernoulli(p[..., 1])
    values = support_of(found, next(s for n, s in found.names.items() if site.name in (n, s.step_of)))
    batch = p.shape[:-1]
    return Empirical(values.expand(batch + values.shape), p.log())
