"""The table of the SVI benchmarks: ratios round by round, and its place in RESULTS.md."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

Rounds = Sequence[Mapping[str, float]]  # the figures of one system and workload, one entry a round
BEGIN, END = "<!-- svi: begin -->", "<!-- svi: end -->"
FIGURES = {
    "bulk": "step in bulk, µs",
    "single": "single call, µs",
    "cold": "first step, nothing cached, s",
    "compiled": "first compiled step, cache filled, s",
    "filling": "first compiled step, nothing cached, s",
    "memory": "peak memory, cache filled, MB",
    "loss": "loss reached",
}


def table(found: Mapping[str, Mapping[str, Rounds]], titles: Mapping[str, str]) -> str:
    """Markdown: a row a workload and figure, each system's minimum and median, and the ratios of ppl to its peers.

    Args: found, the rounds by workload and system.
    """
    systems = [s for s in ("ppl", "pyro", "numpyro") if any(s in of_workload for of_workload in found.values())]
    peers = [s for s in systems if s != "ppl"] if "ppl" in systems else []
    lines = [
        f"| | | {' | '.join(f'{s}: min, median' for s in systems)} |"
        + "".join(f" ppl / {peer}: min, median, max |" for peer in peers),
        "|" + "---|" * (2 + len(systems) + len(peers)),
    ]
    for workload, of_systems in found.items():
        for figure in FIGURES:
            rounds = {s: values(of_systems.get(s, ()), figure) for s in systems}
            if any(rounds.values()):
                cells = [absolute(rounds[s], figure) for s in systems]
                cells += [relative(rounds["ppl"], rounds[peer], figure) for peer in peers]
                lines.append(f"| {titles[workload]} | {FIGURES[figure]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def values(rounds: Rounds, figure: str) -> list[float | None]:
    """A figure by round, None where a round lacks it; empty where all do."""
    found = [r.get(figure) for r in rounds]
    return found if any(x is not None for x in found) else []


def absolute(rounds: Sequence[float | None], figure: str) -> str:
    """Minimum and median; a loss with the digits in which it may differ."""
    known = [x for x in rounds if x is not None]
    cells = (min(known), statistics.median(known)) if known else ()
    return ", ".join(f"{x:.2f}" if figure == "loss" else number(x) for x in cells)


def relative(ours: Sequence[float | None], theirs: Sequence[float | None], figure: str) -> str:
    """Minimum, median and maximum of the rounds' ratios; of the differences for a loss, which may be near zero."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=False) if a is not None and b is not None]
    if not pairs:
        return ""
    if figure == "loss":
        compared = [a - b for a, b in pairs]
        return "difference " + ", ".join(
            f"{x:+.2f}" for x in (min(compared), statistics.median(compared), max(compared))
        )
    compared = [a / b for a, b in pairs]
    return ", ".join(number(x) for x in (min(compared), statistics.median(compared), max(compared)))


def number(x: float) -> str:
    """Three digits, without powers of ten."""
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}" if abs(x) >= 1 else f"{x:.3g}"


def write(text: str, file: Path) -> None:
    """Replace what stands between the two markers of a file.

    Raises: ValueError where the markers are not both there, in order.
    """
    old = file.read_text(encoding="utf-8")
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{file} must have the lines {BEGIN} and {END}, in this order, around the section to replace.")
    file.write_text(f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}", encoding="utf-8")
