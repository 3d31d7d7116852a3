"""The bound with every latent site drawn from the guide."""

from ppl.infer.elbo.elbo import ELBO


class Trace_ELBO(ELBO):
    """-E_q[log p(x, z) - log q(z)], estimated from draws.

    Reparameterised sites get pathwise gradients, others score-function gradients with a decaying-average baseline.
    Marks for enumeration are ignored.
    """

    enumerates = False
