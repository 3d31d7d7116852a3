# %% [markdown]
# # Normalizing flows
#
# Where no named distribution fits, bend one until it does. A flow is an invertible map with learnable parameters; the
# draws of a simple distribution, sent through it, have a density that is known exactly. Here one learns the yearly
# round of the sea's temperature, one forecasts it, and one stands in as a guide.

# %%
import math
import os
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from statsmodels.datasets import elnino

import ppl
import ppl.distributions as dist
from ppl.distributions import transforms
from ppl.infer import SVI, Trace_ELBO

START = time.perf_counter()
SHORT = bool(os.environ.get("PPL_TUTORIAL_SHORT"))  # for the tests: fewer steps, rougher answers
OUTPUT = Path(os.environ.get("PPL_TUTORIAL_OUTPUT", "output"))
OUTPUT.mkdir(parents=True, exist_ok=True)
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)  # small models are quickest so
ppl.set_rng_seed(0)


def heading(text):
    print(f"\n\n{text}\n{'=' * len(text)}\n", flush=True)


# %% [markdown]
# ## 1. A density for data
#
# Two numbers for each month: the sea's temperature now, and three months later. Through the year they run around a
# ring, so they are anything but jointly normal.

# %%
heading("1. The round of the year")
print("""\
Data:  monthly sea surface temperatures off Peru, 1950 to 2010, of the US weather service (NOAA, region
       Niño 1+2), from statsmodels (statsmodels.datasets.elnino), in the public domain. Pairs: a month and
       the third month after it. We fit the years to 1994 and check on those after.
""")
sea = torch.tensor(elnino.load_pandas().data.iloc[:, 1:].to_numpy(dtype=float)).flatten()  # by month, in °C
centre, unit = sea[: 45 * 12].mean(), sea[: 45 * 12].std()
standard = (sea - centre) / unit
pairs = torch.stack([standard[:-3], standard[3:]], -1)
month = torch.arange(len(pairs)) % 12
past = 45 * 12 - 3  # whose later month is known by the end of 1994
fitted, held_out = pairs[:past], pairs[past + 3 :]

# %% [markdown]
# The flow starts from a standard normal. A spline coupling leaves one coordinate to a spline, and bends the other by
# splines whose knots depend on the first; then the coordinates change places, and so on. To fit is to maximise the
# log density of the data, with any optimiser of torch's.


# %%
def spline_flow(num_layers):
    parts = []
    for _ in range(num_layers):
        parts += [
            transforms.spline_coupling(2, hidden_dims=[10], count_bins=6, bound=4.0),
            transforms.permute(2, torch.tensor([1, 0])),
        ]
    return transforms.ComposeTransformModule(parts)


def fit(module, log_density, num_steps, weight_decay=0.0):
    """Maximise the mean of `log_density()` in the parameters of a module."""
    adam = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=weight_decay)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(adam, num_steps)
    for _ in range(num_steps):
        adam.zero_grad()
        loss = -log_density().mean()
        loss.backward()
        adam.step()
        rate.step()


normal = dist.MultivariateNormal(fitted.mean(0), fitted.T.cov())
flow = spline_flow(3)
density = dist.TransformedDistribution(dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1), [flow])
num_steps = 20 if SHORT else 150
fit(flow, lambda: density.log_prob(fitted), num_steps, weight_decay=1.0)

with torch.no_grad():
    print("Mean log density of a pair, in nats (higher is better):\n")
    print("                        fitted years   later years")
    for name, d in (("multivariate normal", normal), ("flow", density)):
        print(f"  {name:<20}  {d.log_prob(fitted).mean():>10.3f}  {d.log_prob(held_out).mean():>12.3f}")
    gain = (density.log_prob(held_out) - normal.log_prob(held_out)).mean()
    side = torch.linspace(-5, 5, 201)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1)
    heights = {"multivariate normal": normal.log_prob(grid).exp(), "flow": density.log_prob(grid).exp()}
    total = heights["flow"].sum() * (side[1] - side[0]) ** 2
print(f"\nThe flow's density sums to {total:.3f} over a grid.")
assert abs(total - 1) < 0.02
if not SHORT:
    assert gain > 0.1

figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), sharex=True, sharey=True)
celsius = (side * unit + centre).numpy()
points = (fitted * unit + centre).numpy()
for axis, (name, height) in zip(axes, [("data", None), *heights.items()], strict=True):
    if height is not None:
        levels = torch.linspace(0, 1, 9)[1:] * height.max()
        axis.contourf(
            celsius, celsius, height.T.numpy(), [*levels[:-1].tolist(), height.max().item() * 1.01], cmap="viridis"
        )
    axis.scatter(points[:, 0], points[:, 1], s=4, color="black" if height is None else "tab:red", alpha=0.5)
    axis.set(title=name, xlabel="sea now, °C", xlim=(17.5, 30.5), ylim=(17.5, 30.5))
axes[0].set_ylabel("three months later, °C")
figure.tight_layout()
path = (OUTPUT / "flow.png").resolve()
figure.savefig(path, dpi=110)
print(path)

# %% [markdown]
# ## 2. A density given a covariate
#
# Each transform has a conditional twin, whose parameters come from a network of a context. `condition(context)` gives an
# ordinary distribution. Here: the temperature in three months, given the month and the temperature now. We compare with
# linear regression on the same three numbers, with normal errors, and with one that has a line for each month.

# %%
heading("2. A forecast")
angle = 2 * math.pi * month / 12
context = torch.stack([angle.cos(), angle.sin(), pairs[:, 0]], -1)
later = pairs[:, 1:]
bent = transforms.ConditionalComposeTransformModule(
    [
        transforms.conditional_spline(1, context_dim=3, hidden_dims=[8], count_bins=5, bound=4.0),
        transforms.conditional_affine_autoregressive(1, context_dim=3, hidden_dims=[8]),
    ]
)
forecast = dist.ConditionalTransformedDistribution(dist.Normal(torch.zeros(1), torch.ones(1)).to_event(1), bent)
num_steps = 20 if SHORT else 250
fit(bent, lambda: forecast.condition(context[:past]).log_prob(later[:past]), num_steps, weight_decay=1.0)


def regression(features):
    """Least squares on the fitted years, as a distribution for every month."""
    line = torch.linalg.lstsq(features[:past], later[:past]).solution
    scale = (later[:past] - features[:past] @ line).square().mean().sqrt()
    return dist.Normal(features @ line, scale).to_event(1)


with torch.no_grad():
    one_hot = torch.nn.functional.one_hot(month, 12).to(pairs)
    candidates = {
        "one line": regression(torch.cat([context, torch.ones(len(context), 1)], -1)),
        "a line for each month": regression(torch.cat([one_hot, one_hot * pairs[:, :1]], -1)),
        "conditional flow": forecast.condition(context),
    }
    print("Mean log density of the temperature in three months, in nats:\n")
    print("                          fitted years   later years")
    for name, d in candidates.items():
        log_prob = d.log_prob(later)
        print(f"  {name:<22}  {log_prob[:past].mean():>10.3f}  {log_prob[past + 3 :].mean():>12.3f}")
    print("\nThe sea stands at 26 °C. In three months it is, with 90 % probability (and in the middle):")
    for name, number in (("January", 0), ("March", 2), ("June", 5)):
        at = torch.tensor([math.cos(number * math.pi / 6), math.sin(number * math.pi / 6), (26 - centre) / unit])
        draws = forecast.condition(at).sample((4000,)) * unit + centre
        low, middle, high = draws.quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
        print(f"  from {name:<8}  {low:.1f} to {high:.1f} °C  ({middle:.1f})")

# %% [markdown]
# ## 3. A guide
#
# A guide proposes values of the unknowns. Where the posterior is skewed or bent, a normal guide falls short of it, and
# the ELBO shows by how much: it is the log evidence minus the divergence of the guide from the posterior. A flow declared
# with `ppl.module` is a guide like any other: its parameters are the program's.
#
# The unknowns here are how wild the January deviations are: the degrees of freedom of a Student t, and its scale. With
# few data they pull each other along. There being two, the exact evidence is a sum over a grid.

# %%
heading("3. A flow as a guide")
january = standard[::12][:20]
deviation = (january - january.mean()) / january.std()


def wildness(deviation):
    z = ppl.sample("z", dist.Normal(torch.tensor([1.0, 0.0]), torch.tensor([1.5, 1.0])).to_event(1))
    with ppl.plate("year", len(deviation)):
        ppl.sample("deviation", dist.StudentT(z[..., 0].exp(), 0.0, z[..., 1].exp()), obs=deviation)


proposal = transforms.iterated(2, transforms.affine_autoregressive, 2, [16])
proposal = transforms.ComposeTransformModule(
    [transforms.spline_coupling(2, bound=4.0, hidden_dims=[16]), *proposal.parts]
)


def flow_guide(deviation):
    ppl.module("proposal", proposal)
    base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    ppl.sample("z", dist.TransformedDistribution(base, [proposal]))


def normal_guide(deviation):
    loc = ppl.param("loc", torch.zeros(2))
    scale = ppl.param("scale", torch.ones(2), dist.constraints.positive)
    ppl.sample("z", dist.Normal(loc, scale).to_event(1))


def exact_log_evidence(deviation):
    """The log density of the data, by a sum over a fine grid of both unknowns."""
    a, b = torch.linspace(-6, 9, 600), torch.linspace(-3, 2, 400)
    prior = dist.Normal(1.0, 1.5).log_prob(a)[:, None] + dist.Normal(0.0, 1.0).log_prob(b)
    terms = dist.StudentT(a.exp()[:, None, None], 0.0, b.exp()[:, None]).log_prob(deviation).sum(-1)
    return ((prior + terms).logsumexp((0, 1)) + ((a[1] - a[0]) * (b[1] - b[0])).log()).item()


num_steps, num_draws = (25, 1000) if SHORT else (600, 40000)
exact = exact_log_evidence(deviation)
print(f"Exact log evidence:            {exact:.3f}")
gaps = {}
for name, guide in (("independent normals", normal_guide), ("flow", flow_guide)):
    adam = ppl.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.02}, "gamma": 0.05 ** (1 / num_steps)}
    )
    svi = SVI(wildness, guide, adam, Trace_ELBO(num_particles=16, vectorize_particles=True))
    svi.run(num_steps, deviation, progress_bar=False)
    many = Trace_ELBO(num_particles=num_draws, vectorize_particles=True)
    with svi.params, torch.no_grad():
        elbo = -many.loss(wildness, guide, deviation)
    gaps[name] = exact - elbo
    print(f"ELBO, {name + ':':<23}  {elbo:.3f}   short of it by {gaps[name]:.3f}")
if not SHORT:
    assert gaps["flow"] < 0.5 * gaps["independent normals"]

print(f"\nThis took {time.perf_counter() - START:.0f} seconds.")
