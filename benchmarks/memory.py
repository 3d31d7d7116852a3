"""Peak memory of latent Dirichlet allocation beside Pyro: topics of words summed out, one optimiser step after another.

    python benchmarks/memory.py           run all and print a table
    python benchmarks/memory.py ppl full  one workload of one system, as JSON (what the table is made of)

Each figure is the growth of the process's peak resident memory over some steps, measured in a process of its own after
libraries, data and the optimiser's first use are in place.
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
from typing import Any

SYSTEMS = ("ppl", "pyro")
WORKLOADS = ("full", "subsampled")
TOPICS, WORDS, DOCS, LENGTH, BATCH = 8, 1024, 1000, 64, 32


def peak() -> float:
    """The most memory this process ever held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(system: str, workload: str, steps: int = 5) -> dict[str, float]:
    """Steps of SVI on one workload: the growth of the peak, in MB, and the fastest step, in ms."""
    import torch

    torch.set_num_threads(1)
    if system == "ppl":
        import ppl as lang
        import ppl.distributions as dist
        from ppl.distributions import constraints
        from ppl.infer import SVI, TraceEnum_ELBO
        from ppl.optim import Adam
    else:
        import pyro as lang
        import pyro.distributions as dist
        from pyro.distributions import constraints
        from pyro.infer import SVI, TraceEnum_ELBO
        from pyro.optim import Adam

    torch.manual_seed(0)
    data = torch.randint(WORDS, (LENGTH, DOCS))
    size = BATCH if workload == "subsampled" else None

    def model() -> None:
        with lang.plate("topics", TOPICS):
            topic_words = lang.sample("topic_words", dist.Dirichlet(torch.ones(WORDS) / WORDS))
        words = lang.plate("words", LENGTH, subsample_size=size, dim=-2)
        with lang.plate("documents", DOCS, dim=-1):
            doc_topics = lang.sample("doc_topics", dist.Dirichlet(torch.ones(TOPICS) / TOPICS))
            with words as index:
                topic = lang.sample("word_topics", dist.Categorical(doc_topics), infer={"enumerate": "parallel"})
                lang.sample("doc_words", dist.Categorical(topic_words[topic]), obs=data[index])

    def guide() -> None:
        topics_posterior = lang.param(
            "topics_posterior", lambda: torch.ones(TOPICS, WORDS), constraint=constraints.positive
        )
        docs_posterior = lang.param("docs_posterior", lambda: torch.ones(DOCS, TOPICS), constraint=constraints.positive)
        with lang.plate("topics", TOPICS):
            lang.sample("topic_words", dist.Dirichlet(topics_posterior))
        with lang.plate("documents", DOCS, dim=-1):
            lang.sample("doc_topics", dist.Dirichlet(docs_posterior))

    svi = SVI(model, guide, Adam({"lr": 0.01}), loss=TraceEnum_ELBO(max_plate_nesting=2))
    warm = torch.zeros(2, requires_grad=True)  # the autograd engine and its threads are not the workload's
    warm.sum().backward()
    before, fastest = peak(), float("inf")
    for _ in range(steps):
        start = time.perf_counter()
        svi.step()
        fastest = min(fastest, time.perf_counter() - start)
    return {"peak": peak() - before, "step": fastest * 1e3}


def rounds(pythons: dict[str, str], count: int) -> dict[str, dict[str, list[dict[str, float]]]]:
    """All workloads, some times each, the systems in turn and each in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    found: dict[str, dict[str, list[dict[str, float]]]] = {w: {s: [] for s in pythons} for w in WORKLOADS}
    for _ in range(count):
        for workload in WORKLOADS:
            for system, python in pythons.items():
                command = [python, __file__, system, workload]
                out = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
                found[workload][system].append(json.loads(out.stdout.splitlines()[-1]))
    return found


def table(found: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """Markdown: the median growth of the peak and the fastest step."""
    lines = ["| LDA | ppl, MB | pyro, MB | ratio | ppl, ms a step | pyro, ms a step |", "|---|---|---|---|---|---|"]
    for workload, systems in found.items():
        mb = [statistics.median(row["peak"] for row in systems[s]) for s in SYSTEMS]
        ms = [min(row["step"] for row in systems[s]) for s in SYSTEMS]
        lines.append(f"| {workload} | {mb[0]:.1f} | {mb[1]:.1f} | {mb[0] / mb[1]:.2f} | {ms[0]:.1f} | {ms[1]:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", nargs="?", choices=SYSTEMS)
    parser.add_argument("workload", nargs="?", choices=WORKLOADS, default="full")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pyro-python", default=sys.executable, help="an interpreter with pyro-ppl")
    options: Any = parser.parse_args()
    if options.system:
        print(json.dumps(measure(options.system, options.workload)))
        return
    print(table(rounds({"ppl": sys.executable, "pyro": options.pyro_python}, options.rounds)))


if __name__ == "__main__":
    main()
