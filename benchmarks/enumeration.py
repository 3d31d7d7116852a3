"""Summing out discrete latents, beside Pyro and NumPyro: time a step and peak memory, in interleaved rounds.

    python benchmarks/enumeration.py --pyro-python P --numpyro-python P    run all and print the tables
    python benchmarks/enumeration.py ppl "hmm scan 60"                     one measurement, as JSON

Hidden Markov model: 16 states, 20 sequences of length T, 10 categorical emissions, both matrices learned through AutoDelta
with TraceEnum_ELBO and Adam; one SVI step. "markov" is a loop over `markov(range(T))`, "scan" the vectorised statement: ours,
eager; NumPyro's, compiled (compile time apart). "recorded" is the same scan after `svi.record(data)`: torch's operations one by
one, without a compiler. NumPyro 0.22's TraceEnum_ELBO gives another number for a scan than the forward
algorithm, its `contrib.funsor.log_density` the same: so its step is made of that. Pyro has the loop only. Mixture: 10 normal components,
points in a plate of which 10,000 are seen a step. Each figure is the best of several steps of a process, after two to warm up.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

K, N, V = 16, 20, 10
SEEN = 10_000
WORKLOADS = {
    "hmm markov 60": ("ppl", "pyro"),
    "hmm scan 60": ("ppl", "pyro", "numpyro"),
    "hmm recorded 60": ("ppl", "pyro"),
    "hmm markov 600": ("ppl", "pyro"),
    "hmm scan 600": ("ppl", "pyro", "numpyro"),
    "hmm recorded 600": ("ppl", "pyro"),
    "hmm scan 6000": ("ppl", "numpyro"),
    "mixture 10000": ("ppl", "pyro", "numpyro"),
    "mixture 100000": ("ppl", "pyro", "numpyro"),
    "mixture 1000000": ("ppl", "pyro", "numpyro"),
}


def torch_step(system: str, kind: str, size: int) -> tuple[Callable[[], float], float]:
    """A function that makes one SVI step and returns the loss; and the memory in use before it was made, in MB."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if system == "ppl":
        import ppl as lang
        import ppl.distributions as dist
        from ppl.handlers import block
        from ppl.infer import SVI, TraceEnum_ELBO, config_enumerate
        from ppl.infer.autoguide import AutoDelta
        from ppl.optim import Adam

        objective = TraceEnum_ELBO()
    else:
        import pyro as lang
        import pyro.distributions as dist
        from pyro.infer import SVI, TraceEnum_ELBO, config_enumerate
        from pyro.infer.autoguide import AutoDelta
        from pyro.optim import Adam
        from pyro.poutine import block

        objective = TraceEnum_ELBO(max_plate_nesting=1)

    @config_enumerate
    def markov(data: Any) -> None:
        tr = lang.sample("tr", dist.Dirichlet(torch.ones(K, K)).to_event(1))
        em = lang.sample("em", dist.Dirichlet(torch.ones(K, V)).to_event(1))
        with lang.plate("sequences", N, dim=-1):
            z: Any = 0
            for t in lang.markov(range(len(data))):
                z = lang.sample(f"z{t}", dist.Categorical(tr[z]))
                lang.sample(f"x{t}", dist.Categorical(em[z]), obs=data[t])

    @config_enumerate
    def scan(data: Any) -> None:
        tr = lang.sample("tr", dist.Dirichlet(torch.ones(K, K)).to_event(1))
        em = lang.sample("em", dist.Dirichlet(torch.ones(K, V)).to_event(1))

        def step(z: Any, x: Any) -> tuple[Any, None]:
            with lang.plate("sequences", N, dim=-1):
                z = lang.sample("z", dist.Categorical(tr[z]))
                lang.sample("x", dist.Categorical(em[z]), obs=x)
            return z, None

        lang.scan(step, 0, data)

    @config_enumerate
    def mixture(data: Any) -> None:
        weights = lang.sample("weights", dist.Dirichlet(torch.ones(10)))
        with lang.plate("components", 10):
            loc = lang.sample("loc", dist.Normal(0.0, 10.0))
        with lang.plate("points", len(data), subsample_size=SEEN) as index:
            k = lang.sample("k", dist.Categorical(weights))
            lang.sample("x", dist.Normal(loc[k], 1.0), obs=data[index])

    if kind == "mixture":
        model, expose, data = mixture, ["weights", "loc"], 5 * torch.randn(size)
    else:
        model = scan if kind != "hmm markov" and system == "ppl" else markov
        expose, data = ["tr", "em"], torch.randint(V, (size, N))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    svi = SVI(model, AutoDelta(block(model, expose=expose)), Adam({"lr": 0.01}), objective)
    if kind == "hmm recorded" and system == "ppl":
        svi.record(data)
    return lambda: float(svi.step(data)), before


def jax_step(kind: str, size: int) -> tuple[Callable[[], float], float]:
    """The same in NumPyro, compiled."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist
    from numpyro.contrib.control_flow import scan as numpyro_scan
    from numpyro.contrib.funsor import config_enumerate, enum, log_density
    from numpyro.handlers import block
    from numpyro.infer import SVI, TraceEnum_ELBO
    from numpyro.infer.autoguide import AutoDelta
    from numpyro.optim import Adam

    def hmm(data: Any) -> None:
        tr = numpyro.sample("tr", dist.Dirichlet(jnp.ones((K, K))).to_event(1))
        em = numpyro.sample("em", dist.Dirichlet(jnp.ones((K, V))).to_event(1))

        def step(z: Any, x: Any) -> tuple[Any, None]:
            with numpyro.plate("sequences", N, dim=-1):
                z = numpyro.sample("z", dist.Categorical(tr[z]), infer={"enumerate": "parallel"})
                numpyro.sample("x", dist.Categorical(em[z]), obs=x)
            return z, None

        numpyro_scan(step, jnp.zeros((), dtype=jnp.int32), data)

    def mixture(data: Any) -> None:
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(10)))
        with numpyro.plate("components", 10):
            loc = numpyro.sample("loc", dist.Normal(0.0, 10.0))
        with numpyro.plate("points", len(data), subsample_size=SEEN) as index:
            k = numpyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
            numpyro.sample("x", dist.Normal(loc[k], 1.0), obs=data[index])

    rng = np.random.default_rng(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if kind == "mixture":
        data = jnp.asarray(5 * rng.standard_normal(size).astype("f"))
        model = mixture
        guide = AutoDelta(block(model, hide_fn=lambda site: site["type"] == "sample" and site["name"] == "k"))
        svi = SVI(model, guide, Adam(0.01), TraceEnum_ELBO(max_plate_nesting=1))
        state = svi.init(jax.random.PRNGKey(0), data)
        update = jax.jit(svi.update)
    else:
        data = jnp.asarray(rng.integers(0, V, (size, N)))
        summed = enum(config_enumerate(hmm), first_available_dim=-2)
        simplex = dist.biject_to(dist.constraints.simplex)

        def loss_of(free: Any, data: Any) -> Any:
            values = {name: simplex(x) for name, x in free.items()}
            return -log_density(summed, (data,), {}, values)[0]

        optimizer = Adam(0.01)
        state = optimizer.init({"tr": jnp.zeros((K, K - 1)), "em": jnp.zeros((K, V - 1))})

        @jax.jit
        def update(state: Any, data: Any) -> tuple[Any, Any]:
            loss, slope = jax.value_and_grad(loss_of)(optimizer.get_params(state), data)
            return optimizer.update(slope, state), loss

    def step() -> float:
        nonlocal state
        state, loss = update(state, data)
        return float(loss)

    return step, before


def measure(system: str, workload: str) -> dict[str, float]:
    """One process: milliseconds of the best step, of the first one, the growth of peak memory in MB, and the last loss."""
    kind, size = workload.rsplit(" ", 1)
    step, before = jax_step(kind, int(size)) if system == "numpyro" else torch_step(system, kind, int(size))
    times, loss, start = [], 0.0, time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - start < 5 and len(times) < 100):
        begin = time.perf_counter()
        loss = step()
        times.append(1e3 * (time.perf_counter() - begin))
        if len(times) > 2 and time.perf_counter() - start > 60:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    return {"ms": min(times[2:] or times), "first": times[0], "mb": peak, "loss": loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", nargs="?", choices=("ppl", "pyro", "numpyro"))
    parser.add_argument("workload", nargs="?", choices=tuple(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--pyro-python", default=sys.executable)
    parser.add_argument("--numpyro-python", default=sys.executable)
    options = parser.parse_args()
    if options.system:
        print(json.dumps(measure(options.system, options.workload)))
        return
    pythons = {"ppl": sys.executable, "pyro": options.pyro_python, "numpyro": options.numpyro_python}
    env = {**os.environ, "OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    print("| | ms a step: ppl | pyro | numpyro | ppl / pyro | ppl / numpyro | peak MB: ppl | pyro | numpyro |")
    print("|---|---|---|---|---|---|---|---|---|")
    for workload, systems in WORKLOADS.items():
        if options.only not in workload:
            continue
        found: dict[str, list[dict[str, float]]] = {system: [] for system in systems}
        for _ in range(options.rounds):
            for system in systems:
                command = [pythons[system], __file__, system, workload]
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
                found[system].append(json.loads(done.stdout.splitlines()[-1]))
        print(row(workload, found), flush=True)


def row(workload: str, found: dict[str, list[dict[str, float]]]) -> str:
    """One line of the table: best times, the median of the ratios of each round, the largest memory."""
    ms = {system: [r["ms"] for r in rounds] for system, rounds in found.items()}
    cells = [f"{min(ms[s]):.1f}" if s in ms else "" for s in ("ppl", "pyro", "numpyro")]
    for peer in ("pyro", "numpyro"):
        ratios = [a / b for a, b in zip(ms["ppl"], ms.get(peer, ()), strict=False)]
        cells.append(f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})" if ratios else "")
    cells += [f"{max(r['mb'] for r in found[s]):.0f}" if s in found else "" for s in ("ppl", "pyro", "numpyro")]
    return f"| {workload} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
