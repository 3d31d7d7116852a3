"""The statements of the language: what a program says, and the handlers hear.

Each makes a site, sends it through the handlers and returns its value. `plate` and `markov` are statements too; being
handlers at the same time, they live in `ppl.handlers`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, NoReturn, cast

import numpy
import torch
from torch import Tensor

from ppl.distributions import constraints
from ppl.distributions.delta import Unit
from ppl.distributions.distribution import Distribution
from ppl.distributions.lifting import lift
from ppl.distributions.masked import MaskedDistribution
from ppl.distributions.validation import Invalid, holds, is_validation_enabled
from ppl.site import NO_OPTIONS, Infer, Init, Site
from ppl.stack import combine_masks, perform
from ppl.tensors.sharing import active_sharing, unwatched


def sample(
    name: str,
    fn: torch.distributions.Distribution,
    *,
    obs: Tensor | None = None,
    obs_mask: Tensor | bool | None = None,
    infer: Infer | Mapping[str, Any] | None = None,
) -> Tensor:
    """A random value: drawn, observed, or decided by a handler.

    Shapes: the value is (*batch, *event) of `fn`, with the batch expanded to the plates around.
    Args:
        name: unique in the program.
        fn: any torch distribution, extended or not.
        obs: data of the same shape, making this an observation.
        obs_mask: boolean, broadcasting with the batch shape; where it is false the value is latent and is inferred as
            the site `name_unobserved`, the rest is the site `name_observed`.
        infer: options for inference at this site, see `ppl.site.Infer`.
    Raises: ValueError naming the site, for anything that does not fit.
    """
    if active_sharing() is None:
        return _sample(name, fn, obs, obs_mask, infer)
    with unwatched():
        return _sample(name, fn, obs, obs_mask, infer)


def _sample(
    name: str,
    fn: torch.distributions.Distribution,
    obs: Tensor | None,
    obs_mask: Tensor | bool | None,
    infer: Infer | Mapping[str, Any] | None,
) -> Tensor:
    if isinstance(fn, Invalid):
        _report_invalid(name, fn, obs)
    d = fn if isinstance(fn, Distribution) else _distribution(name, fn)
    mask: Tensor | bool | None = None
    if isinstance(d, MaskedDistribution):
        d, mask = _unmasked(d)
    options = NO_OPTIONS if infer is None else Infer.of(infer, name)
    if obs is not None and not isinstance(obs, Tensor):
        raise ValueError(
            f"site '{name}': obs must be a torch.Tensor, but got {type(obs).__name__}; write torch.as_tensor(obs)."
        )
    if obs_mask is not None:
        return _sample_partly_observed(name, d, obs, obs_mask, mask, options)
    if obs is not None:
        return perform(Site(name, "sample", d, obs, True, mask=mask, infer=options)).tensor
    return perform(Site(name, "sample", d, mask=mask, infer=options)).tensor


def _distribution(name: str, fn: Any) -> Distribution:
    if isinstance(fn, torch.distributions.Distribution):
        return lift(fn)
    raise ValueError(
        f"site '{name}': expected a distribution, but got {type(fn).__name__}: {fn!r}. Write "
        f"sample('{name}', dist.Normal(0.0, 1.0)), for example."
    )


def _unmasked(d: Distribution) -> tuple[Distribution, Tensor | bool | None]:
    """A distribution without its mask, which the site carries instead, where every handler sees it."""
    mask: Tensor | bool | None = None
    while isinstance(d, MaskedDistribution):
        mask, d = combine_masks(d.given_mask, mask), d.base_dist
    return d, mask


def _report_invalid(name: str, fn: Invalid, obs: Tensor | None) -> NoReturn:
    """Raise what is wrong with a distribution, from where all plates around the site are known."""
    try:
        perform(Site(name, "sample", cast(Any, fn), obs, obs is not None))
    except ValueError as error:
        if error is not fn.error:
            raise error from fn.error
    raise ValueError(f"site '{name}': {fn.error}") from fn.error


def _sample_partly_observed(
    name: str, d: Distribution, obs: Tensor | None, obs_mask: Tensor | bool, mask: Tensor | bool | None, infer: Infer
) -> Tensor:
    if obs is None:
        raise ValueError(f"site '{name}': obs_mask needs obs; give the data, with anything where obs_mask is false.")
    if isinstance(obs_mask, Tensor) and obs_mask.dtype != torch.bool:
        raise ValueError(
            f"site '{name}': obs_mask must be boolean, but its dtype is {obs_mask.dtype}; write obs_mask.bool()."
        )
    seen = torch.as_tensor(obs_mask, device=obs.device)
    hidden = perform(Site(f"{name}_unobserved", "sample", d, mask=combine_masks(mask, ~seen), infer=infer))
    latent, batch = hidden.tensor, hidden.fn.batch_shape
    if len(seen.shape) > len(batch) or any(
        s not in (1, b) for s, b in zip(seen.shape[::-1], batch[::-1], strict=False)
    ):
        raise ValueError(
            f"site '{name}': obs_mask of shape {tuple(seen.shape)} does not broadcast to the batch shape {tuple(batch)} of "
            f"the site; it marks whole draws (event shape {tuple(d.event_shape)}), not single entries of one."
        )
    keep = seen.reshape(seen.shape + (1,) * d.event_dim)
    # Whatever stands in obs where it is masked (often NaN) must not reach a density or a gradient.
    known = torch.where(keep, obs, latent.detach().to(obs.dtype))
    perform(Site(f"{name}_observed", "sample", d, known, True, mask=combine_masks(mask, seen)))
    return deterministic(name, torch.where(keep, obs, latent.to(obs.dtype)), event_dim=d.event_dim)


def param(name: str, init: Init = None, constraint: Any = None, event_dim: int | None = None) -> Tensor:
    """A learnable parameter from the current store.

    Args:
        name: unique in the store.
        init: its first value, a constrained tensor or a callable that returns one, called only when needed.
        constraint: of `ppl.distributions.constraints`; without one, whatever the store has, or real.
        event_dim: how many of its last dims a plate must not subsample; all by default.
    Raises: ValueError without init for an unknown name; for an init outside the constraint.
    """
    return perform(Site(name, "param", init=init, constraint=constraint, event_dim=event_dim)).tensor


def deterministic(name: str, value: Tensor, event_dim: int | None = None) -> Tensor:
    """Record a computed value under a name, so that traces and predictions show it; ValueError for a non-tensor."""
    if not isinstance(value, Tensor):
        raise ValueError(
            f"site '{name}': a deterministic value must be a torch.Tensor, but got {type(value).__name__}; write "
            "torch.as_tensor(value)."
        )
    return perform(Site(name, "deterministic", value=value, event_dim=event_dim)).tensor


def factor(name: str, log_factor: Tensor | float, *, has_rsample: bool | None = None) -> None:
    """Add a term to the log density.

    Shapes: log_factor (*batch).
    Args: has_rsample, in a guide, whether the term is differentiated pathwise (True) or by the score function.
    """
    if not isinstance(log_factor, Tensor):
        log_factor = torch.tensor(float(log_factor))
    elif not log_factor.is_floating_point():
        log_factor = log_factor.to(torch.get_default_dtype())
    d = Unit(log_factor, has_rsample=has_rsample, validate_args=False)
    if is_validation_enabled() and not holds(constraints.real, log_factor):
        raise ValueError(
            f"site '{name}': log_factor is NaN; look for a division by zero or a log of a negative number."
        )
    perform(Site(name, "sample", d, d.sample(), True))


def subsample(data: Tensor, event_dim: int) -> Tensor:
    """The part of some data that the subsampled plates around select.

    Shapes: data (*batch, *event) with each plate's full size, or already its subsample's, at the plate's dim.
    """
    return perform(Site("subsample", "subsample", value=data, event_dim=event_dim)).tensor


def _substituted(nn_module: torch.nn.Module, values: Mapping[Tensor, Tensor]) -> torch.nn.Module:
    """A module like another, methods and all, that shares everything with it but some parameters."""
    new: torch.nn.Module = nn_module._replicate_for_data_parallel()
    for name, parameter in nn_module._parameters.items():
        setattr(new, name, parameter if parameter is None else values.get(parameter, parameter))
    for name, child in nn_module._modules.items():
        new._modules[name] = child if child is None else _substituted(child, values)
    return new


def module(name: str, nn_module: torch.nn.Module, update_module_params: bool = False) -> torch.nn.Module:
    """Declare the parameters of a torch module as params `name.…`, and return the module to call.

    The module itself is returned while its parameters are its own; where a handler gives other values (substitute,
    lift), a stand-in that uses those.

    Args: update_module_params, write such other values into the module and return it.
    Raises: ValueError for an argument that is not a module.
    """
    if not isinstance(nn_module, torch.nn.Module):
        raise ValueError(f"module '{name}': expected a torch.nn.Module, but got {type(nn_module).__name__}.")
    changed: dict[Tensor, Tensor] = {}
    for local, parameter in nn_module.named_parameters():
        if not parameter.requires_grad:
            continue
        value = perform(Site(f"{name}.{local}", "param", leaf=parameter, event_dim=parameter.dim())).tensor
        if value is not parameter:
            changed[parameter] = value
    if not changed:
        return nn_module
    if update_module_params:
        with torch.no_grad():
            for own, value in changed.items():
                own.copy_(value)
        return nn_module
    return _substituted(nn_module, changed)


def set_rng_seed(rng_seed: int) -> None:
    """Seed torch, numpy and Python's random, which makes every algorithm here repeat itself bit for bit.

    One operation of torch itself does not: with several threads it adds the slopes of `table[z]`, where `z` takes 32,768 numbers
    or more, in any order. Compiled programs add them in one order, and so does torch after
    `torch.use_deterministic_algorithms(True)`. And a compiled program rounds in other places than eager steps: a long
    `svi.run` goes over to it when the compiler is done, sooner or later, which moves last digits; `compile="always"` and
    `"never"` repeat themselves.
    """
    torch.manual_seed(rng_seed)
    random.seed(rng_seed)
    numpy.random.seed(rng_seed % 2**32)
