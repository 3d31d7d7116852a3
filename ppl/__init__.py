"""ppl: a probabilistic programming mini-language on PyTorch.

A model is a Python function that makes statements; handlers give the statements their meaning.

    import torch
    import ppl
    import ppl.distributions as dist

    def model(data):
        mean = ppl.sample("mean", dist.Normal(0.0, 10.0))
        with ppl.plate("data", len(data)):
            ppl.sample("obs", dist.Normal(mean, 1.0), obs=data)
"""

from ppl import distributions, handlers, infer, optim
from ppl.distributions.validation import enable_validation, is_validation_enabled, validation_enabled
from ppl.handlers import condition, do, markov, plate, plate_stack, scan
from ppl.infer import explain_enumeration
from ppl.params import ParamStore, clear_param_store, get_param_store
from ppl.statements import deterministic, factor, module, param, sample, set_rng_seed, subsample
from ppl.tensors.indexing import Vindex, vindex

__version__ = "0.1.0"

__all__ = [
    "ParamStore",
    "Vindex",
    "clear_param_store",
    "condition",
    "deterministic",
    "distributions",
    "do",
    "enable_validation",
    "explain_enumeration",
    "factor",
    "get_param_store",
    "handlers",
    "infer",
    "is_validation_enabled",
    "markov",
    "module",
    "optim",
    "param",
    "plate",
    "plate_stack",
    "sample",
    "scan",
    "set_rng_seed",
    "subsample",
    "validation_enabled",
    "vindex",
]
