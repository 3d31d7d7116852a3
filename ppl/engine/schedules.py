"""What a learning-rate schedule will do in the next steps, found out before they are taken."""

from __future__ import annotations

import contextlib
import copy
import itertools
import operator
import types
from collections.abc import Callable
from typing import Any

import torch

from ppl.engine.watch import watch

Groups = list[dict[str, Any]]
Memory = list[tuple[dict[str, Any], dict[str, Any]]]  # a dict that is in use and a copy of it


class Unsupported(Exception):
    """Why an optimiser or its schedule has to be stepped eagerly."""


class Outlook:
    """The learning rates and momenta of an optimiser's groups in steps to come.

    Args:
        scheduler: a schedule of torch, or None.
        advance: called with the schedule, the number of steps taken and a loss that must not be looked at.
        decay: what every learning rate is multiplied by before each step.
    Raises: Unsupported for schedules that follow the loss.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        scheduler: Any = None,
        advance: Callable[[Any, int, Any], None] | None = None,
        decay: float = 1.0,
    ) -> None:
        if scheduler is not None and not isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler):
            raise Unsupported(f"{type(scheduler).__name__} is not one of torch's schedules")
        self.optimizer, self.scheduler, self.advance, self.decay = optimizer, scheduler, advance, decay
        self._holders = [] if scheduler is None else _holders(scheduler)
        if any(isinstance(holder, torch.optim.lr_scheduler.ReduceLROnPlateau) for holder in self._holders):
            raise Unsupported("ReduceLROnPlateau follows the losses")
        self.moves = scheduler is not None and advance is not None
        if self.moves:
            _check_functions(self._holders)
        self.cycles = any(getattr(holder, "cycle_momentum", False) for holder in self._holders)
        self._seen: tuple[int, int, list[list[float]], Memory] | None = None

    def look(self, num: int, num_steps: int) -> tuple[list[list[float]], list[list[float]], Groups]:
        """For each group the learning rates and the momenta of the next `num` steps, and its options after these.

        Nothing has changed afterwards. Lists have one entry if all steps have the same.
        """
        groups = self.optimizer.param_groups
        if not self.moves:
            rates = [self._decayed(group["lr"], num) for group in groups]
            self._seen = num, num_steps, rates, []
            return rates, [[momentum_of(group)] for group in groups], groups
        before = self._remember()
        try:
            try:
                rates, momenta = self._run(num, num_steps)
            except ValueError as error:  # a schedule that ends: the step that is one too many says so itself
                raise Unsupported(str(error)) from error
            self._seen = num, num_steps, rates, self._remember()
            return rates, momenta, [dict(group) for group in groups]
        finally:
            _restore(before)

    def commit(self, num: int) -> None:
        """Have taken so many of the steps that were looked at last.

        Raises: ValueError if they were fewer.
        """
        if not num:
            return
        if self._seen is None or num > self._seen[0]:
            raise ValueError(f"commit({num}): rows were made for {self._seen[0] if self._seen else 0} steps.")
        seen, num_steps, rates, after = self._seen
        self._seen = None
        if not self.moves:
            if self.decay != 1:
                for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate[num - 1]
        elif num == seen:
            _restore(after)
        else:
            self._run(num, num_steps)

    def _decayed(self, rate: float, num: int) -> list[float]:
        if self.decay == 1:
            return [rate]
        return list(itertools.accumulate(itertools.repeat(self.decay, num), operator.mul, initial=rate))[1:]

    def _run(self, num: int, num_steps: int) -> tuple[list[list[float]], list[list[float]]]:
        advance, scheduler = self.advance, self.scheduler
        assert advance is not None
        groups = self.optimizer.param_groups
        rates: list[list[float]] = [[] for _ in groups]
        momenta = [[momentum_of(group)] if not self.cycles else [] for group in groups]
        pairs = list(zip(groups, rates, strict=True))
        vars(self.optimizer)["_opt_called"] = True  # or torch warns that the schedule is stepped before the optimiser
        for number in range(num_steps + 1, num_steps + num + 1):  # in microseconds: this comes with every step
            if self.decay != 1:
                for group in groups:
                    group["lr"] = group["lr"] * self.decay
            for group, rate in pairs:
                rate.append(group["lr"])
            if self.cycles:
                for group, momentum in zip(groups, momenta, strict=True):
                    momentum.append(momentum_of(group))
            advance(scheduler, number, _UNSEEN)
        return rates, momenta

    def _remember(self) -> Memory:
        called = {"_opt_called": getattr(self.optimizer, "_opt_called", False)}
        groups = [(group, _copied(group)) for group in self.optimizer.param_groups]
        return [(vars(self.optimizer), called), *groups, *((vars(h), _copied(vars(h))) for h in self._holders)]


def momentum_of(group: dict[str, Any]) -> float:
    """What schedules that cycle the momentum change in a group."""
    momentum: float = group["betas"][0] if "betas" in group else group.get("momentum", 0.0)
    return momentum


class _Unseen:
    """In the place of a loss that is not known yet."""

    def __getattr__(self, name: str) -> Any:
        raise Unsupported(f"the schedule looks at the loss (.{name})")


_UNSEEN = _Unseen()


def _check_functions(holders: list[Any]) -> None:
    """Raise Unsupported for functions of a step's number that do more than give a rate: they are called ahead."""
    items = (item for holder in holders for value in vars(holder).values() if isinstance(value, list) for item in value)
    functions = [item for item in items if isinstance(item, types.FunctionType)]
    if not functions:
        return
    with watch(*functions) as seen:
        for function in functions:
            with contextlib.suppress(Exception):  # comes up again in its step
                function(1)
    if seen.effects:
        raise Unsupported(f"calling {functions[0].__name__} of the schedule has an effect: {seen.effects[0]}")


def _holders(scheduler: Any) -> list[Any]:
    """The objects that hold a schedule's state: itself, schedules inside, and callables that are objects."""
    found = [scheduler]
    for holder in found:
        for value in list(vars(holder).values()):
            for item in value if isinstance(value, list | tuple) else [value]:
                item = item.__self__ if isinstance(item, types.MethodType) else item
                inner = isinstance(item, torch.optim.lr_scheduler.LRScheduler)
                known = isinstance(item, type | types.FunctionType | types.ModuleType | torch.optim.Optimizer)
                if (inner or (callable(item) and not known and hasattr(item, "__dict__"))) and not any(
                    item is other for other in found
                ):
                    found.append(item)
    return found


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {
        key: copy.copy(value) if isinstance(value, list | dict | set) and key != "params" else value
        for key, value in state.items()
    }


def _restore(memory: Memory) -> None:
    for state, kept in memory:
        state.update(kept)
