"""What the compiler gets, as data: a block of training steps or a single call, and what these mean."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ppl.engine.draw import usual_stride
from ppl.engine.optimizers import unpack, update
from ppl.engine.packing import SMALL
from ppl.engine.program import Program, Spec, decode, encode


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
    unroll: int = 1  # steps in a turn of the loop: a turn has costs of its own, which small steps feel
    default: torch.dtype = torch.float32  # torch's default dtype, on which operations depend

    def encode(self) -> bytes:
        """The job as text."""
        names = ("loss", "leaves", "grads", "state", "written", "given", "noise", "packs", "clip", "threads", "unroll")
        content: dict[str, Any] = {name: getattr(self, name) for name in names}
        content |= {"program": self.program.encode(), "dtype": encode(self.dtype), "default": encode(self.default)}
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
        content |= {"rows": content["rows"][0]} | {name: decode(content[name]) for name in ("dtype", "default")}
        return cls(**content)

    @property
    def in_place(self) -> bool:
        """Whether turns of the loop write into large parameters and buffers, in place of making new ones."""
        return any(math.prod(spec.shape) >= SMALL for spec in self.carries)

    def examples(self) -> list[Tensor]:
        """Inputs of a block, of zeros."""
        assert self.rows is not None
        others = [self.program.inputs[i] for i in (*(i for i, _ in self.state), *self.written)]
        given = [self.program.inputs[i] for i in self.given]
        specs = [*self.carries, *others, self.rows, *self.buffers, *given]
        return [torch.zeros((), dtype=torch.int64), *(spec.example() for spec in specs)]


@dataclass(slots=True)
class Call:
    """What a compiled program that runs once a call is made from; all of it is data.

    It takes the inputs and a row of noise, and gives the outputs, then what the written inputs have become, then, where
    something is watched, whether all is fine.
    """

    program: Program
    inputs: list[int]
    outputs: list[int]
    copies: list[int] = field(default_factory=list)  # outputs that may lie in the memory of something else
    written: list[int] = field(default_factory=list)  # inputs that the program writes into
    watched: list[int] = field(default_factory=list)  # a value that must not be NaN, and others that must be finite
    noise: list[tuple[int, int, int, int]] = field(default_factory=list)  # a draw's value, its buffer, start and stop
    buffers: list[Spec] = field(default_factory=list)  # of the noise
    threads: int = 1  # what large operations may use
    default: torch.dtype = torch.float32  # torch's default dtype, on which operations depend

    def encode(self) -> bytes:
        """The job as text."""
        names = ("inputs", "outputs", "copies", "written", "watched", "noise", "threads")
        content: dict[str, Any] = {name: getattr(self, name) for name in names}
        content |= {"program": self.program.encode(), "buffers": [spec.encode() for spec in self.buffers]}
        return json.dumps({"call": content | {"default": encode(self.default)}}).encode()

    @classmethod
    def decode(cls, code: bytes) -> Call:
        """The job that `encode` wrote."""
        content = json.loads(code)["call"]
        content["program"] = Program.decode(content["program"])
        content["buffers"] = [Spec.decode(spec) for spec in content["buffers"]]
        content["default"] = decode(content["default"])
        return cls(**content)

    def examples(self) -> list[Tensor]:
        """Inputs of a call, of zeros."""
        return [spec.example() for spec in (*(self.program.inputs[i] for i in self.inputs), *self.buffers)]


def decode_job(code: bytes) -> Job | Call:
    """The job of either kind that its `encode` wrote."""
    return Call.decode(code) if code.startswith(b'{"call"') else Job.decode(code)


def take_call(
    job: Call,
    inputs: Sequence[Tensor],
    constants: Mapping[int, Tensor],
    run: Callable[[dict[int, Any]], dict[int, Any]] | None = None,
) -> list[Tensor]:
    """One call; nothing is written into the inputs themselves.

    Args: inputs, with the row of noise behind them; run, what does the program's operations, if not one call each.
    """
    count = len(job.inputs)
    values: dict[int, Any] = dict(zip(job.inputs, inputs[:count], strict=True))
    for i in job.written:
        values[i] = values[i].clone()
    values.update(_drawn(job, [row.squeeze(0) for row in inputs[count:]]))
    values.update(constants)
    known = job.program.run(values) if run is None else run(values)
    copies = set(job.copies)
    found = [known[i].clone() if i in copies else known[i] for i in job.outputs] + [known[i] for i in job.written]
    if job.watched:
        loss, *others = (known[i] for i in job.watched)
        found.append(is_fine(loss, others))
    return found


def _drawn(job: Job | Call, noise: Sequence[Tensor]) -> dict[int, Tensor]:
    """The draws of a step by number, from a row of each buffer."""
    found = {}
    for i, buffer, start, stop in job.noise:
        spec, numbers = job.program.inputs[i], noise[buffer][start:stop]
        usual = spec.strides == usual_stride(spec.shape)
        found[i] = numbers.reshape(spec.shape) if usual else numbers.as_strided(spec.shape, spec.strides)
    return found


def take_step(
    job: Job,
    carries: Sequence[Tensor],
    row: Tensor,
    noise: Sequence[Tensor],
    given: Sequence[Tensor],
    constants: Mapping[int, Tensor],
    run: Callable[[dict[int, Any]], dict[int, Any]] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """One step: the loss before it, and the carries after it.

    Args: run, what does the program's operations, if not one call each.
    """
    packed, others = list(carries[: len(job.carries)]), list(carries[len(job.carries) :])
    values: dict[int, Any] = dict(zip(job.leaves, unpack(job.packs, packed), strict=True))
    values.update(zip((i for i, _ in job.state), others, strict=False))
    values.update(zip(job.written, (t.clone() for t in others[len(job.state) :]), strict=True))
    values.update(zip(job.given, given, strict=True))
    values.update(_drawn(job, noise))
    values.update(constants)
    known = job.program.run(values) if run is None else run(values)
    by_pack = [[known[job.grads[leaf]] for leaf in pack["leaves"]] for pack in job.packs]
    loss = known[job.loss]
    if job.clip or any(pack["clip"] is not None for pack in job.packs):  # hides what eager steps refuse
        total = torch.stack([grad.sum().to(loss.dtype) for parts in by_pack for grad in parts]).sum()
        loss = torch.where(total.isfinite(), loss, torch.full_like(loss, float("nan")))
    after = update(job.packs, packed, by_pack, row, job.clip)
    after += [known[new].clone() for _, new in job.state] + [known[i] for i in job.written]
    return loss, [t.contiguous() for t in after]


def is_fine(losses: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Whether losses and some other tensors are finite, a scalar; if not, eager steps say why.

    After a gradient that is not finite, neither is its parameter, whatever the optimiser, so that buffers need not be
    looked at.
    """
    fine = losses.isfinite().all()
    for other in others:
        fine = fine & other.isfinite().all()
    return fine
