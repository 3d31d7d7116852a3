"""The variables of a run with its sites enumerated: which they are, where they live, and how they are linked over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ppl.infer.elbo.terms import Names, plate_axis
from ppl.site import Site
from ppl.tensors.chains import Chain
from ppl.trace import Trace


def plates_of(site: Site) -> Names:
    """The plates of a site, as axes."""
    return frozenset(plate_axis(frame.name) for frame in site.plates if frame.dim is not None)


def chain_of(site: Site) -> tuple[str, Chain] | None:
    """The time axis of an enumerated site of a scan, and a chain of this site alone; None for any other."""
    if not site.spans:
        return None
    (span,) = site.spans
    return span.axis, Chain(span.start, span.start + span.size, span.history, (site.name,))


def find_chains(sites: Trace | Mapping[str, Site], names: Iterable[str]) -> dict[str, Chain]:
    """The time axes among some sites, each with the enumerated sites along it."""
    chains: dict[str, Chain] = {}
    for name in names:
        found = chain_of(sites[name])
        if found is not None:
            axis, chain = found
            known = chains[axis].variables if axis in chains else ()
            chains[axis] = Chain(chain.start, chain.stop, chain.history, (*known, name))
    return chains


def homes(site: Site) -> dict[str, Names]:
    """The variables of an enumerated site, each with the plates that it lives in; times are plates too."""
    plates = plates_of(site)
    found = chain_of(site)
    if found is None:
        return {site.name: plates}
    axis, chain = found
    return {
        **dict.fromkeys(chain.moving(site.name), plates | {axis}),
        **dict.fromkeys(chain.last(site.name), plates),
    }
