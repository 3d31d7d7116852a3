"""Who takes SVI's steps: Python, one by one, or a compiled program, many a call."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from ppl.engine import cache
from ppl.engine.background import Compilation, CompileError
from ppl.engine.optimizers import Outdated, Unsupported, plan_of
from ppl.engine.recorder import CannotCapture
from ppl.engine.surroundings import Plain
from ppl.engine.training import Blocks, Step, record_step, tensors_in
from ppl.engine.watch import Effect, watch

if TYPE_CHECKING:
    from ppl.infer.svi import SVI

Compile = Literal["auto", "always", "never"]
#: Runs that would take less time than this, in seconds, are not recorded; nor compiled, if nothing is in the cache.
LONG, VERY_LONG = 0.5, 8.0
#: How long a block of steps may take, in seconds: so often the progress bar moves, and Ctrl-C is heard.
BLOCK = 0.1
#: How often a run records its program anew because a callback changed numbers that it refers to.
RESTARTS = 3

_loaded: dict[str, Path] = {}
_warned: set[str] = set()


class Stepper:
    """Takes the steps of one run.

    Args: compile, when to compile: "auto", once the rest of the run is long enough; "always", before the third step;
        "never".
    Raises: ValueError for another word.
    """

    def __init__(self, svi: SVI, compile: Compile, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if compile not in ("auto", "always", "never"):
            raise ValueError(f"SVI: compile must be 'auto', 'always' or 'never', got {compile!r}.")
        if compile == "auto":
            asked: Any = os.environ.get("PPL_COMPILE", "auto")
            compile = asked if asked in ("always", "never") else "auto"
        self.svi, self.compile, self.args, self.kwargs = svi, compile, args, kwargs
        self.blocks: Blocks | None = None  # ready to be used
        self.unreported: list[float] = []  # the losses of the latest block
        self._pending: Compilation | None = None
        self._given_up = compile == "never"
        self._eager_steps = 0
        self._eager_left = 0  # steps to be taken eagerly, whatever is ready
        self._eager_time = 0.0
        self._step_time = 0.0
        self._first: Step | None = None
        self._plain: list[Plain] = []  # numbers and the like that model and guide refer to
        self._restarts = 0

    def advance(self, left: int, single: bool = False) -> list[float]:
        """Take some steps, at most `left`, or one if `single`; returns their losses."""
        if not self._eager_left:
            self._prepare(left)
            if self.blocks is not None and (not single or self._is_as_recorded()):
                losses = self._block(self.blocks, 1 if single else left)
                if losses is not None:
                    return losses
        start = time.perf_counter()
        loss = self.svi.step(*self.args, **self.kwargs)
        if self._eager_steps:  # the first one is not like the others
            self._eager_time += time.perf_counter() - start
        self._eager_steps += 1
        self._eager_left = max(0, self._eager_left - 1)
        return [loss]

    # -- compiled steps

    def _block(self, blocks: Blocks, left: int) -> list[float] | None:
        n = min(left, blocks.capacity)
        n = max(1, min(n, int(BLOCK / self._step_time))) if self._step_time else min(n, 16)
        start = time.perf_counter()
        try:
            losses = blocks.run(n, tensors_in((self.args, self.kwargs)), self.svi.num_steps, self._done)
        except (Outdated, Unsupported):
            losses = None
            self.close()
            self.blocks = self._first = None
        if losses is None:
            self._eager_left = n  # eager steps find out which one it is, and say where
            return None
        self._step_time = (time.perf_counter() - start) / n
        return self.unreported

    def _done(self, losses: Tensor) -> None:
        self.svi.num_steps += len(losses)
        self.unreported = losses.tolist()

    # -- getting there

    def _prepare(self, left: int) -> None:
        """Bring the compiled program a little nearer."""
        if self._pending is not None:
            self._look()
        if self._given_up or self.blocks is not None or not self._eager_steps:
            return
        if self.compile == "auto" and (self._eager_steps % 4 or self._expected(left) < LONG):
            return
        try:
            step = self._rehearse()
            if self._first is None:
                self._first = step
                if self.compile == "auto":
                    return
                step = self._rehearse()
            why = step.same_as(self._first)
            if why:
                raise CannotCapture(f"The program changes from step to step: {why}.")
            self._begin(step, left)
        except (CannotCapture, Unsupported) as error:
            self._give_up(error)

    def _expected(self, left: int) -> float:
        return left * self._eager_time / max(1, self._eager_steps - 1)

    def _rehearse(self) -> Step:
        svi = self.svi

        def loss() -> Tensor:
            with svi.params:
                return svi.loss(svi.model, svi.guide, *self.args, **self.kwargs)

        arguments = self.args, self.kwargs
        seen = watch(svi.model, svi.guide, arguments)
        used_up = seen.look()
        if used_up:
            raise CannotCapture(_in_words(used_up))
        with seen:
            step = record_step(loss, [leaf for _, leaf in svi.trained], svi.loss.baselines.means, arguments)
        if seen.effects and self.compile == "auto":
            raise CannotCapture(_in_words(seen.effects))
        if seen.effects:
            _warn(f"SVI compiles the program nevertheless: {_in_words(seen.effects)}")
        self._plain = seen.plain
        return step

    def _is_as_recorded(self) -> bool:
        """Whether a callback has left alone the numbers that the recorded program was made with."""
        changed = [plain for plain in self._plain if plain.has_changed()]
        if not changed:
            return True
        self.close()
        self.blocks = self._first = None
        self._restarts += 1
        if self._restarts > RESTARTS:
            words, line = changed[0].words, changed[0].line()
            self._give_up(
                CannotCapture(
                    f"The program refers to {words}, which changes again and again{' at ' * bool(line)}{line}. Make it a tensor "
                    "that is written into, as in x.fill_(value)."
                )
            )
        return False

    def _begin(self, step: Step, left: int) -> None:
        svi = self.svi
        assert svi.optimizer is not None
        leaves = [svi.trained[i][1] for i in step.leaves]
        plan = plan_of(svi.optimizer, leaves, svi.optim.clip_args, svi.scheduler, svi.optim.advance)
        blocks = Blocks(step, plan, svi.loss.baselines.means)
        job = blocks.job().encode()
        key = cache.key_of(job)
        if key in _loaded:
            self._use(blocks, _loaded[key])
            return
        self._use(blocks, None)
        if self.compile == "auto" and self._expected(left) < VERY_LONG and cache.find(key) is None:
            return
        self._pending = Compilation(job, key)
        if self.compile == "always":
            with contextlib.suppress(CompileError):  # which comes up again at once
                self._pending.wait()
        self._look()

    def _look(self) -> None:
        assert self._pending is not None and self.blocks is not None
        try:
            package = self._pending.poll()
        except CompileError as error:
            self._pending = None
            self._give_up(error)
            return
        if package is not None:
            _loaded[self._pending.key] = package
            self._pending = None
            self._use(self.blocks, package)

    def _use(self, blocks: Blocks, package: Path | None) -> None:
        blocks.load(package)
        self.blocks, self._step_time = blocks, 0.0

    def _give_up(self, error: Exception) -> None:
        self._given_up = True
        _warn(f"SVI goes on without compiling. {error}")

    def close(self) -> None:
        """End what is still being compiled for this run."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None


def _in_words(effects: list[Effect]) -> str:
    first = str(effects[0])
    more = f" There are {len(effects) - 1} more such things; ppl.engine.explain names them." if len(effects) > 1 else ""
    return f"{_capital(first)}{more}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _warn(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        warnings.warn(text, stacklevel=6)
