"""The SVI benchmarks' models in ppl and in Pyro: one source, read with either library's names."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from workloads import CODE, COMPONENTS, GROUPS, HIDDEN, PIXELS, SEQUENCES, STATES, SYMBOLS, Arrays


def library(system: str, jit: bool) -> SimpleNamespace:
    """What the models below need, by the same names."""
    if system == "ppl":
        import ppl as lang
        import ppl.distributions as dist
        from ppl.handlers import block
        from ppl.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate
        from ppl.infer.autoguide import AutoDelta, AutoNormal, init_to_feasible, init_to_value
        from ppl.optim import Adam

        plain, enum = Trace_ELBO(), TraceEnum_ELBO()
    else:
        import pyro as lang
        import pyro.distributions as dist
        from pyro.infer import (
            SVI,
            JitTrace_ELBO,
            JitTraceEnum_ELBO,
            Trace_ELBO,
            TraceEnum_ELBO,
            config_enumerate,
        )
        from pyro.infer.autoguide import AutoDelta, AutoNormal, init_to_feasible, init_to_value
        from pyro.optim import Adam
        from pyro.poutine import block

        if jit:
            plain = JitTrace_ELBO(ignore_jit_warnings=True)
            enum = JitTraceEnum_ELBO(max_plate_nesting=1, ignore_jit_warnings=True)
        else:
            plain, enum = Trace_ELBO(), TraceEnum_ELBO(max_plate_nesting=1)

    def normal(model: Any) -> Any:
        guide = AutoNormal(model, init_loc_fn=init_to_feasible)
        if system == "pyro":
            guide.scale_constraint = dist.constraints.positive  # log scales, as ppl's, so that all take the same path
        return guide

    return SimpleNamespace(
        name=system,
        lang=lang,
        dist=dist,
        block=block,
        config_enumerate=config_enumerate,
        Adam=Adam,
        SVI=SVI,
        plain=plain,
        enum=enum,
        normal=normal,
        point=lambda model, values: AutoDelta(
            block(model, expose=list(values)), init_loc_fn=init_to_value(values=values)
        ),
    )


class TorchTraining:
    """One training of a workload: steps in bulk, or one by one."""

    def __init__(self, lib: SimpleNamespace, workload: str, arrays: Arrays) -> None:
        data = {name: torch.tensor(x) for name, x in arrays.items()}
        model, guide, objective, self.args = PROGRAMS[workload](lib, data)
        self.svi = lib.SVI(model, guide, lib.Adam({"lr": 0.01}), objective)
        self.eager = lib.name == "pyro"
        self.compiles = not self.eager and "compile" in inspect.signature(self.svi.run).parameters

    def first(self) -> float:
        """The first step, however the system makes it."""
        if self.eager:
            return float(self.svi.step(*self.args))
        return float(self.svi.run(1, *self.args, progress_bar=False).losses[0])

    def first_compiled(self) -> None:
        """Steps with the compiled program, waiting for it."""
        self.run(20)

    def run(self, num_steps: int) -> Sequence[float]:
        if self.eager:
            return [self.svi.step(*self.args) for _ in range(num_steps)]
        options = {"compile": "always"} if self.compiles else {}
        losses: list[float] = self.svi.run(num_steps, *self.args, progress_bar=False, **options).losses.tolist()
        return losses

    def prepare_step(self) -> None:
        """Compile single steps, where that is asked for apart."""
        if hasattr(self.svi, "compile"):
            self.svi.compile(*self.args)

    def step(self) -> float:
        return float(self.svi.step(*self.args))


Programs = tuple[Any, Any, Any, tuple[Tensor, ...]]  # model, guide, objective, arguments


def schools(lib: SimpleNamespace, data: dict[str, Tensor]) -> Programs:
    lang, dist = lib.lang, lib.dist

    def model(y: Tensor, sigma: Tensor) -> None:
        mu = lang.sample("mu", dist.Normal(0.0, 5.0))
        tau = lang.sample("tau", dist.HalfCauchy(5.0))
        with lang.plate("schools", 8):
            theta = lang.sample("theta", dist.Normal(mu, tau))
            lang.sample("obs", dist.Normal(theta, sigma), obs=y)

    return model, lib.normal(model), lib.plain, (data["y"], data["sigma"])


def logistic(lib: SimpleNamespace, data: dict[str, Tensor]) -> Programs:
    lang, dist = lib.lang, lib.dist

    def model(x: Tensor, y: Tensor) -> None:
        w = lang.sample("w", dist.Normal(torch.zeros(20), 1.0).to_event(1))
        b = lang.sample("b", dist.Normal(0.0, 1.0))
        with lang.plate("rows", 1000):
            lang.sample("y", dist.Bernoulli(logits=x @ w + b), obs=y)

    return model, lib.normal(model), lib.plain, (data["x"], data["y"])


def hierarchical(lib: SimpleNamespace, data: dict[str, Tensor]) -> Programs:
    lang, dist = lib.lang, lib.dist

    def model(group: Tensor, x: Tensor, y: Tensor) -> None:
        mean_a = lang.sample("mean_a", dist.Normal(0.0, 5.0))
        mean_b = lang.sample("mean_b", dist.Normal(0.0, 5.0))
        spread_a = lang.sample("spread_a", dist.HalfCauchy(2.5))
        spread_b = lang.sample("spread_b", dist.HalfCauchy(2.5))
        noise = lang.sample("noise", dist.HalfCauchy(2.5))
        with lang.plate("groups", GROUPS):
            a = lang.sample("a", dist.Normal(mean_a, spread_a))
            b = lang.sample("b", dist.Normal(mean_b, spread_b))
        with lang.plate("rows", len(y)):
            lang.sample("y", dist.Normal(a[group] + b[group] * x, noise), obs=y)

    return model, lib.normal(model), lib.plain, (data["group"], data["x"], data["y"])


def vae(lib: SimpleNamespace, data: dict[str, Tensor]) -> Programs:
    lang, dist = lib.lang, lib.dist
    encoder = torch.nn.Sequential(
        torch.nn.Linear(PIXELS, HIDDEN), torch.nn.Softplus(), torch.nn.Linear(HIDDEN, 2 * CODE)
    )
    decoder = torch.nn.Sequential(torch.nn.Linear(CODE, HIDDEN), torch.nn.Softplus(), torch.nn.Linear(HIDDEN, PIXELS))
    for name, network in (("encoder.", encoder), ("decoder.", decoder)):
        network.load_state_dict({key.removeprefix(name): x for key, x in data.items() if key.startswith(name)})

    def model(images: Tensor) -> None:
        lang.module("decoder", decoder)
        with lang.plate("images", len(images)):
            z = lang.sample("z", dist.Normal(images.new_zeros(len(images), CODE), 1.0).to_event(1))
            lang.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=images)

    def guide(images: Tensor) -> None:
        lang.module("encoder", encoder)
        with lang.plate("images", len(images)):
            loc, width = encoder(images).chunk(2, -1)
            scale = torch.nn.functional.softplus(width) + 1e-4  # exp overflows at this learning rate
            lang.sample("z", dist.Normal(loc, scale).to_event(1))

    return model, guide, lib.plain, (data["images"],)


def mixture(lib: SimpleNamespace, data: dict[str, Tensor]) -> Programs:
    lang, dist = lib.lang, lib.dist

    @lib.config_enumerate
    def model(x: Tensor) -> None:
        weights = lang.sample("weights", dist.Dirichlet(torch.ones(COMPONENTS)))
        with lang.plate("components", COMPONENTS):
            loc = lang.sample("loc", dist.Normal(0.0, 10.0))
        with lang.plate("points", len(x)):
            k = lang.sample("k", dist.Categorical(weights))
            lang.sample("x", dist.Normal(loc[k], 1.0), obs=x)

    guide = lib.point(model, {"weights": data["weights"], "loc": data["loc"]})
    return model, guide, lib.enum, (data["x"],)


def hmm(lib: SimpleNamespace, data: dict[str, Tensor]) -> Programs:
    lang, dist = lib.lang, lib.dist

    def matrices() -> tuple[Tensor, Tensor]:
        tr = lang.sample("tr", dist.Dirichlet(torch.ones(STATES, STATES)).to_event(1))
        em = lang.sample("em", dist.Dirichlet(torch.ones(STATES, SYMBOLS)).to_event(1))
        return tr, em

    @lib.config_enumerate
    def scanned(data: Tensor) -> None:
        tr, em = matrices()

        def step(z: Any, x: Tensor) -> tuple[Any, None]:
            with lang.plate("sequences", SEQUENCES, dim=-1):
                z = lang.sample("z", dist.Categorical(tr[z]))
                lang.sample("x", dist.Categorical(em[z]), obs=x)
            return z, None

        lang.scan(step, 0, data)

    @lib.config_enumerate
    def looped(data: Tensor) -> None:
        tr, em = matrices()
        with lang.plate("sequences", SEQUENCES, dim=-1):
            z: Any = 0
            for t in lang.markov(range(len(data))):
                z = lang.sample(f"z{t}", dist.Categorical(tr[z]))
                lang.sample(f"x{t}", dist.Categorical(em[z]), obs=data[t])

    model = scanned if lib.name == "ppl" else looped
    return model, lib.point(model, {"tr": data["tr"], "em": data["em"]}), lib.enum, (data["x"],)


def sparse_gp(lib: SimpleNamespace, data: dict[str, Tensor]) -> Programs:
    lang, dist = lib.lang, lib.dist

    def model(x: Tensor, y: Tensor, start: Tensor) -> None:
        """The bound of Titsias (2009): the density of a low-rank normal, less what the inducing points do not explain."""
        length = lang.sample("length", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
        variance = lang.sample("variance", dist.LogNormal(0.0, 1.0))
        noise = lang.sample("noise", dist.LogNormal(0.0, 1.0))
        u = lang.param("inducing", lambda: start.clone())

        def kernel(a: Tensor, b: Tensor) -> Tensor:
            difference = (a.unsqueeze(-2) - b) / length
            return variance * torch.exp(-0.5 * difference.square().sum(-1))

        chol = torch.linalg.cholesky(kernel(u, u) + 1e-3 * variance * torch.eye(len(u)))
        w = torch.linalg.solve_triangular(chol, kernel(u, x), upper=False)
        lang.factor("unexplained", -0.5 * (len(x) * variance - w.square().sum()) / noise.square())
        diagonal = noise.square().expand(len(x))
        lang.sample("y", dist.LowRankMultivariateNormal(torch.zeros(len(x)), w.mT, diagonal), obs=y)

    return model, lib.normal(model), lib.plain, (data["x"], data["y"], data["inducing"])


PROGRAMS = {
    "schools": schools,
    "logistic": logistic,
    "hierarchical": hierarchical,
    "vae": vae,
    "mixture": mixture,
    "hmm": hmm,
    "sparse_gp": sparse_gp,
}
