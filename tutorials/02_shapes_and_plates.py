# %% [markdown]
# # Shapes and plates
#
# Most errors in a probabilistic program are errors of shape. There are only two kinds of dims: batch dims are independent
# repetitions, event dims belong to one draw. A plate owns one batch dim. This page shows them, and the errors one gets.

# %%
import os

import torch
from sklearn.datasets import load_diabetes

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.infer import SVI, Trace_ELBO
from ppl.infer.autoguide import AutoDiagonalNormal, AutoNormal

SHORT = bool(os.environ.get("PPL_TUTORIAL_SHORT"))
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
ppl.set_rng_seed(0)


def heading(text):
    print(f"\n\n{text}\n{'=' * len(text)}\n", flush=True)


# %% [markdown]
# ## Batch and event
#
# The contract: `d.sample(S)` has shape `S + batch_shape + event_shape`, and `d.log_prob(x)` has shape `S + batch_shape`.
# One number of density for each independent repetition.

# %%
heading("1. Batch dims and event dims")
cases = {
    "Normal(0, 1)": dist.Normal(0.0, 1.0),
    "Normal(zeros(3), 1)": dist.Normal(torch.zeros(3), 1.0),
    "Normal(zeros(3), 1).to_event(1)": dist.Normal(torch.zeros(3), 1.0).to_event(1),
    "MultivariateNormal(zeros(3), eye(3))": dist.MultivariateNormal(torch.zeros(3), torch.eye(3)),
    "Categorical(ones(4, 3))": dist.Categorical(torch.ones(4, 3)),
    "Dirichlet(ones(4, 3))": dist.Dirichlet(torch.ones(4, 3)),
    "Normal(zeros(4, 3), 1).to_event(1)": dist.Normal(torch.zeros(4, 3), 1.0).to_event(1),
}
print(f"{'':38}{'batch':10}{'event':10}{'sample':10}{'log_prob':10}")
for text, d in cases.items():
    x = d.sample()
    shapes = (d.batch_shape, d.event_shape, x.shape, d.log_prob(x).shape)
    print(f"{text:38}" + "".join(f"{tuple(shape)!s:10}" for shape in shapes))
    assert x.shape == d.batch_shape + d.event_shape and d.log_prob(x).shape == d.batch_shape
print("""
`to_event(1)` declares the rightmost batch dim a part of the event: three numbers become one vector.
The draw is the same; the log density is summed.""")
x = torch.tensor([0.5, -1.0, 2.0])
one_by_one, as_one = dist.Normal(0.0, 1.0).log_prob(x), dist.Normal(torch.zeros(3), 1.0).to_event(1).log_prob(x)
assert torch.allclose(one_by_one.sum(), as_one)

# %% [markdown]
# ## Plates
#
# A plate says: these repetitions are independent of each other. It takes the first free batch dim from the right (or the
# one you give), and expands what stands inside to its size. Inference needs to know, to subsample, and to sum discrete
# sites one repetition at a time.

# %%
heading("2. Plates")


def measurements():
    with ppl.plate("city", 4):
        mean = ppl.sample("mean", dist.Normal(15.0, 10.0))  # expanded: four independent draws
        with ppl.plate("day", 7):
            rain = ppl.sample("rain", dist.Bernoulli(0.3))  # the same distribution for all 28
            ppl.sample("temperature", dist.Normal(mean - 3 * rain, 2.0))
            ppl.sample("wind", dist.Normal(torch.zeros(2), 5.0).to_event(1))  # a vector for each day and city


tr = handlers.trace(measurements).get_trace()
tr.compute_log_prob()
print(tr.format_shapes())
print("""
`city` owns dim -1, the first one free; `day`, inside it, dim -2. So `mean`, of shape (4), and `rain`, (7, 4),
broadcast as they are. Event dims stand right of all plates: `wind` is (7, 4 | 2).""")
assert tr["mean"].value.shape == (4,) and tr["rain"].value.shape == (7, 4)
assert tr["wind"].value.shape == (7, 4, 2) and tr.log_prob("wind").shape == (7, 4)

# %% [markdown]
# Two plates that are not nested but cross, rows and columns, need a dim each: give it.

# %%
heading("3. Crossed plates, and plates as loops")


def crossed():
    row, column = ppl.plate("row", 3, dim=-1), ppl.plate("column", 2, dim=-2)
    with row:
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
    with column:
        y = ppl.sample("y", dist.Normal(0.0, 1.0))
    with row, column:
        ppl.sample("cell", dist.Normal(x + y, 1.0))


tr = handlers.trace(crossed).get_trace()
print("x", tuple(tr["x"].value.shape), " y", tuple(tr["y"].value.shape), " cell", tuple(tr["cell"].value.shape))
assert tr["x"].value.shape == (3,) and tr["y"].value.shape == (2, 1) and tr["cell"].value.shape == (2, 3)


# %% [markdown]
# As an iterator, a plate is a loop over its indices. It owns no dim, and each repetition may be different; each site needs
# a name of its own.


# %%
def loop():
    for i in ppl.plate("school", 3):
        n = 2 + i  # of another size each
        with ppl.plate(f"pupils_{i}", n):
            ppl.sample(f"score_{i}", dist.Normal(0.0, 1.0))


tr = handlers.trace(loop).get_trace()
print("a loop:", {name: tuple(site.value.shape) for name, site in tr.stochastic_nodes.items()})

# %% [markdown]
# ## Subsampling
#
# With many data, each step of SVI may look at some of them. The plate draws which, and scales what is inside by size /
# subsample size, so that the loss is right on average.

# %%
heading("4. Subsampling, on real data")
print("""\
Data: 442 diabetes patients, ten measurements each, and how far the disease came within a year (Efron et al.,
      Annals of Statistics 2004), as it comes with scikit-learn (sklearn.datasets.load_diabetes, BSD licence).
""")
x, y = (torch.tensor(a) for a in load_diabetes(return_X_y=True))
names = load_diabetes().feature_names
keep = [names.index(name) for name in ("sex", "bmi", "bp", "s5")]
x = x[:, keep] / x[:, keep].std(0)
y = (y - y.mean()) / y.std()
n, k = x.shape
noise = 0.7


def patients(x, y, batch=None):
    slope = ppl.sample("slope", dist.Normal(torch.zeros(k), 1.0).to_event(1))
    with ppl.plate("patient", n, subsample_size=batch) as index:
        ppl.sample("y", dist.Normal(x[index] @ slope, noise), obs=y[index])


def loss_at(point, batch):
    fixed = handlers.substitute(patients, data={"slope": point})
    return handlers.trace(fixed).get_trace(x, y, batch).log_prob_sum().item()


point = torch.full((k,), 0.2)
full = loss_at(point, None)
some = torch.tensor([loss_at(point, 40) for _ in range(300)])
error = some.std().item() / len(some) ** 0.5
print(f"log density with all 442 patients:    {full:.1f}")
print(f"mean over 300 runs with 40 of them:   {some.mean():.1f} ± {error:.1f}")
assert abs(some.mean().item() - full) < 4 * error

guide = AutoNormal(patients)
num_steps = 500 if SHORT else 2500
rate = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.05}, "gamma": 0.01 ** (1 / num_steps)}
svi = SVI(patients, guide, ppl.optim.ExponentialLR(rate), Trace_ELBO())
svi.run(num_steps, x, y, batch=40)
print(flush=True)
precision = torch.eye(k) + x.T @ x / noise**2  # of the exact posterior, which is normal
exact = torch.linalg.solve(precision, x.T @ y / noise**2)
sd = precision.inverse().diagonal().sqrt()
fitted = guide.median()["slope"]
print(f"{'slope':8}{'fitted':>9}{'exact':>9}{'exact sd':>10}")
for name, a, b, s in zip(("sex", "bmi", "bp", "s5"), fitted, exact, sd, strict=True):
    print(f"{name:8}{a:>9.3f}{b:>9.3f}{s:>10.3f}")
worst = ((fitted - exact) / sd).abs().max().item()
print(f"largest error: {worst:.2f} posterior standard deviations, from 40 patients a step")
assert worst < (1.0 if SHORT else 0.5)

# %% [markdown]
# A local latent site, one for each repetition, is subsampled with its plate: the guide keeps parameters for all, and
# touches those in the batch. `ppl.subsample(data, event_dim=0)` cuts data that are not indexed by hand.


# %%
def local(y, batch=None):
    with ppl.plate("patient", n, subsample_size=batch):
        effect = ppl.sample("effect", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(effect, 1.0), obs=ppl.subsample(y, event_dim=0))


guide = AutoNormal(local)
svi = SVI(local, guide, ppl.optim.Adam({"lr": 0.05}))
svi.run(5, y, batch=40, progress_bar=False)
print("\na local site: guide parameters", {name: tuple(value.shape) for name, value in svi.params.items()})
assert guide.median()["effect"].shape == (n,)

# %% [markdown]
# ## Errors
#
# What goes wrong is said with the name of the site or plate, both sizes, and what to write instead.

# %%
heading("5. Errors")


def show(text, run):
    try:
        run()
    except ValueError as error:
        print(f"* {text}\n  {error}\n")
    else:
        raise AssertionError(f"no error for: {text}")


def run(model, guide=lambda: None):
    """One estimate of the loss, in which all shapes are checked."""
    Trace_ELBO().loss(model, guide)


def no_plate():
    ppl.sample("x", dist.Normal(torch.zeros(3), 1.0), obs=torch.zeros(3))


def wrong_size():
    with ppl.plate("data", 5):
        ppl.sample("x", dist.Normal(torch.zeros(3), 1.0))


def forgot_to_index():
    with ppl.plate("data", 100, subsample_size=10):
        ppl.sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(100))


def wrong_obs():
    with ppl.plate("data", 5):
        ppl.sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(4))


def same_dim():
    with ppl.plate("row", 2, dim=-1), ppl.plate("column", 3, dim=-1):
        ppl.sample("x", dist.Normal(0.0, 1.0))


def same_name():
    for _ in range(2):
        ppl.sample("x", dist.Normal(0.0, 1.0))


def outside_of_support():
    with ppl.plate("data", 3):
        ppl.sample("x", dist.Bernoulli(0.5), obs=torch.tensor([0.0, 1.0, 2.0]))


def bad_index():
    with ppl.plate("data", 3, subsample=torch.tensor([0, 3])):
        pass


def local_vector():
    guide = AutoDiagonalNormal(local)
    SVI(local, guide, ppl.optim.Adam({"lr": 0.05})).step(y, batch=40)


show("a batch dim without a plate", lambda: run(no_plate))
show("sizes that differ", lambda: run(wrong_size))
show("data that are not indexed", lambda: run(forgot_to_index))
show("obs of another size", lambda: run(wrong_obs))
show("two plates on one dim", lambda: run(same_dim))
show("a name twice", lambda: run(same_name))
show("data outside of the support", lambda: run(outside_of_support))
show("an index out of range", bad_index)
show("a fixed vector for a site that is subsampled", local_vector)
print("Next: tutorials/03_enumeration.py")
