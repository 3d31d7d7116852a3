"""Guides made from models."""

from ppl.infer.autoguide.continuous import AutoContinuous, AutoDiagonalNormal
from ppl.infer.autoguide.delta import AutoDelta
from ppl.infer.autoguide.guide import AutoGuide
from ppl.infer.autoguide.normal import AutoNormal
from ppl.infer.initialization import (
    init_to_feasible,
    init_to_mean,
    init_to_median,
    init_to_sample,
    init_to_uniform,
    init_to_value,
)

__all__ = [
    "AutoContinuous",
    "AutoDelta",
    "AutoDiagonalNormal",
    "AutoGuide",
    "AutoNormal",
    "init_to_feasible",
    "init_to_mean",
    "init_to_median",
    "init_to_sample",
    "init_to_uniform",
    "init_to_value",
]
