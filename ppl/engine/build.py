"""From a recorded training step to machine code that takes many steps a call. Runs in the compiler's own process."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

import torch
import torch._inductor
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

<<<<<<< HEAD
from ppl.engine.optimizers import unpack, update
from ppl.engine.program import Program, Spec, decode, encode
from ppl.tensors import native


@dataclass(slots=True)
class Job:
    """What a compiled block of steps is made from; all of it is data.

    A block takes `n`, the carries, the optimiser's rows, the noise's rows and the static inputs. Carries are the packs of
    parameters with the optimiser's state, then what else goes from one step to the next.
    """

    program: Program  # one step
    loss: int
    leaves: list[int]  # the parameters among the program's inputs, in the optimiser's order
    grads: list[int]
    state: list[tuple[int, int]] = field(default_factory=list)  # other carries: the input, and what it becomes
    written: list[int] = field(default_factory=list)  # other carries: inputs that the program writes into
    given: list[int] = field(default_factory=list)  # static inputs
    noise: list[tuple[int, int, int, int]] = field(default_factory=list)  # a draw's value, its buffer, start and stop
    packs: list[dict[str, Any]] = field(default_factory=list)
    clip: dict[str, float] = field(default_factory=dict)
    carries: list[Spec] = field(default_factory=list)  # of the packs
    rows: Spec | None = None
    buffers: list[Spec] = field(default_factory=list)  # of the noise
    dtype: torch.dtype = torch.float32  # of the losses
    threads: int = 1  # what large operations may use

    def encode(self) -> bytes:
        """The job as text."""
        names = ("loss", "leaves", "grads", "state", "written", "given", "noise", "packs", "clip", "threads")
        content: dict[str, Any] = {name: getattr(self, name) for name in names}
        content |= {"program": self.program.encode(), "dtype": encode(self.dtype)}
        for name, specs in (("carries", self.carries), ("rows", [self.rows]), ("buffers", self.buffers)):
            content[name] = [None if spec is None else spec.encode() for spec in specs]
        return json.dumps(content).encode()

    @classmethod
    def decode(cls, code: bytes) -> Job:
        """The job that `encode` wrote."""
        content = json.loads(code)
        content["program"] = Program.decode(content["program"])
        for name in ("carries", "rows", "buffers"):
            content[name] = [Spec.decode(spec) for spec in content[name]]
        content["rows"], content["dtype"] = content["rows"][0], decode(content["dtype"])
        return cls(**content)

    def examples(self) -> list[Tensor]:
        """Inputs of a block, of zeros."""
        assert self.rows is not None
        others = [self.program.inputs[i] for i in (*(i for i, _ in self.state), *self.written)]
        given = [self.program.inputs[i] for i in self.given]
        specs = [*self.carries, *others, self.rows, *self.buffers, *given]
        return [torch.zeros((), dtype=torch.int64), *(spec.example() for spec in specs)]
=======
from ppl.engine.job import Job, is_fine, take_step
from ppl.engine.native import CannotCompile
from ppl.engine.noise import fast_draws
>>>>>>> main


class Block(torch.nn.Module):
    """Takes `n` steps: a loop within a graph."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job
        self.numbers = {i: (c.shape, c.item(), c.dtype) for i, c in job.program.constants.items()}

    def forward(self, n: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The carries afterwards, the losses, and whether all of it is finite."""
        job = self.job
        count = len(job.carries) + len(job.state) + len(job.written)
        carries, rows, others = inputs[:count], inputs[count], inputs[count + 1 :]
        buffers, given = others[: len(job.buffers)], others[len(job.buffers) :]
        losses = torch.zeros(len(rows), dtype=job.dtype, device=rows.device)

        def goes_on(i: Tensor, losses: Tensor, *carries: Tensor) -> Tensor:
            return i < n

        def turn(i: Tensor, losses: Tensor, *carries: Tensor) -> tuple[Tensor, ...]:
            at = i.reshape(1)
            row = rows.index_select(0, at).squeeze(0)
            noise = [buffer.index_select(0, at).squeeze(0) for buffer in buffers]
            constants = {i: torch.full(shape, x, dtype=dtype) for i, (shape, x, dtype) in self.numbers.items()}
            loss, after = take_step(job, carries, row, noise, given, constants)
            return i + 1, losses.index_copy(0, at, loss.reshape(1)), *after

        start = torch.zeros((), dtype=torch.int64, device=rows.device)
        _, losses, *after = while_loop(goes_on, turn, (start, losses, *carries))
        return (*after, losses, is_fine(losses, n, after[: len(job.carries)]))


def build(code: bytes, target: Path) -> None:
    """Compile a job into a package that `Loaded` reads."""
    with contextlib.suppress(CannotCompile, OSError):  # draws are made without it, too
        fast_draws(build=True)
    job = Job.decode(code)
<<<<<<< HEAD
    native.load()  # the program may have operators of ours
    import torch._inductor

    options: dict[str, Any] = {"fallback_random": True, "cpp.threads": job.threads}
=======
    torch.set_default_dtype(job.default)
    options: dict[str, Any] = {
        "fallback_random": True,  # torch's own generator, as in eager steps
        "cpp.threads": job.threads,
        "aot_inductor.precompile_headers": False,  # half of the time, and for one program only
        "cpp.vec_isa_ok": True,  # or else small programs are compiled first to see
    }
>>>>>>> main
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's own
        exported = torch.export.export(Block(job), tuple(job.examples()))
        torch._inductor.aoti_compile_and_package(exported, package_path=str(target), inductor_configs=options)
