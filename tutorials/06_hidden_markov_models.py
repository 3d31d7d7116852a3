# %% [markdown]
# # Hidden Markov models
#
# A state that nobody sees goes from step to step, and leaves something to be seen at each. Two data sets: the letters
# of English prose, where the states turn out to be vowels and consonants, and fifty years of American unemployment,
# where they are good and bad times. All states are summed out exactly, in chains of any length; every answer is
# checked by the textbook's recursion, or by statsmodels.

# %%
import itertools
import os
import re
import time
from pathlib import Path
from pydoc_data.topics import topics

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from statsmodels.datasets import macrodata
from statsmodels.tsa.api import MarkovAutoregression

import ppl
import ppl.distributions as dist
from ppl import handlers
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


def log_evidence(model, *args):
    """The log probability of the data: with everything enumerated, the ELBO is just that."""
    return -TraceEnum_ELBO().loss(model, no_guide, *args)


# %% [markdown]
# ## 1. A loop over time
#
# The model says: start in some state; at each step move to another one by the row of a table, and write a letter by
# the row of another table. As a Python loop this reads like the sentence. `ppl.markov` promises that each step looks
# back no further than one, so that the dims of the enumerated states can be used again, and T may be large.

# %%
heading("1. A loop over time")
print("""\
Data: the letters of Python's reference manual, as it comes with Python (pydoc_data.topics; PSF licence).
      All that is not a letter counts as a space, and spaces in a row count as one: 27 symbols.
""")
SYMBOLS = " abcdefghijklmnopqrstuvwxyz"
text = re.sub("[^a-z]+", " ", " ".join(topics[name] for name in sorted(topics)).lower())[50_000:]
letters = torch.tensor([SYMBOLS.index(symbol) for symbol in text])
K = 2


def tables(*data):
    """What is to be learned: where to start, where to go, what to write. It does not depend on the data."""
    start = ppl.sample("start", dist.Dirichlet(torch.ones(K)))
    with ppl.plate("state", K):
        move = ppl.sample("move", dist.Dirichlet(torch.ones(K)))
        write = ppl.sample("write", dist.Dirichlet(torch.full((27,), 1.1)))
    return start, move, write


@config_enumerate
def loop(letters):
    start, move, write = tables()
    z = ppl.sample("z_0", dist.Categorical(start))
    ppl.sample("letter_0", dist.Categorical(write[z]), obs=letters[0])
    for t in ppl.markov(range(1, len(letters))):
        z = ppl.sample(f"z_{t}", dist.Categorical(move[z]))
        ppl.sample(f"letter_{t}", dist.Categorical(write[z]), obs=letters[t])


# %% [markdown]
# The check is the forward algorithm: the probability of what was seen so far, jointly with the state of now.


# %%
def forward(start, move, likelihood):
    """The log probability of a sequence; likelihood (T, K) is that of what was seen at t, by state."""
    total, state = 0.0, start * likelihood[0]
    for seen in likelihood[1:]:
        state = (state @ move) * seen
        total, state = total + state.sum().log(), state / state.sum()
    return (total + state.sum().log()).item()


T = 200 if SHORT else 1000
some = {
    "start": torch.tensor([0.5, 0.5]),
    "move": torch.tensor([[0.3, 0.7], [0.6, 0.4]]),
    "write": (torch.randn(K, 27).softmax(-1) + torch.bincount(letters, minlength=27) / len(letters)) / 2,
}
prior = handlers.trace(handlers.substitute(tables, data=some)).get_trace().log_prob_sum().item()
by_loop = log_evidence(handlers.condition(loop, data=some), letters[:T]) - prior
by_hand = forward(some["start"], some["move"], some["write"][:, letters[:T]].T)
print(f"log p of {T} letters at some tables: by the loop {by_loop:.6f}, by the forward algorithm {by_hand:.6f}")
assert abs(by_loop - by_hand) < 1e-8

# %% [markdown]
# ## 2. The same as a scan
#
# A loop runs its body T times, and Python takes its time for each. `ppl.scan` takes the body as a function from a carry
# and what belongs to the step to a new carry and something to collect. Its enumerated sites are summed out for all
# steps together: the body runs a few times, whatever T is, and the chain is halved again and again. A site of the body
# is one site of the program, with the steps on its first dim.

# %%
heading("2. The same as a scan")


@config_enumerate
def scan(letters):
    start, move, write = tables()

    def step(z, letter):
        z = ppl.sample("z", dist.Categorical(move[z]))
        ppl.sample("letter", dist.Categorical(write[z]), obs=letter)
        return z, None

    z = ppl.sample("z_0", dist.Categorical(start))
    ppl.sample("letter_0", dist.Categorical(write[z]), obs=letters[0])
    ppl.scan(step, z, letters[1:])


def svi_for(model, values):
    """The guide is a point for each table: it needs to know of nothing but the tables."""
    guide = AutoDelta(tables, init_loc_fn=init_to_value(values=values))
    # told that plates nest one deep, the loss need not find that out by a first run, step by step
    svi = SVI(model, guide, ppl.optim.Adam({"lr": 0.1}), TraceEnum_ELBO(max_plate_nesting=1))
    svi.setup(letters[:9])  # a few letters are enough to know which parameters there are
    return svi, guide


losses, seconds = {}, {}
for model in (loop, scan):
    svi, _ = svi_for(model, some)
    losses[model] = svi.step(letters[:T])
    clock = time.perf_counter()
    for _ in range(2):
        svi.step(letters[:T])
    seconds[model] = (time.perf_counter() - clock) / 2
ratio = seconds[loop] / seconds[scan]
print(f"loss for {T} letters: loop {losses[loop]:.4f}, scan {losses[scan]:.4f}")
print(
    f"a step of SVI:       loop {1000 * seconds[loop]:.0f} ms, scan {1000 * seconds[scan]:.0f} ms: {ratio:.0f} times faster"
)
assert abs(losses[loop] - losses[scan]) < 1e-4 and ratio > 2

# %% [markdown]
# ## 3. Vowels and consonants
#
# Both tables are learned from one long sequence, and nobody tells the model what a vowel is. (Cave and Neuwirth did this
# in 1980: "Hidden Markov models for English".) The likelihood has several maxima, so it matters where we start: from
# states that like to take turns, with letters about as frequent as they are.

# %%
heading("3. Vowels and consonants")
T, num_steps = (3000, 70) if SHORT else (20_000, 130)
long = letters[:T]
ppl.set_rng_seed(2)
frequency = (torch.bincount(long, minlength=27) + 1) / (T + 27)
start_at = {
    "start": torch.tensor([0.5, 0.5]),
    "move": torch.tensor([[0.3, 0.7], [0.7, 0.3]]),
    "write": 0.9 * dist.Dirichlet(50 * frequency).sample((K,)) + 0.1 * frequency,
}
svi, guide = svi_for(scan, start_at)
clock = time.perf_counter()
for step in range(num_steps):
    loss = svi.step(long)
    if step % (num_steps // 5) == 0:
        print(f"  step {step:>3}: {loss / T:.4f} nats a letter")
print(f"{num_steps} steps over {T:,} letters in one sequence: {time.perf_counter() - clock:.0f} seconds\n")

at = {name: value.detach() for name, value in guide.median().items()}
vowel = int(at["write"][:, SYMBOLS.index("e")].argmax())  # which state is which is a matter of chance
owner = at["write"].argmax(0)
for state, name in ((vowel, "vowels"), (1 - vowel, "consonants")):
    order = at["write"][state].argsort(descending=True)[:10].tolist()
    print(f"  {name:<10}  " + "  ".join(f"{SYMBOLS[i].replace(' ', '_')} {at['write'][state, i]:.2f}" for i in order))
print(f"\n  from vowel to consonant {at['move'][vowel, 1 - vowel]:.2f}, back {at['move'][1 - vowel, vowel]:.2f}")
wrong = [c for c in SYMBOLS[1:] if bool(owner[SYMBOLS.index(c)] == vowel) != (c in "aeiou")]
print(f"  Of 5 vowels and 21 consonants {26 - len(wrong)} are with their kind; not so: {', '.join(wrong)}.")
assert not set(wrong) & set("aeioustrn") and len(wrong) <= 7

clock = time.perf_counter()
fitted = handlers.condition(scan, data=at)
prior = handlers.trace(handlers.substitute(tables, data=at)).get_trace().log_prob_sum().item()
ours = -TraceEnum_ELBO(max_plate_nesting=1).loss(fitted, no_guide, long) - prior
middle = time.perf_counter()
by_hand = forward(at["start"], at["move"], at["write"][:, long].T)
last = time.perf_counter()
print(f"\nlog p of {T:,} letters: {ours:.5f} in {middle - clock:.2f} s; ", end="")
print(f"by the forward algorithm, step by step: {by_hand:.5f} in {last - middle:.2f} s")
assert abs(ours - by_hand) < 1e-9 * abs(by_hand)
independent = (frequency.log()[long]).mean().item()
print(f"A letter costs {-ours / T:.3f} nats; without states it would cost {-independent:.3f}.")
assert -ours / T < -independent

# %% [markdown]
# ## 4. What the states were
#
# Three questions, and a function for each. What is the state at each step, by itself? `compute_marginals`. Which path is
# the most probable one? `infer_discrete(temperature=0)`. What may the path have been? `infer_discrete` draws whole paths.

# %%
heading("4. What the states were")
passage = long[:60] if SHORT else long[: 60 * 5]
marginals = compute_marginals(fitted, passage, first_available_dim=-2)
chance = torch.cat([marginals["z_0"].probs[None], marginals["z"].probs])[:, vowel]
best = handlers.trace(infer_discrete(fitted, temperature=0)).get_trace(passage)
path = torch.cat([best["z_0"].value[None], best["z"].value])
print("  text      " + text[:60])
print("  path      " + "".join("V" if z == vowel else "." for z in path[:60].tolist()))
print("  P(vowel)  " + "".join(str(min(int(10 * p), 9)) for p in chance[:60].tolist()))


def viterbi(start, move, likelihood):
    """The most probable path, by the textbook."""
    score, back = (start * likelihood[0]).log(), []
    for seen in likelihood[1:]:
        score, where = (score[:, None] + move.log()).max(0)
        score = score + seen.log()
        back.append(where)
    found = [int(score.argmax())]
    for where in reversed(back):
        found.append(int(where[found[-1]]))
    return found[::-1]


likelihood = at["write"][:, passage].T


def log_joint(path):
    path = torch.as_tensor(path)
    return sum(at["move"][a, b].log() for a, b in itertools.pairwise(path)) + (
        at["start"][path[0]].log() + likelihood[torch.arange(len(path)), path].log().sum()
    )


# A double letter may be two states in either order, with the same probability: so we compare those.
assert abs(log_joint(path) - log_joint(viterbi(at["start"], at["move"], likelihood))) < 1e-8
after = [likelihood[-1].new_ones(K)]  # forward and backward messages, for the marginals
for seen in reversed(likelihood[1:]):
    after.append(at["move"] @ (seen * after[-1]) / (seen * after[-1]).sum())
before = [at["start"] * likelihood[0]]
for seen in likelihood[1:]:
    before.append((before[-1] @ at["move"]) * seen / before[-1].sum())
smoothed = torch.stack(before) * torch.stack(after[::-1])
smoothed = (smoothed / smoothed.sum(-1, keepdim=True))[:, vowel]
assert torch.allclose(chance, smoothed, atol=1e-10)
print(
    "\nThe path is as probable as Viterbi's and the marginals are those of forward and backward messages, to ten digits."
)
differ = int(((chance > 0.5) != (path == vowel)).sum())
print(f"The best path and the best state of each step by itself differ in {differ} of {len(path)} steps.")

num_draws = 40 if SHORT else 200
drawer = infer_discrete(fitted)
short = passage[:20]
exact = compute_marginals(fitted, short, first_available_dim=-2)["z"].probs[:, vowel]
draws = torch.stack([handlers.trace(drawer).get_trace(short)["z"].value == vowel for _ in range(num_draws)]).double()
error = (exact * (1 - exact) / num_draws).sqrt() + 1 / num_draws
worst = ((draws.mean(0) - exact).abs() / error).max().item()
print(f"{num_draws} drawn paths of 20 letters: at most {worst:.1f} standard errors from the marginals.")
assert worst < 4

# %% [markdown]
# Without its observations the model writes. It knows which kind of letter follows which, and no more.

# %%
written = handlers.trace(handlers.condition(handlers.uncondition(scan), data=at)).get_trace(long[:61])["letter"].value
print("\n  " + "".join(SYMBOLS[i] for i in written.tolist()))

# %% [markdown]
# ## 5. Sequences of unequal length
#
# Many sequences go into a plate, padded to the length of the longest, with time on the first dim. A mask says which steps
# are there: it goes around all that happens in the step, and the carry counts the steps.

# %%
heading("5. Words of unequal length")
words = sorted(set(text[:20_000].split()))[:: 10 if SHORT else 2]
length = torch.tensor([len(word) for word in words])
padded = torch.zeros(int(length.max()), len(words), dtype=torch.long)
for column, word in enumerate(words):
    padded[: len(word), column] = torch.tensor([SYMBOLS.index(c) for c in word])


@config_enumerate
def spelling(padded, length):
    start, move, write = tables()

    def step(carry, letter):
        z, t = carry
        with handlers.mask(mask=t < length):
            z = ppl.sample("z", dist.Categorical(move[z]))
            ppl.sample("letter", dist.Categorical(write[z]), obs=letter)
        return (z, t + 1), None

    with ppl.plate("word", padded.shape[1]):
        z = ppl.sample("z_0", dist.Categorical(start))
        ppl.sample("letter_0", dist.Categorical(write[z]), obs=padded[0])
        ppl.scan(step, (z, 1), padded[1:])


spelled = handlers.condition(spelling, data=at)
together = log_evidence(spelled, padded, length) - prior
one_by_one = 0.0
for word in words:
    seen = torch.tensor([SYMBOLS.index(c) for c in word])
    one_by_one += forward(at["start"], at["move"], at["write"][:, seen].T)
print(f"log p of {len(words)} words of 1 to {int(length.max())} letters: {together:.6f}; one by one: {one_by_one:.6f}")
assert abs(together - one_by_one) < 1e-8 * abs(one_by_one)

# %% [markdown]
# What will it cost? `explain_enumeration` goes through the elimination on tensors without data. A row is a site: its
# values, its plates, and the axes of the tensor that it is summed out of. The states of the scan are summed out of a
# chain of tables, from one state to the next: its size grows with T, not with 2 to the T.

# %%
told = explain_enumeration(spelled, padded, length)
assert told.largest <= 4 * padded.numel()

# %% [markdown]
# ## 6. Regimes
#
# Unemployment falls a little most of the time, and now and then it rises fast. Hamilton's model (1989) says: there are
# two regimes, each with a mean; the deviation from the mean carries over from one quarter to the next. So the carry holds
# two things: the state, which is enumerated, and the last value, which is not.
#
#     y_t − m[z_t] = φ (y_{t−1} − m[z_{t−1}]) + noise,   noise ~ Normal(0, s[z_t])

# %%
heading("6. Regimes of unemployment")
print("""\
Data: US unemployment, seasonally adjusted, by quarter, 1959 to 2009, from statsmodels
      (statsmodels.datasets.macrodata), in the public domain. We model the change from quarter to quarter.
""")
macro = macrodata.load_pandas().data
rate = torch.tensor(macro["unemp"].to_numpy(dtype=float))
change = rate.diff()
quarter = torch.tensor((macro["year"] + (macro["quarter"] - 1) / 4).to_numpy())[1:]


def unknowns(*data):
    """The chance to leave each regime, the means of both, the spread within each, and the memory."""
    leave = ppl.sample("leave", dist.Beta(torch.tensor([1.0, 2.0]), torch.tensor([15.0, 15.0])).to_event(1))
    mean = ppl.sample("mean", dist.Normal(torch.tensor([-0.1, 0.4]), 0.3).to_event(1))
    spread = ppl.sample("spread", dist.LogNormal(torch.tensor([-1.5, -1.5]), 0.7).to_event(1))
    memory = ppl.sample("memory", dist.Normal(0.0, 0.5))
    return leave, mean, spread, memory


def regimes(leave, mean, spread, memory, y):
    move = torch.stack([torch.stack([1 - leave[0], leave[0]]), torch.stack([leave[1], 1 - leave[1]])])

    def step(carry, y):
        before, y_before = carry
        z = ppl.sample("z", dist.Categorical(move[before]))
        expected = mean[z] + memory * (y_before - mean[before])
        ppl.sample("y", dist.Normal(expected, spread[z]), obs=y)
        return (z, y), None

    stationary = torch.stack([leave[1], leave[0]]) / leave.sum()  # where the chain is, long after its start
    z = ppl.sample("z_0", dist.Categorical(stationary))
    ppl.scan(step, (z, y[0]), y[1:])


@config_enumerate
def economy(y):
    regimes(*unknowns(), y)


guide = AutoDelta(unknowns)
svi = SVI(economy, guide, ppl.optim.Adam({"lr": 0.03}), TraceEnum_ELBO(max_plate_nesting=0))
svi.run(60 if SHORT else 250, change, progress_bar=False)
at = {name: value.detach() for name, value in guide.median().items()}
marginal = compute_marginals(handlers.substitute(economy, data=at), change, first_available_dim=-1)
bad = torch.cat([marginal["z_0"].probs[None], marginal["z"].probs])[:, 1]
for k, name in enumerate(("good times", "bad times")):
    print(
        f"  {name:<10}  {at['mean'][k]:+.2f} ± {at['spread'][k]:.2f} points a quarter; last {1 / at['leave'][k]:.0f} quarters"
    )
print(f"  memory {at['memory']:.2f}")
assert at["mean"][0] < 0 < at["mean"][1]

# %% [markdown]
# The same model in statsmodels, at our parameters: its log likelihood and its smoothed probabilities must be ours.


# %%
def evidence_at(chain, values, *data):
    return log_evidence(config_enumerate(chain), *(values[n] for n in ("leave", "mean", "spread", "memory")), *data)


theirs = MarkovAutoregression(change.numpy(), k_regimes=2, order=1, switching_ar=False, switching_variance=True)
values = [1 - at["leave"][0], at["leave"][1], *at["mean"], *at["spread"].square(), at["memory"]]
result = theirs.smooth([float(v) for v in values])
ours, theirs = evidence_at(regimes, at, change), float(result.llf)
smoothed = torch.tensor(result.smoothed_marginal_probabilities[:, 1].copy())
gap = (smoothed - bad[1:]).abs().max().item()
print(f"\nlog likelihood: ours {ours:.6f}, statsmodels {theirs:.6f}; the regimes' probabilities differ by {gap:.0e}")
assert abs(ours - theirs) < 1e-6 and gap < 1e-8

# The recessions, as the National Bureau of Economic Research dates them: from the peak to the trough.
recessions = [(1960.25, 1961.0), (1969.75, 1970.75), (1973.75, 1975.0), (1980.0, 1980.5)]
recessions += [(1981.5, 1982.75), (1990.5, 1991.0), (2001.0, 2001.75), (2007.75, 2009.25)]
during = torch.stack([(quarter >= a) & (quarter <= b) for a, b in recessions]).any(0)
print(f"Bad times: {100 * bad[during].mean():.0f} % in recessions (which the model was not told), ", end="")
print(f"{100 * bad[~during].mean():.0f} % otherwise")
assert bad[during].mean() > 2 * bad[~during].mean()

figure, axes = plt.subplots(2, 1, figsize=(11, 6), sharex=True)
for axis in axes:
    for a, b in recessions:
        axis.axvspan(a, b + 0.25, color="0.85")
axes[0].plot(quarter, rate[1:], color="tab:blue")
axes[0].set(ylabel="unemployment, %", title="Grey: recessions by the NBER, which the model was not told")
axes[1].fill_between(quarter, bad, color="tab:red", alpha=0.6, step="mid")
axes[1].plot(quarter, change, color="black", linewidth=0.8)
axes[1].set(ylabel="change (black), P(bad times) (red)", ylim=(-0.8, 1.8))
figure.tight_layout()
picture = (OUTPUT / "regimes.png").resolve()
figure.savefig(picture, dpi=110)
print(picture)

# %% [markdown]
# ## 7. Two steps back
#
# If the deviations of two quarters carry over, the means of the last two states are in the formula. The carry holds both,
# and `history=2` says so. A carry that reaches further than promised is refused.

# %%
heading("7. Two steps back")


TOGETHER = {"enumerate": "parallel"}  # what config_enumerate marks sites with; one may write it


def regimes2(leave, mean, spread, memory, y, history=2):
    move = torch.stack([torch.stack([1 - leave[0], leave[0]]), torch.stack([leave[1], 1 - leave[1]])])

    def step(carry, y):
        (z1, y1), (z2, y2) = carry  # of the last step, and of the one before
        z = ppl.sample("z", dist.Categorical(move[z1]), infer=TOGETHER)
        expected = mean[z] + memory[0] * (y1 - mean[z1]) + memory[1] * (y2 - mean[z2])
        ppl.sample("y", dist.Normal(expected, spread[z]), obs=y)
        return ((z, y), (z1, y1)), None

    first = ppl.sample("z_0", dist.Categorical(torch.stack([leave[1], leave[0]]) / leave.sum()), infer=TOGETHER)
    second = ppl.sample("z_1", dist.Categorical(move[first]), infer=TOGETHER)
    ppl.scan(step, ((second, y[1]), (first, y[0])), y[2:], history=history)


def forward2(leave, mean, spread, memory, y):
    """The log probability by the forward algorithm, for pairs of states."""
    move = torch.tensor([[1 - leave[0], leave[0]], [leave[1], 1 - leave[1]]])
    pair = (torch.stack([leave[1], leave[0]]) / leave.sum())[:, None] * move  # (z_0, z_1)
    for t in range(2, len(y)):
        carried = memory[0] * (y[t - 1] - mean[:, None]) + memory[1] * (y[t - 2] - mean[:, None, None])
        density = dist.Normal(mean + carried, spread).log_prob(y[t]).exp()  # (z_{t−2}, z_{t−1}, z_t)
        pair = (pair[:, :, None] * move * density).sum(0)
    return pair.sum().log().item()


two = {**at, "memory": torch.tensor([0.45, 0.1])}
ours, by_hand = evidence_at(regimes2, two, change), forward2(**two, y=change)
print(f"log likelihood: by the scan {ours:.6f}, by hand {by_hand:.6f}\n")
assert abs(ours - by_hand) < 1e-8
try:
    evidence_at(lambda *args: regimes2(*args, history=1), two, change)
except ValueError as error:
    print(f"with history=1: {error}")
else:
    raise AssertionError("a carry that reaches too far must be refused")
print(f"\nThis took {time.perf_counter() - START:.0f} seconds.")
