"""From what was recorded to what is worth compiling: the part of a program that changes from step to step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ppl.engine.draw import Draw
from ppl.engine.hoist import hoist
from ppl.engine.program import Op, Program, Ref, Spec, mapped
from ppl.engine.recorder import Recording


@dataclass(slots=True)
class Parts:
    """A recorded program in two: what needs to be done once for all steps, and what each step does."""

    before: Program  # from the inputs from outside to `given`
    step: Program
    given: list[int] = field(default_factory=list)  # the step's inputs that are alike in all steps


def divide(recording: Recording) -> tuple[Parts, list[tuple[int, Draw]]]:
    """The two parts of a program, with the draws of the second one, where they can be made ahead, as its inputs.

    Constants that are more than a number are inputs too: a compiler knows what to do with numbers, others are data.
    """
    parts = split(recording)
    draws: list[tuple[int, Draw]] = []
    hoisted = hoist(parts.step, recording.specs)
    if hoisted is not None:
        parts.step, draws = hoisted
    for i, constant in list(parts.step.constants.items()):
        if constant.numel() != 1:
            parts.step.inputs[i] = Spec.of(constant)
            parts.before.constants[i] = parts.step.constants.pop(i)
            parts.given.append(i)
            parts.before.outputs.append(i)
    return parts, draws


def split(recording: Recording) -> Parts:
    """Divide a program into what depends on static inputs alone, and the rest.

    The first part holds what could not be compiled: looks at values, and shapes that depend on values. Views stay in the
    second part, where they cost nothing.
    """
    program, memory = recording.program, recording.memory
    derived = _derived(recording)
    makers = {i: op for op in program.ops for i in op.makes()}
    written = {memory[i] for op in program.ops for i in set(op.makes()) & set(op.reads())}
    step = Program(constants=dict(program.constants), outputs=list(program.outputs))
    given: dict[int, None] = {}
    ops: list[Op] = []
    placed: set[int] = set()

    def pull(index: int) -> None:
        """Make a value that is alike in all steps known to the step."""
        if index in placed or index in given or index in program.inputs:
            if index in program.inputs:
                given.setdefault(index)
            return
        op = makers[index]
        if (
            len(op.makes()) == 1
            and memory[index] not in written
            and any(memory[i] == memory[index] for i in op.reads())
        ):
            for i in op.reads():
                if i in derived:
                    pull(i)
            ops.append(op)
            placed.add(index)
        else:
            given[index] = None

    for op in program.ops:
        if derived.issuperset(op.makes()) and op.makes():
            continue
        for i in op.reads():
            if i in derived:
                pull(i)
        ops.append(op)
    for i in program.outputs:
        if i in derived:
            pull(i)
    step.ops = ops
    step.inputs = {i: spec for i, spec in program.inputs.items() if i not in derived}
    step.inputs.update({i: recording.specs[i] for i in given})
    step = prune(step)
    found = [i for i in given if i in step.inputs]
    before = Program(
        {i: spec for i, spec in program.inputs.items() if i in derived},
        dict(program.constants),
        [op for op in program.ops if recording.static.issuperset(op.makes())],
        found,
    )
    return Parts(prune(before, (i for op, _ in recording.looks for i in op.reads())), step, found)


def _derived(recording: Recording) -> set[int]:
    """The static values that have to do with tensors from outside, rather than being made anew from numbers."""
    program, memory = recording.program, recording.memory
    found = {i for i in program.inputs if i in recording.static}
    while True:
        places = {memory[i] for i in found if i not in program.inputs}
        before = len(found)
        for op in program.ops:
            makes = op.makes()
            if recording.static.issuperset(makes) and (
                found.intersection(op.reads()) or places.intersection(memory[i] for i in makes)
            ):
                found.update(makes)
        if len(found) == before:
            return found


def prune(program: Program, also: Iterable[int] = ()) -> Program:
    """Without the operations, constants and inputs that nothing needs; what writes into tensors stays, as do draws.

    Args: also, values that are needed besides the outputs.
    """
    live = {*program.outputs, *also}
    ops = []
    for op in reversed(program.ops):
        makes, reads = set(op.makes()), op.reads()
        if makes & live or makes & set(reads) or torch.Tag.nondeterministic_seeded in op.function.tags:
            ops.append(op)
            live.update(reads)
    return Program(
        {i: spec for i, spec in program.inputs.items() if i in live},
        {i: constant for i, constant in program.constants.items() if i in live},
        ops[::-1],
        list(program.outputs),
    )


def prepare(parts: Parts, recording: Recording, tensors: Mapping[int, Tensor]) -> list[Tensor] | None:
    """Do what needs to be done once for all steps; returns the step's static inputs, in the order of `parts.given`.

    Args: tensors, the static inputs from outside.
    Returns: None where Python would read another value there than in the recorded run, or meet other shapes.
    """
    known = parts.before.run({i: tensors[i] for i in parts.before.inputs})
    for op, value in recording.looks:
        args = mapped(op.args, Ref, lambda ref: known[ref.index])
        if op.function(*args) != value:
            return None
    found = [known[i] for i in parts.given]
    fits = all(Spec.of(t) == parts.step.inputs[i] for i, t in zip(parts.given, found, strict=True))
    return found if fits else None
