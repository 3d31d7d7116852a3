"""The check that the lower end of an interval lies below its upper end."""

from __future__ import annotations

from typing import Any

from ppl.distributions import validation


def check_ends(d: Any) -> None:
    """Check that `low` < `high`, where the distribution's arguments are checked at all.

    Raises: InvalidArgument naming the distribution and the entries.
    """
    if not d._validate_args:
        return
    bad = ~(d.low < d.high)
    if bool(bad.any()):
        raise validation.InvalidArgument(
            f"{type(d).__name__}: argument 'low' must be less than 'high', but 'high - low' "
            f"{validation.describe_entries(bad, d.high - d.low)}.",
            bad,
        )
