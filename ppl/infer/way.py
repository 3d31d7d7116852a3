"""How a run takes its steps with one kind of arguments, and what it has seen of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ppl.engine.training import Blocks, Step
from ppl.infer.descent import Descent
from ppl.infer.rehearsal import Rehearsal


@dataclass(slots=True)
class Way:
    """How steps with one kind of arguments are taken."""

    eager_steps: int = 0
    eager_time: float = 0.0  # of these steps without the first
    eager_left: int = 0  # steps to be taken eagerly, whatever is ready
    first: Step | None = None  # the first recording
    blocks: Blocks | Descent | None = None  # ready to be used
    waiting: Blocks | Descent | None = None  # to be used when they are compiled, being slow as long as they are not
    step_time: float = 0.0  # of the latest block
    num_blocks: int = 0  # taken in this way
    recorded: Step | None = None  # what the blocks are made from
    recording_time: float = 0.0
    unchecked_time: float = 0.0  # of blocks since a recording
    num_loads: int = 0  # of programs that could not be loaded
    given_up: bool = False
    before: Way | None = None  # how an earlier run took its steps
    situation: tuple[Any, ...] = ()  # of that run
    rehearsal: Rehearsal | None = None  # of the program in `blocks`
    restarts: int = 0

    @property
    def eager_step_time(self) -> float:
        """How long an eager step takes, in seconds."""
        return self.eager_time / max(1, self.eager_steps - 1)

    def expected(self, left: int) -> float:
        """How long eager steps would take from here on, in seconds."""
        return left * self.eager_step_time
