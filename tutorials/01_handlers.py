# %% [markdown]
# # Handlers
#
# A model only makes statements: here is a random number, here is a plate. What a statement *does* is decided by the
# handlers that are active: record it, observe it, weigh it, hide it. All of inference is built from them, and a new one
# takes ten lines. This page shows the built-in ones on one small model, then three of your own.

# %%
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.handlers import Handler, perform

torch.set_default_dtype(torch.float64)
ppl.set_rng_seed(0)


def heading(text):
    print(f"\n\n{text}\n{'=' * len(text)}\n", flush=True)


# %% [markdown]
# ## The model
#
# It is so warm outside, the room is some ten degrees warmer, and five thermometers show the room's temperature with an
# error of one degree. One of them hung over the radiator.

# %%
readings = torch.tensor([19.6, 20.4, 20.1, 19.5, 28.0])


def room(readings):
    outside = ppl.sample("outside", dist.Normal(10.0, 5.0))
    inside = ppl.sample("inside", dist.Normal(outside + 10.0, 2.0))
    with ppl.plate("thermometer", len(readings)):
        ppl.sample("reading", dist.Normal(inside, 1.0), obs=readings)
    return inside


heading("1. Without a handler, a statement simply draws")
print("room(readings) =", room(readings), " and again:", room(readings))

# %% [markdown]
# ## Record: `trace`
#
# Every handler wraps a function, or works as a context manager (`with handlers.seed(rng_seed=0):`) or a decorator. A
# trace records each site: name, distribution, value, log density.

# %%
heading("2. trace: what happened, and how probable it was")
tr = handlers.trace(room).get_trace(readings)
print(tr.format_shapes())
print("\nvalues:      ", {name: round(site.value.item(), 2) for name, site in tr.stochastic_nodes.items()})
print("log density: ", {name: round(lp.sum().item(), 2) for name, lp in tr.compute_log_prob().items()})
print("of the run:  ", round(tr.log_prob_sum().item(), 2))
print("dependencies:", list(tr.graph().edges))

outside, inside = tr["outside"].value, tr["inside"].value
by_hand = (
    dist.Normal(10.0, 5.0).log_prob(outside)
    + dist.Normal(outside + 10.0, 2.0).log_prob(inside)
    + dist.Normal(inside, 1.0).log_prob(readings).sum()
)
assert torch.allclose(tr.log_prob_sum(), by_hand)

# %% [markdown]
# ## Decide values: `seed`, `replay`, `substitute`, `condition`, `do`

# %%
heading("3. Who decides the values")
first, second = (handlers.seed(room, rng_seed=7)(readings) for _ in range(2))
print(f"seed:       the same draw twice                 {first:.3f}, {second:.3f}")
assert first == second

replayed = handlers.trace(handlers.replay(room, tr)).get_trace(readings)
print(f"replay:     the values of a recorded run        {replayed['inside'].value:.3f}, as in section 2")
assert torch.equal(replayed["inside"].value, inside)
assert torch.equal(replayed.log_prob_sum(), tr.log_prob_sum())  # a law: replaying a trace gives the trace

cold = {"inside": torch.tensor(15.0)}
given = handlers.trace(handlers.substitute(room, data=cold)).get_trace(readings)
print(f"substitute: inside = 15, still latent           observed: {given['inside'].observed}")
seen = handlers.trace(handlers.condition(room, data=cold)).get_trace(readings)
print(f"condition:  inside = 15, now data               observed: {seen['inside'].observed}")

# %% [markdown]
# `condition` and `do` both set a site. To *see* that a room is 15 degrees cold says something about the weather; to *make*
# it so (with an air conditioner) says nothing. Which one is meant decides the answer.


# %%
def log_weights(program, name, grid, data=readings):
    """The log density of a program, at each value of one site, the others fixed at what `program` gives them."""
    return torch.stack(
        [
            handlers.trace(handlers.condition(program, data={name: value})).get_trace(data).log_prob_sum()
            for value in grid
        ]
    )


def mean_and_sd(grid, log_weight):
    weight = log_weight.softmax(0)
    mean = (weight * grid).sum()
    return mean.item(), (weight * (grid - mean) ** 2).sum().sqrt().item()


def weather(readings):
    """Only the first two sites."""
    outside = ppl.sample("outside", dist.Normal(10.0, 5.0))
    ppl.sample("inside", dist.Normal(outside + 10.0, 2.0))


grid = torch.linspace(-15.0, 30.0, 301)
saw, saw_sd = mean_and_sd(grid, log_weights(handlers.condition(weather, data=cold), "outside", grid))


def made_cold(readings):
    # The site itself stays in the trace, with its natural value; blocked, only what follows from it is left.
    with handlers.block(hide=["inside"]):
        handlers.do(weather, data=cold)(readings)


made, made_sd = mean_and_sd(grid, log_weights(made_cold, "outside", grid))
print(f"\ncondition inside = 15:  it is {saw:5.2f} ± {saw_sd:.2f} °C outside (exact: 5.69 ± 1.86)")
print(f"do        inside = 15:  it is {made:5.2f} ± {made_sd:.2f} °C outside (exact: the prior, 10 ± 5)")
assert abs(saw - (10 / 25 + 5 / 4) / (1 / 25 + 1 / 4)) < 1e-3
assert abs(made - 10) < 0.01

# %% [markdown]
# ## Hide and weigh: `block`, `mask`, `scale`

# %%
heading("4. What counts")
with handlers.trace() as visible, handlers.block(hide=["outside"]):
    room(readings)
print("block: an outer trace sees      ", list(visible))
assert "outside" not in visible and "inside" in visible

fixed = handlers.replay(room, tr)  # the same values each time, so that densities can be compared
good = torch.tensor([True, True, True, True, False])
plain = handlers.trace(fixed).get_trace(readings).log_prob("reading")
masked = handlers.trace(handlers.mask(fixed, mask=good)).get_trace(readings).log_prob("reading")
scaled = handlers.trace(handlers.scale(fixed, scale=0.5)).get_trace(readings).log_prob("reading")
print("log density of the readings:    ", [f"{x:.2f}" for x in plain.tolist()])
print("mask without the last one:      ", [f"{x:.2f}" for x in masked.tolist()])
print("scale by a half:                ", [f"{x:.2f}" for x in scaled.tolist()])
assert torch.equal(masked, torch.where(good, plain, 0.0)) and torch.allclose(scaled, plain / 2)

# %% [markdown]
# ## Change the program: `scope`, `lift`, `reparam`

# %%
heading("5. Another program from the same text")


def two_rooms(readings):
    with handlers.scope(prefix="kitchen"):
        room(readings)
    with handlers.scope(prefix="hall"):
        room(readings + 1)


print("scope:  ", list(handlers.trace(two_rooms).get_trace(readings)))


def with_param(readings):
    offset = ppl.param("offset", torch.tensor(10.0))
    return ppl.sample("inside", dist.Normal(offset, 2.0))


lifted = handlers.trace(handlers.lift(with_param, prior={"offset": dist.Normal(10.0, 3.0)})).get_trace(readings)
print(f"lift:    the parameter 'offset' is now a {lifted['offset'].kind} site")
assert lifted["offset"].kind == "sample"


class Shift:
    """Draw a site around 0 and add its mean afterwards."""

    def __call__(self, name, fn, obs):
        noise = ppl.sample(f"{name}_noise", dist.Normal(0.0, fn.scale))
        return None, fn.loc + noise


moved = handlers.trace(handlers.reparam(room, config={"inside": Shift()})).get_trace(readings)
print("reparam:", {name: site.kind for name, site in moved.nodes.items() if name != "thermometer"})

# %% [markdown]
# ## Your own
#
# A handler is a class with one method, `handle(site) -> site`. A site is immutable; `site.replace(…)` makes another one.
# `perform(site)` passes it outwards, and what comes back has its value. What stands before that call happens on the way
# out, what stands after it on the way back. Leave the call out, and nobody else hears of the site.

# %%
heading("6. Your own: a handler that logs")


class log(Handler):
    """Print every random value, as it comes back."""

    def handle(self, site):
        site = perform(site)
        if site.kind == "sample":
            what = "saw " if site.observed else "drew"
            print(f"  {what} {site.name:8} {site.value.numpy().round(2)}  from {type(site.fn).__name__}")
        return site


log(room)(readings)

# %%
heading("7. Your own: a handler that tempers")


class temper(Handler):
    """Raise the likelihood to a power: 0 leaves the prior, 1 the posterior, between them a path from one to the other."""

    def __init__(self, fn=None, power=1.0):
        super().__init__(fn)
        self.power = power

    def handle(self, site):
        if site.kind == "sample" and site.observed:
            site = site.replace(scale=site.scale * self.power)
        return perform(site)


def one_room(readings):
    """The model with `outside` summed out: normal around 20, with variance 25 + 4."""
    inside = ppl.sample("inside", dist.Normal(20.0, 29.0**0.5))
    with ppl.plate("thermometer", len(readings)):
        ppl.sample("reading", dist.Normal(inside, 1.0), obs=readings)


def posterior_of_inside(program):
    # Not conditioned, which would make `inside` data: substituted, it stays latent.
    grid = torch.linspace(-7.0, 47.0, 541)
    runs = (handlers.trace(handlers.substitute(program, data={"inside": x})).get_trace(readings) for x in grid)
    return mean_and_sd(grid, torch.stack([run.log_prob_sum() for run in runs]))


for power in (0.0, 0.1, 0.5, 1.0):
    mean, sd = posterior_of_inside(temper(one_room, power=power))
    precision = 1 / 29 + power * len(readings)  # of the normal posterior, by hand
    exact = (20 / 29 + power * readings.sum().item()) / precision
    print(f"  power {power:.1f}:  inside = {mean:.3f} ± {sd:.3f}   exact: {exact:.3f} ± {precision**-0.5:.3f}")
    assert abs(mean - exact) < 1e-3 and abs(sd - precision**-0.5) < 1e-3

# %%
heading("8. Your own: a handler that makes any normal site heavier-tailed")


class heavy_tails(Handler):
    """Put a Student t in the place of the normal at the named sites."""

    def __init__(self, fn=None, sites=(), df=3.0):
        super().__init__(fn)
        self.sites, self.df = sites, df

    def handle(self, site):
        if site.name in self.sites:
            normal = site.fn
            site = site.replace(distribution=dist.StudentT(self.df, normal.loc, normal.scale))
        return perform(site)


light = posterior_of_inside(one_room)
heavy = posterior_of_inside(heavy_tails(one_room, sites=["reading"]))
without = readings[:4].mean().item()
print(f"  normal errors:    inside = {light[0]:.2f} ± {light[1]:.2f}   drawn away by the thermometer over the radiator")
print(f"  Student t errors: inside = {heavy[0]:.2f} ± {heavy[1]:.2f}   near the mean of the other four, {without:.2f}")
assert abs(heavy[0] - without) < 0.3 < abs(light[0] - without)

# %% [markdown]
# The model's text has not changed. The same handler works with SVI, with enumeration, or inside another handler.
#
# ## Order
#
# The innermost handler hears a site first, and what it returns is what the outer ones gave back. So a `log` inside a
# `heavy_tails` tells what the model said when it goes out and what became of it when it comes back.

# %%
heading("9. Order, and laws")
print("log outside, heavy_tails inside: log hears the new distribution")
with log(), heavy_tails(sites=["reading"]):
    room(readings)


class overhear(log):
    """Print the distribution that the model asked for, before anybody changes it."""

    def handle(self, site):
        if site.kind == "sample":
            print(f"  asked {site.name:8} of {type(site.fn).__name__}")
        return perform(site)


print("overhear inside, heavy_tails outside: it hears what the model asked for")
with heavy_tails(sites=["reading"]), overhear():
    room(readings)

# Laws. The stack is empty after an error, and handlers that do not touch each other's fields commute.
try:
    with heavy_tails(sites=["reading"]), log():
        raise RuntimeError("in the middle of a model")
except RuntimeError:
    pass
assert len(handlers.trace(room).get_trace(readings)) == 4  # three sites and the plate: as if nothing had happened

one_way = handlers.trace(temper(heavy_tails(fixed, sites=["reading"]), power=0.3)).get_trace(readings)
other_way = handlers.trace(heavy_tails(temper(fixed, power=0.3), sites=["reading"])).get_trace(readings)
assert torch.allclose(one_way.log_prob_sum(), other_way.log_prob_sum())

# Conditioning on the value that a site has anyway does not change the density.
at_the_same = handlers.trace(handlers.condition(fixed, data={"inside": inside})).get_trace(readings)
assert torch.allclose(at_the_same.log_prob_sum(), tr.log_prob_sum())
print("\nAll laws hold. Next: tutorials/02_shapes_and_plates.py")
