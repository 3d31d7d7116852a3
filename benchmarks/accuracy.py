"""How wrong log densities are in the tails, ours and the peers', at the points of the tests' table.

Writes docs/distributions_accuracy.md; run by `make accuracy`. The error of a log density is |got - exact| relative to
max(1, |exact|), where exact has 30 digits and starts from the parameters and values as the dtype holds them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "distributions_accuracy.md"
DTYPES = ("float64", "float32")

Question = dict[str, Any]  # what to build, in which dtype, where to look, and the right answer


def ask() -> list[Question]:
    """All points of all rows with an exact density."""
    sys.path[:0] = [str(ROOT / "tests" / "distributions")]
    import torch
    from cases import CASES
    from tails import has_tails, points

    torch.set_default_dtype(torch.float64)
    return [
        {
            "cls": case.cls.__name__,
            "wrapped": case.build_from is not None,
            "options": {k: v for k, v in case.options.items() if isinstance(v, (int, float, str, list))},
            "integers": list(case.integers),
            "row": number,
            "dtype": dtype,
            "params": dict(params),
            "x": x,
            "exact": exact,
        }
        for number, case in enumerate(CASES)
        if has_tails(case) and case.integrates
        for dtype in DTYPES
        for x, params, exact in points(case, getattr(torch, dtype))
    ]


def ours(questions: list[Question]) -> list[float]:
    """Our errors."""
    import torch
    from cases import CASES
    from tails import distance

    import ppl.distributions as dist

    found = []
    with dist.validation_enabled(False):
        for q in questions:
            case, dtype = CASES[q["row"]], getattr(torch, q["dtype"])
            tensors = {
                k: torch.tensor(v, dtype=torch.int64 if k in case.integers else dtype) for k, v in q["params"].items()
            }
            got = float(case.of(**tensors).log_prob(torch.tensor(q["x"], dtype=dtype)))
            found.append(distance(got, q["exact"]))
    return found


def peers(questions: list[Question]) -> list[float | None]:
    """The peer's errors; None where it has no such distribution, NaN where it raises. Runs in its own environment."""
    import torch
    import torch.distributions as family

    with contextlib.suppress(ImportError):
        import pyro.distributions as family  # torch's and its own
    torch.distributions.Distribution.set_default_validate_args(False)
    found: list[float | None] = []
    for q in questions:
        cls = None if q["wrapped"] else getattr(family, q["cls"], None)
        if cls is None:
            found.append(None)
            continue
        dtype = getattr(torch, q["dtype"])
        tensors = {
            k: torch.tensor(v, dtype=torch.int64 if k in q["integers"] else dtype) for k, v in q["params"].items()
        }
        try:
            d = cls(**tensors, **q["options"])
            got = float(d.log_prob(torch.tensor(q["x"], dtype=dtype)))
        except Exception as error:  # whatever it raises is a result: the table says so
            print(f"{q['cls']}, {q['dtype']}: {type(error).__name__}: {error}", file=sys.stderr)
            found.append(math.nan)
            continue
        exact = q["exact"]
        wrong = not math.isfinite(got) or not math.isfinite(exact)
        found.append(0.0 if got == exact else math.inf if wrong else abs(got - exact) / max(1.0, abs(exact)))
    return found


def ask_peer(python: str | None, questions: list[Question]) -> list[float | None]:
    """The peer's errors, from its own interpreter (or torch's alone from this one)."""
    run = subprocess.run(
        [python or sys.executable, __file__, "--answer"],
        input=json.dumps(questions),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(run.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def shown(errors: list[float | None]) -> str:
    """The worst error, as a cell."""
    asked = [e for e in errors if e is not None]
    if not asked:
        return "none"
    known = [e for e in asked if not math.isnan(e)]
    raised = len(asked) - len(known)
    if not known:
        return "raises"
    worst = max(known)
    lost = sum(map(math.isinf, known))
    text = f"wrong or NaN ({lost} of {len(asked)})" if lost else "0" if worst == 0 else f"{worst:.0e}"
    return f"{text}, raises ({raised} of {len(asked)})" if raised else text


def table(questions: list[Question], own: list[float], peer: list[float | None], name: str) -> str:
    """The page."""
    cells: dict[str, dict[tuple[str, str], list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for q, a, b in zip(questions, own, peer, strict=True):
        cells[q["cls"]]["ours", q["dtype"]].append(a)
        cells[q["cls"]]["peer", q["dtype"]].append(b)
    lines = [
        "# How right the log densities are in the tails",
        "",
        "Generated by `make accuracy`; do not edit.",
        "",
        "Each density is compared with 30-digit arithmetic at its quantiles from 1e-12 to 1 - 1e-12, at further points far",
        "out, and with parameters near the ends of their ranges (`tests/distributions/rows_*.py`). The error is",
        "|got - exact| / max(1, |exact|) of the log density, for parameters and values as the dtype holds them.",
        "",
        f"{len(cells)} distributions, {len(questions)} points. The peer is {name}, on the same points.",
        "",
        "| distribution | points | float64 | peer's float64 | float32 | peer's float32 |",
        "|---|---|---|---|---|---|",
    ]
    for cls in sorted(cells):
        both = cells[cls]
        row = [shown(both[who, dtype]) for dtype in DTYPES for who in ("ours", "peer")]
        lines.append(f"| {cls} | {sum(len(both['ours', d]) for d in DTYPES)} | {' | '.join(row)} |")
    worst = [max(a for q, a in zip(questions, own, strict=True) if q["dtype"] == dtype) for dtype in DTYPES]
    lines += ["", f"The worst of ours: {worst[0]:.1e} in float64, {worst[1]:.1e} in float32.", ""]
    return "\n".join(lines)


def main() -> None:
    """Ask, answer twice, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pyro-python", help="interpreter of an environment with Pyro; otherwise torch is the peer")
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        print(json.dumps(peers(json.loads(sys.stdin.read()))))
        return
    questions = ask()
    name = "Pyro 1.9 (torch's distributions and its own)" if options.pyro_python else "torch"
    TARGET.write_text(table(questions, ours(questions), ask_peer(options.pyro_python, questions), name))
    print(f"{len(questions)} points: {TARGET.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
