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
from pathlib import Path
from unittest import mock

import torch
import workloads
import workloads_torch
from torch import Tensor

from ppl.engine import build, loading
from ppl.engine.job import decode_job
from ppl.infer.compiled import blocks_of, rehearse

PAIRS = 25


def job_of(name: str) -> bytes:
    """The program of a workload's steps, as the compiler gets it."""
    training = workloads_torch.TorchTraining(workloads_torch.library("ppl", False), name, workloads.make(name))
    for _ in range(3):
        training.svi.step(*training.args)
    return blocks_of(training.svi, rehearse(training.svi, training.args, {}).step).job().encode()


def compiled(code: bytes, target: Path, is_checked: bool) -> loading.Loaded:
    """The compiled program, with the check or without."""
    if is_checked:
        build.build(code, target)
    else:
        with mock.patch.object(build, "is_fine", lambda losses, others: torch.ones((), dtype=torch.bool)):
            build.build(code, target)
    return loading.loaded(target)


def seconds(program: loading.Loaded, inputs: list[Tensor], count: int) -> float:
    """How long so many steps take."""
    given = [torch.tensor(count), *inputs]
    start = time.perf_counter()
    program.boxed_run(given)
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    print("| | steps a call | µs a step with the check | ratio to without: quartiles |\n|---|---|---|---|")
    for name in sys.argv[1:] or workloads_torch.PROGRAMS:
        code = job_of(name)
        inputs = decode_job(code).examples()[1:]
        with tempfile.TemporaryDirectory() as folder:
            programs = [compiled(code, Path(folder) / f"{checked}.pt2", checked) for checked in (True, False)]
            one = min(seconds(programs[0], inputs, 1) for _ in range(3))
            for count in (max(1, min(1024, round(1 / one))), 1):
                rows = [[seconds(program, inputs, count) for program in programs] for _ in range(PAIRS)]
                quartiles = statistics.quantiles([a / b for a, b in rows], n=4)
                step = statistics.median(a for a, _ in rows) / count * 1e6
                print(f"| {name} | {count} | {step:.4g} | {', '.join(f'{q:.3f}' for q in quartiles)} |", flush=True)


if __name__ == "__main__":
    main()
