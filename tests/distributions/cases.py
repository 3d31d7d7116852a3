"""The table of distributions: a row or more for each public one, which the tests in this folder run through."""

from __future__ import annotations

import rows_continuous
import rows_copula
import rows_discrete
import rows_gamma
import rows_interval
import rows_location
import rows_mixtures
import rows_multivariate
import rows_positive
import rows_truncated
import rows_wrappers
from case import Case

import ppl.distributions as dist

ROWS = (
    rows_continuous,
    rows_copula,
    rows_discrete,
    rows_gamma,
    rows_interval,
    rows_location,
    rows_mixtures,
    rows_multivariate,
    rows_positive,
    rows_truncated,
    rows_wrappers,
)
CASES: list[Case] = [case for rows in ROWS for case in rows.CASES]

#: Exported, but nothing to build, or without draws (tested in test_improper.py).
ABSTRACT = {dist.Distribution, dist.ExponentialFamily, dist.ImproperUniform}

__all__ = ["ABSTRACT", "CASES", "Case"]
