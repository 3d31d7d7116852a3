"""A torch optimiser as an update that a compiled graph can hold, and back.

A `Plan` takes an optimiser that is in use apart into *carries* (parameters and buffers, small ones packed into vectors),
constants, and rows of numbers that differ from step to step; `update` in `rules.py` is the step itself. Afterwards the
plan puts carries, step counts and schedule back, so that the optimiser goes on as if it had taken the steps itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ppl.engine.packing import Spread, contiguous_join, lay_out, layout_of
from ppl.engine.rules import RULES, Static, unpack, update
from ppl.engine.schedules import Outlook, Unsupported
from ppl.optim import _ClippedAdam, _count_change, _Lean, _update_adam

__all__ = ["Outdated", "Plan", "Unsupported", "plan_of", "unpack", "update"]

_Kind = type[torch.optim.Optimizer]
_KINDS: list[tuple[_Kind, str]] = [
    (torch.optim.Adam, "adam"),
    (torch.optim.AdamW, "adam"),
    (_ClippedAdam, "adam"),
    (torch.optim.SGD, "sgd"),
    (torch.optim.RMSprop, "rmsprop"),
]


class Outdated(Exception):
    """The optimiser is no longer what a plan was made for: make another one."""


class Plan:
    """What `plan_of` returns: the division of an optimiser's work between a graph and Python.

    Attributes:
        packs: one description for each tensor of parameters in the carries, which JSON can hold: leaves (their numbers),
            shapes, sizes, flat, rule, constants of the rule, states (names of the buffers), columns (where in a row the
            rule finds its numbers), clip (bound of each gradient's entries, or None).
        clip: the bounds on all gradients that `update` takes.
        width: R, the length of a row.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, leaves: Sequence[Tensor], clip: Mapping[str, float], outlook: Outlook
    ) -> None:
        self.optimizer, self.leaves, self.clip = optimizer, list(leaves), dict(clip)
        self._outlook = outlook
        self._spreads: list[Spread] | None = None
        self._name = _rule_of(optimizer)
        self._rule = RULES[self._name]
        self._groups = _groups_of(optimizer, self.leaves)
        self._order = sorted(range(len(self.leaves)), key=self._groups.__getitem__)  # in which torch makes states
        self.packs, self.width = self._describe()
        self._parameters: list[tuple[int, dict[str, Any], list[Tensor]]] = []  # places in carries, packs, leaves
        place = 0
        for pack in self.packs:
            self._parameters.append((place, pack, [self.leaves[i] for i in pack["leaves"]]))
            place += 1 + len(pack["states"])
        self._constants = [self._static(group) for group in optimizer.param_groups]
        first = next(iter(self.leaves), None)
        self._device = torch.device("cpu") if first is None else first.device
        dtypes = {leaf.dtype for leaf in self.leaves}
        self._dtype = dtypes.pop() if len(dtypes) == 1 else torch.float64

    # -- what stands in the graph

    def _static(self, group: Mapping[str, Any]) -> Static:
        """What a group's update has in common for all its leaves."""
        static = {"rule": self._name, **self._rule.constants(group)}
        static["states"] = self._rule.states(static)
        static["clip"] = self.optimizer.clip_norm if isinstance(self.optimizer, _ClippedAdam) else None
        if self._outlook.cycles:
            static["momentum"] = None
        return static

    def _describe(self) -> tuple[list[Static], int]:
        statics = [self._static(group) for group in self.optimizer.param_groups]
        clocks = [self._clock(statics[group], leaf) for group, leaf in zip(self._groups, self.leaves, strict=True)]
        keys = [
            (group, leaf.dtype, clock) for group, leaf, clock in zip(self._groups, self.leaves, clocks, strict=True)
        ]
        packs: list[Static] = []
        columns: dict[tuple[str, int, int], int] = {}
        for members in lay_out(self.leaves, keys):
            group, clock = self._groups[members[0]], clocks[members[0]]
            names = self._rule.columns(statics[group], 0.0, 0.5, 1.0)
            own = {name: columns.setdefault((name, group, clock), len(columns)) for name in names}
            packs.append({**layout_of(self.leaves, members), **statics[group], "columns": own})
        return packs, len(columns)

    def _clock(self, static: Static, leaf: Tensor) -> int:
        """How many steps of a leaf the rule needs to know of: leaves that differ in this cannot share numbers."""
        state = self.optimizer.state.get(leaf, {})
        if static["rule"] == "adam":
            return int(state["step"]) if "step" in state else 0
        if static["rule"] == "sgd" and static["states"] and static["dampening"]:
            return int(state.get("momentum_buffer") is not None)
        return 0

    def current(self) -> bool:
        """Whether the plan still fits: the optimiser's options, its groups and which leaves are in step."""
        try:
            return _groups_of(self.optimizer, self.leaves) == self._groups and self._describe()[0] == self.packs
        except Unsupported:
            return False

    def _matches(self, groups: Sequence[Mapping[str, Any]]) -> bool:
        return [self._static(group) for group in groups] == self._constants

    # -- what goes in and comes out

    def gather(self, own: bool = True) -> list[Tensor]:
        """The carries: for each pack the parameters and each of the rule's buffers.

        Args:
            own: whether all have memory of their own. Without, a pack of a single leaf may be the leaf's memory itself,
                which saves most of the time where leaves are large: then the graph must not write into its inputs.
        """
        carries: list[Tensor] = []
        with torch.no_grad():
            for pack in self.packs:
                leaves = [self.leaves[i] for i in pack["leaves"]]
                carries.append(contiguous_join(pack, leaves, own))
                if pack["states"]:
                    states = [self.optimizer.state.get(leaf, {}) for leaf in leaves]
                    carries += [contiguous_join(pack, _buffers(leaves, states, name), own) for name in pack["states"]]
        return carries

    def refresh(self, carries: list[Tensor]) -> None:
        """Put the parameters as they are now into carries, as `gather` does without `own`; with gradients switched off."""
        for place, pack, leaves in self._parameters:
            carries[place] = contiguous_join(pack, leaves, own=False)

    def put(self, carries: Sequence[Tensor]) -> None:
        """Copy parameters back into the leaves, and nothing else; with gradients switched off."""
        spreads = self._spreads_of(carries)
        for place, _, leaves in self._parameters:
            torch._foreach_copy_(leaves, spreads[place](carries[place]))

    def _spreads_of(self, carries: Sequence[Tensor]) -> list[Spread]:
        if self._spreads is None:
            packs = [pack for pack in self.packs for _ in range(1 + len(pack["states"]))]
            self._spreads = [Spread(pack, carry) for pack, carry in zip(packs, carries, strict=True)]
        return self._spreads

    def scatter(self, carries: Sequence[Tensor], steps_done: int, parameters: bool = True) -> None:
        """Copy carries back into the leaves and the optimiser's own state, as after so many more steps.

        Args: parameters, whether to copy these; the state alone otherwise.
        """
        sources: list[Tensor] = []
        targets: list[Tensor] = []
        counts: list[Tensor] = []
        with torch.no_grad():
            known = self._states() if steps_done else [self.optimizer.state.get(leaf, {}) for leaf in self.leaves]
            packed = zip(self._spreads_of(carries), carries, strict=True)
            for pack in self.packs:
                own = [known[i] for i in pack["leaves"]]
                # while no step was done, buffers that are not there yet are zero, and stay so
                there = steps_done or all(s.get(name) is not None for s in own for name in pack["states"])
                for name, (spread, carry) in zip((None, *pack["states"]), packed, strict=False):
                    if name is None and parameters:
                        targets += [self.leaves[i] for i in pack["leaves"]]
                        sources += spread(carry)
                    elif name is not None and there:
                        targets += [state[name] for state in own]
                        sources += spread(carry)
                if steps_done and self._rule.counts:
                    counts += [state["step"] for state in own]
            if targets:
                torch._foreach_copy_(targets, sources)
            if counts:
                _add(counts, steps_done)

    def _states(self) -> list[dict[str, Any]]:
        """The optimiser's state of each leaf, made as torch makes it where there is none."""
        found: list[dict[str, Any]] = [{}] * len(self.leaves)
        for index in self._order:
            names = self._constants[self._groups[index]]["states"]
            if not names:
                continue
            leaf = self.leaves[index]
            found[index] = state = cast(dict[str, Any], self.optimizer.state[leaf])
            if self._rule.counts and "step" not in state:
                fused = self.optimizer.param_groups[self._groups[index]].get("fused")
                double = not fused and torch.get_default_dtype() == torch.float64
                dtype, device = torch.float64 if double else torch.float32, leaf.device if fused else "cpu"
                state["step"] = torch.zeros((), dtype=dtype, device=device)
            for name in names:
                if state.get(name) is None:
                    state[name] = torch.zeros_like(leaf, memory_format=torch.preserve_format)
        return found

    # -- what differs from step to step

    @property
    def moves(self) -> bool:
        """Whether options change from step to step by themselves."""
        return self._outlook.moves or self._outlook.decay != 1

    def rows(self, num: int, num_steps: int = 0) -> Tensor:
        """The numbers that the next steps need, one row a step; the schedule is looked ahead, not moved.

        Shapes: (num, R).
        Args:
            num_steps: how many steps were taken before; some schedules move in every so many.
        Raises: Outdated if an option of the optimiser is no longer what the graph has as a constant;
            Unsupported if the schedule changes one in these steps, or asks for the loss.
        """
        if not self._matches(self.optimizer.param_groups):
            raise Outdated("an option of the optimiser has been changed")
        rates, momenta, after = self._outlook.look(num, num_steps)
        if self._outlook.moves and not self._matches(after):
            raise Unsupported("the schedule changes other options than the learning rate and the momentum")
        if self._outlook.cycles and any(
            "momentum_buffer" in static["states"] and 0 in momentum
            for static, momentum in zip(self._constants, momenta, strict=True)
        ):
            raise Unsupported("the schedule takes the momentum through 0, where torch leaves its buffer as it is")
        if num == 1:
            return torch.tensor([self._row(rates, momenta)], dtype=self._dtype, device=self._device)
        rows = torch.empty(num, self.width, dtype=torch.float64, device="cpu")
        for column, entry in enumerate(self._row(rates, momenta, num)):
            rows[:, column] = entry
        return rows.to(self._device, self._dtype)

    def _row(self, rates: list[list[float]], momenta: list[list[float]], num: int | None = None) -> list[Any]:
        """The entries of a row: numbers for a single step, else numbers or tensors for so many."""
        known: dict[tuple[int, int], dict[str, Any]] = {}
        entries: list[Any] = []
        for pack in self.packs:
            group = self._groups[pack["leaves"][0]]
            clock = self._clock(pack, self.leaves[pack["leaves"][0]])
            if (group, clock) not in known:
                lr, momentum = _entry(rates[group]), _entry(momenta[group])
                number: float | Tensor = clock + 1.0
                if num is not None:
                    number = torch.arange(clock + 1, clock + num + 1, dtype=torch.float64, device="cpu")
                known[group, clock] = self._rule.columns(pack, lr, momentum, number)
            for name, column in pack["columns"].items():
                if column == len(entries):
                    entries.append(known[group, clock][name])
        return entries

    def commit(self, num: int) -> None:
        """Leave schedule and learning rates as after `num` steps of those that `rows` was last called for."""
        self._outlook.commit(num)


def plan_of(
    optimizer: torch.optim.Optimizer,
    leaves: Sequence[Tensor],
    clip: Mapping[str, float] | None = None,
    scheduler: Any = None,
    advance: Callable[[Any, int, Any], None] | None = None,
) -> Plan:
    """The plan for an optimiser, as it is now.

    Args:
        leaves: the parameters that get a gradient in every step. All others are left alone.
        clip: the `clip_args` of the optimiser.
        scheduler: its schedule, or None.
        advance: what moves the schedule after a step: `advance(scheduler, steps taken, loss)`, as in `ppl.optim`.
    Raises: Unsupported with the reason, if the optimiser is none of Adam, AdamW, SGD, RMSprop and ClippedAdam or has
        options whose values a graph cannot know.
    """
    _rule_of(optimizer)
    _check_hooks(optimizer)
    for group in optimizer.param_groups:
        for name, option in group.items():
            many = option if isinstance(option, tuple | list) and name != "params" else [option]
            if any(isinstance(one, Tensor) for one in many):
                raise Unsupported(f"the option {name} is a tensor")
        for name in ("capturable", "differentiable"):
            if group.get(name):
                raise Unsupported(f"the option {name} is set")
    for leaf in leaves:
        if leaf.dtype not in (torch.float32, torch.float64) or leaf.layout != torch.strided:
            raise Unsupported(f"a parameter is of dtype {leaf.dtype} and layout {leaf.layout}")
    if len({leaf.device for leaf in leaves}) > 1:
        raise Unsupported("parameters are on several devices")
    decay = optimizer.lrd if isinstance(optimizer, _ClippedAdam) else 1.0
    return Plan(optimizer, leaves, clip or {}, Outlook(optimizer, scheduler, advance, decay))


def _rule_of(optimizer: torch.optim.Optimizer) -> str:
    """The name of the rule by which the optimiser updates, whatever it is called."""
    kind = type(optimizer)
    step = own = inspect.unwrap(kind.step)
    if issubclass(kind, _Lean) and kind.step is _Lean.step:
        step, own = kind.update, _Lean.step
        if step is _update_adam:  # a shorter way to the same kernel
            step = inspect.unwrap(torch.optim.Adam.step)
    wrapped = vars(optimizer).get("step", own)  # schedules and hooks put a wrapper there
    for known, rule in _KINDS:
        if step is inspect.unwrap(known.step) and inspect.unwrap(wrapped) is own:
            inits = [getattr(one, "_init_group", None) for one in (kind, known)]
            if inits[0] is inits[1]:
                return rule
    raise Unsupported(f"{kind.__name__} has an update rule that the compiler does not know")


def _check_hooks(optimizer: torch.optim.Optimizer) -> None:
    before = list(optimizer._optimizer_step_pre_hooks.values())
    after = [hook for hook in optimizer._optimizer_step_post_hooks.values() if hook is not _count_change]
    if before or after:
        raise Unsupported("the optimiser has hooks, which run at every step")


def _groups_of(optimizer: torch.optim.Optimizer, leaves: Sequence[Tensor]) -> list[int]:
    """Each leaf's group, by number."""
    numbers = {id(leaf): i for i, group in enumerate(optimizer.param_groups) for leaf in group["params"]}
    try:
        return [numbers[id(leaf)] for leaf in leaves]
    except KeyError:
        raise Unsupported("a parameter with a gradient is in no group of the optimiser") from None


def _buffers(leaves: Sequence[Tensor], states: Sequence[Mapping[str, Any]], name: str) -> list[Tensor]:
    """A buffer of each leaf, zero where torch has none yet."""
    found = [state.get(name) for state in states]
    return [torch.zeros_like(leaf) if one is None else one for leaf, one in zip(leaves, found, strict=True)]


def _add(counts: list[Tensor], steps: int) -> None:
    if counts[0].is_cpu:  # a number would be made a tensor for each of the counts
        torch._foreach_add_(counts, torch.ones((), dtype=torch.float32, device="cpu"), alpha=steps)
    else:
        torch._foreach_add_(counts, steps)


def _entry(values: Sequence[float]) -> Any:
    return values[0] if len(values) == 1 else torch.tensor(values, dtype=torch.float64, device="cpu")
