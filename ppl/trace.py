"""The record of one run of a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from ppl.distributions import validation
from ppl.distributions.distribution import ScoreParts, broadcast_shape
from ppl.distributions.masked import mask_value
from ppl.distributions.prototype import has_varying_support, log_prob_anywhere
from ppl.distributions.subsample import same_plate
from ppl.site import Site, describe_nan, plate_shape

if TYPE_CHECKING:
    import networkx

# Runs the program again with the recorded values and tells which sites each site's distribution came from.
Rerun = Callable[[dict[str, Site]], dict[str, frozenset[str]]]


class Trace:
    """The sites of one run, in the order in which they were performed.

    Log densities are computed when asked for and kept: `log_prob(name)` has the site's scale and mask applied, and
    the shape of its batch.
    """

    def __init__(self, rerun: Rerun | None = None) -> None:
        self.nodes: dict[str, Site] = {}
        self._unscaled: dict[str, Tensor] = {}
        self._stacked: dict[str, tuple[Tensor, int]] = {}  # log densities computed together, and which of them
        self._rerun = rerun
        self.returned: Any = None  # what the program returned

    # -- recording

    def add(self, site: Site, log_prob: Tensor | None = None) -> None:
        """Record a site.

        Args: log_prob, its masked log density without its scale, where that is known already.
        Raises: ValueError for a name that is already there, unless both are the same parameter or the same plate.
        """
        old = self.nodes.get(site.name)
        if old is not None:
            again = site.kind == "param" or (site.kind == "plate" and same_plate(old.fn, site.fn))
            if old.kind != site.kind or not again:
                raise ValueError(
                    f"site '{site.name}' ({site.kind}) stands twice in the program (first as a {old.kind}). Give every "
                    f"site its own name, for example f'{site.name}_{{i}}' in a loop, or wrap repeated parts in "
                    "handlers.scope(prefix=…)."
                )
            if site.kind == "plate":
                return
        self.nodes[site.name] = site
        if log_prob is not None:
            self._unscaled[site.name] = log_prob

    # -- reading

    def __getitem__(self, name: str) -> Site:
        return self.nodes[name]

    def __contains__(self, name: object) -> bool:
        return name in self.nodes

    def __iter__(self) -> Iterator[str]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def _view(self, keep: Callable[[Site], bool]) -> dict[str, Site]:
        return {name: site for name, site in self.nodes.items() if keep(site)}

    @property
    def stochastic_nodes(self) -> dict[str, Site]:
        """The sample sites that are not observed."""
        return self._view(lambda s: s.kind == "sample" and not s.observed)

    @property
    def observation_nodes(self) -> dict[str, Site]:
        """The observed sample sites, factors among them."""
        return self._view(lambda s: s.kind == "sample" and s.observed)

    @property
    def reparameterized_nodes(self) -> dict[str, Site]:
        """The latent sample sites whose draws are differentiable."""
        return self._view(lambda s: s.kind == "sample" and not s.observed and s.fn.has_rsample)

    @property
    def nonreparam_stochastic_nodes(self) -> dict[str, Site]:
        """The latent sample sites whose draws are not differentiable."""
        return self._view(lambda s: s.kind == "sample" and not s.observed and not s.fn.has_rsample)

    @property
    def param_nodes(self) -> dict[str, Site]:
        """The param sites."""
        return self._view(lambda s: s.kind == "param")

    @property
    def deterministic_nodes(self) -> dict[str, Site]:
        """The deterministic sites."""
        return self._view(lambda s: s.kind == "deterministic")

    # -- densities

    def unscaled_log_prob(self, name: str) -> Tensor:
        """The log density of a sample site with its mask but without its scale, of the site's batch shape."""
        found = self._unscaled.get(name)
        if found is None:
            site = self.nodes[name]
            stacked, position = self._stacked.get(name, (None, 0))
            found = _in_plates(site, log_density(site)) if stacked is None else stacked[position]
            self._unscaled[name] = found
        return found

    def compute_together(self) -> list[tuple[dict[str, int], Tensor]]:
        """Compute the log densities of sites that share one distribution object with one call, and keep them.

        Returns: for each group whose values differ, its log densities, (values, *batch), and which of them a site has, by name.
        """
        groups: dict[tuple[Any, ...], list[str]] = {}
        for name, site in self.nodes.items():
            if site.kind != "sample" or site.mask is not None or site.spans or site.branch:
                continue
            if name not in self._unscaled:
                value = site.tensor
                key = id(site.distribution), site.plates, value.shape, value.dtype, value.requires_grad
                groups.setdefault(key, []).append(name)
        stacks = []
        for names in groups.values():
            if len(names) > 1 and type(self.nodes[names[0]].fn).__module__.startswith("ppl.distributions."):
                stacked = self._compute_group(names)
                if stacked is not None:
                    stacks.append(stacked)
        return stacks

    def _compute_group(self, names: list[str]) -> tuple[dict[str, int], Tensor] | None:
        first = self.nodes[names[0]]
        values = {id(self.nodes[name].tensor): self.nodes[name].tensor for name in names}
        if len(values) == 1:
            density_of_all = _in_plates(first, log_density(first))
            self._unscaled.update(dict.fromkeys(names, density_of_all))
            return None
        d, value = first.fn, first.tensor
        missing = max(0, len(d.batch_shape) + len(d.event_shape) - value.dim())
        if not value.numel():
            return None
        stacked = torch.stack(list(values.values()))
        stacked = stacked.reshape(len(values), *(1,) * missing, *value.shape)
        found = log_density(first.replace(value=stacked))
        if first.plates:
            shape = broadcast_shape(found.shape[1:], plate_shape(first.plates))
            if found.shape[1:] != shape:
                found = found.reshape(len(values), *(1,) * (len(shape) + 1 - found.dim()), *found.shape[1:])
                found = found.expand(len(values), *shape)
        order = {key: position for position, key in enumerate(values)}
        which = {name: order[id(self.nodes[name].tensor)] for name in names}
        self._stacked.update((name, (found, position)) for name, position in which.items())
        return which, found

    def log_prob(self, name: str) -> Tensor:
        """The log density of a sample site with its mask and scale, of the site's batch shape."""
        scale = self.nodes[name].scale
        log_prob = self.unscaled_log_prob(name)
        return log_prob if isinstance(scale, (int, float)) and scale == 1 else log_prob * scale

    def log_prob_of_draw(self, name: str) -> Tensor:
        """`log_prob` of a reparameterised site, to be differentiated by parameters alone, not by the draw; not kept."""
        site = self.nodes[name]
        if not site.drawn or site.intervened or not site.fn.has_rsample:
            return self.log_prob(name)
        log_prob = log_density(site, lambda site, value: site.fn.log_prob_of_draw(value))
        return log_prob if isinstance(site.scale, (int, float)) and site.scale == 1 else log_prob * site.scale

    def compute_log_prob(self, site_filter: Callable[[str, Site], bool] | None = None) -> dict[str, Tensor]:
        """The scaled and masked log densities of the sample sites (that pass the filter), by name."""
        return {
            name: self.log_prob(name)
            for name, site in self.nodes.items()
            if site.kind == "sample" and (site_filter is None or site_filter(name, site))
        }

    def log_prob_sum(self, site_filter: Callable[[str, Site], bool] | None = None) -> Tensor:
        """The log density of the whole run (or of the sites that pass the filter), a scalar."""
        terms = [term.sum() for term in self.compute_log_prob(site_filter).values()]
        if not terms:
            return torch.zeros(())
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def compute_score_parts(self) -> dict[str, ScoreParts]:
        """The score parts of the sample sites by name, with scale and mask applied to density and entropy term.

        The score function stays as it is: what it multiplies is scaled already.
        """
        parts = {}
        for name, site in self.nodes.items():
            if site.kind != "sample":
                continue
            with validation.trusted():
                raw = site.fn.score_parts(site.tensor)
            entropy: Tensor | float = raw.entropy_term
            if isinstance(entropy, Tensor):
                entropy = masked(entropy, site.mask) * site.scale
            parts[name] = ScoreParts(self.log_prob(name), raw.score_function, entropy)
        return parts

    def describe_nan(self) -> list[str]:
        """A sentence for each place where NaN stands: parameters, values, log densities, in program order."""
        found = []
        for name, site in self.nodes.items():
            if site.kind == "param" and site.value is not None:
                found.append(describe_nan(site, site.value, "the parameter"))
            elif site.kind == "sample":
                value = site.tensor
                nan = describe_nan(site, value, "the value") if value.is_floating_point() and value.numel() else None
                found.append(nan or describe_nan(site, self.log_prob(name), "the log density"))
        return [sentence for sentence in found if sentence]

    # -- pictures

    def graph(self, params: bool = False) -> networkx.DiGraph:
        """The data dependencies between sites: an edge from each site whose value another's distribution was made of.

        Found by running the program once more with the recorded values, watching every operation. A value read into
        Python (`.item()`, `if`) counts as a source of all later sites.

        Args: params, also show the parameters.
        Raises: ValueError for a trace that was not made by `get_trace`, or has been pickled or copied since.
        """
        import networkx  # 0.15 s that most programs never need

        if self._rerun is None:
            raise ValueError(
                "graph() runs the program again, and this trace does not know it; record it with "
                "handlers.trace(model).get_trace(…)."
            )
        edges = self._rerun(self.nodes)
        graph = networkx.DiGraph()
        shown = {
            n: s
            for n, s in self.nodes.items()
            if s.kind in ("sample", "deterministic") or (params and s.kind == "param")
        }
        for name, site in shown.items():
            graph.add_node(name, kind=site.kind, observed=site.observed, plates=tuple(f.name for f in site.plates))
        for name in shown:
            graph.add_edges_from((source, name) for source in sorted(edges.get(name, ())) if source in shown)
        return graph

    def format_shapes(self, title: str = "Trace shapes:") -> str:
        """A table of the sites' shapes: sample or left dims, batch dims with their plates' names, event dims."""
        rows = [("", "", "batch", "event", "")]
        for name, site in self.nodes.items():
            if site.kind == "plate":
                rows.append(("plate", name, str(site.tensor.numel()), "", ""))
            elif site.kind == "sample":
                d = site.fn
                names = ", ".join(f"{f.name}@{f.dim}" for f in site.plates if f.dim is not None)
                rows.append(("dist", name, _dims(d.batch_shape), _dims(d.event_shape), names))
                shape = site.tensor.shape
                cut = len(shape) - len(d.event_shape)
                rows.append(("value", "", _dims(shape[:cut]), _dims(shape[cut:]), ""))
                if name in self._unscaled:
                    rows.append(("log_prob", "", _dims(self._unscaled[name].shape), "", ""))
            else:
                rows.append((site.kind, name, _dims(site.tensor.shape), "", ""))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            f"{row[0]:>{widths[0]}} {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}} | {row[3]:<{widths[3]}}  {row[4]}".rstrip()
            for row in rows
        ]
        return "\n".join([title, *lines])

    def __str__(self) -> str:
        return self.format_shapes()

    # -- copies

    def copy(self) -> Self:
        """Another trace with the same sites."""
        new = type(self)()
        new.nodes = dict(self.nodes)
        new._unscaled, new._stacked = dict(self._unscaled), dict(self._stacked)
        new.returned = self.returned
        return new

    def detach(self) -> Self:
        """Another trace whose latent values are cut from the autograd graph; log densities are computed anew."""
        new = type(self)()
        new.nodes = {
            name: site.replace(value=site.value.detach()) if site.value is not None and site.kind != "param" else site
            for name, site in self.nodes.items()
        }
        new.returned = self.returned
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {
            "nodes": {name: site.replace(init=None, leaf=None) for name, site in self.detach().nodes.items()},
            "returned": self.returned,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.nodes = {
            name: site.replace(value=site.value.detach()) if site.value is not None else site
            for name, site in state["nodes"].items()
        }
        self.returned = state["returned"]
        self._unscaled, self._stacked, self._rerun = {}, {}, None


def _dims(shape: torch.Size) -> str:
    return " ".join(str(size) for size in shape)


def masked(log_prob: Tensor, mask: Tensor | bool | None) -> Tensor:
    """A log density with zeros where the mask is false."""
    if mask is None or mask is True:
        return log_prob
    zeros = torch.zeros_like(log_prob)
    return zeros if mask is False else torch.where(mask, log_prob, zeros)


def density(site: Site, value: Tensor) -> Tensor:
    """The log density of a value at a sample site, without its mask.

    Where the support depends on a choice, the value may lie outside for some choices, and has -inf there.
    """
    d = site.fn
    if site.branch or (site.enum_dims and has_varying_support(d)):
        return log_prob_anywhere(d, value)
    return d.log_prob(value)


def _in_plates(site: Site, log_prob: Tensor) -> Tensor:
    """A log density with the sizes of the plates around, without copying."""
    if site.spans or not site.plates:
        return log_prob
    shape = broadcast_shape(log_prob.shape, plate_shape(site.plates))
    return log_prob if log_prob.shape == shape else log_prob.expand(shape)


def log_density(
    site: Site, density_of: Callable[[Site, Tensor], Tensor] = density, checked_later: bool = False
) -> Tensor:
    """The masked log density of a sample site; ValueError naming the site where the value does not fit.

    Args: density_of, how to compute it without the mask; checked_later, whether the value will be checked before anybody
        sees the density.
    """
    d, value, mask = site.fn, site.tensor, site.mask
    if isinstance(mask, Tensor) and site.observed and value.numel():
        value = mask_value(d, value, mask)
    with validation.trusted("later" if checked_later else mask is None):
        try:
            log_prob = masked(density_of(site, value), mask)
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"{site}: the log density of a value of shape {tuple(value.shape)} under {type(d).__name__} with batch "
                f"shape {tuple(d.batch_shape)} and event shape {tuple(d.event_shape)} failed. {error}"
            ) from error
    return log_prob
