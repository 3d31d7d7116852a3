"""How many dims the plates of a program use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ppl.handlers.replay import replay
from ppl.handlers.trace import trace
from ppl.stack import sketched, unrecorded
from ppl.trace import Trace

Program = Callable[..., Any]


def run(program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Trace:
    """The record of one run."""
    with trace() as record:
        program(*args, **kwargs)
    return record


def find_plate_nesting(model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """How many dims plates use, found by running guide and model once; random generators are left as they were."""
    fork = torch.random.fork_rng(devices=range(torch.cuda.device_count()))
    with unrecorded(), sketched(), torch.no_grad(), fork:
        guide_trace = run(guide, args, kwargs)
        model_trace = run(replay(model, guide_trace), args, kwargs)
    frames = [frame for t in (guide_trace, model_trace) for site in t.nodes.values() for frame in site.plates]
    return max((-frame.dim for frame in frames if frame.dim is not None), default=0)
