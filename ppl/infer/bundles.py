"""One step of SVI in a file, and back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ppl.engine.bundle import Bundle

if TYPE_CHECKING:
    from ppl.infer.svi import SVI


def write_bundle(svi: SVI, path: str | os.PathLike[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """What `SVI.write_bundle` does; see there."""
    state = svi.state_dict()
    if svi.failed is not None and not args and not kwargs:
        state["rng"], args, kwargs = svi.failed
    Bundle(state, args, kwargs, _buffers(svi), _classes(svi)).write(path)


def load_bundle(svi: SVI, path: str | os.PathLike[str], map_location: Any = None) -> Bundle:
    """What `SVI.load_bundle` does; see there."""
    bundle = Bundle.read(path, map_location)
    for what, mine in _classes(svi).items():
        theirs = bundle.about.get(what)
        if theirs != mine:
            raise ValueError(
                f"SVI.load_bundle: the file's {what} is {theirs}, but this SVI's is {mine}; make one like it."
            )
    svi.load_state_dict(dict(bundle.state))
    with torch.no_grad():
        for role, buffers in _buffers(svi).items():
            for name, value in bundle.buffers.get(role, {}).items():
                if name in buffers and buffers[name].shape == value.shape:
                    buffers[name].copy_(value)
    return bundle


def _classes(svi: SVI) -> dict[str, str]:
    made: Any = svi.optim.torch_class
    return {"optimiser": getattr(made, "__name__", type(made).__name__), "loss": type(svi.loss).__name__}


def _buffers(svi: SVI) -> dict[str, dict[str, Tensor]]:
    programs = {"model": svi.model, "guide": svi.guide}
    return {role: dict(p.named_buffers()) for role, p in programs.items() if isinstance(p, torch.nn.Module)}
