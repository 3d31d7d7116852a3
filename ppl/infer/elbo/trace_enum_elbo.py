"""The bound with marked discrete sites summed exactly."""

from __future__ import annotations

from typing import Any

from ppl.distributions import Distribution
from ppl.handlers.replay import replay
from ppl.infer.elbo.elbo import ELBO
from ppl.infer.elbo.enumerated import enumerate_program
from ppl.infer.elbo.marginals import compute_marginals
from ppl.infer.elbo.nesting import Program, run
from ppl.infer.elbo.posterior import posterior


class TraceEnum_ELBO(ELBO):
    """-E_q[log p(x, z) - log q(z)], with sites marked `infer={"enumerate": "parallel"}` or "sequential" not drawn.

    Marked in the model alone, they are summed out of the density; marked in model and guide, the expectation under the
    guide's probabilities is exact. Plates may be nested; `config_enumerate` marks all discrete sites of a program.
    """

    enumerates = True

    def compute_marginals(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> dict[str, Distribution]:
        """The posterior of each site that the model enumerates, by itself, given one draw of the guide.

        Shapes: each has the batch shape of its plates.
        """
        return compute_marginals(replay(model, run(guide, args, kwargs)), *args, **kwargs)

    def sample_posterior(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Any:
        """What the model returns where its enumerated sites are a joint posterior draw, given one draw of the guide."""
        given = replay(model, run(guide, args, kwargs))
        return replay(given, posterior(enumerate_program(given, args, kwargs, None), 1))(*args, **kwargs)
