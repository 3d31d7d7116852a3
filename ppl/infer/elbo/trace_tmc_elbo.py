"""The bound with many draws of each site, over all of whose combinations the importance weights are averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from ppl.infer.elbo.elbo import ELBO
from ppl.infer.elbo.monte_carlo import is_monte_carlo, log_proposal, masked_factor
from ppl.infer.elbo.terms import Names, Terms, mask_factor, score_of_draws, take_scale, to_factor, unmasked
from ppl.site import Site
from ppl.tensors.factor import Factor
from ppl.trace import Trace


class TraceTMC_ELBO(ELBO):
    """-E[log Ẑ], Ẑ the mean of p(x, z)/q(z) over all combinations of the draws of the guide's sites.

    Mark sites of the guide by `config_enumerate(guide, num_samples=K, tmc="diagonal")` (or "mixture"); K draws of each of
    M sites make K^M combinations, which are summed by elimination. Ẑ is an unbiased estimate of the evidence, so that the
    bound is one on the log evidence; with one draw it is the usual one, with many it comes close. Sites of model and guide
    that are enumerated without num_samples are summed exactly, inside the logarithm; sites without a mark are drawn once.

    Gradients are those of the bound itself: pathwise, and with score functions for draws that are not reparameterised,
    whose learning signal is log Ẑ minus a decaying average.

    Source: Aitchison 2019, Tensor Monte Carlo: particle methods for the GPU era.
    """

    enumerates = True
    sums_guide = True

    def _guide_terms(self, guide: Trace, enumerated: Names) -> Terms:
        """1/(n q) of each site's draws, in log space and unscaled; what has its whole support weighs as in the model."""
        terms = Terms()
        for name, site in guide.nodes.items():
            if site.kind != "sample" or (name in enumerated and not is_monte_carlo(site)):
                continue
            log_q = to_factor(unmasked(guide, name), site)
            proposal = log_proposal(site, log_q)
            score = score_of_draws(guide, name, log_q, proposal)
            if score is not None:
                terms.scores[name] = score
            kept = masked_factor(proposal, mask_factor(site))
            count = (site.infer.num_samples or 1) if name in enumerated else 1
            terms.guide[name] = Factor(kept.axes, -kept.tensor - math.log(count))
            take_scale(name, site, terms)
        return terms

    def _outside(self, guide: Trace, enumerated: Names) -> Names:
        return frozenset(name for name in enumerated if is_monte_carlo(guide[name]))

    def _combine(
        self, terms: Terms, proposed: Terms, home: dict[str, Names], sites: Mapping[str, Site], guide_axes: Names
    ) -> Tensor:
        for name, factor in proposed.guide.items():
            key = f"{name} (guide)"
            terms.model[key], terms.scales[key] = factor, proposed.scales[name]
            if name in proposed.scaled:
                terms.scaled[key] = proposed.scaled[name]
        scores = {**terms.scores, **proposed.scores}
        terms.scores = {name: score.sum(home) for name, score in scores.items()}
        return self._assemble(terms, home, sites)
