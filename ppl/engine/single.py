"""Compiled steps one a call, for loops that are written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ppl.engine.optimizers import Unsupported
from ppl.engine.training import Blocks, uninterrupted

#: Steps for which the optimiser's numbers are made ahead.
AHEAD = 64


class Single:
    """Takes one step a call with the program of some blocks.

    Parameters are always up to date; the optimiser's own state and its schedule are brought up to date by `flush`, which
    whoever looks at them calls before.
    """

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self._carries: list[Tensor] | None = None
        self._used = self._made = 0  # rows; those used are the steps since the last flush
        self._rows = torch.empty(0)
        self._seen: Any = None  # the leaves' versions and the learning rates

    def step(self, arguments: Sequence[Tensor], num_steps: int, done: Callable[[Tensor], None]) -> Tensor | None:
        """Take a step; `Blocks.run` says what the arguments are, and what is returned."""
        blocks, plan = self.blocks, self.blocks.plan
        given = blocks.bind(arguments)
        if given is None:
            return None
        if self._carries is None or self._used == self._made or self._seen != self._look():
            self.flush()
            self._carries, self._rows = plan.gather(own=False), self._make_rows(num_steps)
        start = torch.get_rng_state()
        try:
            found = blocks.call(1, self._carries, self._rows[self._used : self._used + blocks.capacity], given)
        except BaseException:
            torch.set_rng_state(start)
            raise
        if found is None:
            torch.set_rng_state(start)
            return None
        with uninterrupted():
            losses, self._carries, others = found
            plan.scatter(self._carries, 1, states=False)
            blocks.keep(others)
            self._used += 1
            self._seen = self._look()
            done(losses)
        return losses

    def _make_rows(self, num_steps: int) -> Tensor:
        plan = self.blocks.plan
        try:
            rows = plan.rows(AHEAD, num_steps)
        except Unsupported:  # in one of these steps
            rows = plan.rows(1, num_steps)
        self._made = len(rows)
        return torch.cat((rows, rows.new_zeros(self.blocks.capacity, plan.width)))

    def _look(self) -> Any:
        plan = self.blocks.plan
        return [leaf._version for leaf in plan.leaves], [group["lr"] for group in plan.optimizer.param_groups]

    def flush(self) -> None:
        """Bring the optimiser's state and schedule up to date."""
        if self._carries is not None:
            with uninterrupted():
                if self._used:
                    self.blocks.plan.scatter(self._carries, self._used, parameters=False)
                    self.blocks.plan.commit(self._used)
                self._carries, self._used = None, 0
