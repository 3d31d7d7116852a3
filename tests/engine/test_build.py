"""What is seen to before a program is compiled."""

import pytest
import torch

pytest.importorskip("torch._inductor")

from torch._higher_order_ops.while_loop import while_loop

import ppl
import ppl.distributions as dist
from ppl.engine.build import adds_at_places
from ppl.infer import SVI, TraceEnum_ELBO
from ppl.infer.autoguide import AutoDelta


class Loop(torch.nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x, index):
        def turn(i, x):
            return i + 1, self.body(x, index)

        return while_loop(lambda i, x: i < 3, turn, (torch.zeros((), dtype=torch.int64), x))


@pytest.mark.parametrize(
    ("body", "adds"),
    [
        (lambda x, index: x[index].sum() + x, False),
        (lambda x, index: x.index_add(0, index, x[index]), True),
        (lambda x, index: x.index_put((index,), x[index], accumulate=True), True),
        (lambda x, index: x.scatter_add(0, index[:, None].expand(-1, 3), x[index]), True),
    ],
    ids=["read", "index_add", "index_put", "scatter_add"],
)
def test_additions_at_places_are_seen_within_loops(body, adds):
    index = torch.tensor([0, 2, 2, 1])
    exported = torch.export.export(Loop(body), (torch.ones(4, 3), index))
    assert adds_at_places(exported.graph_module) is adds


@pytest.mark.slow
def test_a_chain_compiled_for_two_threads():
    """Its emissions' slopes are additions at places: torch's compiler, of two threads, wrote them beside the tensor."""

    def model(data):
        with ppl.plate("states", 16, dim=-1):
            moves = ppl.sample("moves", dist.Dirichlet(torch.ones(16)))
            words = ppl.sample("words", dist.Dirichlet(torch.ones(10)))

        def step(z, x):
            with ppl.plate("sequences", 20, dim=-1):
                z = ppl.sample("z", dist.Categorical(moves[z]), infer={"enumerate": "parallel"})
                ppl.sample("x", dist.Categorical(words[z]), obs=x)
            return z, None

        ppl.scan(step, 0, data)

    torch.manual_seed(0)
    data, found = torch.randint(10, (60, 20)), []
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for compile in ("never", "always"):
            torch.manual_seed(1)
            svi = SVI(model, AutoDelta(model), ppl.optim.Adam({"lr": 0.01}), TraceEnum_ELBO())
            found.append(svi.run(100, data, compile=compile, progress_bar=False).losses)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(*map(torch.as_tensor, found), rtol=1e-4, atol=0)
