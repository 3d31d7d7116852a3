"""Steps by a real compiler: the same trajectories, and what the next process finds."""

import copy
import os
import subprocess
import sys

import models
import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.engine import background
from ppl.infer import SVI, Trace_ELBO, TraceEnum_ELBO, compiled
from ppl.infer.autoguide import AutoDelta
from ppl.optim import Adam, ClippedAdam

pytestmark = pytest.mark.skipif(background.compiler() is None, reason="there is no C++ compiler on this machine")


def hidden_markov(data):
    rows = ppl.sample("rows", dist.Dirichlet(torch.ones(3, 3)).to_event(1))
    locs = ppl.sample("locs", dist.Normal(torch.zeros(3), 3.0).to_event(1))

    def step(z, x):
        z = ppl.sample("z", dist.Categorical(rows[z]), infer={"enumerate": "parallel"})
        ppl.sample("x", dist.Normal(locs[z], 1.0), obs=x)
        return z, None

    ppl.scan(step, 0, data)


def schools(dtype=torch.float64):
    args = models.EFFECTS.to(dtype), models.ERRORS.to(dtype)
    return SVI(models.eight_schools_model, models.eight_schools_guide, Adam({"lr": 0.01})), args


def subsampled():
    case = models.CASES["local discrete, subsampled"]
    return SVI(case.model, case.guide, ClippedAdam({"lr": 0.01, "lrd": 0.99}), Trace_ELBO()), case.args


def scanned():
    guide = AutoDelta(ppl.handlers.block(hidden_markov, expose=["rows", "locs"]))
    return SVI(hidden_markov, guide, Adam({"lr": 0.01}), TraceEnum_ELBO()), (torch.randn(9),)


def zoo(name):
    case = models.CASES[name]
    loss = TraceEnum_ELBO() if case.enumerates else Trace_ELBO()
    return SVI(case.model, case.guide, Adam({"lr": 0.01}), loss), case.args


def check(svi, args, steps=100, rtol=1e-10):
    svi.setup(*args)
    ppl.set_rng_seed(1)
    start = copy.deepcopy(svi.state_dict())
    eager = svi.run(steps, *args, compile="never", progress_bar=False)
    rng = torch.get_rng_state()
    svi.load_state_dict(start)
    result = svi.run(steps, *args, compile="always", progress_bar=False)
    torch.testing.assert_close(result.losses, eager.losses, rtol=rtol, atol=rtol)
    for name, value in eager.params.items():
        torch.testing.assert_close(result.params[name], value, rtol=rtol, atol=rtol)
    assert torch.equal(rng, torch.get_rng_state())


@pytest.mark.parametrize("make", [schools, subsampled, scanned])
def test_compiled_steps_are_eager_steps(make, monkeypatch):
    used = []
    load = compiled.Blocks.load
    monkeypatch.setattr(compiled.Blocks, "load", lambda self, package: (used.append(package), load(self, package)))
    check(*make())
    assert used[-1] is not None


def test_single_compiled_steps():
    svi, args = schools()
    svi.setup(*args)
    ppl.set_rng_seed(1)
    start = copy.deepcopy(svi.state_dict())
    eager = [svi.step(*args) for _ in range(20)]
    svi.load_state_dict(start)
    svi.compile(*args)
    torch.testing.assert_close([svi.step(*args) for _ in range(20)], eager, rtol=1e-10, atol=1e-10)
    assert svi.num_steps == 20
    other = [t[:4] for t in args]  # another shape takes eager steps
    with pytest.raises(ValueError, match=r"schools\[8\]"):
        svi.step(*other)


NEXT_PROCESS = """
import sys
sys.path[:0] = {path!r}
import torch
torch.set_num_threads(1)
import test_compiled
from ppl.engine import background

background.compiler = lambda: None  # what is there must come from the cache
import warnings
warnings.simplefilter("error")
svi, args = test_compiled.schools()
import ppl
ppl.set_rng_seed(0)
result = svi.run(50, *args, compile="always", progress_bar=False)
print(float(result.losses.sum()).hex())
print([m for m in ("torch._inductor.codegen", "torch._dynamo") if m in sys.modules])
"""


def test_the_next_process_begins_compiled():
    svi, args = schools()
    ppl.set_rng_seed(0)
    here = svi.run(50, *args, compile="always", progress_bar=False)
    path = [os.path.dirname(__file__), os.path.dirname(models.__file__), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", NEXT_PROCESS.format(path=path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    value, imported = done.stdout.split("\n")[:2]
    assert float.fromhex(value) == float(here.losses.sum())
    assert imported == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("name", models.CASES)
def test_the_whole_zoo_compiled(name):
    check(*zoo(name))


@pytest.mark.slow
def test_single_precision():
    torch.set_default_dtype(torch.float32)
    check(*schools(torch.float32), rtol=1e-4)


def test_draws_that_nothing_depends_on_are_left_in_the_loop():
    """The compiler would leave them out, and the steps after would draw other numbers."""
    from ppl.engine.build import Block  # imports the compiler

    def model():
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        torch.poisson(torch.full((4,), 2.0))
        ppl.sample("x", dist.Normal(z * torch._standard_gamma(torch.tensor(2.0)), 1.0), obs=torch.tensor(1.0))

    def guide():
        torch._standard_gamma(torch.full((4,), 3.0))
        ppl.sample("z", dist.Normal(ppl.param("loc", torch.tensor(2.0)), 1.0))

    svi = SVI(model, guide, Adam({"lr": 0.01}))
    svi.setup()
    job = compiled.blocks_of(svi, compiled.rehearse(svi, (), {}).step).job()
    exported = torch.export.export(Block(job), tuple(job.examples())).graph_module
    loops = [part for part in exported.children() if any("poisson" in str(n.target) for n in part.graph.nodes)]
    drawn = [[str(n.target).split(".")[1] for n in part.graph.nodes if "seeded" in _tags(n)] for part in loops]
    order = ["_standard_gamma", "randn_like", "poisson", "_standard_gamma"]
    assert drawn == [order * job.unroll, order]


def _tags(node):
    return " ".join(tag.name for tag in getattr(node.target, "tags", ()))
