"""Programs and ways of running them for the tests of the engine under rough conditions."""

import copy
import functools
import time
from pathlib import Path

import models
import torch

import ppl
import ppl.distributions as dist
from ppl.engine.background import Compilation
from ppl.infer import SVI, compiled
from ppl.infer.autoguide import AutoNormal
from ppl.optim import Adam

ARGS = models.EFFECTS, models.ERRORS
X = torch.linspace(-1.0, 2.0, 20)


def schools():
    ppl.set_rng_seed(0)
    return SVI(models.eight_schools_model, models.eight_schools_guide, Adam({"lr": 0.01}))


def normal(x):
    loc = ppl.sample("loc", dist.Normal(0.0, 10.0))
    scale = ppl.sample("scale", dist.LogNormal(0.0, 1.0))
    with ppl.plate("data", len(x)):
        ppl.sample("x", dist.Normal(loc, scale), obs=x)


def fresh(model=normal, guide=None, optim=None):
    ppl.set_rng_seed(0)
    return SVI(model, AutoNormal(model) if guide is None else guide, optim or Adam({"lr": 0.01}))


def no_guide(*args):
    pass


def run(svi, steps, *args, compile="auto", callback=None):
    return svi.run(steps, *args, compile=compile, callback=callback, progress_bar=False).losses


@functools.cache
def eager_losses(steps):
    return run(schools(), steps, *ARGS, compile="never")


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def stubbed(monkeypatch, package, build="give"):
    """Another build function than the compiler; returns a list of what was built."""
    monkeypatch.setenv("PPL_TESTS_PACKAGE", str(package))
    made = []

    def start(*args):
        made.append(args)
        return Compilation(*args, build=f"stub_builds:{build}")

    monkeypatch.setattr(compiled, "Compilation", start)
    return made


def changing(change, *args, steps=40, make=fresh):
    """The losses of eager and of recorded steps where a callback changes something after some steps."""
    found = []
    for compile in ("never", "auto"):
        own = copy.deepcopy(args)
        svi = make()
        found.append(run(svi, steps, *own, compile=compile, callback=functools.partial(change, svi, own)))
    return found
