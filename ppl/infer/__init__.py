"""Inference: algorithms written on the language, as handlers and functions of traces."""

from ppl.infer import autoguide, reparam
from ppl.infer.autoguide import (
    init_to_feasible,
    init_to_mean,
    init_to_median,
    init_to_sample,
    init_to_uniform,
    init_to_value,
)
from ppl.infer.discrete import infer_discrete
from ppl.infer.elbo import ELBO, Trace_ELBO, TraceEnum_ELBO, TraceTMC_ELBO
from ppl.infer.elbo.marginals import compute_marginals
from ppl.infer.enumeration import config_enumerate
from ppl.infer.explain import explain_enumeration
from ppl.infer.fit import FitResult
from ppl.infer.predictive import Predictive
from ppl.infer.run import SVIResult
from ppl.infer.svi import SVI

__all__ = [
    "ELBO",
    "SVI",
    "FitResult",
    "Predictive",
    "SVIResult",
    "TraceEnum_ELBO",
    "TraceTMC_ELBO",
    "Trace_ELBO",
    "autoguide",
    "compute_marginals",
    "config_enumerate",
    "explain_enumeration",
    "infer_discrete",
    "init_to_feasible",
    "init_to_mean",
    "init_to_median",
    "init_to_sample",
    "init_to_uniform",
    "init_to_value",
    "reparam",
]
