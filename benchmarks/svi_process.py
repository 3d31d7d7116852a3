"""One measurement of the SVI benchmarks: what a fresh process of one system finds on one workload."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import workloads

# ways to make steps; the fastest is found by trying
VARIANTS = {"ppl": ("run",), "pyro": ("eager", "traced"), "numpyro": ("scan", "looped")}


def measure(
    system: str, workload: str, what: str, threads: int, seed: int, variant: str, quick: bool
) -> dict[str, Any]:
    """The figures of one process.

    Args:
        what: "try" for the time of a step in bulk; "speed" for that, single calls and the loss reached; "cold" for the time
            to the first step; "compiled" for the time until a compiled step is done, and the memory that this process
            has taken by then.
        variant: of VARIANTS, how the system makes its steps.
    """
    training, versions, before = begin(system, workload, threads, seed, variant)
    start = time.perf_counter()
    made = training()
    found: dict[str, Any] = {"versions": versions}
    num_steps, seconds = workloads.STEPS[workload], 0.3 if quick else 1.5
    if what == "try":
        return found | {"bulk": in_bulk(made, max(5, num_steps // 20), seconds)[0]}
    if what == "speed":
        us, losses = in_bulk(made, num_steps, seconds)
        made.prepare_step()
        last = losses[-(num_steps // 10) :]
        return found | {"bulk": us, "single": best(made.step, seconds / 2), "loss": sum(last) / len(last)}
    if what == "cold":
        made.first()
        return found | {"cold": time.perf_counter() - start}
    made.first_compiled()
    took = time.perf_counter() - start
    return found | ({"compiled": took} if made.compiles else {}) | {"memory": peak_memory() - before}


def begin(
    system: str, workload: str, threads: int, seed: int, variant: str
) -> tuple[Callable[[], Any], dict[str, str], float]:
    """What makes the training, once all is imported and the data there; versions; and the memory in use, in MB."""
    packages = {"ppl": ("torch",), "pyro": ("pyro-ppl", "torch"), "numpyro": ("numpyro", "jax")}[system]
    versions = {"python": ".".join(map(str, sys.version_info[:3])), **{name: version(name) for name in packages}}
    arrays = workloads.make(workload)
    training: Callable[[], Any]
    if system == "numpyro":
        import jax
        from workloads_jax import JaxTraining

        jax.block_until_ready(jax.numpy.zeros(1))  # the backend is there, as torch's is after its import

        def training() -> Any:
            return JaxTraining(workload, arrays, seed, looped=variant == "looped")
    else:
        import torch
        from workloads_torch import TorchTraining, library

        torch.set_num_threads(threads)
        lib = library(system, jit=variant == "traced")
        versions |= {"ppl": lib.lang.__version__} if system == "ppl" else {}
        torch.manual_seed(seed)

        def training() -> Any:
            return TorchTraining(lib, workload, arrays)

    return training, versions, peak_memory()


def peak_memory() -> float:
    """The most memory this process has had, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def in_bulk(training: Any, num_steps: int, seconds: float) -> tuple[float, Sequence[float]]:
    """Microseconds a step, the best of many bulks of about a twentieth of a second; and the losses of the first steps."""
    start = time.perf_counter()
    losses = training.run(num_steps)
    took = time.perf_counter() - start
    if training.compiles:  # the first run's time is the compiler's
        start = time.perf_counter()
        training.run(num_steps)
        took = time.perf_counter() - start
    bulk = num_steps
    if not (training.compiles and 0.02 < took < 0.3):  # another length may be another program
        bulk = max(3, min(20_000, round(0.05 * num_steps / took)))
        training.run(bulk)
    return best(lambda: training.run(bulk), seconds) / bulk, losses


def best(call: Callable[[], Any], seconds: float) -> float:
    """The fastest of at least three calls, in microseconds."""
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e6 * min(times)


def environment(system: str, threads: int, cache: str | None) -> dict[str, str]:
    """The environment of a measuring process: its threads, and the folder where compilers keep their programs.

    XLA's own threads are as many as told. The linear algebra that it calls keeps to one: on a busy machine its threads wait for each
    other, and a Cholesky decomposition of 50×50 takes five to hundred times as long.
    """
    changed = {"OMP_NUM_THREADS": str(1 if system == "numpyro" else threads), "NPROC": str(threads)}
    if threads == 1:
        changed["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    if cache is not None:
        changed |= {
            "PPL_CACHE_DIR": os.path.join(cache, "ppl"),
            "TORCHINDUCTOR_CACHE_DIR": os.path.join(cache, "inductor"),
            "JAX_COMPILATION_CACHE_DIR": os.path.join(cache, "jax"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    return {**os.environ, **changed}
