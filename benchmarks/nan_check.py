"""What it costs that compiled steps notice NaN: each workload compiled with the check and without, timed turn by turn.

    python benchmarks/nan_check.py                  all workloads
    python benchmarks/nan_check.py schools vae      some

Blocks of 1,024 steps (fewer where that takes more than a second), and single steps; the median over pairs of neighbouring
calls, one thread.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
import workloads
import workloads_torch
from torch import Tensor

from ppl.engine import build, loading, operators
from ppl.infer.compiled import blocks_of, rehearse

PAIRS = 40


class Kept:
    """Stands in for a compiled program, and keeps what it is called with."""

    def boxed_run(self, inputs: list[Tensor]) -> list[Tensor]:
        self.inputs = [x.clone() for x in inputs]
        return [torch.zeros((), dtype=torch.bool)]  # no step was taken


def recorded(name: str) -> tuple[bytes, Callable[[int], list[Tensor]]]:
    """The program of a workload's steps, as the compiler gets it; and its inputs for a number of steps."""
    training = workloads_torch.TorchTraining(workloads_torch.library("ppl", False), name, workloads.make(name))
    for _ in range(3):
        training.svi.step(*training.args)
    operators.are_ready(start=True, wait=True)
    blocks = blocks_of(training.svi, rehearse(training.svi, training.args, {}).step)

    def inputs(count: int) -> list[Tensor]:
        blocks._loader = kept = Kept()
        blocks.run(count, training.args, training.svi.num_steps, lambda losses: None)
        return kept.inputs

    return blocks.job().encode(), inputs


def compiled(code: bytes, target: Path, is_checked: bool) -> loading.Loaded:
    """The compiled program, with the check or without."""
    if is_checked:
        build.build(code, target)
    else:
        with mock.patch.object(build, "is_fine", lambda losses, others: torch.ones((), dtype=torch.bool)):
            build.build(code, target)
    return loading.loaded(target)


def seconds(program: loading.Loaded, inputs: list[Tensor]) -> float:
    """How long a call takes."""
    given = list(inputs)
    start = time.perf_counter()
    program.boxed_run(given)
    return time.perf_counter() - start


def pair(programs: list[loading.Loaded], inputs: list[Tensor], turned: bool) -> list[float]:
    """How long each of two programs takes; turned, the second goes first."""
    if turned:
        return pair(programs[::-1], inputs, False)[::-1]
    return [seconds(program, inputs) for program in programs]


def main() -> None:
    torch.set_num_threads(1)
    print("| | steps a call | µs a step with the check | ratio to without: quartiles |\n|---|---|---|---|")
    for name in sys.argv[1:] or workloads_torch.PROGRAMS:
        code, inputs = recorded(name)
        with tempfile.TemporaryDirectory() as folder:
            programs = [compiled(code, Path(folder) / f"{checked}.pt2", checked) for checked in (True, False)]
            one = min(seconds(programs[0], inputs(1)) for _ in range(3))
            for count in (max(1, min(1024, round(1 / one))), 1):
                given = inputs(count)
                rows = [pair(programs, given, turned=bool(i % 2)) for i in range(PAIRS)]
                quartiles = statistics.quantiles([a / b for a, b in rows], n=4)
                step = statistics.median(a for a, _ in rows) / count * 1e6
                print(f"| {name} | {count} | {step:.4g} | {', '.join(f'{q:.3f}' for q in quartiles)} |", flush=True)


if __name__ == "__main__":
    main()
