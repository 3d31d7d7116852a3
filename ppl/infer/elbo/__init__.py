"""Objectives for variational inference: one core, three gradient estimators."""

from ppl.engine import explanation
from ppl.infer.elbo.elbo import ELBO
from ppl.infer.elbo.trace_elbo import Trace_ELBO
from ppl.infer.elbo.trace_enum_elbo import TraceEnum_ELBO
from ppl.infer.elbo.trace_tmc_elbo import TraceTMC_ELBO

__all__ = ["ELBO", "TraceEnum_ELBO", "TraceTMC_ELBO", "Trace_ELBO"]

explanation.default_loss[:] = [Trace_ELBO]
