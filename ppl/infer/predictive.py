"""Draws of a model's sites: from the prior, or given posterior samples or a guide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppl.distributions import Unit
from ppl.handlers.plate import plate
from ppl.handlers.replay import replay
from ppl.handlers.substitute import substitute
from ppl.handlers.trace import trace
from ppl.infer.discrete import infer_discrete as with_discrete
from ppl.params import ParamStore, get_param_store
from ppl.site import Site
from ppl.stack import Handler, perform
from ppl.trace import Trace

Program = Callable[..., Any]
SAMPLES = "_num_predictive_samples"


class Predictive:
    """Draw from a model many times: `Predictive(model, guide=guide, num_samples=1000)(x)["y"]`.

    Args:
        posterior_samples: values by name, each with the samples on its first dim; without them, and without a guide,
            draws come from the prior.
        guide: a program that draws the latent sites.
        params: parameter values by name or a store, such as `svi.params`; needed for a guide that is a plain function.
        num_samples: how many; given by posterior_samples where there are some.
        return_sites: names to return; by default all sites that were not given (with a guide, its sites too).
        infer_discrete: draw sites marked for enumeration from their posterior given the rest, instead of their prior.
        parallel: one run with the samples on a batch dim, instead of a run a sample. The model must be vectorised: it
            must not mix batch dims left of its plates.
        batch_size: with parallel, at most this many samples a run, to bound memory.
    Returns, when called with the model's arguments: values by name, (num_samples, *site).
    Raises: ValueError for contradictory arguments or samples of unequal numbers.
    """

    def __init__(
        self,
        model: Program,
        posterior_samples: Mapping[str, Tensor] | None = None,
        *,
        guide: Program | None = None,
        params: Mapping[str, Tensor] | ParamStore | None = None,
        num_samples: int | None = None,
        return_sites: Sequence[str] | None = None,
        infer_discrete: bool = False,
        parallel: bool = False,
        batch_size: int | None = None,
    ) -> None:
        if not callable(model):
            raise TypeError(f"Predictive: the model must be callable, but got {type(model).__name__}: {model!r}.")
        if posterior_samples is not None and guide is not None:
            raise ValueError("Predictive: give posterior_samples or a guide, not both.")
        if isinstance(return_sites, str):
            raise ValueError(f"Predictive: return_sites must be a list of names; write [{return_sites!r}].")
        self.samples = dict(posterior_samples or {})
        self.num_samples = _count(self.samples, num_samples)
        self.model, self.guide = model, guide
        self.params = params
        self.return_sites = return_sites
        self.infer_discrete, self.parallel = infer_discrete, parallel
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"Predictive: batch_size must be at least 1, got {batch_size}.")
        self.batch_size = batch_size

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        with torch.no_grad():
            if not self.parallel:
                rows = (self._run(self._sample(i), args, kwargs) for i in range(self.num_samples))
                return self._select([{n: s.tensor.unsqueeze(0) for n, s in row.items()} for row in rows])
            prototype = self._run(self._sample(0), args, kwargs)
            size = self.batch_size or self.num_samples
            starts = range(0, self.num_samples, size)
            return self._select(
                [self._batch(prototype, i, min(size, self.num_samples - i), args, kwargs) for i in starts]
            )

    # -- one run

    def _sample(self, index: int) -> dict[str, Tensor]:
        return {name: values[index] for name, values in self.samples.items()}

    def _with_params(self, program: Program) -> Program:
        if self.params is None:
            return program
        values = dict(self.params.items()) if isinstance(self.params, ParamStore) else self.params
        return substitute(program, data=values)

    def _run(
        self,
        values: Mapping[str, Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        around: Callable[[Program], Program] = lambda program: program,
    ) -> dict[str, Site]:
        """The sites of one run, the guide's first."""
        proposed = Trace()
        if self.guide is not None:
            with trace() as proposed, _known_params():
                self._with_params(around(self.guide))(*args, **kwargs)
        model = self._with_params(around(replay(substitute(self.model, data=values), proposed)))
        if self.infer_discrete:
            model = with_discrete(model)
        with trace() as drawn:
            model(*args, **kwargs)
        return {name: site for name, site in {**proposed.nodes, **drawn.nodes}.items() if _is_shown(site)}

    def _batch(
        self, prototype: dict[str, Site], start: int, count: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Tensor]:
        """Many samples in one run, on a dim left of the model's plates and batch dims."""
        used = [-frame.dim for site in prototype.values() for frame in site.plates if frame.dim is not None]
        used += [len(site.fn.batch_shape) - len(site.spans) for site in prototype.values() if site.kind == "sample"]
        dim = -1 - max(used, default=0)
        values = {}
        for name, all_values in self.samples.items():
            part = all_values[start : start + count]
            event = len(prototype[name].fn.event_shape) if name in prototype else part.dim() - 1
            times = len(prototype[name].spans) if name in prototype else 0
            gap = -dim - (part.dim() - times - event)
            part = part.movedim(0, times)
            values[name] = part.reshape(part.shape[: times + 1] + (1,) * gap + part.shape[times + 1 :])
        sites = self._run(values, args, kwargs, lambda program: _repeated(program, count, dim))
        return {name: _samples_first(site, prototype[name], count) for name, site in sites.items()}

    # -- results

    def _select(self, parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        names = list(parts[0])
        if self.return_sites is not None:
            unknown = [name for name in self.return_sites if name not in names]
            if unknown:
                raise ValueError(f"Predictive: return_sites {unknown} are not sites of the program, which has {names}.")
            names = list(self.return_sites)
        else:
            names = [name for name in names if name not in self.samples]
        return {name: torch.cat([part[name] for part in parts]) for name in names}


def _count(samples: Mapping[str, Tensor], num_samples: int | None) -> int:
    """How many samples there are, which all of them must agree on."""
    sizes = {name: values.shape[0] if values.dim() else 0 for name, values in samples.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"Predictive: the posterior samples' first dims differ: {sizes}.")
    count = next(iter(sizes.values()), num_samples)
    if count is None:
        raise ValueError("Predictive: without posterior_samples, give num_samples.")
    if num_samples is not None and num_samples != count:
        raise ValueError(
            f"Predictive: num_samples is {num_samples}, but there are {count} posterior samples; leave it out."
        )
    if count < 1:
        raise ValueError(f"Predictive: num_samples must be at least 1, got {count}.")
    return count


def _is_shown(site: Site) -> bool:
    """Whether a site is a result: no parameter, no plate, no factor, no auxiliary site of a guide."""
    if site.kind == "sample":
        return not isinstance(site.distribution, Unit) and not site.infer.is_auxiliary
    return site.kind == "deterministic"


def _repeated(program: Program, count: int, dim: int) -> Program:
    def samples(*args: Any, **kwargs: Any) -> Any:
        with plate(SAMPLES, count, dim=dim):
            return program(*args, **kwargs)

    return samples


def _samples_first(site: Site, prototype: Site, count: int) -> Tensor:
    """A value of a batched run as (count, *site), as a run without the batch gives it."""
    value, single = _times_last(site), _times_last(prototype)
    times, shape = len(prototype.spans), single.shape
    if times:
        samples = _samples_first(site.replace(value=value, spans=()), prototype.replace(value=single, spans=()), count)
        return samples.movedim(tuple(range(-times, 0)), tuple(range(1, times + 1)))
    if value.numel() == count * shape.numel():
        return value.reshape((count, *shape))
    if value.numel() == shape.numel():  # data, or a constant
        return value.reshape(shape).expand((count, *shape))
    try:
        tail = value.shape[value.dim() - len(shape) :]
        return value.reshape((-1, *tail)).expand((count, *shape))
    except RuntimeError:
        raise ValueError(
            f"Predictive: site '{site.name}' has shape {tuple(shape)} in a single run, but {tuple(value.shape)} with "
            f"{count} samples in parallel, so the model is not vectorised over dims left of its plates. Index with "
            "negative dims, or use parallel=False."
        ) from None


def _times_last(site: Site) -> Tensor:
    """A value with the steps of scans on its last dims instead of its first."""
    times = len(site.spans)
    return site.tensor.movedim(tuple(range(times)), tuple(range(-times, 0)))


class _known_params(Handler):
    """Refuses a guide's parameter that would be made anew: it has not been fitted."""

    def handle(self, site: Site) -> Site:
        if site.kind == "param" and site.value is None and site.leaf is None and site.name not in get_param_store():
            raise ValueError(
                f"Predictive: the guide's parameter '{site.name}' is not in the current store, so it would start anew. Pass "
                "the fitted ones: Predictive(model, guide=guide, params=svi.params, …)."
            )
        return perform(site)
