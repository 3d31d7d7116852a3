"""Training epoch by epoch from batches, with the densities of a batch scaled to all data."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from ppl.handlers.enlarge import enlarge
from ppl.infer.autoguide.guide import AutoGuide
from ppl.infer.batches import EMPTY, Batch, Device, check_loader, find_size, length_of, moved
from ppl.infer.compiled import Compile, Stepper
from ppl.infer.interrupts import Interrupts
from ppl.site import Site
from ppl.stack import Handler, perform

if TYPE_CHECKING:
    from ppl.infer.svi import SVI


@dataclass(frozen=True)
class FitResult:
    """What `SVI.fit` returns."""

    params: dict[str, Tensor]  # constrained values by name, detached
    losses: Tensor  # one a step, shape (steps,)
    epoch_losses: Tensor  # one a whole epoch, the mean weighted by the sizes of its batches, shape (epochs,)
    interrupted: bool = False  # whether Ctrl-C ended the training early


def fit(
    svi: SVI,
    dataloader: Iterable[Any],
    epochs: int,
    *,
    plate: str | Sequence[str] | None,
    size: int | None,
    device: Device,
    progress_bar: bool,
    callback: Callable[[int, float], None] | None,
    compile: Compile,
    constants: dict[str, Any],
) -> FitResult:
    """What `SVI.fit` does; see there. Args: constants, keyword arguments of model and guide in every step."""
    check_loader(dataloader, epochs)
    whole = _Whole(dataloader, plate, size)
    losses: list[float] = []
    epoch_losses: list[float] = []
    first, interrupted = svi.num_steps, False
    constants = moved(constants, device)
    expected = epochs * (length_of(dataloader) or 1000)
    interrupts = Interrupts()
    stepper = Stepper(svi, compile, interrupts, callback)
    with interrupts, tqdm(total=epochs, disable=not progress_bar, desc="SVI", unit="epoch") as bar:
        try:
            for epoch in range(epochs):
                total, weight, number = 0.0, 0, 0
                for number, given in enumerate(interrupts.each(dataloader), 1):
                    try:
                        batch = Batch.of(given, device, constants)
                        if not losses:
                            whole.survey(svi, batch)
                        with whole.scaling:
                            losses += stepper.advance(batch.args, batch.kwargs, max(1, expected - len(losses)), 1)
                    except ValueError as error:
                        raise ValueError(f"SVI.fit, epoch {epoch}, batch {number - 1}: {error}") from error
                    total += losses[-1] * (batch.size or 1)
                    weight += batch.size or 1
                    if progress_bar:
                        _show(bar, f"loss {total / weight:.4g}, batch {number}")
                if not number:
                    raise ValueError(_RAN_DRY.format(epoch) if epoch else EMPTY)
                epoch_losses.append(total / weight)
                bar.set_postfix_str(f"loss {epoch_losses[-1]:.4g}", refresh=False)
                bar.update()
                if callback is not None:
                    with interrupts.opened():
                        callback(epoch, epoch_losses[-1])
            interrupts.check()
        except KeyboardInterrupt:
            interrupted = True
            if svi.num_steps - first > len(losses):  # it came between a step and its entry in the list
                losses.append(svi._last)
        finally:
            stepper.close()
        params = {name: value.detach().clone() for name, value in svi.params.items()}
    per_step, per_epoch = (torch.tensor(values, dtype=svi._dtype) for values in (losses, epoch_losses))
    return FitResult(params, per_step, per_epoch, interrupted)


def _show(bar: Any, text: str) -> None:
    """Show the bar with a text five times a second at most."""
    if time.time() - bar.last_print_t > 0.2:
        bar.set_postfix_str(text)
        bar.last_print_t = time.time()


_RAN_DRY = (
    "SVI.fit: the loader gave no batch in epoch {}, although it did before. Give a list of batches or a DataLoader, which "
    "can be gone through again. What is fitted so far is kept."
)


class _Whole:
    """All data that the batches are taken from, and which plates stand for them."""

    def __init__(self, loader: Any, plate: str | Sequence[str] | None, size: int | None) -> None:
        names = () if plate is None else (plate,) if isinstance(plate, str) else tuple(plate)
        self.is_told = plate is not None
        if size is not None and not names:
            raise ValueError(
                f"SVI.fit: size={size!r} says how many elements a plate stands for; name it, as in plate='data'."
            )
        found = find_size(loader) if size is None else size
        if names and isinstance(found, str):
            raise ValueError(
                f"SVI.fit: how many elements plate '{names[0]}' stands for cannot be told: {found}. Give size=…, the "
                "number of elements of all data."
            )
        self.size = None if isinstance(found, str) else found
        self.sizes = {name: self.size for name in names if self.size is not None}
        self.scaling: contextlib.AbstractContextManager[Any] = enlarge(sizes=self.sizes) if names else _AS_IT_IS

    def survey(self, svi: SVI, batch: Batch) -> None:
        """Make the parameters with a first batch and look at the plates; the random state stays as it is.

        Raises: ValueError for a plate that is not there; for an automatic guide with latent sites for each element.
        """
        with _Notes() as notes:
            svi.setup(*batch.args, **batch.kwargs)
        plates = {frame.name: None for site in notes.sites for frame in site.plates}
        plates.update({site.name: None for site in notes.sites if site.kind == "plate"})
        for name in self.sizes:
            if name not in plates:
                raise ValueError(
                    f"the program has no plate '{name}'; it has {', '.join(map(repr, plates)) or 'none'}. Inside "
                    "handlers.scope, names begin with the prefix."
                )
        if isinstance(svi.guide, AutoGuide):
            self._check_local(svi.guide, batch)
        if not self.is_told and self.size is not None and batch.size is not None and batch.size < self.size:
            _warn_if_unscaled(notes.sites, batch.size, self.size)

    def _check_local(self, guide: AutoGuide, batch: Batch) -> None:
        """Refuse parameters that belong to elements of a batch, since the next batch has other ones."""
        assert guide.prototype is not None
        for name, latent in guide.latents.items():
            for frame in latent.site.plates:
                drawn = frame.name in guide.prototype and guide.prototype[frame.name].drawn
                partial = frame.size != frame.subsample_size and drawn and frame.subsample_size == batch.size
                if partial or self.sizes.get(frame.name, frame.size) != frame.size:
                    raise ValueError(
                        f"site '{name}' is local to plate '{frame.name}', of which each batch shows other elements, but "
                        f"{type(guide).__name__} would take them all for the same. Let the batches bring the indices of "
                        f"their elements, write plate('{frame.name}', {self.size or 'size'}, subsample=indices) in the "
                        "model, and give the guide create_plates, a function of the batch that returns that plate; or "
                        f"write a guide that computes '{name}' from the data."
                    )


_AS_IT_IS = contextlib.nullcontext()


class _Notes(Handler):
    """Notes the sites of a run as they come back."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[Site] = []

    def handle(self, site: Site) -> Site:
        site = perform(site)
        self.sites.append(site)
        return site


def _warn_if_unscaled(sites: list[Site], seen: int, size: int) -> None:
    """Warn where data of a batch are weighed as if they were all, against latent sites that all data share."""
    for data in sites:
        if data.kind != "sample" or not data.observed or isinstance(data.scale, Tensor) or data.scale != 1:
            continue
        for frame in data.plates:
            shared = [
                s.name
                for s in sites
                if s.kind == "sample" and not s.observed and all(f.name != frame.name for f in s.plates)
            ]
            if frame.size == seen and shared:
                warnings.warn(
                    f"SVI.fit: plate '{frame.name}' has the {seen} elements of a batch, of {size} in all, so that the "
                    f"data count too little beside site '{shared[0]}', which all data share. Write "
                    f"fit(…, plate='{frame.name}') to let it stand for all of them, plate=() if that is meant.",
                    stacklevel=5,
                )
                return
