"""Eager overhead beside Pyro: microseconds a site and a step, in interleaved rounds of one process a system.

    python benchmarks/eager.py            run all and print a table of ratios
    python benchmarks/eager.py ppl        one round of one system, as JSON (what the rounds run)

The machine's speed drifts by several times within minutes, so that only rounds next to each other compare; each round
starts each system once, and the ratio is taken round by round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

SYSTEMS = ("ppl", "pyro")
Y = [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]
SIGMA = [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]


def best_of(fn: Callable[[], Any], repeats: int) -> float:
    """The fastest of many calls, in microseconds."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        fn()
        best = min(best, time.perf_counter() - start)
    return best * 1e6


def measure(system: str) -> dict[str, float]:
    """One round: every figure of one system."""
    import torch

    torch.set_num_threads(1)
    if system == "ppl":
        import ppl as lang
        import ppl.distributions as dist
        from ppl.distributions import constraints
        from ppl.handlers import trace
        from ppl.infer import SVI, Trace_ELBO
        from ppl.infer.autoguide import AutoNormal
        from ppl.optim import Adam
    else:
        import pyro as lang
        import pyro.distributions as dist
        from pyro.distributions import constraints
        from pyro.infer import SVI, Trace_ELBO
        from pyro.infer.autoguide import AutoNormal
        from pyro.optim import Adam
        from pyro.poutine import trace

    def sites() -> None:
        for i in range(100):
            lang.sample(f"x{i}", dist.Normal(0.0, 1.0))

    y, sigma = torch.tensor(Y), torch.tensor(SIGMA)

    def schools() -> None:
        mu = lang.sample("mu", dist.Normal(0.0, 5.0))
        tau = lang.sample("tau", dist.HalfCauchy(5.0))
        with lang.plate("schools", 8):
            theta = lang.sample("theta", dist.Normal(mu, tau))
            lang.sample("obs", dist.Normal(theta, sigma), obs=y)

    def guide() -> None:
        positive = constraints.positive
        mu_loc = lang.param("mu_loc", lambda: torch.tensor(0.0))
        mu_scale = lang.param("mu_scale", lambda: torch.tensor(1.0), constraint=positive)
        tau_loc = lang.param("tau_loc", lambda: torch.tensor(0.0))
        tau_scale = lang.param("tau_scale", lambda: torch.tensor(1.0), constraint=positive)
        loc = lang.param("loc", lambda: torch.zeros(8))
        scale = lang.param("scale", lambda: torch.ones(8), constraint=positive)
        lang.sample("mu", dist.Normal(mu_loc, mu_scale))
        lang.sample("tau", dist.LogNormal(tau_loc, tau_scale))
        with lang.plate("schools", 8):
            lang.sample("theta", dist.Normal(loc, scale))

    def step(a_guide: Any) -> Callable[[], Any]:
        svi = SVI(schools, a_guide, Adam({"lr": 0.01}), loss=Trace_ELBO())
        for _ in range(20):
            svi.step()
        return svi.step

    traced = trace(sites)
    traced.get_trace()
    return {
        "trace, 100 scalar Normal sites, µs a site": best_of(traced.get_trace, 60) / 100,
        "SVI.step, eight schools, own guide, µs": best_of(step(guide), 300),
        "SVI.step, eight schools, AutoNormal, µs": best_of(step(AutoNormal(schools)), 300),
    }


def rounds(pythons: dict[str, str], count: int) -> list[dict[str, dict[str, float]]]:
    """Rounds of all systems, one process each."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = []
    for _ in range(count):
        row = {}
        for system, python in pythons.items():
            out = subprocess.run([python, __file__, system], capture_output=True, text=True, check=True, env=env)
            row[system] = json.loads(out.stdout.splitlines()[-1])
        found.append(row)
    return found


def table(found: list[dict[str, dict[str, float]]]) -> str:
    """Markdown: minimum and median of each system, and the ratio to Pyro round by round."""
    lines = [
        "| | ppl min | median | pyro min | median | ratio min | median | max |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for figure in found[0]["ppl"]:
        ours, theirs = ([row[system][figure] for row in found] for system in SYSTEMS)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        cells = [min(ours), statistics.median(ours), min(theirs), statistics.median(theirs)]
        text = [f"{x:.1f}" for x in cells] + [f"{x:.2f}" for x in (min(ratios), statistics.median(ratios), max(ratios))]
        lines.append(f"| {figure} | {' | '.join(text)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", nargs="?", choices=SYSTEMS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pyro-python", default=sys.executable, help="an interpreter with pyro-ppl")
    options = parser.parse_args()
    if options.system:
        print(json.dumps(measure(options.system)))
        return
    print(table(rounds({"ppl": sys.executable, "pyro": options.pyro_python}, options.rounds)))


if __name__ == "__main__":
    main()
