"""From what was recorded to machine code: many training steps a call, or a single call. Runs in the compiler's own process."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._inductor
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop
from torch.fx.experimental.proxy_tensor import make_fx

from ppl.engine.generated import improved
from ppl.engine.job import Call, Job, decode_job, is_fine, take_call, take_step
from ppl.engine.native import CannotCompile
from ppl.engine.noise import fast_draws
from ppl.engine.rules import parameters
from ppl.tensors import native
from ppl.tensors.triangular import is_wide, solve_matrix


def _log1p(z: Tensor) -> Tensor:
    """log(1 + z) for 0 <= z <= 1: what the sum was rounded by is added to its log."""
    total = 1 + z
    return total.log() + (z - (total - 1)) / total


def _log_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    z = (-x.abs()).exp()
    return x.clamp(max=0) - _log1p(z), z


def _slope_of_log_sigmoid(grad: Tensor, x: Tensor, buffer: Tensor) -> Tensor:
    z = (-x.abs()).exp()  # as on the way there, of which it is then a part
    return grad * torch.where(x < 0, 1.0, z) / (1 + z)


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    scaled = x * beta
    value = (scaled.clamp(min=0) + _log1p((-scaled.abs()).exp())) / beta
    return torch.where(scaled > threshold, x, value)


def _solve_triangular(a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    if not left or unitriangular or not is_wide(b):
        return NotImplemented
    return solve_matrix(a, b, upper)


def _mul(a: Tensor, b: Tensor | complex) -> Any:
    return a * 0.0 if type(b) is int and b == 0 and a.is_floating_point() else NotImplemented


# Operations for which the compiler's own ways are slow (detours through integers, a log1p that costs six times an exp, many
# right-hand sides of a triangular matrix one after another) or wrong (0 * NaN, which it says is 0 if the 0 is an integer).
_OTHERWISE: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.log_sigmoid_forward.default: _log_sigmoid,
    torch.ops.aten.log_sigmoid_backward.default: _slope_of_log_sigmoid,
    torch.ops.aten.softplus.default: _softplus,
    torch.ops.aten.linalg_solve_triangular.default: _solve_triangular,
    torch.ops.aten.mul.Tensor: _mul,
}


class Block(torch.nn.Module):
    """Takes `n` steps: a loop within a graph."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job
        self.step = _as_graph(job)

    def forward(self, n: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The carries afterwards, the losses, and whether all of it is finite."""
        job = self.job
        count = len(job.carries) + len(job.state) + len(job.written)
        carries, rows, others = inputs[:count], inputs[count], inputs[count + 1 :]
        buffers, given = others[: len(job.buffers)], others[len(job.buffers) :]
        losses = torch.zeros(len(rows), dtype=job.dtype, device=rows.device)

        def steps(count: int) -> Callable[..., tuple[Tensor, ...]]:
            """A turn of a loop that takes so many steps."""

            def turn(i: Tensor, losses: Tensor, *carries: Tensor) -> tuple[Tensor, ...]:
                for step in range(count):
                    at = (i + step).reshape(1)
                    row = rows.index_select(0, at).squeeze(0)
                    noise = [buffer.index_select(0, at).squeeze(0) for buffer in buffers]
                    loss, *carries = self.step(*carries, row, *noise, *given)
                    losses = losses.index_copy(0, at, loss.reshape(1))
                return i + count, losses, *carries

            return turn

        state = (torch.zeros((), dtype=torch.int64, device=rows.device), losses, *carries)
        if job.in_place:
            # the first step makes new tensors, which belong to the loop: inputs belong to others
            state = steps(1)(*state)
        elif job.unroll > 1:
            state = while_loop(lambda i, *_: i + job.unroll <= n, steps(job.unroll), state)
        _, losses, *after = while_loop(lambda i, *_: i < n, steps(1), state)
        return (*after, losses, is_fine(losses, parameters(job.packs, after)))


def _as_graph(job: Job) -> torch.fx.GraphModule:
    """One step as a graph, so that whoever traces the loop meets no Python of ours."""
    _, *examples = job.examples()
    count = len(job.carries) + len(job.state) + len(job.written)
    start = count + 1 + len(job.buffers)
    rows = [rows[0] for rows in examples[count:start]]
    numbers, unread = _numbers(job), _unread(job)

    def step(*inputs: Tensor) -> list[Tensor]:
        known: dict[int, Any] = {}

        def run(values: dict[int, Any]) -> dict[int, Any]:
            known.update(job.program.run(values))
            return known

        constants = {i: torch.full(shape, x, dtype=dtype) for i, (shape, x, dtype) in numbers.items()}
        carries, (row, *noise), given = inputs[:count], inputs[count:start], inputs[start:]
        loss, after = take_step(job, carries, row, noise, given, constants, run)
        for i in unread:  # where that is NaN, eager steps are asked
            loss = torch.where((known[i] == known[i]).all(), loss, torch.full_like(loss, float("nan")))
        return [loss, *after]

    graph: torch.fx.GraphModule = make_fx(step, _OTHERWISE)(*examples[:count], *rows, *examples[start:])
    return graph


def _unread(job: Job) -> list[int]:
    """The draws that nothing depends on: the compiler would leave them out of a loop, and others would be drawn instead."""
    live = {*job.program.outputs, *job.written}
    found: list[int] = []
    for op in reversed(job.program.ops):
        makes, reads = set(op.makes()), op.reads()
        is_random = torch.Tag.nondeterministic_seeded in op.function.tags
        if is_random and not makes & live:
            found += makes
        if is_random or makes & live or makes & set(reads):
            live.update(reads)
    return found


class Once(torch.nn.Module):
    """Calls a program once."""

    def __init__(self, job: Call) -> None:
        super().__init__()
        numbers = _numbers(job)

        def call(*inputs: Tensor) -> list[Tensor]:
            constants = {i: torch.full(shape, x, dtype=dtype) for i, (shape, x, dtype) in numbers.items()}
            return take_call(job, inputs, constants)

        self.graph = make_fx(call, _OTHERWISE)(*job.examples())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs, and what the written inputs have become."""
        return tuple(self.graph(*inputs))


def _numbers(job: Job | Call) -> dict[int, tuple[torch.Size, float, torch.dtype]]:
    return {i: (c.shape, c.item(), c.dtype) for i, c in job.program.constants.items()}


def build(code: bytes, target: Path) -> None:
    """Compile a job into a package that `Loaded` reads."""
    with contextlib.suppress(CannotCompile, OSError):  # draws are made without it, too
        fast_draws(build=True)
    job = decode_job(code)
    native.load()  # the program may have operators of ours
    torch.set_default_dtype(job.default)
    options: dict[str, Any] = {
        "fallback_random": True,  # torch's own generator, as in eager steps
        "cpp.threads": job.threads,
        "aot_inductor.precompile_headers": False,  # half of the time, and for one program only
        "cpp.vec_isa_ok": True,  # or else small programs are compiled first to see
    }
    # after the counter and the losses come parameters and the optimiser's buffers, no two of which can be one tensor
    own = range(2, 2 + len(job.carries)) if isinstance(job, Job) and job.in_place else range(0)
    with warnings.catch_warnings(), torch.no_grad(), improved(own):
        warnings.simplefilter("ignore")  # torch's own
        graph = Block(job) if isinstance(job, Job) else Once(job)
        exported = torch.export.export(graph, tuple(job.examples()))
        torch._inductor.aoti_compile_and_package(exported, package_path=str(target), inductor_configs=options)
