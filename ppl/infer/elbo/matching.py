"""Do a guide and a model fit together?"""

from __future__ import annotations

from ppl.infer.elbo.monte_carlo import is_monte_carlo
from ppl.site import Site
from ppl.trace import Trace

Names = frozenset[str]


def check_match(model: Trace, guide: Trace, enumerated: Names, enumerates: bool) -> None:
    """Check that the guide proposes what the model needs, and nothing else.

    Args: enumerated, the sites that are summed; enumerates, whether the objective sums marked sites.
    Raises: ValueError naming the sites and the fix.
    """
    latent, proposed = _by_statement(model.stochastic_nodes), guide.stochastic_nodes
    missing = [
        n
        for n, s in latent.items()
        if n not in proposed and s.name not in enumerated and not (enumerates and is_monte_carlo(s))
    ]
    if missing:
        raise ValueError(_explain_missing(missing, latent, proposed, enumerates))
    extra = [n for n, s in proposed.items() if n not in latent and not s.infer.is_auxiliary]
    if extra:
        raise ValueError(_explain_extra(extra, model, latent))
    for name, site in proposed.items():
        if name in latent and not latent[name].step_of:
            _check_shapes(site, latent[name])
        if name in latent and enumerates:
            _check_marks(name, site, latent[name])


def _by_statement(sites: dict[str, Site]) -> dict[str, Site]:
    """The sites by the names that statements give them; one of a scan may be recorded in parts."""
    return {site.step_of or name: site for name, site in sites.items()}


def _explain_missing(missing: list[str], latent: dict[str, Site], proposed: dict[str, Site], enumerates: bool) -> str:
    discrete = [name for name in missing if latent[name].fn.has_enumerate_support]
    how = "Add each to the guide with the same name, or give the model data for it (obs=…)"
    if discrete and not enumerates:
        how += f"; {discrete} could instead be summed out: mark with config_enumerate(model) and use TraceEnum_ELBO"
    elif discrete:
        how += f"; {discrete} could instead be summed out: write infer={{'enumerate': 'parallel'}} at the site"
    return f"the guide lacks the model's latent sites {missing}; it has {list(proposed) or 'none'}. {how}."


def _explain_extra(extra: list[str], model: Trace, latent: dict[str, Site]) -> str:
    observed = [name for name in extra if name in model.observation_nodes]
    why = f" ({observed} are observed there)" if observed else ""
    return (
        f"the guide has sites {extra} that are not latent in the model{why}, whose latent sites are {list(latent)}. "
        "Correct the names, remove them, or mark auxiliary ones with infer={'is_auxiliary': True}."
    )


def _check_shapes(guide: Site, model: Site) -> None:
    mine, theirs = guide.fn, model.fn
    if mine.event_shape != theirs.event_shape:
        raise ValueError(
            f"site '{guide.name}' has event shape {tuple(mine.event_shape)} in the guide and "
            f"{tuple(theirs.event_shape)} in the model. Use to_event alike in both."
        )
    plates = {f.name: f.subsample_size for f in guide.plates if f.dim is not None}
    others = {f.name: f.subsample_size for f in model.plates if f.dim is not None}
    if plates != others and _sizes(mine.batch_shape) != _sizes(theirs.batch_shape):
        raise ValueError(
            f"site '{guide.name}' has batch shape {tuple(mine.batch_shape)} in plates {plates} in the guide, and "
            f"{tuple(theirs.batch_shape)} in plates {others} in the model. Put it in the same plates in both."
        )


def _sizes(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]


def _check_marks(name: str, guide: Site, model: Site) -> None:
    if model.infer.enumerate is not None and guide.infer.enumerate is None:
        raise ValueError(
            f"site '{name}' is marked for enumeration in the model, but the guide draws it. Remove it from the guide to "
            "sum it out, or mark it with infer={'enumerate': 'parallel'} in the guide too."
        )
    if guide.infer.enumerate is not None and guide.infer.num_samples is None and model.infer.enumerate is None:
        raise ValueError(
            f"site '{name}' is marked for enumeration in the guide, but not in the model. Mark it in both, with "
            "infer={'enumerate': 'parallel'} or config_enumerate, or in neither."
        )
