"""One step with all that it starts from, in a file, to be taken again elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ppl.params import save_atomically

_FORMAT = 1
_PLAIN = (bool, int, float, complex, str, torch.dtype, torch.device, torch.Size, type(None))


@dataclass(frozen=True, slots=True)
class Bundle:
    """A step that is to be taken: parameters, optimiser and random state before it, and its arguments.

    Attributes:
        state: a `state_dict`, random state included.
        args, kwargs: of the step; tensors and plain values, in tuples, lists and dicts.
        buffers: of modules that are model or guide, by role and name.
        about: which versions and classes wrote it.
    """

    state: Mapping[str, Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    buffers: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file, all or nothing. Raises: ValueError naming an argument that is not data."""
        for name, value in (*((str(i), value) for i, value in enumerate(self.args)), *self.kwargs.items()):
            _check(name, value)
        about = {"torch": str(torch.__version__), "default_dtype": torch.get_default_dtype(), **self.about}
        content = {
            "ppl bundle": _FORMAT,
            "state": dict(self.state),
            "args": _detached(self.args),
            "kwargs": _detached(dict(self.kwargs)),
            "buffers": {role: _detached(dict(buffers)) for role, buffers in self.buffers.items()},
            "about": about,
        }
        save_atomically(content, path)

    @classmethod
    def read(cls, path: str | os.PathLike[str], map_location: Any = None) -> Bundle:
        """The bundle in a file, which is data and cannot run code. Raises: ValueError for a file of another kind."""
        content = torch.load(path, map_location=map_location, weights_only=True)
        if not isinstance(content, dict) or content.get("ppl bundle") != _FORMAT:
            raise ValueError(
                f"{os.fspath(path)!r} is not a bundle of this version; write one by svi.write_bundle(path)."
            )
        names = ("state", "args", "kwargs", "buffers", "about")
        return cls(**{name: content[name] for name in names})


def _check(name: str, value: Any) -> None:
    if isinstance(value, (Tensor, *_PLAIN)):
        return
    if type(value) in (tuple, list):
        for i, part in enumerate(value):
            _check(f"{name}[{i}]", part)
    elif type(value) is dict:
        for key, part in value.items():
            _check(f"{name}[{key!r}]", part)
    else:
        raise ValueError(
            f"a bundle holds data, but argument {name} is of type {type(value).__name__}: give tensors and plain values, "
            "in tuples, lists and dicts (torch.as_tensor for arrays)."
        )


def _detached(nest: Any) -> Any:
    """The same without gradients, and with views in memory of their own: a file would hold what they are views of."""
    if isinstance(nest, Tensor):
        return nest.detach().clone()
    if isinstance(nest, (tuple, list)) and type(nest) in (tuple, list):
        return type(nest)(_detached(part) for part in nest)
    return {key: _detached(part) for key, part in nest.items()} if isinstance(nest, dict) else nest
