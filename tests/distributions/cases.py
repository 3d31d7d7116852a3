"""The table of distributions: a row or more for each public one, which the tests in this folder run through."""

from __future__ import annotations

import rows_counts
import rows_discrete
import rows_gamma
import rows_interval
import rows_location
import rows_multivariate
import rows_positive
import rows_wrappers
from case import Case

import ppl.distributions as dist

ROWS = (
    rows_counts,
    rows_discrete,
    rows_gamma,
    rows_interval,
    rows_location,
    rows_multivariate,
    rows_positive,
    rows_wrappers,
)
CASES: list[Case] = [case for rows in ROWS for case in rows.CASES]

#: Exported, but nothing to build.
ABSTRACT = {dist.Distribution, dist.ExponentialFamily}

__all__ = ["ABSTRACT", "CASES", "Case"]
