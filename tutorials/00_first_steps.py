# %% [markdown]
# # First steps
#
# Two questions asked of real data, from the first line to the pictures. Run it as a script (`make demo`), or cell by
# cell in an editor that knows `# %%`. Every answer is printed beside the exact one, computed in another way.

# %%
import math
import os
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from statsmodels.datasets import elnino, nile

import ppl
import ppl.distributions as dist
from ppl.distributions import constraints
from ppl.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO
from ppl.infer.autoguide import AutoNormal
from ppl.report import summary

START = time.perf_counter()
SHORT = bool(os.environ.get("PPL_TUTORIAL_SHORT"))  # for the tests: fewer steps, rougher answers
OUTPUT = Path(os.environ.get("PPL_TUTORIAL_OUTPUT", "output"))
OUTPUT.mkdir(parents=True, exist_ok=True)
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)  # small models are quickest so
ppl.set_rng_seed(2)


def heading(text):
    print(f"\n\n{text}\n{'=' * len(text)}\n", flush=True)


def falling_rate(start, num_steps):
    """Adam with a learning rate that falls to a hundredth: quick at first, precise in the end."""
    adam = {"optimizer": torch.optim.Adam, "optim_args": {"lr": start}}
    return ppl.optim.ExponentialLR({**adam, "gamma": 0.01 ** (1 / num_steps)})


# %% [markdown]
# ## 1. A hierarchical regression
#
# One coefficient for each of twelve months, and a distribution over months that they all come from. What one month's
# data leave open, the other months fill in.

# %%
heading("1. How long does the sea remember?")
print("""\
Off the coast of Peru the sea is some years much too warm: El Niño. If it is 2 °C too warm this month,
how much of that is left in the next one? Perhaps it depends on the month.

Data:  monthly sea surface temperatures, 1950 to 2010, of the US weather service (NOAA, region Niño 1+2).
       They come with statsmodels (statsmodels.datasets.elnino) and are in the public domain.
Model: next month's deviation = carry[month] * this month's deviation + noise[month].
       The twelve carries are alike but not equal: they come from one normal distribution, with a centre
       (typical) and a spread (variety), which are unknown too. We fit 1950 to 1980, then check on 1980 to 2010.
""")

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
table = elnino.load_pandas().data
sea = torch.tensor(table.iloc[:, 1:].to_numpy(dtype=float))  # (61 years, 12 months), in °C
past = 31
deviation = sea - sea[:past].mean(0)
following = deviation.flatten()[1:-11].reshape(-1, 12)  # of the month after; after December comes January
now, after = deviation[: past - 1], following[: past - 1]  # (30, 12) each, to fit
later_now, later_after = deviation[past - 1 : -1], following[past - 1 :]  # the rest, to check


# %% [markdown]
# A model is a Python function. Each `sample` is a random number; with `obs=`, one that we have seen. A `plate` says how
# often something repeats, independently.


# %%
def el_nino(now, after):
    typical = ppl.sample("typical", dist.Normal(1.0, 0.5))
    variety = ppl.sample("variety", dist.HalfNormal(0.5))
    with ppl.plate("month", 12):
        carry = ppl.sample("carry", dist.Normal(typical, variety))
        noise = ppl.sample("noise", dist.HalfNormal(1.0))
        with ppl.plate("year", len(now)):
            ppl.sample("after", dist.Normal(carry * now, noise), obs=after)


# %% [markdown]
# What is asked for is the posterior: which carries go with the data, and how surely. `SVI` looks for it among the
# distributions that a guide can express, by gradient steps. The automatic guide takes one line.

# %%
num_steps = 300 if SHORT else 1500
num_draws = 1000 if SHORT else 4000


def fit(model, guide, loss, rate, *data):
    svi = SVI(model, guide, falling_rate(rate, num_steps), loss)
    svi.run(num_steps, *data)
    print(flush=True)
    return Predictive(model, guide=guide, params=svi.params, num_samples=num_draws, parallel=True)


print("First with an automatic guide, which treats all 26 unknowns as independent of each other:\n", flush=True)
several = Trace_ELBO(num_particles=8, vectorize_particles=True)
automatic = fit(el_nino, AutoNormal(el_nino), several, 0.03, now, after)(now, after)


# %% [markdown]
# ### Is it right?
#
# Here one can know. Given `typical` and `variety`, the months are independent; given its noise too, a month's carry is
# normal, by a textbook formula. That leaves sums over three numbers, which a fine grid does to four digits. No sampling,
# no `ppl`.


# %%
def square(x, loc, scale):
    """The log density of a normal, up to a constant."""
    return -0.5 * ((x - loc) / scale) ** 2


def exact_el_nino(now, after):
    """Posterior means and standard deviations, by quadrature over typical, variety and each month's noise."""
    typical = torch.linspace(0.6, 1.25, 91)
    variety = torch.linspace(math.log(0.002), math.log(0.7), 121).exp()
    noise = torch.linspace(math.log(0.15), math.log(1.2), 120).exp()[:, None]
    xx, xy, yy = (now * now).sum(0), (now * after).sum(0), (after * after).sum(0)
    own, own_var = xy / xx, noise**2 / xx  # each month on its own: least squares
    of_noise = -(len(now) - 1) * noise.log() - (yy - xy**2 / xx) / (2 * noise**2) + square(noise, 0, 1) + noise.log()
    var = own_var + variety[:, None, None] ** 2
    pull = own_var / var  # how far a month is drawn to the centre
    log_weight = square(typical, 1, 0.5)[:, None] + square(variety, 0, 0.5) + variety.log()
    carry, carry_squared = [], []
    for i, centre in enumerate(typical):
        terms = of_noise - 0.5 * var.log() - 0.5 * (own - centre) ** 2 / var  # (variety, noise, month)
        log_weight[i] += terms.logsumexp(1).sum(-1)
        weight, mean = terms.softmax(1), own + pull * (centre - own)
        carry.append((weight * mean).sum(1))
        carry_squared.append((weight * (mean**2 + own_var * (1 - pull))).sum(1))
    weight = log_weight.flatten().softmax(0).reshape(*log_weight.shape, 1)

    def moments(x, x_squared):
        mean = (weight * x).sum((0, 1))
        return mean.squeeze(), ((weight * x_squared).sum((0, 1)) - mean**2).sqrt().squeeze()

    return {
        "typical": moments(typical[:, None, None], typical[:, None, None] ** 2),
        "variety": moments(variety[:, None], variety[:, None] ** 2),
        "carry": moments(torch.stack(carry), torch.stack(carry_squared)),
    }


def compare(samples, exact):
    """Print how far the fitted means and standard deviations are from the exact ones."""
    print(f"{'':14}{'error of the mean':>22}{'fitted sd / exact sd':>26}")
    for name, (mean, sd) in exact.items():
        error = (samples[name].mean(0) - mean) / sd
        worst = error.flatten()[error.abs().argmax()].item()
        ratio = samples[name].std(0) / sd
        low, high = ratio.min().item(), ratio.max().item()
        of = f"{name} (worst)" if error.numel() > 1 else name
        print(
            f"  {of:16}{worst:>+9.2f} exact sd{f'{low:.2f}' if error.numel() == 1 else f'{low:.2f} to {high:.2f}':>22}"
        )


exact = exact_el_nino(now, after)
print("Against the exact posterior, by numerical integration:\n")
compare(automatic, exact)
print("""
The means are near. But typical and variety, which tie the months together, come out as known better than they
are (a ratio below 1): that is the price of independence. The cure is to say in the guide what depends on what.
""")


# %% [markdown]
# A guide is a program as well. It has a `param` for each number to learn, and samples the same sites as the model. This
# one lets each carry follow `typical`, as strongly as the formula above says, with numbers that are learned.


# %%
def dependent_guide(now, after):
    positive = constraints.positive
    shape, rate = ppl.param("shape", 4.0, positive), ppl.param("rate", 40.0, positive)
    variety = ppl.sample("variety", dist.Gamma(shape, rate))
    own_var = ppl.param("typical_sd", 0.05, positive) ** 2
    typical = ppl.sample("typical", dist.Normal(ppl.param("typical_loc", 1.0), (own_var + variety**2 / 12).sqrt()))
    with ppl.plate("month", 12):
        loc, scale = (
            ppl.param("noise_loc", torch.full((12,), -1.0)),
            ppl.param("noise_sd", torch.full((12,), 0.1), positive),
        )
        ppl.sample("noise", dist.LogNormal(loc, scale))
        own, sd = ppl.param("own", torch.ones(12)), ppl.param("own_sd", torch.full((12,), 0.1), positive)
        pull = sd**2 / (sd**2 + variety**2)
        ppl.sample("carry", dist.Normal(own + pull * (typical - own), sd * (1 - pull).sqrt()))


print("Again, with a guide of twelve lines in which each month follows the centre:\n", flush=True)
predictive = fit(el_nino, dependent_guide, several, 0.03, now, after)
fitted = predictive(now, after)
compare(fitted, exact)
print()
print(
    summary(
        fitted,
        {name: mean for name, (mean, _) in exact.items()},
        labels={"carry": MONTHS},
        names=["typical", "variety", "carry"],
        title=f"{num_draws} draws from the fitted posterior; the reference is exact.",
    )
)


# %%
def forecast_error(carry):
    return (later_after - carry * later_now).square().mean().sqrt().item()


own = (now * after).sum(0) / (now * now).sum(0)
pooled = (now * after).sum() / (now * now).sum()
carry = fitted["carry"].mean(0)
best, least = carry.argmax().item(), carry.argmin().item()
print(f"""
Read: of a degree too much in {MONTHS[best]}, {carry[best]:.2f} are left a month later; of one in {MONTHS[least]}, {carry[least]:.2f}. An El Niño holds on in
(southern) autumn and lets go around the turn of the year.

Does it forecast? Error of the next month's temperature in 1980 to 2010, which no fit has seen:
  this month's deviation stays    {forecast_error(torch.tensor(1.0)):.3f} °C
  one carry for all months        {forecast_error(pooled):.3f} °C
  each month on its own           {forecast_error(own):.3f} °C
  hierarchical                    {forecast_error(carry):.3f} °C
Most of it is weather that nobody knows a month ahead; but only the hierarchical carries beat the one for all.""")

# %% [markdown]
# The first picture: each month on its own, and what became of it.

# %%
BLUE, ORANGE, GREY, INK = "#1f6f9f", "#d9622b", "#8a8f98", "#2b2d33"
plt.rcParams.update(
    {
        "font.size": 10.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.titlesize": 12.5,
        "figure.dpi": 110,
        "savefig.bbox": "tight",
        "legend.frameon": False,
    }
)


def interval(samples, inside=0.9):
    """The median of some samples between the bounds of their central part, as arrays."""
    tail = (1 - inside) / 2
    return samples.quantile(torch.tensor([tail, 0.5, 1 - tail]), dim=0).numpy()


def picture_el_nino(path):
    figure, axis = plt.subplots(figsize=(9, 5))
    x = torch.arange(12).numpy()
    low, middle, high = interval(fitted["typical"])
    axis.axhspan(low, high, color=BLUE, alpha=0.10, lw=0, label="typical month, 90 % interval")
    axis.axhline(middle, color=BLUE, alpha=0.5, lw=1)
    residual_sd = (after - own * now).square().sum(0).div(len(now) - 1).sqrt()
    error = 1.645 * residual_sd / now.square().sum(0).sqrt()
    axis.errorbar(
        x - 0.13,
        own.numpy(),
        error.numpy(),
        fmt="o",
        color=GREY,
        mfc="white",
        ms=6,
        lw=1.2,
        label="each month on its own",
    )
    low, _, high = interval(fitted["carry"])
    mean = carry.numpy()
    axis.errorbar(
        x + 0.13,
        mean,
        [mean - low, high - mean],
        fmt="o",
        color=BLUE,
        ms=7,
        lw=2.4,
        label="hierarchical model, 90 % interval",
    )
    axis.plot(
        x + 0.13, exact["carry"][0].numpy(), "_", color=ORANGE, ms=13, mew=2, label="exact posterior mean", zorder=5
    )
    axis.set_xticks(x, MONTHS)
    axis.set_ylabel("share of the deviation left a month later")
    axis.set_title("How long does the sea off Peru stay too warm?", pad=26)
    axis.text(
        0, 1.025, "Niño 1+2, 1950 to 1980. Months borrow strength from each other.", transform=axis.transAxes, color=INK
    )
    axis.legend(loc="upper right", ncols=2, fontsize=9)
    axis.set_ylim(top=axis.get_ylim()[1] + 0.15)
    figure.savefig(path)
    plt.close(figure)


picture_el_nino(OUTPUT / "el_nino.png")

# %% [markdown]
# ## 2. A change point
#
# A latent site can be discrete: here, the year in which something changed. It has no gradient. Marked
# `enumerate: parallel`, all its 99 values are tried at once, as one more batch dimension, and summed exactly.

# %%
heading("2. When did the Nile change?")
print("""\
Data:  the yearly flow of the Nile at Aswan, 1871 to 1970, in cubic kilometres (Cobb, Biometrika 1978).
       It comes with statsmodels (statsmodels.datasets.nile) and is in the public domain.
Model: the flow has one level up to some year and another one from the next year on. Which year?
       That is a latent variable with 99 possible values, and each of them is tried in each step.
""")

table = nile.load_pandas().data
years = torch.tensor(table["year"].to_numpy(dtype=float)).long()
flow = torch.tensor(table["volume"].to_numpy(dtype=float)) / 10  # from 10^8 m³ to km³


def river(flow):
    before = ppl.sample("before", dist.Normal(100.0, 30.0))
    later = ppl.sample("later", dist.Normal(100.0, 30.0))
    noise = ppl.sample("noise", dist.HalfNormal(30.0))
    last = ppl.sample("last", dist.Categorical(torch.ones(len(flow) - 1)), infer={"enumerate": "parallel"})
    with ppl.plate("year", len(flow)):
        level = torch.where(torch.arange(len(flow)) <= last, before, later)
        ppl.sample("flow", dist.Normal(level, noise), obs=flow)


summed = TraceEnum_ELBO(num_particles=4, vectorize_particles=True)
num_steps = 400 if SHORT else 1000
guide = AutoNormal(river)  # proposes before, later and noise; leaves the discrete site to the enumeration
svi = SVI(river, guide, falling_rate(0.4, num_steps), summed)
svi.run(num_steps, flow)
print(flush=True)

# %% [markdown]
# `infer_discrete=True` draws the change from its posterior, for each draw of the rest. The exact answer tries all
# changes by brute force, with the two levels integrated by formula and the noise on a grid.

# %%
draws = Predictive(river, guide=guide, params=svi.params, num_samples=num_draws, parallel=True, infer_discrete=True)(
    flow
)


def exact_river(flow):
    """The probability of each last year before the change, and means and standard deviations, by brute force."""
    noise = torch.linspace(math.log(8.0), math.log(22.0), 300).exp()
    sums, squares = (flow - 100).cumsum(0), (flow - 100).square().cumsum(0)
    counts = torch.arange(1, len(flow))

    def part(count, total, total_square):
        """The evidence of some years with one level, and the level's mean and variance: (change, noise)."""
        count, total, total_square = count[:, None], total[:, None], total_square[:, None]
        var = 1 / (count / noise**2 + 1 / 30**2)
        shift = var * total / noise**2
        evidence = 0.5 * (shift**2 / var + (var / 30**2).log() - total_square / noise**2) - count * noise.log()
        return evidence, 100 + shift, var

    first, before, before_var = part(counts, sums[:-1], squares[:-1])
    second, later, later_var = part(len(flow) - counts, sums[-1] - sums[:-1], squares[-1] - squares[:-1])
    log_weight = first + second + square(noise, 0, 30) + noise.log()
    weight = log_weight.flatten().softmax(0).reshape(log_weight.shape)

    def moments(mean, var):
        total = (weight * mean).sum()
        return total, ((weight * (var + mean**2)).sum() - total**2).sqrt()

    return weight.sum(1), {
        "before": moments(before, before_var),
        "later": moments(later, later_var),
        "noise": moments(noise, torch.zeros(())),
    }


probability, exact = exact_river(flow)
found = torch.bincount(draws["last"], minlength=len(flow) - 1) / num_draws
print(f"{'last year of the old level':28}{'fitted':>8}{'exact':>8}")
for i in sorted(probability.argsort(descending=True)[:5].tolist()):
    print(f"{years[i].item():>14}{'':14}{100 * found[i]:>6.1f} %{100 * probability[i]:>6.1f} %")
print(f"largest difference over all 99 years: {100 * (found - probability).abs().max():.1f} percentage points\n")
compare(draws, exact)
print()
print(
    summary(
        draws, {name: mean for name, (mean, _) in exact.items()}, names=["before", "later", "noise"], title="km³ a year"
    )
)
drop = draws["before"] - draws["later"]
print(f"""
The Nile lost {drop.mean():.0f} of {draws["before"].mean():.0f} km³ a year (give or take {drop.std():.0f}) after {years[probability.argmax()]}. Two causes are discussed: the rains
over Ethiopia, and the building of the first dam at Aswan, which began in 1899.""")


# %%
def picture_nile(path):
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 6.6), height_ratios=[2.2, 1.5], gridspec_kw={"hspace": 0.3})
    old = torch.arange(len(flow)) <= draws["last"][:, None]
    year = years.numpy()
    low, middle, high = interval(torch.where(old, draws["before"][:, None], draws["later"][:, None]))
    top.plot(year, flow.numpy(), "-o", color=GREY, ms=3.5, lw=0.8, alpha=0.9, label="measured")
    top.fill_between(year, low, high, step="mid", color=BLUE, alpha=0.25, lw=0, label="90 % interval")
    top.step(year, middle, where="mid", color=BLUE, lw=2.2, label="level, posterior median")
    top.set_ylabel("flow in km³ a year")
    top.legend(loc="upper right", ncols=3, fontsize=9)
    top.set_title("When did the Nile change?", pad=8)
    near = slice(22, 32)  # 1893 to 1902
    shares, exact_shares = found.numpy()[near], probability.numpy()[near]
    bottom.bar(year[near], shares, width=0.6, color=BLUE, label="fitted: SVI with enumeration")
    bottom.plot(year[near], exact_shares, "_", color=ORANGE, ms=30, mew=2, label="exact: brute force")
    for x, share in zip(year[near], shares, strict=True):
        if share > 0.005:
            bottom.text(x, share + 0.035, f"{100 * share:.0f} %", ha="center", color=INK)
    bottom.set_xticks(year[near])
    bottom.set_ylim(0, 0.95)
    bottom.set_ylabel("probability")
    bottom.set_xlabel("last year of the old level")
    bottom.legend(loc="upper right", fontsize=9, markerscale=0.5)
    top.set_xlim(year[0] - 1, year[-1] + 1)
    figure.align_ylabels()
    figure.savefig(path)
    plt.close(figure)


picture_nile(OUTPUT / "nile.png")

# %%
heading("Pictures")
print(f"{(OUTPUT / 'el_nino.png').resolve()}")
print(f"{(OUTPUT / 'nile.png').resolve()}")
print(f"""
Done in {time.perf_counter() - START:.0f} seconds. Next: tutorials/01_handlers.py shows what happens inside a model, and how to change it.""")
