"""Let the elements that a plate shows stand for more."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ppl.site import Frame, Site
from ppl.stack import Handler, perform


class enlarge(Handler):
    """Let plates whose size is a batch's stand for all data: `plate("data", len(x))` for `sizes["data"]` elements.

        with enlarge(sizes={"data": 1000}): svi.step(x)

    Densities of the sites inside such a plate are scaled by the size over the number of elements seen in the run, as if
    the program had said `plate("data", 1000, subsample_size=len(x))`; unlike there, no indices are drawn. A plate that
    says so already is left as it is. Goes around model and guide alike.

    Args: sizes, of whole plates, by name; names that a program does not have change nothing.
    Raises: ValueError for a size that is not positive, and, naming the site, for a plate that shows more elements than
        that or is a subsample of another size.
    """

    def __init__(self, fn: Callable[..., Any] | None = None, sizes: Mapping[str, int] | None = None) -> None:
        super().__init__(fn)
        self.sizes = dict(sizes or {})
        for name, size in self.sizes.items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(
                    f"handlers.enlarge: the size of plate '{name}' must be a positive int, got {size!r}; write "
                    f"sizes={{'{name}': len(dataset)}}."
                )

    def handle(self, site: Site) -> Site:
        factor, plates = 1.0, site.plates
        for i, frame in enumerate(plates):
            size = self.sizes.get(frame.name, frame.size)
            if size != frame.size:
                _check(site, frame, size)
                whole = dataclasses.replace(frame, size=size)
                factor *= whole.scale
                plates = (*plates[:i], whole, *plates[i + 1 :])
        if plates is site.plates:
            return perform(site)
        return perform(site.replace(plates=plates, scale=site.scale * factor if site.kind == "sample" else site.scale))


def _check(site: Site, frame: Frame, size: int) -> None:
    if frame.subsample_size != frame.size:
        raise ValueError(
            f"{site}: plate '{frame.name}' shall stand for {size} elements, but the program says that it shows "
            f"{frame.subsample_size} of {frame.size}. Write plate('{frame.name}', {frame.subsample_size}), or leave "
            "the plate's size to the program."
        )
    if frame.size > size:
        raise ValueError(
            f"{site}: plate '{frame.name}' shows {frame.size} elements, more than the {size} that it shall stand for. "
            "Give the number of elements of the whole data set."
        )
