"""Compiled steps one a call, for loops over `svi.step`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ppl.engine import operators
from ppl.engine.background import CompileError
from ppl.engine.optimizers import Outdated, Unsupported
from ppl.engine.single import Single
from ppl.engine.training import tensors_in
from ppl.infer.compiled import compile_blocks, recorded_step
from ppl.infer.descent import Descent
from ppl.infer.kinds import kind_of
from ppl.infer.situation import is_same, situation_of

if TYPE_CHECKING:
    from ppl.infer.svi import SVI


class Programs:
    """The programs that `SVI.compile` and `SVI.record` have made, one for each kind of arguments.

    They serve as long as their situation is the same.
    """

    def __init__(self) -> None:
        self._by_kind: dict[Any, Single | Descent] = {}
        self._situation: tuple[Any, ...] = ()
        self._latest: Single | Descent | None = None  # took the last step, and may hold the optimiser's state

    def __bool__(self) -> bool:
        return bool(self._by_kind)

    def add(self, svi: SVI, args: tuple[Any, ...], kwargs: Mapping[str, Any], caller: str, compile: bool) -> None:
        """Add the program for some arguments, compiled or not. Raises: ValueError as `SVI.compile` and `SVI.record` do."""
        self._look_around(svi)
        if compile:
            with contextlib.suppress(CompileError):  # which the program's own compilation meets, too, and tells
                operators.are_ready(start=True, wait=True)
        program = recorded_step(svi, args, kwargs, caller)
        if compile:
            compile_blocks(program)
        self._situation = situation_of(svi)
        self._by_kind[kind_of(args, kwargs)] = program if isinstance(program, Descent) else Single(program)

    def step(self, svi: SVI, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Take a step; whether there is a program for it, and no NaN came up."""
        self._look_around(svi)
        program = self._by_kind.get(kind_of(args, kwargs))
        if program is not self._latest:
            self.flush()
            self._latest = program
        if program is None:
            return False
        try:
            found = program.step(tensors_in(args, kwargs), svi.num_steps, svi.count)
        except (Outdated, Unsupported):  # the optimiser's options are no longer those that were compiled
            self.forget()
            return False
        if found is None:
            self.flush()
        return found is not None

    def flush(self) -> None:
        """Bring the optimiser's state up to date."""
        if self._latest is not None:
            self._latest.flush()
            self._latest = None

    def forget(self) -> None:
        """Go back to eager steps."""
        self.flush()
        self._by_kind.clear()

    def _look_around(self, svi: SVI) -> None:
        if not is_same(situation_of(svi), self._situation):
            self.forget()
