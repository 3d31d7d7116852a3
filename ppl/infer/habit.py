"""Steps in loops that are written by hand: after some, their recorded operations, with the same bits in less time."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ppl.engine.gradients import Found
from ppl.engine.optimizers import Unsupported
from ppl.engine.training import tensors_in
from ppl.infer.descent import Descent
from ppl.infer.kinds import kind_of
from ppl.infer.rehearsal import Rehearsal, rehearse
from ppl.infer.situation import is_same, situation_of
from ppl.stack import active, is_running
from ppl.tensors import native

if TYPE_CHECKING:
    from ppl.infer.svi import SVI

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]
#: Eager steps before one is recorded, which takes as long as some twenty.
WAIT = 64
#: Of so many recorded steps one is also taken eagerly, and those of these numbers: their bits must be the same.
CHECK, EARLY = 64, frozenset((0, 1, 3, 7, 15, 31))
#: Recorded steps by which they must have been quicker than eager ones, and by how much.
PATIENCE, QUICKER = 6, 0.9
#: Kinds of arguments that are looked after at a time, and how often each is recorded anew.
KINDS, RESTARTS = 4, 3


@dataclass(slots=True)
class _Way:
    """How steps with one kind of arguments are taken, and what is known of them."""

    eager_steps: int = 0
    eager_time: float = float("inf")  # the least, in seconds
    rehearsal: Rehearsal | None = None
    program: Descent | None = None
    steps: int = 0  # by the program
    time: float = float("inf")  # the least
    checked: int | None = None  # the number, among all of the SVI's, of the step that was compared last
    restarts: int = 0
    given_up: bool = False

    def restart(self) -> None:
        """Forget the program."""
        self.program = self.rehearsal = None
        self.eager_steps = self.steps = 0
        self.eager_time = self.time = float("inf")
        self.checked = None
        self.restarts += 1
        self.given_up = self.restarts > RESTARTS

    def give_up(self) -> None:
        """Stay with eager steps."""
        self.program = self.rehearsal = None
        self.given_up = True


class Habit:
    """Notices that steps repeat themselves, and takes them by their recorded operations from then on.

    That is left alone, without a word, where it could be noticed in anything but time: see docs/engine.md, "Loops that are
    written by hand".
    """

    def __init__(self) -> None:
        self._ways: dict[Any, _Way] = {}
        self._situation: tuple[Any, ...] = ()
        self._is_asleep = False

    def __reduce__(self) -> Any:
        return Habit, ()  # a copy has habits of its own

    def step(self, svi: SVI, args: Args, kwargs: Kwargs) -> float:
        """Take a step, eager or not. Returns and raises what `SVI.step` does."""
        if self._is_asleep or not _is_unseen():
            return svi.take(args, kwargs)
        way = self._way(svi, args, kwargs)
        if way.rehearsal is not None and way.rehearsal.changed():
            way.restart()
        if way.eager_steps == WAIT and way.program is None and not way.given_up:
            self._record(way, svi, args, kwargs)
        if way.program is None:
            return svi.take(args, kwargs) if way.given_up else self._eager(way, svi, args, kwargs)
        if way.steps in EARLY or not way.steps % CHECK:
            return self._both(way, way.program, svi, args, kwargs)
        return self._recorded(way, way.program, svi, args, kwargs)

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Steps are eager, for whoever has programs of his own."""
        before, self._is_asleep = self._is_asleep, True
        try:
            yield
        finally:
            self._is_asleep = before

    def forget(self) -> None:
        """Begin anew."""
        self._ways.clear()

    def _way(self, svi: SVI, args: Args, kwargs: Kwargs) -> _Way:
        found = (*situation_of(svi), native.is_in_use())
        if not is_same(found, self._situation):
            self.forget()
        self._situation = found
        kind = kind_of(args, kwargs)
        way = self._ways.get(kind)
        if way is None:
            if len(self._ways) >= KINDS:
                idle = [key for key, known in self._ways.items() if known.program is None]
                if not idle:
                    return _Way(given_up=True)
                del self._ways[idle[0]]  # the one that was seen first
            way = self._ways[kind] = _Way()
        return way

    def _eager(self, way: _Way, svi: SVI, args: Args, kwargs: Kwargs) -> float:
        start = time.perf_counter()
        loss = svi.take(args, kwargs)
        way.eager_time = min(way.eager_time, time.perf_counter() - start)
        way.eager_steps += 1
        return loss

    def _record(self, way: _Way, svi: SVI, args: Args, kwargs: Kwargs) -> None:
        searches = isinstance(svi.optimizer, torch.optim.LBFGS)  # its step computes losses
        try:
            rehearsal = None if searches or svi.optimizer is None else rehearse(svi, args, kwargs)
            if rehearsal is not None and not rehearsal.effects and not rehearsal.unseen:
                program = Descent(svi, rehearsal.step)
                program.load(None)
                way.rehearsal, way.program = rehearsal, program
        except (ValueError, Unsupported):  # the eager steps go on as they did
            pass
        if way.program is None:
            way.give_up()

    def _recorded(self, way: _Way, program: Descent, svi: SVI, args: Args, kwargs: Kwargs) -> float:
        start = time.perf_counter()
        if (
            program.step(tensors_in(args, kwargs), svi.num_steps, svi.count) is None
        ):  # NaN, or arguments that do not fit
            loss = svi.take(args, kwargs)  # which says where
            way.restart()
            return loss
        way.time = min(way.time, time.perf_counter() - start)
        way.steps += 1
        if way.steps == PATIENCE and way.time > QUICKER * way.eager_time:
            way.give_up()
        return svi.last_loss

    def _both(self, way: _Way, program: Descent, svi: SVI, args: Args, kwargs: Kwargs) -> float:
        """Take an eager step, and see whether the recorded one is the same."""
        start = torch.get_rng_state()
        found = program.gradients.compute(tensors_in(args, kwargs))
        end = torch.get_rng_state()
        torch.set_rng_state(start)
        same: list[bool] = []

        def compare(loss: Tensor) -> None:
            same.append(found is not None and is_found(loss, found, program.gradients.leaves, end))

        number = svi.num_steps
        loss = svi.take(args, kwargs, compare)
        if all(same):
            way.checked = number
            way.steps += 1
            return loss
        way.give_up()
        if found is not None and way.checked is not None and number > way.checked + 1:
            warnings.warn(
                f"SVI.step: model, guide or loss have changed, unnoticed, since step {way.checked}: the loss of step {number} "
                f"is {loss}, and {found.loss.item()} by the operations that were recorded when steps had been the same {WAIT} "
                f"times. Steps {way.checked + 1} to {number - 1} may have been taken by these. From here on they are eager; "
                "where something changes that Python does not show, set the environment variable PPL_COMPILE=never.",
                stacklevel=4,
            )
        return loss


def is_found(loss: Tensor, found: Found, leaves: Sequence[Tensor], end: Tensor) -> bool:
    """Whether an eager step has found, drawn and written the same bits.

    Args: loss, its loss, at a time when the leaves have its gradients; end, the random state that the other one came to.
    """
    pairs = [(loss.detach(), found.loss), (end, torch.get_rng_state())]
    pairs += [(leaf.grad, grad) for leaf, grad in zip(leaves, found.grads, strict=True) if leaf.grad is not None]
    pairs += [(found.into[i], value) for i, value in found.written.items()]
    return all(torch.equal(a, b) for a, b in pairs)


def _is_unseen() -> bool:
    """Whether nobody looks on while steps are taken: no handler, debugger, mode of torch, or wish of the user's."""
    if os.environ.get("PPL_COMPILE") == "never" or (is_running() and active()) or not torch.is_grad_enabled():
        return False
    modes: Any = torch._C
    if modes._len_torch_dispatch_stack() or modes._len_torch_function_stack() or modes._is_any_autocast_enabled():
        return False
    return sys.gettrace() is None and not torch.is_anomaly_enabled() and not _is_monitored()


def _is_monitored() -> bool:
    """Whether a debugger or a coverage tool watches lines the newer way."""
    tools: Any = getattr(sys, "monitoring", None)
    return tools is not None and any(tools.get_tool(i) for i in (tools.DEBUGGER_ID, tools.COVERAGE_ID))
