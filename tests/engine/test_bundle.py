"""A step in a file: written where it failed, taken again elsewhere."""

import subprocess
import sys

import numpy
import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.engine import Bundle
from ppl.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from ppl.optim import SGD, Adam

PROGRAM = '''
import sys
import torch
import ppl
import ppl.distributions as dist
from ppl.infer import SVI, Trace_ELBO
from ppl.infer.autoguide import AutoNormal
from ppl.optim import Adam


class Bent(dist.Normal):
    """A normal whose log density is NaN for means above 1.5."""

    def log_prob(self, value):
        return torch.where((self.loc > 1.5) & (value > 2.4), torch.nan, super().log_prob(value))


def model(data, scale=1.0):
    mean = ppl.sample("mean", dist.Normal(0.0, 3.0))
    with ppl.plate("rows", len(data)):
        ppl.sample("x", Bent(mean, scale), obs=data)


def fresh(optim=None, loss=None):
    return SVI(model, AutoNormal(model), optim or Adam({"lr": 0.02}), loss)
'''
names = {}
exec(PROGRAM, names)
model, fresh = names["model"], names["fresh"]
DATA = torch.tensor([2.0, 1.5, 2.5, 2.2])


def failed(compile="never"):
    ppl.set_rng_seed(3)
    svi = fresh()
    with pytest.raises(ValueError, match="step ") as caught:
        svi.run(2000, DATA, scale=torch.tensor(1.0), compile=compile, progress_bar=False)
    return svi, str(caught.value)


def test_the_step_of_a_recorded_run_that_fails_is_taken_again_elsewhere(replayed, tmp_path):
    one, eager = failed("never")
    other, recorded = failed("auto")
    assert sum(replayed) > 10
    assert recorded == eager
    for part in (f"step {one.num_steps}", "site 'x'", "plate 'rows' index 2", "svi.write_bundle"):
        assert part in eager, eager
    assert other.num_steps == one.num_steps
    before = {name: value.detach().clone() for name, value in other.params.items()}
    torch.testing.assert_close(before, dict(one.params.items()), rtol=1e-10, atol=1e-10)

    path = tmp_path / "step.pt"
    other.write_bundle(path)
    ppl.set_rng_seed(77)
    svi = fresh()
    bundle = svi.load_bundle(path)
    assert svi.num_steps == one.num_steps
    torch.testing.assert_close(bundle.args, (DATA,), rtol=0, atol=0)
    with pytest.raises(ValueError, match="step ") as caught:
        svi.step(*bundle.args, **bundle.kwargs)
    assert str(caught.value) == recorded
    torch.testing.assert_close(dict(svi.params.items()), before, rtol=0, atol=0)

    code = PROGRAM + (
        "torch.set_default_dtype(torch.float64)\nsvi = fresh()\nbundle = svi.load_bundle(sys.argv[1])\n"
        "try:\n    svi.step(*bundle.args, **bundle.kwargs)\nexcept ValueError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == recorded


def test_a_bundle_of_the_next_step(tmp_path):
    svi = fresh()
    svi.run(5, DATA, progress_bar=False, compile="never")
    svi.write_bundle(tmp_path / "step.pt", DATA, scale=2.0)
    losses = [svi.step(DATA, scale=2.0) for _ in range(3)]
    other = fresh()
    bundle = other.load_bundle(tmp_path / "step.pt")
    assert bundle.kwargs == {"scale": 2.0}
    assert [other.step(*bundle.args, **bundle.kwargs) for _ in range(3)] == losses


def test_a_later_step_that_succeeds_is_not_the_failed_one(tmp_path):
    svi, _ = failed()
    svi.step(torch.zeros(4))
    svi.write_bundle(tmp_path / "step.pt")
    assert Bundle.read(tmp_path / "step.pt").args == ()


@pytest.mark.parametrize("num_steps", [0, 3])
def test_a_failed_step_leaves_running_means_alone_and_the_bundle_has_them(num_steps, tmp_path):
    def broken(x):
        z = ppl.sample("z", dist.Bernoulli(0.5))
        p = ppl.param("p", torch.tensor(0.5))
        ppl.factor("f", z + p * x)
        ppl.factor("root", torch.sqrt(p * 0) * x)  # an infinite slope, by which a gradient is NaN

    def guide(x):
        q = ppl.param("q", torch.tensor(0.5))
        ppl.sample("z", dist.Bernoulli(q), infer={"baseline": {"use_decaying_avg_baseline": True}})

    svi = SVI(lambda x: broken(x) if x.numel() > 1 else ppl.sample("z", dist.Bernoulli(0.5)), guide, SGD({"lr": 0.01}))
    for _ in range(num_steps):
        svi.step(torch.zeros(1))
    means = svi.loss.state_dict()
    with pytest.raises(ValueError):
        svi.step(torch.ones(2))
    torch.testing.assert_close(svi.loss.state_dict(), means, rtol=0, atol=0)


def test_views_are_written_by_themselves(tmp_path):
    svi = fresh()
    svi.setup(DATA)
    svi.write_bundle(tmp_path / "step.pt", torch.zeros(10**6)[:4])
    assert (tmp_path / "step.pt").stat().st_size < 10**5


def test_nests_come_back_as_they_were(tmp_path):
    args = ({"a": [1, 2.5, None, "b"], "c": (torch.ones(2), True)}, torch.float32)
    Bundle({"rng": torch.zeros(2)}, args, {"n": 3}).write(tmp_path / "b.pt")
    found = Bundle.read(tmp_path / "b.pt")
    assert str(found.args) == str(args)
    assert found.kwargs == {"n": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["b.pt"]


def test_arguments_that_are_no_data(tmp_path):
    svi = fresh()
    svi.setup(DATA)
    with pytest.raises(ValueError, match=r"argument 0\['x'\]\[1\] is of type ndarray: give tensors"):
        svi.write_bundle(tmp_path / "step.pt", {"x": [1, numpy.zeros(2)]})
    with pytest.raises(ValueError, match="argument net is of type Linear"):
        svi.write_bundle(tmp_path / "step.pt", net=torch.nn.Linear(1, 1))
    assert not list(tmp_path.iterdir())


def test_files_that_do_not_fit(tmp_path):
    torch.save({"a": 1}, tmp_path / "other.pt")
    svi = fresh()
    with pytest.raises(ValueError, match=r"other.pt' is not a bundle"):
        svi.load_bundle(tmp_path / "other.pt")
    svi.setup(DATA)
    svi.write_bundle(tmp_path / "step.pt", DATA)
    with pytest.raises(ValueError, match="the file's optimiser is Adam, but this SVI's is SGD"):
        fresh(SGD({"lr": 0.1})).load_bundle(tmp_path / "step.pt")
    with pytest.raises(ValueError, match="the file's loss is Trace_ELBO, but this SVI's is TraceEnum_ELBO"):
        fresh(loss=TraceEnum_ELBO()).load_bundle(tmp_path / "step.pt")


class Guide(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(1)

    def forward(self, data):
        ppl.module("norm", self.norm)
        loc = self.norm(data.unsqueeze(-1)).mean()
        ppl.sample("mean", dist.Normal(loc, 1.0))


def test_buffers_of_a_guide(tmp_path):
    svi = SVI(model, Guide(), Adam({"lr": 0.01}), Trace_ELBO())
    svi.run(5, DATA / 2, progress_bar=False, compile="never")
    svi.guide.eval()
    svi.write_bundle(tmp_path / "step.pt", DATA / 2)
    loss = svi.step(DATA / 2)
    other = SVI(model, Guide(), Adam({"lr": 0.01}), Trace_ELBO())
    other.guide.eval()
    bundle = other.load_bundle(tmp_path / "step.pt")
    assert other.step(*bundle.args) == loss
