"""Laws that hold between handlers, on programs of every shape."""

import inspect

import pytest
import torch
from torch.distributions import constraints

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.stack import Handler

OBS = torch.tensor([0.5, -1.0, 2.0])
SEEN = torch.tensor([True, False, True])
PARALLEL = {"enumerate": "parallel"}

# -- programs


def scalar():
    scale = ppl.param("scale", torch.tensor(2.0), constraint=constraints.positive)
    x = ppl.sample("x", dist.Normal(0.0, scale))
    ppl.deterministic("twice", 2 * x)
    ppl.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(0.3))
    ppl.factor("f", -(x**2))
    return x


def plated():
    rate = ppl.sample("rate", dist.Gamma(2.0, 1.0))
    with ppl.plate("rows", 2, dim=-2):
        row = ppl.sample("row", dist.Dirichlet(torch.ones(3)))
        with ppl.plate("columns", 3, dim=-1):
            ppl.sample("cell", dist.Normal(row.sum(-1), rate))
            ppl.sample("seen", dist.Exponential(rate), obs=torch.full((2, 3), 0.5))
    return row


def subsampled():
    with ppl.plate("data", 3, subsample_size=2) as indices:
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        w = ppl.param("w", torch.arange(3.0), event_dim=0)
        ppl.sample("y", dist.Normal(z + w, 1.0), obs=OBS[indices])
    return indices


def looped():
    total = torch.tensor(0.0)
    for i in ppl.plate("loop", 3, subsample_size=2):
        total = total + ppl.sample(f"x_{i}", dist.Normal(0.0, 1.0))
    for t in ppl.markov(range(3)):
        total = ppl.sample(f"z_{t}", dist.Normal(total, 1.0))
    return total


def discrete():
    z = ppl.sample("z", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])), infer=PARALLEL)
    n = ppl.sample("n", dist.Poisson(3.0))
    h = ppl.sample("h", dist.OneHotCategorical(torch.ones(4)))
    ppl.sample("y", dist.Normal(z + n + h.argmax(-1), 1.0), obs=torch.tensor(1.0))
    return z


def partly_observed():
    mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
    with ppl.plate("data", 3):
        return ppl.sample("x", dist.Normal(mean, 1.0), obs=OBS, obs_mask=SEEN)


def weighed():
    with handlers.scale(scale=0.5), ppl.plate("data", 3), handlers.mask(mask=SEEN):
        x = ppl.sample("x", torch.distributions.Laplace(0.0, 1.0))
        ppl.sample("y", dist.Normal(x, 1.0), obs=OBS)
    return x


def joint():
    x = ppl.sample("x", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
    with ppl.plate("data", 3):
        ppl.sample("y", dist.Normal(x, 1.0).to_event(1), obs=torch.ones(3, 2))
    return x


PROGRAMS = [scalar, plated, subsampled, looped, discrete, partly_observed, weighed, joint]
programs = pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"], autouse=True)
def precision(request):
    torch.set_default_dtype(request.param)


def run(program, seed=0):
    ppl.set_rng_seed(seed)
    return handlers.trace(program).get_trace()


def facts(tr):
    """All that matters about a run: names, kinds, values, densities."""
    return {
        name: (
            site.kind,
            site.observed,
            tuple(site.plates),
            site.tensor.tolist(),
            tr.log_prob(name).tolist() if site.kind == "sample" else None,
        )
        for name, site in tr.nodes.items()
    }


def latents(tr):
    return {name: site.tensor for name, site in tr.stochastic_nodes.items()}


def density(tr):
    return tr.log_prob_sum().item()


# -- trace and replay


@programs
def test_the_same_seed_gives_the_same_run_and_another_seed_another(program):
    assert facts(run(program)) == facts(run(program))
    assert facts(run(program, 1)) != facts(run(program))


@programs
def test_trace_after_replay_is_the_identity_on_values_and_densities(program):
    first = run(program)
    again = run(handlers.replay(program, trace=first), seed=1)
    assert facts(again) == facts(first)


@programs
def test_a_trace_in_a_trace_records_the_same(program):
    ppl.set_rng_seed(0)
    with handlers.trace() as outer, handlers.trace() as inner:
        program()
    assert list(outer) == list(inner)
    for name in outer:  # markov loops are counted in each record for itself
        a, b = outer[name], inner[name]
        assert a is b or (a.steps and a.steps == b.steps and a.value is b.value and a.fn is b.fn)


# -- condition, substitute, uncondition


@programs
def test_condition_never_changes_the_density_at_the_same_value(program):
    first = run(program)
    plates = {name: site for name, site in first.nodes.items() if site.kind == "plate"}
    conditioned = run(handlers.replay(handlers.condition(program, data=latents(first)), trace=plates), seed=1)
    assert conditioned.stochastic_nodes == {}
    assert density(conditioned) == density(first)
    for name in first.compute_log_prob():
        assert torch.equal(conditioned.log_prob(name), first.log_prob(name)), name


@programs
def test_substitute_gives_the_run_itself(program):
    first = run(program)
    plates = {name: site for name, site in first.nodes.items() if site.kind == "plate"}
    again = run(handlers.replay(handlers.substitute(program, data=latents(first)), trace=plates), seed=1)
    assert facts(again) == facts(first)


@programs
def test_uncondition_frees_all_data_and_nothing_else(program):
    tr = run(handlers.uncondition(program))
    kept = {name for name, site in run(program).observation_nodes.items() if isinstance(site.fn, dist.Unit)}
    assert set(tr.observation_nodes) == kept


# -- block


@programs
def test_hiding_and_exposing_the_same_sites_split_the_run_in_two(program):
    names = list(run(program))
    chosen = names[::2]
    shown = list(run(handlers.block(program, expose=chosen)))
    rest = list(run(handlers.block(program, hide=chosen)))
    assert shown == chosen and rest == [name for name in names if name not in chosen]


# -- do


@programs
def test_an_intervention_leaves_the_sites_before_it_and_its_own_density(program):
    first = run(program)
    target = next(iter(first.stochastic_nodes))
    tr = run(handlers.do(program, data={target: first[target].fn.sample()}))
    before = list(first)[: list(first).index(target) + 1]
    plain, done = facts(first), facts(tr)
    assert {name: done[name] for name in before} == {name: plain[name] for name in before}


# -- scale and mask


@programs
def test_scale_multiplies_every_density(program):
    plain, scaled = run(program), run(handlers.scale(program, scale=4.0))
    assert {n: v.tolist() for n, v in scaled.compute_log_prob().items()} == {
        n: (4.0 * v).tolist() for n, v in plain.compute_log_prob().items()
    }


@programs
def test_the_mask_false_makes_every_density_zero_and_changes_no_value(program):
    plain, masked = run(program), run(handlers.mask(program, mask=False))
    assert {n: s.tensor.tolist() for n, s in masked.nodes.items()} == {
        n: s.tensor.tolist() for n, s in plain.nodes.items()
    }
    assert all((v == 0).all() and v.shape == plain.log_prob(n).shape for n, v in masked.compute_log_prob().items())


def leaf():
    ppl.sample("x", dist.Normal(0.0, 1.0), obs=OBS)
    ppl.sample("z", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    "make",
    [lambda: handlers.scale(scale=0.3), lambda: handlers.scale(scale=OBS.abs()), lambda: handlers.mask(mask=SEEN)],
    ids=["scale", "scale by a tensor", "mask"],
)
@pytest.mark.parametrize(
    "plate",
    [lambda: ppl.plate("data", 3), lambda: ppl.plate("data", 6, subsample=torch.tensor([5, 0, 3]))],
    ids=["whole", "subsampled"],
)
def test_scale_and_mask_commute_with_plates(make, plate):
    def inside():
        with plate(), make():
            leaf()

    def outside():
        with make(), plate():
            leaf()

    assert facts(run(inside)) == facts(run(outside))


def test_scale_and_mask_commute_with_each_other():
    one = handlers.scale(handlers.mask(plated, mask=torch.tensor([[True], [False]])), scale=2.0)
    other = handlers.mask(handlers.scale(plated, scale=2.0), mask=torch.tensor([[True], [False]]))
    assert facts(run(one)) == facts(run(other))


# -- handlers that were told to do nothing


def no_enumeration(site):
    return {"enumerate": None}


NOTHING = {
    "block": lambda f: handlers.block(f, expose_all=True),
    "broadcast": handlers.broadcast,
    "condition": lambda f: handlers.condition(f, data={}),
    "do": lambda f: handlers.do(f, data={}),
    "enum": lambda f: handlers.enum(handlers.infer_config(f, config_fn=no_enumeration), first_available_dim=-9),
    "equalize": lambda f: handlers.equalize(f, sites="no such site"),
    "escape": lambda f: handlers.escape(f, escape_fn=lambda _: False),
    "infer_config": lambda f: handlers.infer_config(f, config_fn=lambda _: None),
    "lift": lambda f: handlers.lift(f, prior={}),
    "markov": handlers.markov,
    "mask": handlers.mask,
    "reparam": lambda f: handlers.reparam(f, config={}),
    "replay": lambda f: handlers.replay(f, trace=handlers.Trace()),
    "scale": handlers.scale,
    "substitute": lambda f: handlers.substitute(f, data={}),
    "trace": handlers.trace,
}


@programs
@pytest.mark.parametrize("wrap", NOTHING.values(), ids=NOTHING)
def test_a_handler_told_to_do_nothing_does_nothing(program, wrap):
    assert facts(run(wrap(program))) == facts(run(program))


# -- three ways to use each handler


def model():
    w = ppl.param("w", torch.tensor(1.0))
    x = ppl.sample("x", dist.Normal(w, 1.0))
    z = ppl.sample("z", dist.Bernoulli(0.4), infer=PARALLEL)
    y = ppl.sample("y", dist.Normal(x + z, 1.0), obs=torch.tensor(0.7))
    return x + y


def centred(name, fn, obs):
    return None, fn.loc + ppl.sample(f"{name}_noise", dist.Normal(0.0, 1.0))


VALUES = {"x": torch.tensor(0.25)}
ARGUMENTS = {
    "block": {"hide": ["x"]},
    "broadcast": {},
    "condition": {"data": VALUES},
    "do": {"data": VALUES},
    "enlarge": {"sizes": {"p": 30}},
    "enum": {"first_available_dim": -2},
    "equalize": {"sites": ["x", "y"], "keep_dist": True},
    "escape": {"escape_fn": lambda site: site.name == "y"},
    "infer_config": {"config_fn": lambda site: {"is_auxiliary": True}},
    "lift": {"prior": dist.Normal(3.0, 0.1)},
    "markov": {"history": 2},
    "mask": {"mask": False},
    "plate": {"name": "p", "size": 3},
    "reparam": {"config": {"x": centred}},
    "replay": {"params": {"w": torch.tensor(9.0)}},
    "scale": {"scale": 0.1},
    "scope": {"prefix": "s"},
    "seed": {"rng_seed": 3},
    "substitute": {"data": VALUES},
    "trace": {"param_only": True},
    "uncondition": {},
}
WITHOUT_EFFECT_ON_FACTS = {"broadcast", "enlarge", "infer_config", "markov", "trace"}
each_handler = pytest.mark.parametrize("name", ARGUMENTS)


def outcome(program):
    """What a run shows from outside, and what it returns or raises."""
    ppl.set_rng_seed(0)
    ppl.clear_param_store()
    with handlers.trace() as tr:
        try:
            returned = program().tolist()
        except handlers.NonlocalExit as error:
            returned = f"left at {error.site.name}"
    return facts(tr), returned


def as_context(name):
    def program():
        with getattr(handlers, name)(**ARGUMENTS[name]):
            return model()

    return program


def as_wrapper(name):
    if name == "plate":  # made by its name and size, so it wraps by being called
        return handlers.plate(**ARGUMENTS[name])(model)
    return getattr(handlers, name)(model, **ARGUMENTS[name])


def as_decorator(name):
    @getattr(handlers, name)(**ARGUMENTS[name])
    def program():
        return model()

    return program


def test_the_table_has_every_handler():
    public = {
        name for name in handlers.__all__ if inspect.isclass(c := getattr(handlers, name)) and issubclass(c, Handler)
    }
    assert public - {"Handler"} == set(ARGUMENTS)


@each_handler
def test_context_manager_decorator_and_wrapper_give_the_same(name):
    expected = outcome(as_context(name))
    wrapped, decorated = as_wrapper(name), as_decorator(name)
    assert outcome(wrapped) == expected
    assert outcome(decorated) == expected
    assert outcome(wrapped) == expected  # a second call begins afresh
    assert (expected != outcome(model)) is (name not in WITHOUT_EFFECT_ON_FACTS)


@each_handler
def test_the_stack_is_restored_after_an_error_inside(name):
    def fails():
        ppl.param("w", torch.tensor(1.0))
        ppl.sample("x", dist.Normal(0.0, 1.0))
        raise ArithmeticError("on purpose")

    with handlers.trace() as outer:
        with pytest.raises(ArithmeticError):
            getattr(handlers, name)(**ARGUMENTS[name])(fails)()
        assert list(ppl.stack.active())[1:] == []
        assert ppl.stack._stack.get().handler.trace is outer


@each_handler
def test_the_stack_is_restored_when_an_outer_handler_fails(name):
    class breaks(Handler):
        def handle(self, site):
            raise ArithmeticError("on purpose")

    with pytest.raises(ArithmeticError), breaks():
        as_wrapper(name)()
    assert not ppl.stack.is_running()


@each_handler
def test_what_is_not_callable_is_refused_by_name(name):
    with pytest.raises(TypeError, match=rf"handlers\.{name} wraps a callable, but got int: 3"):
        getattr(handlers, name)(**ARGUMENTS[name])(3)
