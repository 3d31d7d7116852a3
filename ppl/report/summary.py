"""A table of posterior samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch

Samples = Mapping[str, Any]
LOW, MIDDLE, HIGH = 0.05, 0.5, 0.95


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of one site."""

    name: str  # with its index, as in "slope[3]" or "slope[Mar]"
    site: str  # without
    mean: float
    sd: float  # with N - 1 in the denominator; NaN for a single sample
    low: float  # the 5 % quantile
    median: float
    high: float  # the 95 % quantile
    reference: float | None = None  # what the mean should be, where it is known

    @property
    def error(self) -> float | None:
        """How far the mean is from the reference, in posterior standard deviations."""
        if self.reference is None:
            return None
        off = self.mean - self.reference
        if off == 0:
            return 0.0
        return off / self.sd if self.sd else math.copysign(math.inf, off)


@dataclass(frozen=True, slots=True)
class Summary:
    """The rows of a summary; `print` shows them as an aligned table."""

    rows: tuple[Row, ...]
    title: str = ""

    def __getitem__(self, name: str) -> Row:
        """The row of a name; KeyError naming those that exist."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no row '{name}' in the summary; it has {', '.join(row.name for row in self.rows)}")

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        has_reference = any(row.reference is not None for row in self.rows)
        table = [["", "mean", "sd", "5 %", "median", "95 %"] + ["reference", "error / sd"] * has_reference]
        for _, group in itertools.groupby(self.rows, lambda row: row.site):
            rows = list(group)
            decimals = _decimals(rows)
            table += [_cells(row, decimals, has_reference) for row in rows]
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = [
            "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
            for line in table
        ]
        return "\n".join(([self.title] if self.title else []) + [line.rstrip() for line in lines])


def summary(
    samples: Samples,
    reference: Samples | None = None,
    *,
    labels: Mapping[str, Sequence[str]] | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
) -> Summary:
    """Mean, standard deviation and quantiles of every entry of every site.

    Shapes: samples (num_samples, *site) by name, as `Predictive` returns them; reference (*site) by name.
    Args:
        samples: tensors or arrays; booleans and integers are counted as numbers.
        reference: what the means should be, for all sites or some.
        labels: names for the entries along a site's last dim, to stand in the brackets instead of numbers.
        names: the sites to show, in this order; all by default.
        title: a line above the table.
    Raises: ValueError naming the site for samples without a first dim, or a reference or labels of another shape.
    """
    shown = list(samples) if names is None else list(names)
    for what, given in (("names", shown), ("reference", reference or ()), ("labels", labels or ())):
        unknown = [name for name in given if name not in samples]
        if unknown:
            raise ValueError(f"summary: {what} has sites {unknown}, but there are samples of {list(samples)} only.")
    rows: list[Row] = []
    for name in shown:
        values = _array(name, samples[name], "samples")
        if values.ndim == 0 or not len(values):
            raise ValueError(
                f"summary: site '{name}': expected samples on the first dim, (num_samples, *site), but the shape is "
                f"{values.shape}."
            )
        expected = None if reference is None or name not in reference else _array(name, reference[name], "reference")
        if expected is not None and expected.shape != values.shape[1:]:
            raise ValueError(
                f"summary: site '{name}': the reference must have the site's shape {values.shape[1:]}, but has "
                f"{expected.shape}."
            )
        rows += _rows(name, values, expected, (labels or {}).get(name))
    return Summary(tuple(rows), title)


def _array(name: str, values: Any, what: str) -> numpy.ndarray[Any, numpy.dtype[numpy.float64]]:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    try:
        return numpy.asarray(values, dtype=numpy.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"summary: site '{name}': {what} must be a tensor or an array of numbers, but got {type(values).__name__}."
        ) from error


def _rows(name: str, values: Any, expected: Any, labels: Sequence[str] | None) -> list[Row]:
    shape = values.shape[1:]
    if labels is not None and (not shape or len(labels) != shape[-1]):
        raise ValueError(f"summary: site '{name}': {len(labels)} labels do not fit the last dim of its shape {shape}.")
    mean = values.mean(0)
    sd = values.std(0, ddof=1) if len(values) > 1 else numpy.full(shape, numpy.nan)
    low, median, high = numpy.quantile(values, (LOW, MIDDLE, HIGH), axis=0)
    rows = []
    for index in numpy.ndindex(shape):
        keys = [str(i) for i in index]
        if labels is not None:
            keys[-1] = labels[index[-1]]
        rows.append(
            Row(
                name=f"{name}[{', '.join(keys)}]" if keys else name,
                site=name,
                mean=float(mean[index]),
                sd=float(sd[index]),
                low=float(low[index]),
                median=float(median[index]),
                high=float(high[index]),
                reference=None if expected is None else float(expected[index]),
            )
        )
    return rows


def _decimals(rows: Sequence[Row]) -> int:
    """So many that the typical sd shows two digits that count; one number for a site, so that its entries align."""
    sizes = sorted(row.sd for row in rows if 0 < row.sd < math.inf)
    if not sizes:
        sizes = sorted(abs(row.mean) for row in rows if 0 < abs(row.mean) < math.inf) or [1.0]
    return min(max(1 - math.floor(math.log10(sizes[len(sizes) // 2])), 0), 10)


def _cells(row: Row, decimals: int, has_reference: bool) -> list[str]:
    cells = [row.name, *(f"{x:.{decimals}f}" for x in (row.mean, row.sd, row.low, row.median, row.high))]
    if not has_reference:
        return cells
    if row.reference is None or row.error is None:
        return [*cells, "", ""]
    return [*cells, f"{row.reference:.{decimals}f}", f"{row.error:+.2f}"]
