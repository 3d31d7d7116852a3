"""Many steps of SVI with the same arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from ppl.infer.compiled import Compile, Stepper
from ppl.infer.interrupts import Interrupts

if TYPE_CHECKING:
    from ppl.infer.svi import SVI


@dataclass(frozen=True)
class SVIResult:
    """What `SVI.run` returns."""

    params: dict[str, Tensor]  # constrained values by name, detached
    losses: Tensor  # one a step, shape (steps,)
    interrupted: bool = False  # whether Ctrl-C ended the run early


def run(
    svi: SVI,
    num_steps: int,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    progress_bar: bool,
    callback: Callable[[int, float], None] | None,
    compile: Compile,
) -> SVIResult:
    """What `SVI.run` does; see there."""
    if num_steps < 1:
        raise ValueError(f"SVI.run: num_steps must be at least 1, got {num_steps}.")
    losses: list[float] = []
    first = svi.num_steps
    interrupted = False
    interrupts = Interrupts()
    stepper = Stepper(svi, compile, interrupts, callback)
    with (
        interrupts,
        tqdm(total=num_steps, disable=not progress_bar, desc="SVI", unit="step", mininterval=0.2) as bar,
    ):
        try:
            while len(losses) < num_steps:
                interrupts.check()
                step = len(losses)
                left = num_steps - step
                losses += stepper.advance(args, kwargs, left, left if callback is None else 1)
                bar.update(len(losses) - step)
                if progress_bar and (step % 25 == 0 or len(losses) > step + 1 or len(losses) == num_steps):
                    bar.set_postfix_str(f"loss {_mean(losses[-25:]):.4g}", refresh=False)
                if callback is not None:
                    with interrupts.opened():
                        callback(step, losses[-1])
            interrupts.check()
        except KeyboardInterrupt:
            interrupted = True
            missing = svi.num_steps - first - len(losses)  # it came between steps and their entries in the list
            if missing:
                losses += [svi._last] if missing == 1 else stepper.unreported
        finally:
            stepper.close()
        params = {name: value.detach().clone() for name, value in svi.params.items()}
    return SVIResult(params, torch.tensor(losses, dtype=svi._dtype), interrupted)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
