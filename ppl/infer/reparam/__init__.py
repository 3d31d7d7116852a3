"""Rewritings of sites, for `ppl.handlers.reparam`."""

from ppl.handlers.reparam import Reparam
from ppl.infer.reparam.loc_scale import LocScaleReparam
from ppl.infer.reparam.transform import TransformReparam

__all__ = ["LocScaleReparam", "Reparam", "TransformReparam"]
