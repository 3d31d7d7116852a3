"""A loss and its gradients by one call, for optimisers that cannot be part of a program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ppl.engine.calls import Calls
from ppl.engine.job import Call
from ppl.engine.training import State, Step, uninterrupted


class Gradients:
    """Computes what a step needs to know, and leaves the step to others.

    Args:
        step: as it was recorded.
        state: the mapping that `record_step` was given.
    Attributes:
        leaves: the parameters that have gradients.
    """

    def __init__(self, step: Step, state: State) -> None:
        self.step, self.state = step, state
        after = [new for _, new in step.state.values()]
        found = [step.loss, *step.grads]
        self._calls = Calls(step.recording, step.parts.step, step.draws, [*found, *after], watched=found)
        self.leaves = [step.recording.tensors[i] for i in step.numbers]

    @property
    def is_compiled(self) -> bool:
        """Whether a compiled program does it."""
        return self._calls.is_compiled

    def job(self) -> Call:
        """What is to be compiled."""
        return self._calls.job()

    def load(self, package: Path | None) -> None:
        """Load the compiled program; or, without one, get ready to do its operations one by one."""
        self._calls.load(package)

    def run(self, arguments: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]] | None:
        """Compute a loss and the gradient by each of the leaves, and bring running means and buffers up to date.

        Returns: None where NaN came up or the arguments do not fit, and nothing has changed.
        """
        step = self.step
        given = step.bind(arguments)
        if given is None:
            return None
        tensors = step.recording.tensors
        values = dict(zip(step.parts.given, given, strict=True))
        others = [i for i in self._calls.inputs if i in tensors and i not in values]
        values |= zip(others, step.current(others, arguments), strict=True)
        values |= {old: self.state[name] for name, (old, _) in step.state.items()}
        results = self._calls.run(values)
        if results is None:
            return None
        found, written = results
        known = {**values, **found, **written}
        loss, grads = known[step.loss], [known[i] for i in step.grads]
        with uninterrupted(), torch.no_grad():
            self.state.update({name: known[new] for name, (_, new) in step.state.items()})
            for i, value in written.items():
                values[i].copy_(value)
        return loss, self._owned(grads)

    def _owned(self, grads: list[Tensor]) -> list[Tensor]:
        """Gradients that may be written into, each laid out as its parameter is."""
        found: list[Tensor] = []
        seen: set[int] = set()
        for leaf, grad, number in zip(self.leaves, grads, self.step.grads, strict=True):
            if number in seen or number not in self._calls.outputs or grad.stride() != leaf.stride():
                grad = torch.empty_like(leaf, requires_grad=False).copy_(grad)
            seen.add(number)
            found.append(grad)
        return found
