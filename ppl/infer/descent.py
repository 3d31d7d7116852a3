"""Compiled steps whose optimiser is no part of the program: one call for the gradients, then torch's own step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ppl.engine.gradients import Gradients
from ppl.engine.job import Call
from ppl.engine.training import Step

if TYPE_CHECKING:
    from ppl.infer.svi import SVI


class Descent:
    """Takes one step a call, as `Blocks` takes many."""

    capacity = 1

    def __init__(self, svi: SVI, step: Step) -> None:
        self.svi = svi
        self.gradients = Gradients(step, svi.loss.baselines.means)

    @property
    def is_compiled(self) -> bool:
        """Whether a compiled program computes the gradients."""
        return self.gradients.is_compiled

    def job(self) -> Call:
        """What is to be compiled."""
        return self.gradients.job()

    def load(self, package: Path | None) -> None:
        """Load the compiled program; or, without one, get ready to do its operations one by one."""
        self.gradients.load(package)

    def run(self, n: int, arguments: Sequence[Tensor], num_steps: int, done: Callable[[Tensor], None]) -> Tensor | None:
        """Take one step. Returns: its loss, (1,), which `done` was called with; None where no step was taken, as by NaN."""
        found = self.gradients.run(arguments)
        if found is None:
            return None
        loss, grads = found
        for _, leaf in self.svi.trained:
            leaf.grad = None
        for leaf, grad in zip(self.gradients.leaves, grads, strict=True):
            leaf.grad = grad
        self.svi.descend(loss)
        losses = loss.detach().reshape(1)
        done(losses)
        return losses

    def step(self, arguments: Sequence[Tensor], num_steps: int, done: Callable[[Tensor], None]) -> Tensor | None:
        """The same, for loops that are written by hand."""
        return self.run(1, arguments, num_steps, done)

    def flush(self) -> None:
        """Nothing is left to be done after a step."""
