"""The table of distributions: a row or more for each public one, which the tests in this folder run through."""

from __future__ import annotations

import importlib
from pathlib import Path

from case import Case

import ppl.distributions as dist

ROWS = [importlib.import_module(path.stem) for path in sorted(Path(__file__).parent.glob("rows_*.py"))]
CASES: list[Case] = [case for rows in ROWS for case in rows.CASES]

#: Exported, but nothing to build, or without draws (tested in test_improper.py).
ABSTRACT = {dist.Distribution, dist.ExponentialFamily, dist.ImproperUniform}

__all__ = ["ABSTRACT", "CASES", "Case"]
