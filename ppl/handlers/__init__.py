"""Effect handlers: each gives statements another meaning while it is active."""

from ppl.handlers.block import block
from ppl.handlers.broadcast import broadcast
from ppl.handlers.condition import condition
from ppl.handlers.do import do
from ppl.handlers.enlarge import enlarge
from ppl.handlers.enum import enum
from ppl.handlers.equalize import equalize
from ppl.handlers.escape import NonlocalExit, escape
from ppl.handlers.infer_config import infer_config
from ppl.handlers.lift import lift
from ppl.handlers.markov import markov
from ppl.handlers.mask import mask
from ppl.handlers.plate import plate, plate_stack
from ppl.handlers.queue import queue
from ppl.handlers.reparam import Reparam, reparam
from ppl.handlers.replay import replay
from ppl.handlers.scale import scale
from ppl.handlers.scan import scan
from ppl.handlers.scope import scope
from ppl.handlers.seed import seed
from ppl.handlers.substitute import substitute
from ppl.handlers.trace import trace
from ppl.handlers.uncondition import uncondition
from ppl.stack import Handler, perform
from ppl.trace import Trace

__all__ = [
    "Handler",
    "NonlocalExit",
    "Reparam",
    "Trace",
    "block",
    "broadcast",
    "condition",
    "do",
    "enlarge",
    "enum",
    "equalize",
    "escape",
    "infer_config",
    "lift",
    "markov",
    "mask",
    "perform",
    "plate",
    "plate_stack",
    "queue",
    "reparam",
    "replay",
    "scale",
    "scan",
    "scope",
    "seed",
    "substitute",
    "trace",
    "uncondition",
]
