"""What the automatic guides share: a first run of the model, its latent sites, and the plates around them."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ppl.distributions import biject_to
from ppl.handlers import block, mask, plate, substitute, trace
from ppl.infer.initialization import init_to_median
from ppl.site import Frame, Site, Span
from ppl.stack import Handler, perform
from ppl.trace import Trace

Program = Callable[..., Any]


@dataclass(frozen=True)
class Latent:
    """A continuous latent site of the first run, with what its guide needs again and again."""

    site: Site
    support: Any
    transform: Any  # from the reals to it
    first: Tensor  # the first value, mapped to the reals

    @classmethod
    def of(cls, site: Site) -> Latent:
        """From a site of the first run."""
        support = site.fn.support
        transform = biject_to(support)
        return cls(site, support, transform, transform.inv(site.tensor.detach()))

    @property
    def event(self) -> int:
        """The number of event dims of the value mapped to the reals."""
        return self.first.dim() - len(self.site.fn.batch_shape)


class AutoGuide(nn.Module, ABC):
    """A guide made from a model. Its parameters exist after `setup(*args)`, which the first call does by itself.

    Discrete latent sites are left out: sum them with `TraceEnum_ELBO`.

    Args:
        model: the program to approximate; block what the guide shall not propose.
        prefix: stands in the names of its parameters.
        init_loc_fn: where to start, see `ppl.infer.initialization`.
        create_plates: a function of the model's arguments that returns the model's subsampled plates, needed only
            where the model is told its subsample instead of drawing it.
    """

    def __init__(
        self,
        model: Program,
        *,
        prefix: str = "auto",
        init_loc_fn: Callable[[Site], Tensor | None] = init_to_median,
        create_plates: Callable[..., plate | Sequence[plate]] | None = None,
    ) -> None:
        super().__init__()
        if not callable(model):
            raise TypeError(
                f"{type(self).__name__}: the model must be callable, got {type(model).__name__}: {model!r}."
            )
        self.__dict__["model"] = model  # not as a submodule: its parameters are not the guide's
        self.prefix, self.init_loc_fn, self.create_plates = prefix, init_loc_fn, create_plates
        self.prototype: Trace | None = None  # the first run of the model
        self.latents: dict[str, Latent] = {}  # its continuous latent sites
        self._frames: dict[str, Frame] = {}
        self._told: set[str] = set()  # plates of latent sites that do not draw their subsample

    # -- setup

    def setup(self, *args: Any, **kwargs: Any) -> None:
        """Run the model once and make the guide's parameters.

        Raises: ValueError for a model without continuous latent sites.
        """
        model = self.__dict__["model"]
        with torch.no_grad(), block():
            self.prototype = trace(substitute(model, substitute_fn=self.init_loc_fn)).get_trace(*args, **kwargs)
        sites = self.prototype.stochastic_nodes
        self.latents = {name: Latent.of(site) for name, site in sites.items() if not site.fn.is_discrete}
        if not self.latents:
            raise ValueError(
                f"{type(self).__name__}: the model has no continuous latent site to propose; its latent sites are "
                f"{list(sites) or 'none'}."
            )
        frames = [frame for latent in self.latents.values() for frame in latent.site.plates if frame.dim is not None]
        self._frames = {frame.name: frame for frame in sorted(frames, key=lambda f: f.dim or 0, reverse=True)}
        made = {name: site for name, site in self.prototype.nodes.items() if site.kind == "plate"}
        self._told = {f.name for f in frames if f.indices is not None and f.name in made and not made[f.name].drawn}
        self.make_parameters()

    @abstractmethod
    def make_parameters(self) -> None:
        """Make the parameters from `self.latents`."""

    @abstractmethod
    def propose(self, plates: Mapping[str, plate]) -> dict[str, Tensor]:
        """Sample all latent sites, each within its plates."""

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Draw every latent site; returns the values by name."""
        if self.prototype is None:
            self.setup(*args, **kwargs)
        return self.propose(self._plates(args, kwargs))

    # -- plates

    def _plates(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, plate]:
        given: dict[str, plate] = {}
        if self.create_plates is not None:
            made = self.create_plates(*args, **kwargs)
            given = {p.name: p for p in ([made] if isinstance(made, plate) else made)}
        plates = {}
        for name, frame in self._frames.items():
            if name in self._told and name not in given:
                raise ValueError(_explain_told(type(self).__name__, frame, self.latents.values()))
            plates[name] = given.get(name) or plate(
                name, frame.size, subsample_size=frame.subsample_size, dim=frame.dim
            )
            if plates[name].dim is None:
                plates[name].dim = frame.dim
        return plates

    def within(self, site: Site, plates: Mapping[str, plate]) -> contextlib.AbstractContextManager[Any]:
        """Enter the plates of a site, and its mask: where the model does not count it, its entropy must not count either."""
        if not site.plates and site.mask is None and not site.spans:
            return _NOWHERE
        with contextlib.ExitStack() as stack:
            for frame in site.plates:
                if frame.dim is not None:
                    stack.enter_context(plates[frame.name])
            if site.mask is not None and self.mask_holds(site):
                stack.enter_context(mask(mask=site.mask))
            if site.spans:
                stack.enter_context(_along(site.spans))
            return stack.pop_all()

    def mask_holds(self, site: Site) -> bool:
        """Whether a site's mask in the first run is its mask in every run: not within a subsampled plate."""
        return all(frame.subsample_size == frame.size for frame in site.plates)

    # -- parameters

    def own(self, holder: nn.ParameterDict, site: Site, value: Tensor) -> None:
        """Keep a tensor as the site's parameter, repeated to the full size of subsampled plates."""
        for frame in site.plates:
            if frame.dim is not None and frame.subsample_size != frame.size:
                dim = frame.dim - (value.dim() - len(site.fn.batch_shape))
                times = -(-frame.size // frame.subsample_size)
                value = torch.cat([value] * times, dim).narrow(dim, 0, frame.size)
        holder[key_of(site.name)] = nn.Parameter(value.detach().clone(memory_format=torch.contiguous_format))

    def read(self, holder: nn.ParameterDict, site: Site, role: str, event_dim: int, constraint: Any = None) -> Tensor:
        """The constrained value of a parameter that `own` made, as a param statement."""
        name = f"{site.name}_{self.prefix}_{role}"
        leaf = holder[key_of(site.name)]
        return perform(Site(name, "param", leaf=leaf, constraint=constraint, event_dim=event_dim)).tensor

    # -- answers

    @abstractmethod
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The median of each latent site, by name. Args: the model's, for a guide that has not been set up."""

    def _ready(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.prototype is None:
            if not args and not kwargs:
                raise ValueError(
                    f"{type(self).__name__}: call setup(*args) with the model's arguments first, or fit it."
                )
            self.setup(*args, **kwargs)


class _along(Handler):
    """Says of a guide's site that its first dims are the steps of scans, as they are in the model."""

    def __init__(self, spans: tuple[Span, ...]) -> None:
        super().__init__()
        self.spans = spans

    def handle(self, site: Site) -> Site:
        return perform(site.replace(spans=self.spans) if site.kind == "sample" else site)


def _explain_told(guide: str, frame: Frame, latents: Iterable[Latent]) -> str:
    local = next(latent.site.name for latent in latents if any(f.name == frame.name for f in latent.site.plates))
    return (
        f"{guide}: site '{local}' is local to plate '{frame.name}', whose indices the model is told, and which the guide "
        f"would draw anew. Write {guide}(model, create_plates=…), a function of the model's arguments that returns "
        f"plate('{frame.name}', {frame.size}, subsample=…) with the same indices."
    )


_NOWHERE = contextlib.nullcontext()


def key_of(name: str) -> str:
    """A site's name as a key that nn.ParameterDict takes."""
    return name.replace(".", "·")
