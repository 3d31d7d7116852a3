"""The bound with marked discrete sites summed exactly."""

from __future__ import annotations

from typing import Any

from ppl.distributions import Distribution
from ppl.handlers.replay import replay
from ppl.infer.elbo.elbo import ELBO
from ppl.infer.elbo.enumerated import check_limit, enumerate_program
from ppl.infer.elbo.marginals import compute_marginals
from ppl.infer.elbo.nesting import Program, run
from ppl.infer.elbo.posterior import posterior


class TraceEnum_ELBO(ELBO):
    """-E_q[log p(x, z) - log q(z)], with sites marked `infer={"enumerate": "parallel"}` or "sequential" not drawn.

    Marked in the model alone, they are summed out of the density; marked in model and guide, the expectation under the
    guide's probabilities is exact. Plates may be nested; `config_enumerate` marks all discrete sites of a program.

    Args:
        num_particles, max_plate_nesting, vectorize_particles: as in every ELBO.
        memory_limit: bytes that summing out the model's sites may hold, the backward pass included. Where they do not
            suffice for all at once, plates are worked off in slices, which are computed again in the backward pass. The
            limit is on what the elimination makes: the log densities of the sites, which it starts from, the gradients
            by them, and expectations under a guide's enumerated sites are not part of it. See `explain_enumeration`.
    Raises: ValueError naming sites, plates and bytes where one element of a plate does not fit the limit.
    """

    enumerates = True

    def __init__(
        self,
        num_particles: int = 1,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = False,
        memory_limit: int | None = None,
    ) -> None:
        super().__init__(num_particles, max_plate_nesting, vectorize_particles)
        check_limit(memory_limit, type(self).__name__)
        self.memory_limit = memory_limit

    def compute_marginals(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> dict[str, Distribution]:
        """The posterior of each site that the model enumerates, by itself, given one draw of the guide.

        Shapes: each has the batch shape of its plates.
        """
        given = replay(model, run(guide, args, kwargs))
        return compute_marginals(given, *args, memory_limit=self.memory_limit, **kwargs)

    def sample_posterior(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Any:
        """What the model returns where its enumerated sites are a joint posterior draw, given one draw of the guide."""
        given = replay(model, run(guide, args, kwargs))
        return replay(given, posterior(enumerate_program(given, args, kwargs, None), 1, self.memory_limit))(
            *args, **kwargs
        )
