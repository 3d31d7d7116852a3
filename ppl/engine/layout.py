"""How tensors that are alike in all steps lie in memory: the way that a compiled loop reads them fastest."""

from __future__ import annotations

from typing import Any

import torch

from ppl.engine.draw import usual_stride
from ppl.engine.program import Op, Program, Ref, Spec, mapped

#: Larger matrices, in bytes, do not fit into a processor's cache, and are not copied.
LARGEST = 8 << 20

_PRODUCTS = {"aten.mv.default": 0, "aten.addmv.default": 1}  # by which of the arguments is the matrix
_TURN = "aten.t.default"
_TURNS = {_TURN, "aten.transpose.int", "aten.permute.default"}


def lay_out(before: Program, step: Program, given: list[int]) -> None:
    """Turn matrices that a step only multiplies by vectors, and hand masks over as numbers.

    - A matrix gets its longer dim contiguous. A loop over a long contiguous dim takes several entries at a time, whether
      the product sums over that dim or over the other one. Sums over a short contiguous dim cost more than their
      entries: each ends with a sum within a register.
    - A mask becomes 0.0 and 1.0, from which each step makes it again: a comparison of several entries at a time, where a
      compiled loop otherwise reads one truth value after the other.

    Args: before, what is done once for all steps, and will make the copies; given, the step's inputs that come from it.
    """
    for place, old in enumerate(given):
        spec = step.inputs[old]
        if _is_long(spec) and _only_multiplies(step, old):
            new = _turn(before, step, old)
        elif spec.dtype == torch.bool and spec.shape and spec.strides == usual_stride(spec.shape):
            new = _number(before, step, old)
        else:
            continue
        before.outputs[before.outputs.index(old)] = given[place] = new
        del step.inputs[old]


# -- masks


def _number(before: Program, step: Program, mask: int) -> int:
    spec = step.inputs[mask]
    numbers = torch.get_default_dtype()
    new = _free(before, step)
    options: dict[str, Any] = {"dtype": numbers, "memory_format": torch.contiguous_format}
    before.ops.append(Op("aten._to_copy.default", (Ref(mask),), options, Ref(new)))
    step.inputs[new] = Spec(spec.shape, spec.strides, numbers, spec.device)
    step.ops.insert(0, Op("aten.ne.Scalar", (Ref(new), 0), {}, Ref(mask)))
    return new


# -- matrices


def _turn(before: Program, step: Program, matrix: int) -> int:
    spec = step.inputs[matrix]
    free = _free(before, step)
    turned, copy, new = Ref(free), Ref(free + 1), Ref(free + 2)
    before.ops += [
        Op(_TURN, (Ref(matrix),), {}, turned),
        Op("aten.clone.default", (turned,), {"memory_format": torch.contiguous_format}, copy),
        Op(_TURN, (copy,), {}, new),
    ]
    step.inputs[new.index] = Spec(spec.shape, (1, spec.shape[0]), spec.dtype, spec.device)
    step.ops = [_renamed(op, matrix, new) for op in step.ops]
    return new.index


def _is_long(spec: Spec) -> bool:
    if len(spec.shape) != 2 or spec.strides != (spec.shape[1], 1):
        return False
    rows, columns = spec.shape
    return rows > columns > 1 and rows * columns * spec.dtype.itemsize <= LARGEST


def _only_multiplies(program: Program, matrix: int) -> bool:
    """Whether nothing else becomes of a matrix, or of its transposed one, than products with vectors."""
    found = {matrix}
    multiplied = False
    for op in program.ops:
        used = found.intersection(op.reads())
        if not used:
            continue
        if op.target in _TURNS and isinstance(op.out, Ref):
            found.add(op.out.index)
            continue
        at = _PRODUCTS.get(op.target)
        others = [] if at is None else [i for i in op.reads() if Ref(i) != op.args[at]]
        if at is None or used.intersection(others):
            return False
        multiplied = True
    return multiplied and not found.intersection(program.outputs)


def _renamed(op: Op, old: int, new: Ref) -> Op:
    if old not in op.reads():
        return op

    def rename(ref: Ref) -> Ref:
        return new if ref.index == old else ref

    return Op(op.target, mapped(op.args, Ref, rename), mapped(dict(op.kwargs), Ref, rename), op.out)


def _free(*programs: Program) -> int:
    """A number, and all above it, that no value of the programs has."""
    made = [i for program in programs for op in program.ops for i in op.makes()]
    return 1 + max([0, *made, *(i for program in programs for i in (*program.inputs, *program.constants))])
