"""The variables of a run with its sites enumerated: which they are, where they live, and how they are linked over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ppl.infer.elbo.terms import Names, plate_axis
from ppl.site import Site
from ppl.tensors.timeline import Timeline
from ppl.trace import Trace


def plates_of(site: Site) -> Names:
    """The plates of a site, as axes."""
    return frozenset(plate_axis(frame.name) for frame in site.plates if frame.dim is not None)


def timeline_of(site: Site) -> tuple[str, Timeline] | None:
    """The time axis of an enumerated site of a scan, and a timeline of this site alone; None for any other."""
    if not site.spans:
        return None
    (span,) = site.spans
    return span.axis, Timeline(span.start, span.start + span.size, span.history, (site.name,))


def find_timelines(sites: Trace | Mapping[str, Site], names: Iterable[str]) -> dict[str, Timeline]:
    """The time axes among some sites, each with the enumerated sites along it."""
    timelines: dict[str, Timeline] = {}
    for name in names:
        found = timeline_of(sites[name])
        if found is not None:
            axis, timeline = found
            known = timelines[axis].variables if axis in timelines else ()
            timelines[axis] = Timeline(timeline.start, timeline.stop, timeline.history, (*known, name))
    return timelines


def homes(site: Site) -> dict[str, Names]:
    """The variables of an enumerated site, each with the plates that it lives in; times are plates too."""
    plates = plates_of(site)
    found = timeline_of(site)
    if found is None:
        return {site.name: plates}
    axis, timeline = found
    return {
        **dict.fromkeys(timeline.moving(site.name), plates | {axis}),
        **dict.fromkeys(timeline.last(site.name), plates),
    }
