# %% [markdown]
# # Enumeration
#
# A discrete random variable has no gradient, but it has finitely many values. Marked for enumeration, all of them are
# tried at once and summed exactly. Nothing is drawn, so nothing is noisy. Every answer here is checked by brute force.

# %%
import itertools
import math
import os

import torch
from sklearn.datasets import load_wine

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.distributions import constraints
from ppl.infer import SVI, TraceEnum_ELBO, config_enumerate, infer_discrete, init_to_value
from ppl.infer.autoguide import AutoDelta

SHORT = bool(os.environ.get("PPL_TUTORIAL_SHORT"))
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
ppl.set_rng_seed(0)


def heading(text):
    print(f"\n\n{text}\n{'=' * len(text)}\n", flush=True)


# %% [markdown]
# ## Sums instead of draws
#
# The alarm rings for a burglar, rarely for an earthquake, and sometimes for nothing. It has rung. Was it a burglar? And
# the neighbour felt an earthquake: what now?


# %%
def alarm(rang, felt=None):
    burglar = ppl.sample("burglar", dist.Bernoulli(0.01))
    quake = ppl.sample("quake", dist.Bernoulli(0.02))
    silent = 0.999 * (1 - 0.95 * burglar) * (1 - 0.3 * quake)
    ppl.sample("rang", dist.Bernoulli(1 - silent), obs=rang)
    if felt is not None:
        ppl.sample("felt", dist.Bernoulli(0.001 + 0.9 * quake), obs=felt)


def no_guide(*args):
    """Nothing is left for a guide to propose."""


def brute_force(model, *args):
    """Every combination of the discrete sites, with its log density, from a run of the model for each."""
    latent = handlers.trace(model).get_trace(*args).stochastic_nodes
    cells = [(name, index) for name, site in latent.items() for index in range(site.value.numel())]
    runs = []
    for combination in itertools.product((0.0, 1.0), repeat=len(cells)):
        values = {name: torch.zeros_like(site.value) for name, site in latent.items()}
        for (name, index), value in zip(cells, combination, strict=True):
            values[name].view(-1)[index] = value
        fixed = handlers.condition(model, data=values)
        runs.append((values, handlers.trace(fixed).get_trace(*args).log_prob_sum()))
    return runs


def log_evidence(model, *args):
    """The log probability of the data: with everything enumerated, the ELBO is just that."""
    return -TraceEnum_ELBO().loss(model, no_guide, *args)


heading("1. Was it a burglar?")
yes = torch.tensor(1.0)
marked = config_enumerate(alarm)  # marks all discrete sites; or write infer={"enumerate": "parallel"} at each
runs = brute_force(alarm, yes)
by_hand = torch.stack([lp for _, lp in runs]).logsumexp(0).item()
summed = log_evidence(marked, yes)
print(f"log p(it rang):          enumerated {summed:.6f}, brute force {by_hand:.6f}")
assert abs(summed - by_hand) < 1e-10

num_draws = 150 if SHORT else 2000
posterior = infer_discrete(marked)  # runs like `alarm`, with the marked sites drawn from their joint posterior


def share(program, name, *args):
    draws = [handlers.trace(program).get_trace(*args)[name].value for _ in range(num_draws)]
    return torch.stack(draws).mean().item()


def exactly(name, *args):
    runs = brute_force(alarm, *args)
    weight = torch.stack([lp for _, lp in runs]).softmax(0)
    return sum(w.item() * values[name].item() for (values, _), w in zip(runs, weight, strict=True))


for text, args in (("it rang", (yes,)), ("it rang, and the neighbour felt it", (yes, yes))):
    found, exact = share(posterior, "burglar", *args), exactly("burglar", *args)
    error = math.sqrt(exact * (1 - exact) / num_draws)
    print(f"p(burglar | {text + '):':36} {found:.3f} ± {error:.3f} by {num_draws} draws, exactly {exact:.3f}")
    assert abs(found - exact) < 4 * error

best = handlers.trace(infer_discrete(marked, temperature=0)).get_trace(yes)
names = ("burglar", "quake")
top = max(runs, key=lambda run: run[1])[0]
print(f"most probable together:  { {name: int(best[name].value) for name in names} }  (temperature=0)")
assert all(best[name].value == top[name] for name in names)

# %% [markdown]
# ## What a model sees: dims
#
# `parallel` puts the values of each site on a batch dim of its own, left of all plates. The model must be written so
# that any batch dims on the left do no harm: elementwise arithmetic, indexing from the right, no `if` on a value.

# %%
heading("2. Parallel: every value at once")


def look(rang):
    burglar = ppl.sample("burglar", dist.Bernoulli(0.01), infer={"enumerate": "parallel"})
    quake = ppl.sample("quake", dist.Bernoulli(0.02), infer={"enumerate": "parallel"})
    silent = 0.999 * (1 - 0.95 * burglar) * (1 - 0.3 * quake)
    print(f"  burglar {tuple(burglar.shape)}, quake {tuple(quake.shape)}, silent {tuple(silent.shape)}")
    ppl.sample("rang", dist.Bernoulli(1 - silent), obs=rang)


with handlers.enum(first_available_dim=-1):
    look(yes)

# %% [markdown]
# `sequential` runs the model once for each value instead, so the model may branch on it. Both give the same number.

# %%
heading("3. Sequential: one value at a time")


def branching(rang):
    burglar = ppl.sample("burglar", dist.Bernoulli(0.01), infer={"enumerate": "sequential"})
    quake = ppl.sample("quake", dist.Bernoulli(0.02), infer={"enumerate": "parallel"})
    silent = 0.999 * (0.05 if burglar.item() == 1 else 1.0) * (1 - 0.3 * quake)  # an `if`!
    ppl.sample("rang", dist.Bernoulli(1 - silent), obs=rang)


mixed = log_evidence(branching, yes)
print(f"one site sequential, the other parallel: {mixed:.6f}; both parallel: {summed:.6f}")
assert abs(mixed - summed) < 1e-10

# %% [markdown]
# ## Plates
#
# Within a plate, each repetition has a value of its own. Ten binary sites in a plate have 1024 combinations; summed one
# by one they cost 20. Nested plates work too: here two classes, each of a kind, and three pupils in each, who may have
# had a bad day. The brute force needs 256 runs of the model, the enumeration one.

# %%
heading("4. Nested plates")
scores = torch.tensor([[71.0, 74.0], [68.0, 52.0], [77.0, 81.0]])  # (pupil, class)


def school(scores):
    with ppl.plate("class", 2):
        strong = ppl.sample("strong", dist.Bernoulli(0.5))
        with ppl.plate("pupil", 3):
            bad_day = ppl.sample("bad_day", dist.Bernoulli(0.2))
            ppl.sample("score", dist.Normal(65.0 + 12.0 * strong - 20.0 * bad_day, 6.0), obs=scores)


marked = config_enumerate(school)
runs = brute_force(school, scores)
by_hand, summed = torch.stack([lp for _, lp in runs]).logsumexp(0).item(), log_evidence(marked, scores)
print(f"log p(scores): enumerated {summed:.6f}, brute force over {len(runs)} runs {by_hand:.6f}")
assert abs(summed - by_hand) < 1e-10

best = handlers.trace(infer_discrete(marked, temperature=0)).get_trace(scores)
top = max(runs, key=lambda run: run[1])[0]
print("most probable: strong classes", best["strong"].value.int().tolist(), end="; ")
print("bad days (pupil, class)", best["bad_day"].value.int().tolist())
assert all(torch.equal(best[name].value, top[name]) for name in ("strong", "bad_day"))

# %% [markdown]
# ## A mixture, on real data
#
# 178 wines from one region of Italy, from three growers, with two measurements each. Which grower made which wine? The
# mixture is not told; its component of each wine is a discrete site in a plate, summed in every step of SVI.

# %%
heading("5. A mixture of wines")
print("""\
Data: the wine recognition data (Forina et al.; UCI repository, CC BY 4.0), as it comes with scikit-learn
      (sklearn.datasets.load_wine). Of 13 measurements we take two: flavanoids and the intensity of the colour.
""")
wine = load_wine()
columns = [wine.feature_names.index(name) for name in ("flavanoids", "color_intensity")]
data = torch.tensor(wine.data[:, columns]).log()
data = (data - data.mean(0)) / data.std(0)
grower = torch.tensor(wine.target)
K = 3


@config_enumerate
def mixture(data):
    weights = ppl.param("weights", torch.full((K,), 1 / K), constraints.simplex)  # learned, without a prior
    with ppl.plate("component", K):
        loc = ppl.sample("loc", dist.Normal(torch.zeros(2), 1.5).to_event(1))
        scale = ppl.sample("scale", dist.LogNormal(torch.full((2,), -0.7), 0.5).to_event(1))
    with ppl.plate("wine", len(data)):
        component = ppl.sample("component_of", dist.Categorical(weights))
        ppl.sample("measured", dist.Normal(loc[component], scale[component]).to_event(1), obs=data)


# Where to start decides which of the equivalent labellings is found: one corner of the data for each.
corners = torch.tensor([[1.0, 0.5], [0.0, -1.0], [-1.0, 1.0]])
guide = AutoDelta(mixture, init_loc_fn=init_to_value(values={"loc": corners, "scale": torch.full((K, 2), 0.5)}))
svi = SVI(mixture, guide, ppl.optim.Adam({"lr": 0.02}), TraceEnum_ELBO())
result = svi.run(300 if SHORT else 800, data)
print(flush=True)
at = {**guide.median(), "weights": result.params["weights"]}
print("          share   flavanoids   colour   (standardised logarithms)")
for k in range(K):
    print(f"  kind {k}   {at['weights'][k]:.2f}   {at['loc'][k, 0]:>10.2f}   {at['loc'][k, 1]:>6.2f}")

# %% [markdown]
# The fit is a point, so the rest is Bayes' rule: `infer_discrete` must agree with it.

# %%
fitted = handlers.substitute(mixture, data=at)
log_joint = at["weights"].log() + dist.Normal(at["loc"], at["scale"]).to_event(1).log_prob(data[:, None])
responsibility = log_joint.softmax(-1)
assigned = handlers.trace(infer_discrete(fitted, temperature=0)).get_trace(data)["component_of"].value
assert torch.equal(assigned, responsibility.argmax(-1))
num_draws = 60 if SHORT else 400
drawer = infer_discrete(fitted)
draws = torch.stack([handlers.trace(drawer).get_trace(data)["component_of"].value for _ in range(num_draws)])
drawn = torch.stack([(draws == k).double().mean(0) for k in range(K)], -1)
standard_error = (responsibility * (1 - responsibility) / num_draws).sqrt() + 1e-3
print(f"\nAssignments: equal to Bayes' rule for all {len(data)} wines;")
print(
    f"posterior draws: at most {((drawn - responsibility).abs() / standard_error).max():.1f} standard errors from it."
)
print("\nWhat the mixture was not told:   grower 0   grower 1   grower 2")
for k in range(K):
    counts = [int(((assigned == k) & (grower == g)).sum()) for g in range(3)]
    print(f"  wines of kind {k}" + " " * 17 + "".join(f"{c:>8}   " for c in counts))
agree = (assigned == grower).double().mean().item()
unsure = int((responsibility.max(-1).values < 0.9).sum())
print(
    f"The kinds are the growers for {100 * agree:.0f} % of the wines. Of {unsure} wines the model is less than 90 % sure."
)
assert agree > 0.85

# The loss is minus the log joint density at the point, with the components summed: check it by formula.
priors = handlers.trace(handlers.substitute(handlers.block(mixture, expose=["loc", "scale"]), data=at))
exact = -(priors.get_trace(data).log_prob_sum() + log_joint.logsumexp(-1).sum()).item()
loss = svi.evaluate_loss(data)
print(f"\nLoss {loss:.6f}; by formula {exact:.6f}")
assert abs(loss - exact) < 1e-6 * abs(exact)

# %% [markdown]
# ## What cannot be enumerated
#
# The errors say what to do instead.

# %%
heading("6. Errors")


def show(text, run):
    try:
        run()
    except ValueError as error:
        print(f"{text}:\n  {error}\n")
    else:
        raise AssertionError(f"no error for: {text}")


def continuous():
    ppl.sample("x", dist.Normal(0.0, 1.0), infer={"enumerate": "parallel"})


def escaped():
    with ppl.plate("class", 2):
        strong = ppl.sample("strong", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
    ppl.sample("one_of_them", dist.Normal(strong, 1.0), obs=torch.tensor(1.0))


def crossed():
    """Rows and columns that meet in each cell: the sum does not come apart."""
    rows, columns = ppl.plate("row", 2, dim=-1), ppl.plate("column", 3, dim=-2)
    with rows:
        x = ppl.sample("x", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
    with columns:
        y = ppl.sample("y", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
    with rows, columns:
        ppl.sample("z", dist.Normal(x + y, 1.0), obs=torch.zeros(3, 2))


show("a continuous site has no finite support", lambda: log_evidence(continuous))
show("an enumerated site is used outside of its plate", lambda: log_evidence(escaped))
show("two crossed plates with an enumerated site each", lambda: log_evidence(crossed))


def crossed_in_a_loop():
    """The way out: one of the plates is a loop."""
    xs = [ppl.sample(f"x_{i}", dist.Bernoulli(0.5), infer={"enumerate": "parallel"}) for i in range(2)]
    with ppl.plate("column", 3):
        y = ppl.sample("y", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        for i in range(2):
            ppl.sample(f"z_{i}", dist.Normal(xs[i] + y, 1.0), obs=torch.zeros(3))


total = []
for values in itertools.product((0.0, 1.0), repeat=5):
    x, y = torch.tensor(values[:2]), torch.tensor(values[2:])
    total.append(5 * math.log(0.5) + dist.Normal(x + y[:, None], 1.0).log_prob(torch.zeros(3, 2)).sum().item())
by_hand = torch.tensor(total).logsumexp(0).item()
print(f"in a loop: {log_evidence(crossed_in_a_loop):.6f}, brute force {by_hand:.6f}")
assert abs(log_evidence(crossed_in_a_loop) - by_hand) < 1e-10
