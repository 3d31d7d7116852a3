# %% [markdown]
# # Your own distributions
#
# No catalogue has everything. This page writes a new family in twenty lines, uses a density that nobody has a name for, and
# a distribution from another library, as it is.

# %%
import math
import os

import torch
from statsmodels.datasets import strikes
from torch.distributions import constraints

import ppl
import ppl.distributions as dist
from ppl.infer import SVI, Predictive, Trace_ELBO, init_to_value
from ppl.infer.autoguide import AutoNormal

SHORT = bool(os.environ.get("PPL_TUTORIAL_SHORT"))
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
ppl.set_rng_seed(0)


def heading(text):
    print(f"\n\n{text}\n{'=' * len(text)}\n", flush=True)


# %% [markdown]
# ## A new family in twenty lines
#
# How long does a strike last? Its odds of being over by day t grow like a power of t: that is the log-logistic
# distribution. It needs what any distribution needs: which arguments there are, which values, how to draw, how dense.


# %%
class LogLogistic(dist.Distribution):
    """Positive draws whose odds of lying below t are (t / scale) ** power."""

    arg_constraints = {"scale": constraints.positive, "power": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, scale, power, validate_args=None):
        self.scale, self.power = torch.broadcast_tensors(torch.as_tensor(scale), torch.as_tensor(power))
        super().__init__(self.scale.shape, validate_args=validate_args)

    def rsample(self, sample_shape=()):
        odds = torch.rand(self.shape(sample_shape), dtype=self.scale.dtype, device=self.scale.device).logit(eps=1e-12)
        return self.scale * (odds / self.power).exp()

    def log_prob(self, value):
        z = self.power * (value / self.scale).log()
        return self.power.log() - value.log() + z - 2 * torch.nn.functional.softplus(z)


# %% [markdown]
# That is all: the rest follows.

# %%
heading("1. A new family")
d = LogLogistic(20.0, 1.5)
print("expanded and made an event:", d.expand((3, 2)).to_event(1))
print(
    "masked, counted only in part:", d.expand((2,)).mask(torch.tensor([True, False])).log_prob(torch.tensor([3.0, 4.0]))
)
print("its shapes, from its arguments':", LogLogistic.infer_shapes(scale=(3, 1), power=(4,)))
grid = torch.linspace(-12.0, 16.0, 20001).exp()
mass = torch.trapezoid(d.log_prob(grid).exp(), grid).item()
print(f"the density integrates to {mass:.6f}")
assert abs(mass - 1) < 1e-5
for mistake in (lambda: LogLogistic(-20.0, 1.5), lambda: ppl.sample("days", d, obs=torch.tensor(-3.0))):
    try:
        mistake()
    except ValueError as error:
        print("an error for nothing:", error)

# %% [markdown]
# In a program it is a distribution like any other: the plate expands it, the guide finds its support and its parameters'.

# %%
print("""
Data: the lengths in days of 62 strikes in American manufacturing, 1968 to 1976 (Kennan, Journal of Econometrics
      1985), as they come with statsmodels (statsmodels.datasets.strikes, public domain).
""")
days = torch.tensor(strikes.load().data["duration"].to_numpy(), dtype=torch.float64)


def lengths(days=None, family=LogLogistic):
    median = ppl.sample("median", dist.LogNormal(math.log(20.0), 1.0))
    power = ppl.sample("power", dist.LogNormal(0.0, 0.5))
    with ppl.plate("strike", 62 if days is None else len(days)):
        return ppl.sample("days", family(median, power), obs=days)


def fit(model, *args, **start):
    guide = AutoNormal(model, init_loc_fn=init_to_value(values=start))
    num_steps = 400 if SHORT else 2000
    rate = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.01 ** (1 / num_steps)}
    svi = SVI(model, guide, ppl.optim.ExponentialLR(rate), Trace_ELBO(num_particles=4, vectorize_particles=True))
    svi.run(num_steps, *args, progress_bar=False)
    return guide


guide = fit(lengths, days)
posterior = Predictive(guide, num_samples=2000)(days)
for name in ("median", "power"):
    draws = posterior[name]
    print(f"{name:8}{draws.mean():7.2f} ± {draws.std():.2f}")

# the exact posterior means, on a grid
a, b = torch.meshgrid(torch.linspace(1.0, 4.5, 301), torch.linspace(-0.8, 1.2, 301), indexing="ij")
density = LogLogistic(a.exp()[..., None], b.exp()[..., None]).log_prob(days).sum(-1)
density = density + dist.Normal(math.log(20.0), 1.0).log_prob(a) + dist.Normal(0.0, 0.5).log_prob(b)
weight = (density - density.max()).exp() / (density - density.max()).exp().sum()
exact = {"median": a.exp(), "power": b.exp()}
for name, values in exact.items():
    mean = (weight * values).sum()
    sd = (weight * (values - mean) ** 2).sum().sqrt()
    error = (posterior[name].mean() - mean) / sd
    print(f"{name:8} exact {mean:7.2f} ± {sd:.2f}, fitted {error:+.2f} exact sd from it")
    assert abs(error) < (0.6 if SHORT else 0.3)

later = Predictive(lengths, posterior_samples=posterior)()["days"]
print(
    f"strikes of more than 60 days: {(days > 60).double().mean():.0%} of the data, {(later > 60).double().mean():.0%} predicted"
)
print(
    f"      of more than 200 days: {(days > 200).double().mean():.0%} of the data, {(later > 200).double().mean():.1%} predicted"
)

# %% [markdown]
# ## A density without a name
#
# `LogDensity` makes any function of a value a distribution. Say where its values lie; a sampler is needed only where
# something must be drawn. Here a prior that keeps two rates apart, which repel each other: no family has it, and nobody
# knows its normalising constant. (Without a sampler there is no draw to start from either, so the fit is told where.)

# %%
heading("2. A density without a name")


def repelling(rates):
    distance = (rates[..., 0].log() - rates[..., 1].log()).abs()
    return -rates.sum(-1) / 40.0 + 2 * distance.clamp(min=1e-12).log() - distance


prior = dist.LogDensity(repelling, support=constraints.independent(constraints.positive, 1), event_shape=(2,))


def two_kinds(days):
    scale = ppl.sample("scale", prior)
    with ppl.plate("strike", len(days)):
        kinds = dist.Categorical(torch.tensor([0.5, 0.5]))
        ppl.sample("days", dist.MixtureSameFamily(kinds, dist.Exponential(1 / scale)), obs=days)


def exact_two_kinds(days):
    """The posterior means of the shorter and the longer time, on a grid."""
    u = torch.linspace(0.0, 5.5, 351)
    scale = torch.stack(torch.meshgrid(u, u, indexing="ij"), -1).exp()
    kinds = dist.Categorical(torch.tensor([0.5, 0.5]))
    each = dist.MixtureSameFamily(kinds, dist.Exponential(1 / scale)).log_prob(days[:, None, None])
    density = each.sum(0) + repelling(scale) + scale.log().sum(-1)
    weight = (density - density.max()).exp()
    low, high = scale.min(-1).values, scale.max(-1).values
    return [((weight * v).sum() / weight.sum()).item() for v in (low, high)]


guide = fit(two_kinds, days, scale=torch.tensor([10.0, 50.0]))
draws = Predictive(guide, num_samples=2000)(days)["scale"].sort(-1).values.mean(0)
low, high = exact_two_kinds(days)
print(f"two kinds of strikes: {draws[0]:.1f} and {draws[1]:.1f} days on average (exact: {low:.1f} and {high:.1f})")
assert abs(draws[0] - low) < 3 and abs(draws[1] - high) < 6
try:
    prior.sample()
except NotImplementedError as error:
    print("\nwhere a draw is asked for:", error)

# %% [markdown]
# ## From another library
#
# Any subclass of `torch.distributions.Distribution` can stand in `sample` as it is: in plates, with `to_event`, in
# guides. `dist.lift` gives the object itself this library's methods.

# %%
heading("3. From another library")


class Triangular(torch.distributions.Distribution):
    """Somebody else's: the sum of two uniform draws, with nothing that this library asks for."""

    arg_constraints = {}
    support = constraints.interval(0.0, 2.0)
    has_rsample = True

    def rsample(self, sample_shape=torch.Size()):
        return torch.rand((2, *sample_shape, *self.batch_shape)).sum(0)

    def log_prob(self, value):
        return (1 - (value - 1).abs()).log()


def guess(data):
    with ppl.plate("group", 3):
        level = ppl.sample("level", Triangular())
        with ppl.plate("measurement", data.shape[0]):
            ppl.sample("x", torch.distributions.Normal(level, 0.5), obs=data)


data = torch.tensor([[0.4, 1.1, 1.9], [0.1, 1.3, 2.2], [0.6, 0.8, 1.6]])
medians = fit(guess, data).median(data)["level"]
print("levels of three groups:", [round(x, 2) for x in medians.tolist()])
lifted = dist.lift(Triangular())
print("lifted:", type(lifted).__name__, "with", lifted.to_event(0).expand_by((3,)).batch_shape)
assert medians.diff().min() > 0

# %% [markdown]
# ## A support of your own
#
# Guides and samplers work on all reals; a constraint says how to get from there to the values. A new one takes a class and
# three lines.

# %%
heading("4. A support of your own")


class Even(constraints.Constraint):
    """Numbers within `width` of zero."""

    def __init__(self, width):
        self.width = width

    def check(self, value):
        return value.abs() < self.width


@dist.biject_to.register(Even)
@dist.transform_to.register(Even)
def from_all_reals(constraint):
    return dist.transforms.ComposeTransform(
        [dist.transforms.TanhTransform(), dist.transforms.AffineTransform(0.0, constraint.width)]
    )


bump = dist.LogDensity(lambda x: -1 / (1 - (x / 3).square()), support=Even(3.0))


def bounded():
    x = ppl.sample("x", bump)
    ppl.sample("y", dist.Normal(x, 0.5), obs=torch.tensor(2.9))


x = Predictive(fit(bounded), num_samples=2000)()["x"]
print(f"x = {x.mean():.2f} ± {x.std():.2f}, all within 3: {bool((x.abs() < 3).all())}")
assert bool((x.abs() < 3).all()) and 1.8 < x.mean() < 2.7
