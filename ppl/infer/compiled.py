"""Who takes SVI's steps: Python, one by one, or a recorded program, many a call."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ppl.engine import cache, operators
from ppl.engine.background import Compilation, CompileError
from ppl.engine.optimizers import Outdated, Unsupported, plan_of
from ppl.engine.recorder import CannotCapture
from ppl.engine.training import Blocks, Step, tensors_in
from ppl.infer.descent import Descent
from ppl.infer.interrupts import Interrupts
from ppl.infer.kinds import describe_change, kind_of
from ppl.infer.rehearsal import changing, describe, rehearse
from ppl.infer.situation import is_same, looks_at_gradients, situation_of
from ppl.infer.way import Way
from ppl.tensors import native

if TYPE_CHECKING:
    from ppl.infer.svi import SVI

Compile = Literal["auto", "always", "never"]
Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]
#: Seconds of eager steps still to come: fewer are not worth recording, or, with nothing in the cache, compiling.
LONG, VERY_LONG = 0.5, 8.0
#: How long a block of steps may take, in seconds: so often the progress bar moves, and Ctrl-C is heard.
BLOCK = 0.1
#: Eager steps between two recordings that must be alike.
APART = 4
#: Blocks of recorded operations after which these must be quicker than eager steps.
PATIENCE = 3
#: How often a program is recorded anew because somebody changed, between steps, numbers that it refers to.
RESTARTS = 3
#: After so many times the time that a recording takes, another one is made to see whether the program is still the same.
TRUST = 50
#: Kinds of arguments that get a program each.
SHAPES = 4

_loaded: dict[str, Path] = {}
_warned: set[str] = set()


class Stepper:
    """Takes steps, eagerly or compiled.

    Args: compile, when to compile: "auto", once the rest of the run is long enough; "always", before the third step;
        "never"; interrupts, which let Ctrl-C through while the compiler is waited for; callback, what is called between
        steps: if it mentions gradients, parameters have them.
    Raises: ValueError for another word.
    """

    def __init__(
        self,
        svi: SVI,
        compile: Compile,
        interrupts: Interrupts | None = None,
        callback: Callable[[int, float], None] | None = None,
    ) -> None:
        if compile not in ("auto", "always", "never"):
            raise ValueError(f"SVI: compile must be 'auto', 'always' or 'never', got {compile!r}.")
        if compile == "auto":
            asked: Any = os.environ.get("PPL_COMPILE", "auto")
            compile = asked if asked in ("always", "never") else "auto"
        self.svi, self.compile = svi, compile
        self.interrupts = interrupts or Interrupts()
        self._with_gradients = compile != "never" and callback is not None and looks_at_gradients(callback)
        native.forget()
        self.ways: dict[Any, Way] = {}
        self.unreported: list[float] = []  # the losses of the latest block
        self._pending: tuple[Way, Compilation] | None = None
        self._others = Way(given_up=True)  # for kinds of arguments beyond SHAPES
        self._situation: tuple[Any, ...] = ()

    def advance(self, args: Args, kwargs: Kwargs, left: int, most: int) -> list[float]:
        """Take some steps with these arguments, at most `most`; returns their losses.

        Args: left, how many steps are still to come in all.
        """
        if self.compile == "never":
            return [self.svi.step(*args, **kwargs)]
        self._look_around()
        way = self._way(args, kwargs)
        if not way.eager_left:
            self._prepare(way, args, kwargs, left)
            is_ready = way.blocks is not None and (most > 1 or self._is_up_to_date(way))
            if is_ready and way.unchecked_time > TRUST * way.recording_time:
                self._check_again(way, args, kwargs)
            if is_ready and way.blocks is not None:
                losses = self._block(way, way.blocks, args, kwargs, min(left, most))
                if losses is not None:
                    return losses
        start = time.perf_counter()
        loss = self.svi.step(*args, **kwargs)
        if way.eager_steps:  # the first one is not like the others
            way.eager_time += time.perf_counter() - start
        way.eager_steps += 1
        way.eager_left = max(0, way.eager_left - 1)
        return [loss]

    def _way(self, args: Args, kwargs: Kwargs) -> Way:
        key = kind_of(args, kwargs)
        way = self.ways.get(key)
        if way is None and len(self.ways) < SHAPES:
            way = self.ways[key] = Way()
            known = self.svi.ways.get(key)
            if known is not None and not self._with_gradients:  # an earlier run has found its way already
                way.before, way.recording_time = known, known.recording_time
                way.eager_steps, way.eager_time = known.eager_steps, known.eager_time
        elif way is None:
            way = self._others
            if not way.eager_steps:
                _warn(
                    f"SVI: {describe_change([*self.ways, key], args, kwargs)} Each kind of arguments takes a program of its "
                    f"own, so that those after the first {SHAPES} are not compiled: pad the batches to few shapes, or give "
                    "numbers that change as tensors."
                )
        return way

    def _look_around(self) -> None:
        """Forget the programs where what they were recorded from has been replaced, as a callback may do."""
        found = situation_of(self.svi)
        if not is_same(found, self._situation):
            self.close()
            for way in self.ways.values():
                way.blocks = way.waiting = way.first = None
        self._situation = found

    # -- compiled steps

    def _block(self, way: Way, blocks: Blocks | Descent, args: Args, kwargs: Kwargs, most: int) -> list[float] | None:
        n = min(most, blocks.capacity)
        if n > 1:
            n = max(1, min(n, int(BLOCK / way.step_time))) if way.step_time else min(n, 16)
        start = time.perf_counter()
        try:
            losses = blocks.run(n, tensors_in(args, kwargs), self.svi.num_steps, self._done)
        except (Outdated, Unsupported):
            way.blocks = way.first = losses = None
        if losses is None:
            way.eager_left = n  # eager steps find out which one it is, and say where
            return None
        elapsed = time.perf_counter() - start
        way.step_time = elapsed / n
        way.unchecked_time += elapsed
        way.num_blocks += 1
        slow = 0 < way.eager_step_time < way.step_time
        if slow and not blocks.is_compiled and self.compile == "auto" and way.num_blocks >= PATIENCE:
            way.blocks, way.waiting = None, blocks
        return self.unreported

    def _done(self, losses: Tensor) -> None:
        self.svi.count(losses)
        self.unreported = losses.tolist()

    # -- getting there

    def _prepare(self, way: Way, args: Args, kwargs: Kwargs, left: int) -> None:
        """Bring the compiled program a little nearer."""
        if self._pending is not None:
            self._look()
        if way.given_up or way.blocks or way.waiting or not self.svi.is_ready:
            return
        if self.compile == "auto" and not self._is_worth_it(way, left):
            return
        if way.before is not None and self._goes_on(way.before, left):
            way.blocks, way.rehearsal, way.recorded = way.before.blocks, way.before.rehearsal, way.before.recorded
            way.unchecked_time, way.step_time = way.before.unchecked_time, way.before.step_time
            return
        try:
            waits = self.compile == "always"
            with self.interrupts.opened() if waits else contextlib.nullcontext():
                if not operators.are_ready(way.expected(left) >= VERY_LONG, waits):
                    return
            before = way.rehearsal
            step = self._rehearse(way, args, kwargs)
            former, way.before = way.before, None
            if former is not None and former.recorded is not None and not step.same_as(former.recorded):
                self._begin(way, step, left)
                return
            if way.first is None:
                way.first = step
                if self.compile == "auto":
                    return
                step = self._rehearse(way, args, kwargs)
            why = step.same_as(way.first)
            if why:
                for plain in before.changed() if before is not None else ():
                    raise changing(plain)
                raise CannotCapture(f"The program changes from step to step: {why}.")
            self._begin(way, step, left)
        except (ValueError, Unsupported, CompileError) as error:  # a ValueError: CannotCapture, or what cannot be text
            if self.svi.is_ready:  # or else it met a new parameter, which the next step takes on
                self._give_up(way, error)

    def _goes_on(self, before: Way, left: int) -> bool:
        """Whether the program of an earlier run is to be used as it is, being compiled, and the run too short for a look.

        What model and guide refer to must be the same; what that does not show, `_check_again` finds later.
        """
        blocks = before.blocks
        if not isinstance(blocks, Blocks) or not blocks.is_compiled or before.rehearsal is None:
            return False
        is_short = left * before.step_time < TRUST * before.recording_time
        same = is_same(self._situation, before.situation) and not before.rehearsal.changed()
        return is_short and same and blocks.plan.current()

    def _is_worth_it(self, way: Way, left: int) -> bool:
        """Whether to record a step now."""
        if self._pending is not None:
            return False
        if way.before is not None:
            return way.expected(left) > min(4 * way.recording_time, LONG)
        return way.eager_steps >= 2 and not way.eager_steps % APART and way.expected(left) >= LONG

    def _rehearse(self, way: Way, args: Args, kwargs: Kwargs) -> Step:
        start = time.perf_counter()
        way.rehearsal = rehearse(self.svi, args, kwargs)
        way.recording_time = time.perf_counter() - start
        if way.rehearsal.effects and self.compile == "auto":
            raise CannotCapture(describe(way.rehearsal.effects))
        if way.rehearsal.effects:
            _warn(f"SVI compiles the step nevertheless. {describe(way.rehearsal.effects)}")
        return way.rehearsal.step

    def _is_up_to_date(self, way: Way) -> bool:
        """Whether nobody has changed, between the steps, the numbers that the program was recorded with."""
        changed = way.rehearsal.changed() if way.rehearsal is not None else []
        if not changed:
            return True
        if self._pending is not None and self._pending[0] is way:
            self.close()
        way.blocks = way.waiting = way.first = None
        way.restarts += 1
        if way.restarts > RESTARTS:
            self._give_up(way, changing(changed[0]))
        return False

    def _check_again(self, way: Way, args: Args, kwargs: Kwargs) -> None:
        """Go back to eager steps if the program has become another one, be it by Python code that counts steps."""
        known = way.recorded
        if way.blocks is None or known is None or not self.svi.is_ready:
            return
        way.unchecked_time = 0.0
        try:
            step = self._rehearse(way, args, kwargs)
            looks, before = ([value for _, value in one.recording.looks] for one in (step, known))
            why = step.same_as(known) if looks == before else ""  # other data are none of the program's
        except CannotCapture as error:
            why = str(error)
        if why:
            way.blocks = None
            self._give_up(
                way,
                CannotCapture(
                    f"The program has changed since it was recorded: {why}. Some of the latest steps, to number "
                    f"{self.svi.num_steps}, were taken with the former one: write compile='never' where model or guide "
                    "change on their way."
                ),
            )

    def _begin(self, way: Way, step: Step, left: int) -> None:
        svi, way.recorded = self.svi, step
        blocks = Descent(svi, step) if self._with_gradients else blocks_of(svi, step)
        job = blocks.job().encode()
        key = cache.key_of(job)
        if key in _loaded and load(blocks, key, _loaded[key]):
            self._use(way, blocks)
            return
        blocks.load(None)
        self._use(way, blocks)
        if self.compile == "auto" and way.expected(left) < VERY_LONG and cache.find(key) is None:
            return
        self._start(way, job, key)

    def _start(self, way: Way, job: bytes, key: str) -> None:
        self._pending = way, Compilation(job, key)
        if self.compile == "always":
            with contextlib.suppress(CompileError), self.interrupts.opened():  # an error comes up again at once
                self._pending[1].wait()
        self._look()

    def _look(self) -> None:
        assert self._pending is not None
        way, compilation = self._pending
        try:
            package = compilation.poll()
        except CompileError as error:
            self._pending = None
            self._give_up(way, error)
            return
        if package is None:
            return
        self._pending = None
        blocks = way.blocks or way.waiting
        if blocks is None:
            _loaded[compilation.key] = package
        elif load(blocks, compilation.key, package):
            self._use(way, blocks)
        elif way.num_loads:
            self._give_up(way, CompileError(f"the compiled program cannot be loaded from {package}."))
        else:
            way.num_loads += 1
            self._start(way, blocks.job().encode(), compilation.key)

    def _use(self, way: Way, blocks: Blocks | Descent) -> None:
        way.blocks, way.waiting, way.step_time = blocks, None, 0.0

    def _give_up(self, way: Way, error: Exception) -> None:
        way.given_up = True
        _warn(f"SVI goes on without compiling. {error}")

    def close(self) -> None:
        """End what is still being compiled, and leave a note of how steps were taken."""
        for key, way in self.ways.items():
            if way.blocks is not None and not self._with_gradients:
                way.before, way.first, way.situation = None, None, self._situation
                self.svi.ways[key] = way
        if self._pending is not None:
            self._pending[1].cancel()
            self._pending = None


def recorded_step(svi: SVI, args: Args, kwargs: Kwargs, caller: str) -> Blocks | Descent:
    """The step for such arguments, its operations done one after another.

    Args: caller, what messages begin with.
    Raises: ValueError saying why it cannot be recorded.
    """
    try:
        rehearsal = rehearse(svi, args, kwargs)
        if rehearsal.effects:
            _warn(f"{caller} goes on nevertheless. {describe(rehearsal.effects)}", stacklevel=4)
        first, step = rehearsal.step, rehearse(svi, args, kwargs).step
        why = step.same_as(first)
        if why:
            raise CannotCapture(f"The program changes from step to step: {why}.")
        blocks = blocks_of(svi, step)
    except Unsupported as error:
        raise ValueError(f"{caller}: {error}") from error
    blocks.load(None)
    return blocks


def compile_blocks(blocks: Blocks | Descent) -> None:
    """Wait until a recorded step is compiled, and use that. Raises: ValueError saying why it cannot be compiled."""
    job = blocks.job().encode()
    key = cache.key_of(job)
    for _ in range(2):  # the second time, after a program that is gone or was none
        try:
            package = _loaded[key] if key in _loaded else Compilation(job, key).wait()
        except CompileError as error:
            raise ValueError(f"SVI.compile: {error}") from error
        if load(blocks, key, package):
            return
    raise ValueError(f"SVI.compile: the compiled program cannot be loaded from {package}.")


def load(blocks: Blocks | Descent, key: str, package: Path) -> bool:
    """Load a compiled program; one that is gone, or cannot be loaded, is forgotten and removed."""
    try:
        blocks.load(package)
    except (RuntimeError, OSError):
        _loaded.pop(key, None)
        with contextlib.suppress(OSError):
            package.unlink()
        blocks.load(None)
        return False
    _loaded[key] = package
    return True


def blocks_of(svi: SVI, step: Step) -> Blocks | Descent:
    """A recorded step, ready to be compiled; the optimiser is part of it if it can be. Raises: Unsupported, for LBFGS."""
    if svi.optimizer is None:
        raise Unsupported("there are no parameters to train")
    leaves = [svi.trained[i][1] for i in step.leaves]
    try:
        plan = plan_of(svi.optimizer, leaves, svi.optim.clip_args, svi.scheduler, svi.optim.advance)
    except Unsupported:
        if isinstance(svi.optimizer, torch.optim.LBFGS):  # computes losses within its step
            raise
        return Descent(svi, step)
    return Blocks(step, plan, svi.loss.baselines.means)


def _warn(text: str, stacklevel: int = 6) -> None:
    if text not in _warned:
        _warned.add(text)
        warnings.warn(text, stacklevel=stacklevel)
