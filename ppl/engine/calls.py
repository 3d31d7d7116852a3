"""A program that runs once a call: what it needs besides itself, and where its results are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppl.engine import cache
from ppl.engine.background import Compilation
from ppl.engine.draw import Draw
from ppl.engine.job import Call
from ppl.engine.loading import loaded
from ppl.engine.noise import Noise, fast_draws
from ppl.engine.program import Program, Spec
from ppl.engine.recorder import CannotCapture, Recording
from ppl.engine.replay import ReplayCall


class Calls:
    """Runs a program again and again, compiled or operation by operation.

    Args:
        recording: what the program is part of.
        program: with its draws as inputs.
        draws: these, by their numbers.
        outputs: the values wanted.
        watched: a value that must not be NaN, and others that must be finite.
    Raises: CannotCapture where two inputs share memory that is written into.
    """

    def __init__(
        self,
        recording: Recording,
        program: Program,
        draws: Sequence[tuple[int, Draw]],
        outputs: Sequence[int],
        watched: Sequence[int] = (),
    ) -> None:
        self.program = program
        self.noise = Noise([draw for _, draw in draws], 1)
        drawn = [i for i, _ in draws]
        self.inputs = [i for i in program.inputs if i not in set(drawn)]
        self.written = sorted(i for i in recording.written if i in program.inputs)
        places = [recording.memory[i] for i in self.inputs if i in recording.tensors]
        if any(places.count(recording.memory[i]) > 1 for i in self.written):
            raise CannotCapture("The program writes into memory that two tensors from outside share.")
        self.outputs = list(dict.fromkeys(i for i in outputs if i not in program.inputs or i in drawn))
        taken = {recording.memory[i] for i in (*program.inputs, *program.constants) if i in recording.memory}
        self._copies: list[int] = []
        for i in self.outputs:
            place = recording.memory.get(i)
            if place is None or place in taken:
                self._copies.append(i)
            else:
                taken.add(place)
        self._draws = drawn
        self._watched = list(watched) and [*watched, *self.written]
        self.is_compiled = False
        self._loader: Any = None

    def job(self) -> Call:
        """What is to be compiled."""
        return Call(
            self.program,
            self.inputs,
            self.outputs,
            self._copies,
            self.written,
            self._watched,
            [(i, *place) for i, place in zip(self._draws, self.noise.places, strict=True)],
            [Spec.of(buffer) for buffer in self.noise.buffers],
            torch.get_num_threads(),
            torch.get_default_dtype(),
        )

    def load(self, package: Path | None) -> None:
        """Load the compiled program; or, without one, get ready to do its operations one by one."""
        if package is None:
            self._loader = ReplayCall(self.job())
        else:
            self._loader = loaded(package)
        self.is_compiled = package is not None
        self.noise.library = fast_draws()

    def compile(self) -> None:
        """Wait for the compiled program and load it. Raises: CompileError."""
        code = self.job().encode()
        self.load(Compilation(code, cache.key_of(code)).wait())

    def run(self, values: Mapping[int, Tensor]) -> tuple[dict[int, Tensor], dict[int, Tensor]] | None:
        """Draw and compute. Nothing that was given is written into.

        Returns: the outputs by number, and by number what the written inputs have become; or None, with the random state
            as before, where NaN came up in what is watched.
        """
        start = torch.get_rng_state()
        try:
            self.noise.fill(1)
            results = self._loader.boxed_run([*(values[i] for i in self.inputs), *self.noise.buffers])
            fine = not self._watched or bool(results.pop())
        except BaseException:
            torch.set_rng_state(start)
            raise
        if not fine:
            torch.set_rng_state(start)
            return None
        count = len(self.outputs)
        outputs = dict(zip(self.outputs, results[:count], strict=True))
        return outputs, dict(zip(self.written, results[count:], strict=True))
