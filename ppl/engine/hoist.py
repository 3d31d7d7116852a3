"""Taking random draws out of a program, so that those of many steps can be made at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ppl.engine.draw import Draw, read_draw
from ppl.engine.program import Op, Program, Ref, Spec


def hoist(program: Program, specs: Mapping[int, Spec]) -> tuple[Program, list[tuple[int, Draw]]] | None:
    """The program with its draws as inputs, and these draws in order.

    Args: specs, what each value is like.
    Returns: None where one of the draws depends on tensors' values, so that they cannot be made ahead.
    """
    found: list[tuple[int, Draw]] = []
    ops: list[Op] = []
    inputs = dict(program.inputs)
    free = 1 + max([*specs, *inputs, 0])
    for op in program.ops:
        if torch.Tag.nondeterministic_seeded not in op.function.tags:
            ops.append(op)
            continue
        if not isinstance(op.out, Ref):
            return None
        spec = specs[op.out.index]
        draw = read_draw(op.function, op.args, op.kwargs, spec.example())
        if draw is None:
            return None
        index = op.out.index
        if index in op.reads():  # a tensor is filled
            index, free = free, free + 1
            ops.append(Op("aten.copy_.default", (op.out, Ref(index)), {}, op.out))
        inputs[index] = spec
        found.append((index, draw))
    return Program(inputs, program.constants, ops, program.outputs), found
