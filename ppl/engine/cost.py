"""What a recorded step costs: operations, bytes, floating-point work, and where in the program they arise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ppl.engine.program import Op, Program, Ref, Spec
from ppl.engine.training import Step


@dataclass(frozen=True)
class Part:
    """The operations between one site and the next."""

    name: str  # "guide 'z'": from that site on
    operations: int  # in each step
    once: int  # done before the steps
    num_bytes: int  # that the step's operations make


@dataclass(frozen=True)
class Cost:
    """What one step takes, as it was recorded: a compiler joins operations, so that fewer bytes are written."""

    operations: int  # in each step
    views: int  # those of them that make no new memory
    once: int  # operations that are done once for all steps
    draws: int  # random operations in each step
    random_numbers: int  # that they draw
    input_bytes: int  # of parameters, data and noise that a step reads
    made_bytes: int  # of what its operations make
    peak_bytes: int  # of these at one time, if each is forgotten after its last use
    product_flops: int  # floating-point operations in matrix products and convolutions
    parts: tuple[Part, ...]  # by place, in the order in which they ran

    def __str__(self) -> str:
        drawn = f", and draws {self.random_numbers:,} random numbers in {self.draws}" if self.draws else ""
        lines = [
            f"A step takes {self.operations} operations, {self.views} of them views{drawn}; {self.once} more are done once, before.",
            f"It reads {in_bytes(self.input_bytes)}, makes {in_bytes(self.made_bytes)}, and holds at most "
            f"{in_bytes(self.peak_bytes)} of that at one time.",
        ]
        if self.product_flops:
            lines.append(f"Matrix products take {self.product_flops:,} floating-point operations.")
        width = max(5, *(len(part.name) for part in self.parts)) if self.parts else 5
        lines.append(f"{'from':{width}}  operations    once       makes")
        lines += [
            f"{part.name:{width}}  {part.operations:10}  {part.once:6}  {in_bytes(part.num_bytes):>10}"
            for part in self.parts
        ]
        return "\n".join(lines)


def cost_of(step: Step, marks: Sequence[tuple[int, str]] = ()) -> Cost:
    """What a recorded step costs.

    Args: marks, how many operations had been recorded when a place in the program was reached, with its name.
    """
    recording, program = step.recording, step.parts.step
    specs = {**recording.specs, **program.inputs}
    place_of, places = _places(recording.program.ops, marks)
    operations, once, made = ([0] * len(places) for _ in range(3))
    views, flops, place = 0, 0, 0
    for op in program.ops:
        place = place_of.get(id(op), place)
        fresh = _fresh(op, recording.memory)
        views += bool(op.makes()) and not fresh
        operations[place] += 1
        made[place] += sum(_bytes(specs[i]) for i in fresh if i in specs)
        flops += _product(op, specs)
    for op in step.parts.before.ops:
        once[place_of.get(id(op), 0)] += 1
    parts = [Part(*row) for row in zip(places, operations, once, made, strict=True) if any(row[1:])]
    return Cost(
        len(program.ops),
        views,
        len(step.parts.before.ops),
        len(step.draws),
        sum(draw.size for _, draw in step.draws),
        sum(_bytes(spec) for spec in program.inputs.values()),
        sum(made),
        _peak(program, recording.memory, specs),
        flops,
        tuple(parts),
    )


def _places(ops: Sequence[Op], marks: Sequence[tuple[int, str]]) -> tuple[dict[int, int], list[str]]:
    """Each operation's place, by its id, and the places' names; places of one name are one."""
    names = {"start": 0}
    found: dict[int, int] = {}
    pending = list(marks)[::-1]
    here = 0
    for count, op in enumerate(ops):
        while pending and pending[-1][0] <= count:
            here = names.setdefault(pending.pop()[1], len(names))
        found[id(op)] = here
    return found, list(names)


def _fresh(op: Op, memory: Mapping[int, int]) -> list[int]:
    """The values that an operation makes in memory of their own."""
    old = {memory.get(i, -1 - i) for i in op.reads()}
    return [i for i in op.makes() if memory.get(i, -1 - i) not in old]


def _bytes(spec: Spec) -> int:
    """The bytes that a tensor lies in; repeated entries of an expanded one count once."""
    return math.prod(n for n, stride in zip(spec.shape, spec.strides, strict=True) if stride) * spec.dtype.itemsize


def _peak(program: Program, memory: Mapping[int, int], specs: Mapping[int, Spec]) -> int:
    """The most bytes that a step's own values take at one time."""
    last: dict[int, int] = {}
    for place, op in enumerate(program.ops):
        for i in (*op.reads(), *op.makes()):
            last[memory.get(i, -1 - i)] = place
    kept = {memory.get(i, -1 - i) for i in program.outputs}
    alive: dict[int, int] = {}
    now = most = 0
    for place, op in enumerate(program.ops):
        for i in _fresh(op, memory):
            if i in specs:
                alive[memory.get(i, -1 - i)] = _bytes(specs[i])
                now += _bytes(specs[i])
        most = max(most, now)
        for i in (*op.reads(), *op.makes()):
            where = memory.get(i, -1 - i)
            if last[where] == place and where not in kept:
                now -= alive.pop(where, 0)
    return most


#: Which arguments of an operation are multiplied.
_FACTORS = {"mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "dot": (0, 1)}
_FACTORS |= {"addmm": (1, 2), "baddbmm": (1, 2), "addbmm": (1, 2), "addmv": (1, 2)}


def _product(op: Op, specs: Mapping[int, Spec]) -> int:
    name = op.target.split(".")[1]
    if name == "convolution" and isinstance(op.out, Ref):
        weight = op.args[1]
        return 2 * math.prod(specs[op.out.index].shape) * math.prod(specs[weight.index].shape[1:])
    if name not in _FACTORS:
        return 0
    a, b = (specs[op.args[place].index].shape for place in _FACTORS[name])
    return 2 * math.prod(a) * (b[-1] if len(b) > 1 else 1)


def in_bytes(count: int) -> str:
    """A number of bytes for people to read."""
    for unit, size in (("GB", 2**30), ("MB", 2**20), ("kB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
