"""The SVI benchmarks' models in NumPyro, trained in `lax.scan` or by a jitted update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from numpyro.contrib.control_flow import scan
from numpyro.contrib.funsor import config_enumerate, enum, log_density
from numpyro.handlers import block
from numpyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from numpyro.infer.autoguide import AutoDelta, AutoNormal
from numpyro.infer.initialization import init_to_feasible, init_to_value
from numpyro.optim import Adam
from workloads import CODE, COMPONENTS, GROUPS, SEQUENCES, STATES, SYMBOLS, Arrays

Update = Callable[..., tuple[Any, Any]]
Start = Callable[[], Any]  # makes the first state
Data = dict[str, Any]
Programs = tuple[Start, Update, tuple[Any, ...]]


class JaxTraining:
    """One training of a workload: steps in bulk, or one by one."""

    compiles = True

    def __init__(self, workload: str, arrays: Arrays, seed: int, looped: bool) -> None:
        data = {name: jnp.asarray(x) for name, x in arrays.items()}
        self.start, update, self.args = PROGRAMS[workload](data, jax.random.PRNGKey(seed))
        self.state: Any = None
        self.looped = looped  # many steps in a loop over jitted updates, rather than in a scan
        self.update = jax.jit(update)

        def many(num_steps: int, state: Any, *args: Any) -> tuple[Any, Any]:
            return jax.lax.scan(lambda state, _: update(state, *args), state, None, length=num_steps)

        self.many = jax.jit(many, static_argnums=0)

    def first(self) -> float:
        self.state = self.start()
        return self.step()

    def first_compiled(self) -> None:
        self.first()

    def run(self, num_steps: int) -> Sequence[float]:
        if self.state is None:
            self.state = self.start()
        if self.looped:
            kept = []
            for _ in range(num_steps):
                self.state, loss = self.update(self.state, *self.args)
                kept.append(loss)
            return [float(loss) for loss in kept]  # read at the end: steps need not wait for it
        self.state, losses = self.many(num_steps, self.state, *self.args)
        found: list[float] = losses.tolist()
        return found

    def prepare_step(self) -> None:
        self.step()

    def step(self) -> float:
        self.state, loss = self.update(self.state, *self.args)
        return float(loss)


def with_svi(key: Any, model: Any, guide: Any, objective: Any, *args: Any) -> Programs:
    """NumPyro's own SVI."""
    svi = SVI(model, guide, Adam(0.01), objective)
    return lambda: svi.init(key, *args), svi.update, args


def normal(model: Any) -> Any:
    guide = AutoNormal(model, init_loc_fn=init_to_feasible)
    guide.scale_constraint = dist.constraints.positive  # log scales, as ppl's, so that all take the same path
    return guide


def schools(data: Data, key: Any) -> Programs:
    def model(y: Any, sigma: Any) -> None:
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        with numpyro.plate("schools", 8):
            theta = numpyro.sample("theta", dist.Normal(mu, tau))
            numpyro.sample("obs", dist.Normal(theta, sigma), obs=y)

    return with_svi(key, model, normal(model), Trace_ELBO(), data["y"], data["sigma"])


def logistic(data: Data, key: Any) -> Programs:
    def model(x: Any, y: Any) -> None:
        w = numpyro.sample("w", dist.Normal(jnp.zeros(20), 1.0).to_event(1))
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", 1000):
            numpyro.sample("y", dist.Bernoulli(logits=x @ w + b), obs=y)

    return with_svi(key, model, normal(model), Trace_ELBO(), data["x"], data["y"])


def hierarchical(data: Data, key: Any) -> Programs:
    def model(group: Any, x: Any, y: Any) -> None:
        mean_a = numpyro.sample("mean_a", dist.Normal(0.0, 5.0))
        mean_b = numpyro.sample("mean_b", dist.Normal(0.0, 5.0))
        spread_a = numpyro.sample("spread_a", dist.HalfCauchy(2.5))
        spread_b = numpyro.sample("spread_b", dist.HalfCauchy(2.5))
        noise = numpyro.sample("noise", dist.HalfCauchy(2.5))
        with numpyro.plate("groups", GROUPS):
            a = numpyro.sample("a", dist.Normal(mean_a, spread_a))
            b = numpyro.sample("b", dist.Normal(mean_b, spread_b))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(a[group] + b[group] * x, noise), obs=y)

    return with_svi(key, model, normal(model), Trace_ELBO(), data["group"], data["x"], data["y"])


def vae(data: Data, key: Any) -> Programs:
    def network(name: str, x: Any) -> Any:
        """Two layers, as torch's Sequential(Linear, Softplus, Linear)."""
        for layer in ("0", "2"):
            weight = numpyro.param(f"{name}.{layer}.weight", data[f"{name}.{layer}.weight"].T)
            x = x @ weight + numpyro.param(f"{name}.{layer}.bias", data[f"{name}.{layer}.bias"])
            x = jax.nn.softplus(x) if layer == "0" else x
        return x

    def model(images: Any) -> None:
        with numpyro.plate("images", len(images)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros((len(images), CODE)), 1.0).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=network("decoder", z)).to_event(1), obs=images)

    def guide(images: Any) -> None:
        with numpyro.plate("images", len(images)):
            loc, width = jnp.split(network("encoder", images), 2, -1)
            scale = jax.nn.softplus(width) + 1e-4  # exp overflows at this learning rate
            numpyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return with_svi(key, model, guide, Trace_ELBO(), data["images"])


def mixture(data: Data, key: Any) -> Programs:
    def model(x: Any) -> None:
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(COMPONENTS)))
        with numpyro.plate("components", COMPONENTS):
            loc = numpyro.sample("loc", dist.Normal(0.0, 10.0))
        with numpyro.plate("points", len(x)):
            k = numpyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
            numpyro.sample("x", dist.Normal(loc[k], 1.0), obs=x)

    start = init_to_value(values={"weights": data["weights"], "loc": data["loc"]})
    guide = AutoDelta(block(model, hide=["k"]), init_loc_fn=start)
    return with_svi(key, model, guide, TraceEnum_ELBO(max_plate_nesting=1), data["x"])


def hmm(data: Data, key: Any) -> Programs:
    """Made of log_density and Adam: TraceEnum_ELBO of NumPyro 0.22 is not the forward algorithm's on a scan.

    The matrices are softmaxes, as in torch's AutoDelta; stick-breaking would take another path to the same end.
    """

    def model(data: Any) -> None:
        tr = numpyro.sample("tr", dist.Dirichlet(jnp.ones((STATES, STATES))).to_event(1))
        em = numpyro.sample("em", dist.Dirichlet(jnp.ones((STATES, SYMBOLS))).to_event(1))

        def step(z: Any, x: Any) -> tuple[Any, None]:
            with numpyro.plate("sequences", SEQUENCES, dim=-1):
                z = numpyro.sample("z", dist.Categorical(tr[z]), infer={"enumerate": "parallel"})
                numpyro.sample("x", dist.Categorical(em[z]), obs=x)
            return z, None

        scan(step, jnp.zeros((), dtype=jnp.int32), data)

    summed = enum(config_enumerate(model), first_available_dim=-2)
    optimizer = Adam(0.01)

    def loss_of(free: Any, x: Any) -> Any:
        return -log_density(summed, (x,), {}, {name: jax.nn.softmax(value) for name, value in free.items()})[0]

    def start() -> Any:
        return optimizer.init({name: jnp.log(data[name]) for name in ("tr", "em")})

    def update(state: Any, x: Any) -> tuple[Any, Any]:
        loss, slope = jax.value_and_grad(loss_of)(optimizer.get_params(state), x)
        return optimizer.update(slope, state), loss

    return start, update, (data["x"],)


def sparse_gp(data: Data, key: Any) -> Programs:
    def model(x: Any, y: Any, start: Any) -> None:
        length = numpyro.sample("length", dist.LogNormal(jnp.zeros(2), 1.0).to_event(1))
        variance = numpyro.sample("variance", dist.LogNormal(0.0, 1.0))
        noise = numpyro.sample("noise", dist.LogNormal(0.0, 1.0))
        u = numpyro.param("inducing", start)

        def kernel(a: Any, b: Any) -> Any:
            difference = (a[..., None, :] - b) / length
            return variance * jnp.exp(-0.5 * jnp.square(difference).sum(-1))

        chol = jnp.linalg.cholesky(kernel(u, u) + 1e-3 * variance * jnp.eye(len(u)))
        w = solve_triangular(chol, kernel(u, x), lower=True)
        numpyro.factor("unexplained", -0.5 * (len(x) * variance - jnp.square(w).sum()) / jnp.square(noise))
        diagonal = jnp.square(noise) * jnp.ones(len(x))
        numpyro.sample("y", dist.LowRankMultivariateNormal(jnp.zeros(len(x)), w.T, diagonal), obs=y)

    return with_svi(key, model, normal(model), Trace_ELBO(), data["x"], data["y"], data["inducing"])


PROGRAMS = {
    "schools": schools,
    "logistic": logistic,
    "hierarchical": hierarchical,
    "vae": vae,
    "mixture": mixture,
    "hmm": hmm,
    "sparse_gp": sparse_gp,
}
