# %% [markdown]
# # Discrete latents at scale
#
# Sums over discrete variables stay exact when there are many of them: a million pixels of ten colours, the topic of
# each of ten thousand words, the survival of hundreds of birds, and what to do where the sum does not come apart.

# %%
import itertools
import math
import os
import re
import time
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics as manual

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_breast_cancer, load_sample_images

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.distributions import constraints
from ppl.infer import (
    SVI,
    TraceEnum_ELBO,
    compute_marginals,
    config_enumerate,
    explain_enumeration,
    infer_discrete,
    init_to_value,
)
from ppl.infer.autoguide import AutoDelta

START = time.perf_counter()
SHORT = bool(os.environ.get("PPL_TUTORIAL_SHORT"))  # for the tests: less data, fewer steps
OUTPUT = Path(os.environ.get("PPL_TUTORIAL_OUTPUT", "output"))
OUTPUT.mkdir(parents=True, exist_ok=True)
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
ppl.set_rng_seed(0)


def heading(text):
    print(f"\n\n{text}\n{'=' * len(text)}\n", flush=True)


def no_guide(*args):
    """Nothing is left for a guide to propose."""


# %% [markdown]
# ## 1. A mixture of a million points
#
# Each pixel of a photograph has one of a few colours, with some spread. Which one is a discrete site in a plate. A plate
# with `subsample_size` draws some of its indices for each step and scales their densities up, so the loss is right on
# average. A step costs what the subsample costs, and the draw of the indices, however many points there are.

# %%
heading("1. A mixture of a million points")
print("""\
Data: two photographs, a temple and a flower, from scikit-learn (sklearn.datasets.load_sample_images), by
      danielbuechele, flickr.com, CC BY 2.0: 546,560 pixels of red, green and blue, from 0 to 1.
""")
photographs = [torch.tensor(image.copy()).double() / 255 for image in load_sample_images().images]
pixels = torch.cat([image.reshape(-1, 3) for image in photographs])
K = 10


def colours(*data):
    """What is to be learned: how frequent each colour is, where it lies, and how far it spreads."""
    share = ppl.sample("share", dist.Dirichlet(torch.full((K,), 2.0)))
    with ppl.plate("colour", K):
        centre = ppl.sample("centre", dist.Normal(torch.full((3,), 0.5), 0.3).to_event(1))
        spread = ppl.sample("spread", dist.LogNormal(torch.full((3,), -2.0), 0.5).to_event(1))
    return share, centre, spread


@config_enumerate
def mixture(points, subsample_size=None):
    share, centre, spread = colours()
    with ppl.plate("pixel", len(points), subsample_size=subsample_size) as index:
        colour = ppl.sample("colour_of", dist.Categorical(share))
        ppl.sample("rgb", dist.Normal(centre[colour], spread[colour]).to_event(1), obs=points[index])


some_pixels = pixels[torch.randint(len(pixels), (2000,))]
palette = some_pixels[:1]  # start from pixels that differ: each the one farthest from those before
for _ in range(K - 1):
    farthest = torch.cdist(some_pixels, palette).min(-1).values.argmax()
    palette = torch.cat([palette, some_pixels[farthest][None]])
start_at = {"share": torch.full((K,), 1 / K), "centre": palette, "spread": torch.full((K, 3), 0.1)}


def svi_for_colours():
    guide = AutoDelta(colours, init_loc_fn=init_to_value(values=start_at))
    return SVI(mixture, guide, ppl.optim.Adam({"lr": 0.03}), TraceEnum_ELBO()), guide


subsample = 10_000
print("        points   ms a step with a subsample of", subsample)
timings = []
for total in (10_000, 100_000, 1_000_000):
    points = pixels[torch.randint(len(pixels), (total,))]
    svi, _ = svi_for_colours()
    svi.step(points, subsample)
    laps = []
    for _ in range(10):
        clock = time.perf_counter()
        svi.step(points, subsample)
        laps.append(1000 * (time.perf_counter() - clock))
    timings.append(min(laps))
    print(f"  {total:>12,}   {timings[-1]:>9.1f}")
assert timings[-1] < 4 * timings[0]  # a hundred times the points

# %% [markdown]
# On average over subsamples the loss is the loss of all points.

# %%
all_pixels = photographs[0].reshape(-1, 3)[:: 20 if SHORT else 1]
svi, guide = svi_for_colours()
subsample = 2000 if SHORT else 10_000
svi.run(40 if SHORT else 250, all_pixels, subsample, progress_bar=False)
full = svi.evaluate_loss(all_pixels)
some = torch.tensor([svi.evaluate_loss(all_pixels, subsample) for _ in range(20)])
error = some.std() / math.sqrt(len(some))
print(
    f"\nLoss of all {len(all_pixels):,} pixels of the temple: {full:,.0f}; of 20 subsamples: {some.mean():,.0f} ± {error:,.0f}"
)
assert abs(some.mean() - full) < 4 * error

# %% [markdown]
# The most probable colour of each pixel, all at once, must be what Bayes' rule says of each.

# %%
at = {name: value.detach() for name, value in guide.median().items()}
best = handlers.trace(infer_discrete(handlers.condition(mixture, data=at), temperature=0)).get_trace(all_pixels)
assigned = best["colour_of"].value
log_joint = at["share"].log() + dist.Normal(at["centre"], at["spread"]).to_event(1).log_prob(all_pixels[:, None])
assert torch.equal(assigned, log_joint.argmax(-1))
painted = at["centre"][assigned].clamp(0, 1)
left = ((all_pixels - painted).square().mean() / all_pixels.var(0, correction=0).mean()).item()
print(f"Painted in {K} colours, the temple keeps {100 * (1 - left):.0f} % of its variance.")
assert left < 0.3
for k in at["share"].argsort(descending=True).tolist():
    red, green, blue = (255 * at["centre"][k]).clamp(0, 255).int().tolist()
    print(f"  #{red:02x}{green:02x}{blue:02x}  {100 * at['share'][k]:>4.0f} %")

step = 1 if not SHORT else 4
shown = photographs[0][::step, ::step]
weights = at["share"].log() + dist.Normal(at["centre"], at["spread"]).to_event(1).log_prob(shown[:, :, None])
figure, axes = plt.subplots(1, 2, figsize=(12, 4.6))
axes[0].imshow(shown.numpy())
axes[1].imshow(at["centre"][weights.argmax(-1)].clamp(0, 1).numpy())
for axis, title in zip(axes, ("photograph: danielbuechele, CC BY 2.0", f"the same in {K} colours"), strict=True):
    axis.set(title=title, xticks=[], yticks=[])
figure.tight_layout()
picture = (OUTPUT / "colours.png").resolve()
figure.savefig(picture, dpi=100)
print(picture)

# %% [markdown]
# ## 2. Topics
#
# A document is a mixture of topics, and a topic is a distribution over words (latent Dirichlet allocation: Blei, Ng and
# Jordan 2003). Here the topic of each word is enumerated, in a plate of words within a plate of documents; the weights of
# topics and words are points. The documents differ in length: a mask says which words are there.

# %%
heading("2. Topics")
print("Data: the chapters of Python's reference manual, as it comes with Python (pydoc_data.topics; PSF licence).\n")
words = {name: re.findall("[a-z]{4,}", chapter.lower()) for name, chapter in sorted(manual.items())}
chapters_with = Counter(word for chapter in words.values() for word in set(chapter))
vocabulary = sorted(word for word, count in chapters_with.items() if 4 <= count <= 25)
number = {word: index for index, word in enumerate(vocabulary)}
kept = {name: [number[w] for w in chapter if w in number] for name, chapter in words.items()}
kept = {name: chapter[: 50 if SHORT else 400] for name, chapter in kept.items() if len(chapter) >= 40}
names, D, W, V = list(kept), len(kept), max(map(len, kept.values())), len(vocabulary)
there = torch.zeros(W, D, dtype=torch.bool)
seen = torch.zeros(W, D, dtype=torch.long)  # words on the left, documents on the right
for column, chapter in enumerate(kept.values()):
    there[: len(chapter), column] = True
    seen[: len(chapter), column] = torch.tensor(chapter)
NUM_TOPICS = 6


def distributions(*data):
    with ppl.plate("topic", NUM_TOPICS):
        vocabulary_of = ppl.sample("vocabulary_of", dist.Dirichlet(torch.full((V,), 1.05)))
    with ppl.plate("document", D):
        mixed = ppl.sample("mixed", dist.Dirichlet(torch.full((NUM_TOPICS,), 1.1)))
    return vocabulary_of, mixed


@config_enumerate
def allocation(seen, there):
    vocabulary_of, mixed = distributions()
    with ppl.plate("document", D), ppl.plate("word", W), handlers.mask(mask=there):
        topic = ppl.sample("topic_of", dist.Categorical(mixed))
        ppl.sample("word_seen", dist.Categorical(vocabulary_of[topic]), obs=seen)


# %% [markdown]
# Will it fit into memory? Ask before running it. The answer is by site: in which plates it is, and the axes of the tensor
# that it is summed out of. The number of operations grows with the product of those axes.

# %%
print(f"{D} documents, {int(there.sum()):,} words, {V} different ones, {NUM_TOPICS} topics\n")
told = explain_enumeration(handlers.block(allocation, hide=["vocabulary_of", "mixed"]), seen, there)
assert told.largest == NUM_TOPICS * D * W

start_at = {
    "vocabulary_of": dist.Dirichlet(torch.full((V,), 5.0)).sample((NUM_TOPICS,)),
    "mixed": dist.Dirichlet(torch.full((NUM_TOPICS,), 5.0)).sample((D,)),
}
guide = AutoDelta(distributions, init_loc_fn=init_to_value(values=start_at))
svi = SVI(allocation, guide, ppl.optim.Adam({"lr": 0.1}), TraceEnum_ELBO())
clock = time.perf_counter()
num_steps = 25 if SHORT else 150
svi.run(num_steps, seen, there, progress_bar=False)
print(
    f"\n{num_steps} steps: {time.perf_counter() - clock:.0f} seconds. The words most particular to each topic, and its chapters:\n"
)
at = {name: value.detach() for name, value in guide.median().items()}
lift = at["vocabulary_of"] * (at["vocabulary_of"] / at["vocabulary_of"].mean(0)).log()
for k in range(NUM_TOPICS):
    top = lift[k].argsort(descending=True)[:7].tolist()
    chapters = at["mixed"][:, k].argsort(descending=True)[:4].tolist()
    print(f"  {' '.join(vocabulary[v] for v in top)}\n      {', '.join(names[d] for d in chapters)}")

# %% [markdown]
# With the topics summed out a word has the distribution `mixed @ vocabulary_of`: the loss must be that of the formula.
# And which topic a word has depends on the document it stands in.

# %%
fitted = handlers.condition(allocation, data=at)
prior = handlers.trace(handlers.condition(distributions, data=at)).get_trace().log_prob_sum()
by_hand = -(prior + ((at["mixed"] @ at["vocabulary_of"])[torch.arange(D), seen].log() * there).sum()).item()
loss = svi.evaluate_loss(seen, there)
print(f"\nLoss {loss:.6f}; by formula {by_hand:.6f}")
assert abs(loss - by_hand) < 1e-8 * abs(by_hand)
topic_of = compute_marginals(fitted, seen, there)["topic_of"].probs  # (word, document, topic)
bayes = at["mixed"] * at["vocabulary_of"][:, seen].movedim(0, -1)
assert torch.allclose(topic_of[there], (bayes / bayes.sum(-1, keepdim=True))[there], atol=1e-10)


def disagreement(v):
    """How much the topics of one word differ between the documents it stands in."""
    found = topic_of[(seen == v) & there]
    if not len(found):
        return 0.0
    return (found.max(0).values - found.min(0).values).max().item()


split = max(range(V), key=disagreement)
print(f"The word “{vocabulary[split]}” has its topics by chapter:")
for d in [d for d in range(D) if ((seen[:, d] == split) & there[:, d]).any()][:5]:
    where = int(((seen[:, d] == split) & there[:, d]).nonzero()[0])
    print(f"  in {names[d]:<26} " + " ".join(f"{p:.2f}" for p in topic_of[where, d].tolist()))

# %% [markdown]
# ## 3. Capture and recapture
#
# A bird is ringed and let go. Each year it survives with some probability, and if it is alive it is seen with another.
# Not seen again: dead, or missed? Whether it is alive is a discrete chain for each bird, `ppl.scan` within a plate. In
# between, that a bird was alive before it was let go is not in question, and after it was seen again the next story
# begins: a mask hides what is not observed.

# %%
heading("3. Capture and recapture")
print("""\
Data: 294 European dippers in eastern France, 1981 to 1987 (Marzolin 1988; Lebreton, Burnham, Clobert and
      Anderson 1992, Ecological Monographs 62). How many were let go each year, and when they were next seen.
""")
let_go = [22, 60, 78, 80, 88, 98]  # in 1981 to 1986
next_seen = [[11, 2, 0, 0, 0, 0], [24, 1, 0, 0, 0], [34, 2, 0, 0], [45, 1, 2], [51, 0], [52]]  # 1982 to 1987, by row
NEVER = 6
stories = []  # one for each time a bird was let go: (year, year of the next sighting, or never)
for year, (count, row) in enumerate(zip(let_go, next_seen, strict=True)):
    for later, birds in enumerate(row):
        stories += [(year, year + later)] * birds
    stories += [(year, NEVER)] * (count - sum(row))
released, sighted = torch.tensor(stories).T


def survival(released, sighted, survive, seen_if_alive):
    """`survive` has a probability for each of the six years."""

    def step(carry, survive):
        alive, year = carry
        alive = ppl.sample("alive", dist.Bernoulli(torch.where(year < released, 1.0, alive * survive)))
        with handlers.mask(mask=(year >= released) & (year <= sighted)):
            ppl.sample("seen", dist.Bernoulli(alive * seen_if_alive), obs=(year == sighted).double())
        return (alive, year + 1), None

    with ppl.plate("bird", len(released)):
        ppl.scan(step, (torch.ones(len(released)), 0), survive)


def constant(released, sighted):
    survive = ppl.param("survive", torch.tensor(0.5), constraints.unit_interval)
    seen_if_alive = ppl.param("seen_if_alive", torch.tensor(0.5), constraints.unit_interval)
    survival(released, sighted, survive.expand(6), seen_if_alive)


def floods(released, sighted):
    """1982 and 1983 had floods."""
    survive = ppl.param("survive", torch.full((2,), 0.5), constraints.unit_interval)
    seen_if_alive = ppl.param("seen_if_alive", torch.tensor(0.5), constraints.unit_interval)
    survival(released, sighted, survive[torch.tensor([0, 1, 1, 0, 0, 0])], seen_if_alive)


def by_formula(survive, seen_if_alive):
    """−2 log likelihood of the counts, from the probability of each next sighting."""
    total = 0.0
    for year, (count, row) in enumerate(zip(let_go, next_seen, strict=True)):
        unseen, alive = 1.0, 1.0
        for later, birds in enumerate(row):
            alive = alive * survive[year + later]
            total = total - 2 * birds * math.log(alive * seen_if_alive) if birds else total
            unseen = unseen - alive * seen_if_alive
            alive = alive * (1 - seen_if_alive)
        total = total - 2 * (count - sum(row)) * math.log(unseen)
    return total


fits = {}
for name, model in (("constant", constant), ("floods", floods)):
    svi = SVI(config_enumerate(model), no_guide, ppl.optim.Adam({"lr": 0.1}), TraceEnum_ELBO(max_plate_nesting=1))
    result = svi.run(100 if SHORT else 150, released, sighted, progress_bar=False)
    deviance = 2 * svi.evaluate_loss(released, sighted)
    fits[name] = {key: value.detach() for key, value in result.params.items()}
    survive, often = fits[name]["survive"], fits[name]["seen_if_alive"].item()
    by_year = [survive.item()] * 6 if name == "constant" else survive[[0, 1, 1, 0, 0, 0]].tolist()
    assert abs(deviance - by_formula(by_year, often)) < 1e-8
    print(f"  {name:<9} −2 log likelihood {deviance:.2f}; survival ", end="")
    print(", ".join(f"{s:.3f}" for s in survive.reshape(-1).tolist()) + f"; seen if alive {often:.3f}")
print("""
  The literature has 666.84, with 0.560 and 0.903, for the first; for the second 660.10, with survival 0.607 in other
  years, 0.469 in years of floods, and 0.900.""")
assert abs(fits["constant"]["survive"] - 0.560) < 2e-3 and abs(fits["floods"]["survive"][1] - 0.469) < 2e-3

# %% [markdown]
# ## 4. The best together, and the best one by one
#
# Dippers are seen nearly whenever they are alive. Take a shy bird that lives long: it survives a year with probability
# 0.9, and is seen with 0.2. It was let go in 1981 and never seen again. When did it die? The most probable *story* is not
# made of the most probable state of each year: there are many ways to have died, and one to have lived.

# %%
heading("4. The best together, and the best one by one")


@config_enumerate
def shy(released, sighted):
    survival(released, sighted, torch.full((6,), 0.9), 0.2)


one = torch.tensor([0]), torch.tensor([NEVER])
alone = compute_marginals(shy, *one)["alive"].probs[:, 0]
together = handlers.trace(infer_discrete(shy, temperature=0)).get_trace(*one)["alive"].value[:, 0]
tale = torch.tensor([0.72**k * 0.1 for k in range(6)] + [0.72**6])  # of dying in year k, or of living on
tale = tale / tale.sum()
for title, cells in (
    ("year", [str(1982 + k) for k in range(6)]),
    ("P(alive)", [f"{p:.2f}" for p in alone.tolist()]),
    ("likelier, year by year", ["alive" if p > 0.5 else "dead" for p in alone.tolist()]),
    ("most probable story", ["alive" if z else "dead" for z in together.tolist()]),
):
    print(f"  {title:<22}" + "".join(f"{cell:>7}" for cell in cells))
print(
    f"\n  The story “alive all along” has probability {tale[-1]:.2f}; the likeliest death, in the first year, {tale[0]:.2f}."
)
assert torch.allclose(alone, 1 - tale.cumsum(0)[:6], atol=1e-12)
assert together.all() and alone[-1] < 0.5

# %% [markdown]
# ## 5. Where the sum does not come apart
#
# Judges look at cases. Each case is of one of two classes; each judge knows something or not. A row of unknowns and a
# column of unknowns meet in every cell: with two plates the sum over them does not come apart, and `ppl` says so.

# %%
heading("5. Where the sum does not come apart")
print("""\
Data: 569 tumours (Street, Wolberg and Mangasarian 1993; UCI repository, CC BY 4.0), as they come with scikit-learn
      (sklearn.datasets.load_breast_cancer). A judge is one measurement: it says yes to the upper half.
""")
tumours = load_breast_cancer()
columns = ["mean concave points", "worst radius", "mean concavity", "radius error", "worst concavity"]
columns += ["texture error", "smoothness error", "symmetry error", "mean fractal dimension"]
measured = torch.tensor(tumours.data[:, [list(tumours.feature_names).index(name) for name in columns]])
says_yes = (measured > measured.median(0).values).double().T  # (judge, tumour)
malignant = torch.tensor(tumours.target) == 0
J, N = says_yes.shape


def habits(*data):
    share = ppl.sample("share", dist.Beta(4.0, 6.0))  # of malignant tumours
    hit = ppl.sample("hit", dist.Beta(8.0, 2.0))  # how often a good judge says yes to those, and to others
    false = ppl.sample("false", dist.Beta(2.0, 8.0))
    return share, hit, false


def chance(knows, ill, hit, false):
    return torch.where(knows == 1, torch.where(ill == 1, hit, false), 0.5)


@config_enumerate
def crossed(says_yes):
    share, hit, false = habits()
    judges, cases = ppl.plate("judge", J, dim=-2), ppl.plate("tumour", N, dim=-1)
    with judges:
        knows = ppl.sample("knows", dist.Bernoulli(0.5))
    with cases:
        ill = ppl.sample("ill", dist.Bernoulli(share))
    with judges, cases:
        ppl.sample("says", dist.Bernoulli(chance(knows, ill, hit, false)), obs=says_yes)


some = {"share": torch.tensor(0.4), "hit": torch.tensor(0.8), "false": torch.tensor(0.2)}
try:
    explain_enumeration(handlers.condition(crossed, data=some), says_yes)
except ValueError as error:
    print(f"{error}\n")
else:
    raise AssertionError("two crossed plates must be refused")

# %% [markdown]
# The way out: one of the two plates, the smaller one, is a loop. A plate is one when it is iterated: `for j in plate`.
# Then its variables have names of their own, and all of their combinations are tried: 2 to the 9, which is few. For more
# than about 20 judges let the guide draw `knows` instead, or make it continuous.

# %%


@config_enumerate
def looped(says_yes):
    share, hit, false = habits()
    judges = ppl.plate("judge", J)
    knows = [ppl.sample(f"knows_{j}", dist.Bernoulli(0.5)) for j in judges]
    with ppl.plate("tumour", N):
        ill = ppl.sample("ill", dist.Bernoulli(share))
        for j in judges:
            ppl.sample(f"says_{j}", dist.Bernoulli(chance(knows[j], ill, hit, false)), obs=says_yes[j])


told = explain_enumeration(handlers.condition(looped, data=some), says_yes)
assert told.largest <= 2 ** (J + 1) * N

# %% [markdown]
# Check by brute force: given who knows something, the tumours are independent.

# %%
guide = AutoDelta(habits, init_loc_fn=init_to_value(values=some))
svi = SVI(looped, guide, ppl.optim.Adam({"lr": 0.05}), TraceEnum_ELBO(max_plate_nesting=1))
svi.run(10 if SHORT else 60, says_yes, progress_bar=False)
at = {name: value.detach() for name, value in guide.median().items()}


def given(knows):
    """log p(votes, class) of each tumour, (class, tumour), given who knows something."""
    rows = []
    for ill, share in ((0, 1 - at["share"]), (1, at["share"])):
        yes = chance(torch.tensor(knows), torch.tensor(ill), at["hit"], at["false"])[:, None]
        rows.append(share.log() + (says_yes * yes.log() + (1 - says_yes) * (1 - yes).log()).sum(0))
    return torch.stack(rows)


combinations = list(itertools.product((0, 1), repeat=J))
log_weight = torch.stack([given(knows).logsumexp(0).sum() - J * math.log(2) for knows in combinations])
prior = handlers.trace(handlers.condition(habits, data=at)).get_trace().log_prob_sum()
loss, by_hand = svi.evaluate_loss(says_yes), -(prior + log_weight.logsumexp(0)).item()
print(f"\nLoss {loss:.6f}; by brute force over {len(combinations)} combinations {by_hand:.6f}")
assert abs(loss - by_hand) < 1e-8 * abs(by_hand)

fitted = handlers.condition(looped, data=at)
marginals = compute_marginals(fitted, says_yes)
exact = (log_weight.softmax(0)[:, None] * torch.tensor(combinations)).sum(0)
print("\n  judge                    knows something   agrees with the diagnosis")
for j, name in enumerate(columns):
    knows, agrees = marginals[f"knows_{j}"].probs.item(), (says_yes[j].bool() == malignant).double().mean().item()
    print(f"  {name:<23}  {knows:>15.3f}   {100 * agrees:>10.0f} %")
    assert abs(knows - exact[j]) < 1e-8
    assert (knows > 0.5) == (agrees > 0.6)

ill = marginals["ill"].probs
best = handlers.trace(infer_discrete(fitted, temperature=0)).get_trace(says_yes)
together = torch.stack([best[f"knows_{j}"].value for j in range(J)]).int().tolist()
highest = max(combinations, key=lambda knows: given(knows).max(0).values.sum().item())
assert tuple(together) == highest and torch.equal(best["ill"].value.long(), given(highest).argmax(0))
agree = ((ill > 0.5) == malignant).double().mean().item()
vote = ((says_yes.mean(0) > 0.5) == malignant).double().mean().item()
print(
    f"\nThe model, never told a diagnosis, finds {100 * agree:.1f} % of them; the majority of judges {100 * vote:.1f} %."
)
assert agree > 0.85 and agree > vote
print(f"\nThis took {time.perf_counter() - START:.0f} seconds.")
