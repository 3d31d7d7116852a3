"""Compiled steps one a call, for loops that are written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ppl.engine.training import Blocks, uninterrupted

#: Steps for which the optimiser's numbers are made ahead.
AHEAD = 256


class Single:
    """Takes one step a call with the program of some blocks.

    Parameters and the optimiser's options, which a schedule moves, are always up to date, and what others make of them
    counts. The optimiser's moments are brought up to date by `flush`, which whoever looks at them calls before.
    """

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self._carries: list[Tensor] | None = None
        self._used = self._made = 0  # rows; those used are the steps since the last flush
        self._rows = torch.empty(0)
        self._seen: Any = None  # the optimiser's options

    def step(self, arguments: Sequence[Tensor], num_steps: int, done: Callable[[Tensor], None]) -> Tensor | None:
        """Take a step; `Blocks.run` says what the arguments are, and what is returned."""
        enabled = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)  # in a sixth of the time that torch.no_grad() takes
        try:
            return self._step(arguments, num_steps, done)
        finally:
            torch._C._set_grad_enabled(enabled)

    def _step(self, arguments: Sequence[Tensor], num_steps: int, done: Callable[[Tensor], None]) -> Tensor | None:
        blocks, plan = self.blocks, self.blocks.plan
        given = blocks.bind(arguments)
        if given is None:
            return None
        options = _options(plan.optimizer)
        if self._carries is None or self._used == self._made or self._seen != options:
            self.flush()
            rows = plan.rows(1 if plan.moves else AHEAD, num_steps)
            self._made = len(rows)
            self._rows = torch.cat((rows, rows.new_zeros(blocks.capacity, plan.width)))
            self._carries, self._seen = plan.gather(own=False), options
        else:
            plan.refresh(self._carries)
        written = blocks.step.current(blocks.written, arguments) if blocks.written else []
        start = torch.get_rng_state()
        try:
            found = blocks.call(1, self._carries, self._rows[self._used : self._used + blocks.capacity], given, written)
        except BaseException:
            torch.set_rng_state(start)
            raise
        if found is None:
            torch.set_rng_state(start)
            return None
        with uninterrupted():
            losses, self._carries, others = found
            plan.put(self._carries)
            if plan.moves:
                plan.commit(1)
            blocks.forget_gradients()
            blocks.keep(others, written)
            self._used += 1
            done(losses)
        return losses

    def flush(self) -> None:
        """Bring the optimiser's moments up to date."""
        if self._carries is not None:
            with uninterrupted():
                if self._used:
                    self.blocks.plan.scatter(self._carries, self._used, parameters=False)
                self._carries, self._used = None, 0


def _options(optimizer: torch.optim.Optimizer) -> list[list[Any]]:
    return [[option for name, option in group.items() if name != "params"] for group in optimizer.param_groups]
