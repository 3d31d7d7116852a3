"""The bound with marked discrete sites summed exactly."""

from ppl.infer.elbo.elbo import ELBO


class TraceEnum_ELBO(ELBO):
    """-E_q[log p(x, z) - log q(z)], with sites marked `infer={"enumerate": "parallel"}` or "sequential" not drawn.

    Marked in the model alone, they are summed out of the density; marked in model and guide, the expectation under the
    guide's probabilities is exact. Plates may be nested; `config_enumerate` marks all discrete sites of a program.
    """

    enumerates = True
