"""Does a program mix the values of an enumerated site, or look further back than its markov loops say?

Enumeration puts all values of a site on one dim, and every later operation must leave that dim alone: `z.mean()` or
`z.sum(-1)` would average the support away, and give a wrong number without a sound. Provenance shows it: a distribution
that was computed from the site must vary along its dim.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch

from ppl.distributions.validation import validation_enabled
from ppl.handlers.enum import Axis, enum
from ppl.site import Site
from ppl.stack import Handler, perform, unrecorded
from ppl.tensors.provenance import Provenance


class _watch(Handler):
    """Names the values of enumerated sites, and looks at every distribution that was made of them."""

    def __init__(self, provenance: Provenance) -> None:
        super().__init__()
        self.provenance = provenance
        self.sizes: dict[str, int] = {}
        self.scanned: set[str] = set()  # those that stand in a scan

    def handle(self, site: Site) -> Site:
        if site.kind != "sample":
            return perform(site)
        sources = self.provenance.of(site.distribution)
        done = perform(site)
        dims = self._dims(done)
        for name in sorted(sources & dims.keys()):
            self._check(done, name, dims[name])
        lost = sorted((sources & self.sizes.keys()) - dims.keys() - {site.name})
        if lost and not site.moments:  # a scan looks further back only where it needs any value at all
            raise ValueError(
                f"site '{site.name}' was computed from the enumerated sites {lost}, which lie further back than its markov "
                "loop says, so that their dims are in use by others. Give markov a longer history, or carry no more than "
                "the last values from step to step."
            )
        if not done.is_enumerated:
            return done.replace(value=self.provenance.mark(done.tensor, sources)) if done.drawn else done
        if site.moments:
            self.scanned.add(site.name)
        shape = done.tensor.shape[: done.tensor.dim() - len(done.fn.event_shape)]
        self.sizes[site.name] = max(shape[dim] for dim in self._dims(done)[site.name] if -dim <= len(shape))
        return done.replace(value=self.provenance.name(done.tensor, site.name))

    def _dims(self, site: Site) -> dict[str, list[int]]:
        """The dims in use by the names of their sites; one of a scan has a dim for each step in sight."""
        found: dict[str, list[int]] = {}
        scanned = {*self.scanned, site.name} if site.moments else self.scanned
        for dim, name in site.enum_dims:
            owner = name.rsplit("[", 1)[0]
            found.setdefault(owner if owner in scanned else name, []).append(dim)
        return found

    def _check(self, site: Site, name: str, dims: list[int]) -> None:
        batch, size = site.fn.batch_shape, self.sizes[name]
        if size == 1 or any(-dim <= len(batch) and batch[dim] == size for dim in dims):
            return
        dim = dims[0]
        raise ValueError(
            f"site '{site.name}' was computed from the enumerated site '{name}', but does not vary with its {size} values, "
            f"which lie on dim {dim} (batch shape {tuple(batch)}): a reduction such as .sum() or .mean() has mixed them, "
            "or the distribution took the dim for one of its own. Reduce over event dims only, by negative numbers; to "
            "reduce over a plate, make it sequential (`for i in ppl.plate(…)`); where a parameter's last batch dim is "
            f"time, give it one (`table[{name}[..., None]]`)."
        )


def check_reductions(
    program: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    first_dim: int,
    axes: Iterable[Axis] = (),
) -> None:
    """Run a program once, enumerated, and look for operations across enumeration dims; random generators stay put.

    Raises: ValueError naming both sites.
    """
    provenance = Provenance()
    fork = torch.random.fork_rng(devices=range(torch.cuda.device_count()))
    quiet = (fork, torch.no_grad(), validation_enabled(False), unrecorded())
    with contextlib.ExitStack() as stack:
        for context in (*quiet, enum(None, first_dim, axes), provenance, _watch(provenance)):
            stack.enter_context(context)
        program(*args, **kwargs)
