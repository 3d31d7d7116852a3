"""Declare independent repetitions."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ppl.distributions.subsample import Subsample
from ppl.distributions.validation import is_validation_enabled
from ppl.site import Frame, Site
from ppl.stack import Handler, active, inherit, perform


class plate(Handler):
    """Repeat the statements inside, independently of each other, along one batch dim or in a loop.

        with plate("data", 1000, subsample_size=50) as indices: ...
        for i in plate("groups", 3): ...

    Vectorised, it owns a negative batch dim: the first one from the right that is free, or `dim`. Distributions inside
    are expanded to its size. With subsampling, densities inside are scaled by size / subsample_size.

    Args:
        name: of the plate's own site, whose value is the indices.
        size: the number of repetitions.
        subsample_size: how many of them, drawn when the plate is first entered: make plates inside the program.
        subsample: or which ones, a tensor of indices.
        dim: a negative int.
        device: of the indices; torch's default device without it.
    Raises: ValueError for impossible sizes, indices out of range, or a dim that another plate around it owns.
    """

    def __init__(
        self,
        name: str,
        size: int,
        subsample_size: int | None = None,
        subsample: Tensor | None = None,
        dim: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ValueError(f"plate '{name}': size must be a non-negative int, got {size!r}; write len(data).")
        if dim is not None and (not isinstance(dim, int) or dim >= 0):
            raise ValueError(f"plate '{name}': dim must be a negative int, counted from the right, got {dim!r}.")
        if subsample is not None:
            _check_indices(name, size, subsample, subsample_size)
            subsample_size = subsample.numel()
        count = size if subsample_size is None else subsample_size
        if not isinstance(count, int) or not 0 <= count <= size or (size and not count):
            raise ValueError(
                f"plate '{name}': subsample_size must be an int from 1 to size {size}, got {subsample_size!r}."
            )
        self.name, self.size, self.subsample_size, self.dim = name, size, count, dim
        self._given = subsample
        self._indices = subsample
        self._distribution = Subsample(size, count, device)
        self.frame: Frame | None = None

    def fresh(self) -> Self:
        new = copy.copy(self)
        new._indices, new.frame = self._given, None
        return new

    @property
    def indices(self) -> Tensor:
        """The indices of the repetitions seen in this run."""
        if self._indices is None:
            self._draw()
        assert self._indices is not None
        return self._indices

    @property
    def is_subsampled(self) -> bool:
        """Whether only a part of the repetitions is seen."""
        return self._given is not None or self.subsample_size != self.size

    def _draw(self) -> None:
        self._indices = perform(Site(self.name, "plate", self._distribution, self._indices)).tensor

    def __enter__(self) -> Tensor:
        self._draw()
        taken = {frame.dim: frame.name for frame in _frames_around()}
        dim = self.dim
        if dim is None and self.frame is not None:
            dim = self.frame.dim  # entered again: what was made inside it lies on this dim
        if dim is None:
            dim = -1
            while dim in taken:
                dim -= 1
        elif dim in taken:
            raise ValueError(
                f"plates '{self.name}' and '{taken[dim]}' both use dim {dim}. Give each its own, as in "
                f"plate('{self.name}', {self.size}, dim={min(d for d in taken if d is not None) - 1})."
            )
        indices = self._indices if self.is_subsampled else None
        self.frame = Frame(self.name, self.size, self.subsample_size, dim, indices=indices)
        super().__enter__()
        return self.indices

    def __iter__(self) -> Iterator[int]:
        self._draw()
        for index in self.indices.tolist():
            self.frame = Frame(self.name, self.size, self.subsample_size, None, index)
            super().__enter__()
            try:
                yield index
            finally:
                super().__exit__(None, None, None)

    def handle(self, site: Site) -> Site:
        frame = self.frame
        assert frame is not None
        if site.plates and any(inner.name == frame.name for inner in site.plates):
            raise ValueError(
                f"{site}: two plates named '{frame.name}' stand inside each other. Give each its own name, or wrap one in "
                "handlers.scope(prefix=…)."
            )
        if site.kind == "sample":
            site = site.replace(
                plates=(frame, *site.plates), scale=site.scale * frame.scale if self.is_subsampled else site.scale
            )
            return perform(site)
        if site.kind == "deterministic":
            return perform(site.replace(plates=(frame, *site.plates)))
        is_global = site.kind in ("param", "subsample")  # asked before, because `lift` makes a param a sample site
        site = perform(site)
        if is_global and site.event_dim is not None and frame.indices is not None:
            return self._select(site, frame)
        return site

    def _select(self, site: Site, frame: Frame) -> Site:
        """The plate's part of a tensor that has the whole plate's size at its dim."""
        value, dim = site.tensor, (frame.dim or 0) - (site.event_dim or 0)
        if -dim > value.dim() or value.size(dim) in (1, frame.subsample_size):
            return site
        if value.size(dim) != frame.size:
            raise ValueError(
                f"{site.kind} '{site.name}' in plate '{self.name}': its size at dim {dim} must be the plate's size "
                f"{frame.size} or subsample size {frame.subsample_size}, but its shape is {tuple(value.shape)}."
            )
        return site.replace(value=value.index_select(dim, self.indices.to(value.device)))


def _frames_around() -> Iterator[Frame]:
    """The frames of the active plates, and of those around a site that a handler is replacing."""
    for handler in active():
        if isinstance(handler, plate) and handler.frame is not None:
            yield handler.frame
        elif isinstance(handler, inherit):
            yield from handler.site.plates


def _check_indices(name: str, size: int, subsample: Any, subsample_size: int | None) -> None:
    if not isinstance(subsample, Tensor) or subsample.is_floating_point() or subsample.dim() != 1:
        came = (
            f"{tuple(subsample.shape)} of {subsample.dtype}"
            if isinstance(subsample, Tensor)
            else type(subsample).__name__
        )
        raise ValueError(f"plate '{name}': subsample must be a one-dimensional tensor of ints, got {came}.")
    if subsample_size is not None and subsample_size != subsample.numel():
        raise ValueError(
            f"plate '{name}': subsample_size is {subsample_size}, but subsample has {subsample.numel()} indices; give one."
        )
    if not is_validation_enabled():
        return
    bad = subsample[(subsample < 0) | (subsample >= size)]
    if bad.numel():
        raise ValueError(
            f"plate '{name}': subsample indices must lie in 0 to {size - 1}, but got {bad[:5].tolist()} "
            f"({bad.numel()} of {subsample.numel()})."
        )


@contextlib.contextmanager
def plate_stack(prefix: str, sizes: Sequence[int], rightmost_dim: int = -1) -> Iterator[list[Tensor]]:
    """Nested plates `prefix_0`, `prefix_1`, …, of the given sizes, the last size at `rightmost_dim`."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(plate(f"{prefix}_{i}", size, dim=rightmost_dim - i))
            for i, size in enumerate(reversed(sizes))
        ]
