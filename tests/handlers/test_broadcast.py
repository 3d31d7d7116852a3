"""broadcast expands distributions to the plates early."""

import torch

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.stack import Handler, perform


class look(Handler):
    """Notes the batch shapes that sites have on their way out."""

    def __init__(self, fn=None):
        super().__init__(fn)
        self.shapes = {}

    def handle(self, site):
        if site.kind == "sample":
            self.shapes[site.name] = tuple(site.fn.batch_shape)
        return perform(site)


def model():
    with ppl.plate("rows", 2, dim=-2), ppl.plate("columns", 3, dim=-1):
        ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(torch.zeros(3), 1.0), obs=torch.zeros(2, 3))


def test_outer_handlers_see_expanded_distributions_only_with_broadcast():
    with look() as plain:
        model()
    with look() as early, handlers.broadcast():
        model()
    assert plain.shapes == {"x": (), "y": (3,)}
    assert early.shapes == {"x": (2, 3), "y": (2, 3)}


def test_broadcast_changes_no_value_and_no_density():
    ppl.set_rng_seed(1)
    plain = handlers.trace(model).get_trace()
    ppl.set_rng_seed(1)
    early = handlers.trace(handlers.broadcast(model)).get_trace()
    assert torch.equal(early["x"].tensor, plain["x"].tensor)
    assert early.log_prob_sum().item() == plain.log_prob_sum().item()


def test_sites_without_plates_stay_as_they_are():
    d = dist.Normal(torch.zeros(4), 1.0)
    tr = handlers.trace(handlers.broadcast(lambda: ppl.sample("x", d))).get_trace()
    assert tr["x"].fn is d
