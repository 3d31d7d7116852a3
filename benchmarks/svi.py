"""Training beside Pyro and NumPyro: time a step, time to the first one, memory and the loss reached.

    python benchmarks/svi.py --pyro-python P --numpyro-python P    run all and print one table
    python benchmarks/svi.py --only schools,vae --quick            two workloads, one short round
    python benchmarks/svi.py ppl schools                           one measurement, as JSON

The same model, guide, Adam with learning rate 0.01 and float32 in each system, one process a system, workload and measurement, in
interleaved rounds: the machine's speed drifts by several times within minutes, so ratios are taken round by round. Before the
rounds each system tries one thread and two, and its variants; the fastest is kept. In bulk, ppl makes its steps in
`svi.run(n, compile="always")`, NumPyro in a jitted `lax.scan` over `svi.update` or a loop over jitted updates, Pyro in a loop over
`svi.step`, with an eager or a tracing ELBO; a single call is `svi.step`, or a jitted `svi.update` whose loss is read. Times to the first step begin after imports, in a new process: of the plain call,
with nothing cached; and until a compiled step is done, with the folders of ppl's or JAX's compiler cache filled before. Memory
is the growth of the latter process's peak.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import svi_table
from svi_process import VARIANTS, environment, measure
from workloads import TITLES

SYSTEMS = ("ppl", "pyro", "numpyro")
RESULTS = Path(__file__).with_name("RESULTS.md")
Found = dict[str, Any]


@dataclass
class Mode:
    """How a system is run on a workload, and what it compiled before."""

    threads: int
    variant: str
    cache: str  # the folder of its compiler cache
    us: float = float("inf")  # a step in bulk, when it was tried
    filling: Found = field(default_factory=dict)  # what the process found that filled the cache

    def __str__(self) -> str:
        return f"{self.threads} thread{'s' * (self.threads > 1)}, {self.variant}"


@dataclass
class Bench:
    """What the options say, and processes that measure."""

    pythons: dict[str, str]
    folder: str  # temporary
    quick: bool
    timeout: float
    threads: int | None  # None to try

    def process(self, system: str, workload: str, what: str, mode: Mode, seed: int) -> Found:
        """One measurement in a process of its own."""
        command = [self.pythons[system], __file__, system, workload, "--what", what, "--seed", str(seed)]
        command += ["--threads", str(mode.threads), "--variant", mode.variant, *(["--quick"] if self.quick else [])]
        with tempfile.TemporaryDirectory(dir=self.folder) as empty:
            # JAX measures its speed without a cache: what it reads from there may be slower code
            cache = (
                empty if what == "cold" else None if what in ("try", "speed") and system == "numpyro" else mode.cache
            )
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env=environment(system, mode.threads, cache),
                timeout=self.timeout,
            )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
        found: Found = json.loads(done.stdout.splitlines()[-1])
        return found

    def calibrate(self, system: str, workload: str) -> Mode:
        """The fastest way to run a system; its cache is filled then."""
        if self.threads:
            kept = Mode(self.threads, VARIANTS[system][0], tempfile.mkdtemp(dir=self.folder))
            kept.filling = self.process(system, workload, "compiled", kept, 0)
            return kept
        tried = []
        for threads in (1, 2):
            cache = tempfile.mkdtemp(dir=self.folder)
            for variant in VARIANTS[system]:
                mode = Mode(threads, variant, cache)
                try:
                    if system == "ppl":  # its trial reads what this one compiled
                        mode.filling = self.process(system, workload, "compiled", mode, 0)
                    mode.us = self.process(system, workload, "try", mode, 0)["bulk"]
                except (RuntimeError, subprocess.TimeoutExpired):
                    if variant == VARIANTS[system][0]:  # not everything can be traced by Pyro
                        raise
                    continue
                tried.append(mode)
        limit = 2 * min(mode.us for mode in tried)
        for mode in tried:  # once more, lest a disturbance has chosen
            if mode.us < limit:
                mode.us = min(mode.us, self.process(system, workload, "try", mode, 0)["bulk"])
        kept = min(tried, key=lambda mode: mode.us)
        if system == "numpyro":
            kept.filling = self.process(system, workload, "compiled", kept, 0)
        note = ", ".join(f"{mode}: {mode.us:.1f}" for mode in tried)
        print(f"{workload}, {system}: {kept} (µs a step: {note})", file=sys.stderr, flush=True)
        return kept

    def round(self, system: str, workload: str, mode: Mode, seed: int) -> Found:
        """All figures of a system and workload once."""
        plain = Mode(mode.threads, VARIANTS[system][0], mode.cache)  # Pyro's first step is quicker without tracing
        found = self.process(system, workload, "speed", mode, seed)
        found |= self.process(system, workload, "cold", plain, seed)
        found |= self.process(system, workload, "compiled", mode, seed)
        if "compiled" in mode.filling and seed == 0:
            found["filling"] = mode.filling["compiled"]
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", nargs="?", choices=SYSTEMS)
    parser.add_argument("workload", nargs="?", choices=tuple(TITLES))
    parser.add_argument("--rounds", type=int, help="how many; 5 by default, 1 with --quick")
    parser.add_argument("--only", default=",".join(TITLES), help="workloads, with commas between")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="systems, with commas between")
    parser.add_argument("--quick", action="store_true", help="one round of short measurements")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    parser.add_argument("--pyro-python", default=sys.executable, help="an interpreter with pyro-ppl")
    parser.add_argument("--numpyro-python", default=sys.executable, help="an interpreter with numpyro")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for a process")
    parser.add_argument(
        "--threads", type=int, help="do not try what is best: this many, and each system's first variant"
    )
    one = parser.add_argument_group("one measurement")
    one.add_argument("--what", default="speed", choices=("try", "speed", "cold", "compiled"))
    one.add_argument("--seed", type=int, default=0)
    one.add_argument(
        "--variant", help="how steps are made: " + "; ".join(f"{s} {', '.join(v)}" for s, v in VARIANTS.items())
    )
    o = parser.parse_args()
    if o.system:
        if o.workload is None:
            parser.error(f"name a workload: {', '.join(TITLES)}")
        variant = o.variant or VARIANTS[o.system][0]
        if variant not in VARIANTS[o.system]:
            parser.error(f"'{variant}' is not a variant of {o.system}: {', '.join(VARIANTS[o.system])}")
        print(json.dumps(measure(o.system, o.workload, o.what, o.threads or 1, o.seed, variant, o.quick)))
        return
    chosen, systems = o.only.split(","), o.systems.split(",")
    for name, known in [(w, tuple(TITLES)) for w in chosen] + [(s, SYSTEMS) for s in systems]:
        if name not in known:
            parser.error(f"'{name}' is not one of {', '.join(known)}")
    rounds = o.rounds or (1 if o.quick else 5)
    pythons = {"ppl": sys.executable, "pyro": o.pyro_python, "numpyro": o.numpyro_python}
    with tempfile.TemporaryDirectory() as folder:
        text = run(Bench(pythons, folder, o.quick, o.timeout, o.threads), chosen, systems, rounds)
    print(text)
    if o.write:
        svi_table.write(text, RESULTS)


def run(bench: Bench, chosen: list[str], systems: list[str], rounds: int) -> str:
    """All rounds, and what is to be said of them."""
    found: dict[str, dict[str, list[Found]]] = {}
    modes: dict[str, dict[str, Mode]] = {}
    for workload in chosen:
        modes[workload] = {system: bench.calibrate(system, workload) for system in systems}
        found[workload] = {system: [] for system in systems}
        for seed in range(rounds):
            for system in systems:
                found[workload][system].append(bench.round(system, workload, modes[workload][system], seed))
        print(svi_table.table({workload: found[workload]}, TITLES), file=sys.stderr, flush=True)
    versions: dict[str, str] = {}
    for system in systems:
        for name, version in found[chosen[0]][system][0]["versions"].items():
            versions.setdefault(name, version)
            if versions[name] != version:
                versions[f"{name} ({system})"] = version
    kept = [f"- {TITLES[w]}: {'; '.join(f'{s} {mode}' for s, mode in modes[w].items())}" for w in chosen]
    return "\n".join(
        [
            f"{machine()}. {', '.join(f'{name} {version}' for name, version in versions.items())}. {rounds} interleaved "
            f"round{'s' * (rounds > 1)}{' of short measurements' * bench.quick}, one process a figure, system and workload.",
            "",
            svi_table.table(found, TITLES),
            "",
            "Not tried for the best:"
            if bench.threads
            else "Kept after trying one thread and two, and each system's variants:",
            "",
            *kept,
        ]
    )


def machine() -> str:
    """The processor, how many cores of it, and the system."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
        return f"{len(lines) or '?'} × {name}, {platform.system()}"
    return f"{name}, {platform.system()}"


if __name__ == "__main__":
    main()
