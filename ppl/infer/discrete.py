"""The discrete sites of a model given everything else: posterior draws, or the most probable values together."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ppl.handlers.replay import replay
from ppl.infer.elbo.enumerated import check_limit, enumerate_program
from ppl.infer.elbo.posterior import posterior

Program = Callable[..., Any]


def infer_discrete(
    fn: Program | None = None,
    first_available_dim: int | None = None,
    temperature: int = 1,
    memory_limit: int | None = None,
) -> Program:
    """A program like `fn` whose sites marked for enumeration take values from their joint posterior, all else given.

    Condition or replay the other latent sites first: `infer_discrete(replay(model, guide_trace))`. Those left to be drawn
    are drawn from their distributions, and shown with the choices that they were drawn for; this is exact as long as
    nothing observed depends on them.

    Args:
        first_available_dim: a negative dim left of all plates; found by a first run if not given.
        temperature: 1 for an exact draw, 0 for the most probable values (the joint maximum, not the marginals').
        memory_limit: bytes that summing out may hold, as in `TraceEnum_ELBO`; draws then follow the same law, but are
            others than those of the same seed without a limit.
    Raises: ValueError for another temperature, for a sum that does not fit the limit, and for a structure that cannot be summed out.
    """
    if temperature not in (0, 1):
        raise ValueError(f"infer_discrete: temperature must be 0 (maximum) or 1 (posterior draw), got {temperature!r}.")
    check_limit(memory_limit, "infer_discrete")
    if fn is None:
        return functools.partial(
            infer_discrete,
            first_available_dim=first_available_dim,
            temperature=temperature,
            memory_limit=memory_limit,
        )
    if not callable(fn):
        raise TypeError(f"infer_discrete wraps a callable, but got {type(fn).__name__}: {fn!r}.")
    program = fn

    @functools.wraps(program)
    def inferred(*args: Any, **kwargs: Any) -> Any:
        found = enumerate_program(program, args, kwargs, first_available_dim, maximised=temperature == 0)
        return replay(program, posterior(found, temperature, memory_limit))(*args, **kwargs)

    return inferred
