"""A recorded program as plain Python: what takes steps while there is no compiled one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppl.engine.job import Call, Job, is_fine, take_call, take_step
from ppl.engine.program import Op, Program, Ref, mapped
from ppl.engine.rules import parameters

# Operations whose functions in the torch namespace take the same arguments in the same order, at half the cost of a call.
_QUICK = frozenset(
    [
        "abs",
        "add",
        "addcmul",
        "addmm",
        "any",
        "baddbmm",
        "bitwise_and",
        "bitwise_not",
        "bitwise_or",
        "bmm",
        "cat",
        "clamp",
        "clone",
        "cos",
        "cumsum",
        "digamma",
        "div",
        "empty_like",
        "eq",
        "erf",
        "exp",
        "expm1",
        "eye",
        "flip",
        "full_like",
        "gather",
        "ge",
        "gt",
        "hypot",
        "index_select",
        "lgamma",
        "log",
        "log1p",
        "logical_and",
        "logical_not",
        "logsumexp",
        "lt",
        "le",
        "maximum",
        "minimum",
        "mm",
        "mul",
        "ne",
        "neg",
        "ones_like",
        "permute",
        "pow",
        "reciprocal",
        "relu",
        "rsqrt",
        "select",
        "sigmoid",
        "sign",
        "sin",
        "slice",
        "softplus",
        "sqrt",
        "square",
        "squeeze",
        "stack",
        "sub",
        "sum",
        "tanh",
        "threshold",
        "transpose",
        "unsqueeze",
        "where",
        "xlogy",
        "zeros_like",
    ]
)
_METHODS = frozenset(["expand", "view"])
_SAME = frozenset(["alias", "detach"])  # nothing here has a gradient


class Replay:
    """Takes the steps of a job one operation after another, as `build` would compile them."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._step = as_function(job.program)

    def boxed_run(self, inputs: list[Tensor]) -> list[Tensor]:
        """Like the compiled program: `n`, carries, rows, noise and static inputs to carries, losses and whether they are finite."""
        job = self.job
        count = len(job.carries) + len(job.state) + len(job.written)
        n, carries, rows, others = int(inputs[0]), inputs[1 : 1 + count], inputs[1 + count], inputs[2 + count :]
        buffers, given = others[: len(job.buffers)], others[len(job.buffers) :]
        losses = []
        with torch.no_grad():
            for i in range(n):
                noise = [buffer[i] for buffer in buffers]
                loss, carries = take_step(job, carries, rows[i], noise, given, job.program.constants, self._step)
                losses.append(loss)
        found = torch.stack(losses)
        return [*carries, found, is_fine(found, parameters(job.packs, carries))]


class ReplayCall:
    """Does the operations of a call one after another, as `build` would compile them."""

    def __init__(self, job: Call) -> None:
        self.job = job
        self._run = as_function(job.program)

    def boxed_run(self, inputs: list[Tensor]) -> list[Tensor]:
        """Like the compiled program: inputs and noise to outputs and what was written."""
        with torch.no_grad():
            return take_call(self.job, inputs, self.job.program.constants, self._run)


def as_function(program: Program) -> Callable[[Mapping[int, Any]], dict[int, Tensor]]:
    """A Python function that does a program's operations and forgets each value after its last use.

    It maps inputs by number (constants among them) to the outputs by number, and to the inputs written into.
    """
    kept = {*program.outputs, *program.inputs}
    constants = fold(program)
    ops = [op for op in program.ops if not constants.keys() >= set(op.makes())]
    last: dict[int, int] = {}
    for place, op in enumerate(ops):
        for i in (*op.reads(), *op.makes()):
            last[i] = place
    names: dict[str, Any] = {f"v{i}": constant for i, constant in constants.items()}
    lines = [f"    v{i} = values[{i}]" for i in (*program.inputs, *program.constants)]
    for place, op in enumerate(ops):
        lines.append("    " + _line(op, names))
        dead = sorted(
            {i for i in (*op.reads(), *op.makes()) if last[i] == place and i not in kept and i not in constants}
        )
        if dead:
            lines.append("    del " + ", ".join(f"v{i}" for i in dead))
    pairs = ", ".join(f"{i}: v{i}{'.clone()' if i in constants else ''}" for i in sorted(kept))
    source = "\n".join(["def step(values):", *lines, f"    return {{{pairs}}}"])
    exec(compile(source, "<recorded program>", "exec"), names)
    function: Callable[[Mapping[int, Any]], dict[int, Tensor]] = names["step"]
    return function


def fold(program: Program) -> dict[int, Tensor]:
    """The values that are made of numbers alone and never written into, computed once."""
    made: dict[int, Tensor] = {}
    known: dict[int, Any] = dict(program.constants)
    if any(set(op.makes()) & set(op.reads()) for op in program.ops):
        return made  # what is written into may share memory with anything
    for op in program.ops:
        is_random = torch.Tag.nondeterministic_seeded in op.function.tags
        if isinstance(op.out, Ref) and not is_random and known.keys() >= set(op.reads()):
            args, kwargs = mapped((op.args, dict(op.kwargs)), Ref, lambda ref: known[ref.index])
            known[op.out.index] = made[op.out.index] = op.function(*args, **kwargs)
    return made


def _line(op: Op, names: dict[str, Any]) -> str:
    """One operation as a line of Python; what it needs besides values goes to `names`."""
    fresh = (f"c{i}" for i in itertools.count(len(names)))

    def word(argument: Any) -> str:
        if isinstance(argument, Ref):
            return f"v{argument.index}"
        if isinstance(argument, (list, tuple)):
            return f"[{''.join(word(part) + ', ' for part in argument)}]"
        if argument is None or isinstance(argument, (bool, int)):
            return repr(argument)
        name = next(fresh)
        names[name] = argument
        return name

    args = [word(a) for a in op.args]
    kwargs = [f"{key}={word(value)}" for key, value in op.kwargs.items()]
    _, name, _ = op.target.split(".")
    if name in _QUICK and {"alpha", "value"}.issuperset(op.kwargs) and hasattr(torch, name):
        call = f"torch_{name}"
        names[call] = getattr(torch, name)
    elif name in _SAME:
        return f"{_targets(op.out)}{args[0]}"
    elif name in _METHODS and not op.kwargs:
        call = f"method_{name}"
        names[call] = getattr(Tensor, name)
    else:
        call = "op_" + op.target.replace(".", "_")
        names[call] = op.function
    return f"{_targets(op.out)}{call}({', '.join((*args, *kwargs))})"


def _targets(out: Any) -> str:
    if isinstance(out, Ref):
        return f"v{out.index} = "
    if isinstance(out, Sequence) and out:
        return f"{''.join(_target(part) + ', ' for part in out)}= "
    return ""


def _target(out: Any) -> str:
    return f"v{out.index}" if isinstance(out, Ref) else "_"
