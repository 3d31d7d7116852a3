"""The scan statement: one step for all times."""

from __future__ import annotations

import gc
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.distributions.validation import validation_enabled
from ppl.infer import (
    SVI,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    compute_marginals,
    config_enumerate,
    infer_discrete,
)
from ppl.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal
from ppl.infer.reparam import LocScaleReparam

T = 7
PARALLEL = {"enumerate": "parallel"}


def nothing(*args: Any) -> None:
    pass


def walk(xs: Tensor) -> tuple[Tensor, Tensor]:
    """A random walk seen by three noisy observers."""
    drift = ppl.param("drift", torch.tensor(0.1))

    def step(z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        z = ppl.sample("z", dist.Normal(z + drift, 1.0))
        with ppl.plate("observer", 3):
            ppl.sample("x", dist.Normal(z, 0.5), obs=x)
        return z, 2 * z

    return ppl.scan(step, torch.tensor(0.0), xs)


XS = torch.randn(T, 3, generator=torch.Generator().manual_seed(0))


# -- drawn sites


def test_trace_has_one_site_with_all_steps() -> None:
    torch.manual_seed(1)
    trace = handlers.trace(walk).get_trace(XS)
    z = trace["z"].value
    assert z.shape == (T,) and trace["x"].value is not None and trace["x"].value.shape == (T, 3)
    before = torch.cat([torch.zeros(1), z[:-1]])
    assert torch.allclose(trace.log_prob("z"), dist.Normal(before + 0.1, 1.0).log_prob(z))
    assert torch.allclose(trace.log_prob("x"), dist.Normal(z[:, None], 0.5).log_prob(XS))
    carry, ys = trace.returned
    assert carry == z[-1] and torch.equal(ys, 2 * z)


def test_same_draws_as_a_loop() -> None:
    def loop() -> list[Tensor]:
        z, found = torch.tensor(0.0), []
        for t in range(T):
            z = ppl.sample(f"z{t}", dist.Normal(z, 1.0))
            found.append(z)
        return found

    def scanned() -> Tensor:
        def step(z: Tensor, _: None) -> tuple[Tensor, Tensor]:
            z = ppl.sample("z", dist.Normal(z, 1.0))
            return z, z

        return ppl.scan(step, torch.tensor(0.0), length=T)[1]

    torch.manual_seed(2)
    expected = torch.stack(loop())
    torch.manual_seed(2)
    assert torch.equal(scanned(), expected)


@pytest.mark.parametrize("handler", ["condition", "substitute", "replay", "do"])
def test_handlers_are_given_all_steps(handler: str) -> None:
    values = torch.linspace(-1, 1, T)
    made = {
        "condition": lambda: handlers.condition(walk, {"z": values}),
        "substitute": lambda: handlers.substitute(walk, {"z": values}),
        "do": lambda: handlers.do(walk, {"z": values}),
        "replay": lambda: handlers.replay(walk, handlers.trace(handlers.substitute(walk, {"z": values})).get_trace(XS)),
    }[handler]()
    trace = handlers.trace(made).get_trace(XS)
    assert torch.allclose(trace.log_prob("x"), dist.Normal(values[:, None], 0.5).log_prob(XS))
    assert trace["z"].observed == (handler == "condition")
    assert torch.equal(trace["z"].tensor, values) == (handler != "do")


def test_mask_scale_scope_block_and_plate_around() -> None:
    mask = torch.tensor([True, False, True])

    def model() -> None:
        with handlers.scale(scale=2.0), handlers.mask(mask=mask), ppl.plate("n", 3):

            def step(z: Tensor, _: None) -> tuple[Tensor, None]:
                return ppl.sample("z", dist.Normal(z, 1.0)), None

            ppl.scan(step, torch.zeros(3), length=T)

    trace = handlers.trace(handlers.scope(model, prefix="a")).get_trace()
    site = trace["a/z"]
    z = site.tensor
    before = torch.cat([torch.zeros(1, 3), z[:-1]])
    assert torch.allclose(trace.log_prob("a/z"), 2 * mask * dist.Normal(before, 1.0).log_prob(z))
    assert "a/z" not in handlers.trace(handlers.block(handlers.scope(model, prefix="a"), hide=["a/z"])).get_trace()


def test_reparam_within_the_step() -> None:
    torch.manual_seed(3)
    trace = handlers.trace(handlers.reparam(walk, {"z": LocScaleReparam(0.0)})).get_trace(XS)
    assert trace["z_decentered"].tensor.shape == (T,) and trace["z"].kind == "deterministic"
    assert torch.allclose(trace["z"].tensor, (trace["z_decentered"].tensor + 0.1).cumsum(0))


@pytest.mark.parametrize("guide_of", [AutoDelta, AutoNormal, AutoDiagonalNormal])
def test_automatic_guides(guide_of: Any) -> None:
    """A Gaussian random walk: the guide's centre reaches the mode, which is a linear system's solution."""
    ppl.set_rng_seed(0)
    guide = guide_of(handlers.block(walk, hide_types=["param"]))
    svi = SVI(
        handlers.substitute(walk, {"drift": torch.tensor(0.1)}), guide, ppl.optim.Adam({"lr": 0.05}), Trace_ELBO()
    )
    svi.run(700, XS)
    precision = torch.zeros(T, T)
    shift = torch.zeros(T)
    for t in range(T):
        precision[t, t] += 1 + 3 / 0.25
        shift[t] += 0.1 + XS[t].sum() / 0.25
        if t:
            precision[t - 1, t - 1] += 1
            precision[t, t - 1] -= 1
            precision[t - 1, t] -= 1
            shift[t - 1] -= 0.1
    exact = torch.linalg.solve(precision, shift)
    assert torch.allclose(guide.median()["z"].detach(), exact, atol=0.15 if guide_of is not AutoDelta else 1e-3)


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive(parallel: bool) -> None:
    torch.manual_seed(4)
    drawn = Predictive(walk, num_samples=500, parallel=parallel, return_sites=["z", "x"])(XS)
    assert drawn["z"].shape == (500, T) and drawn["x"].shape == (500, T, 3)
    sd = torch.arange(1, T + 1).sqrt()
    assert ((drawn["z"].mean(0) - 0.1 * torch.arange(1, T + 1)).abs() < 4 * sd / 500**0.5).all()
    again = Predictive(walk, {"z": drawn["z"]}, parallel=parallel, return_sites=["x"])(XS)
    assert again["x"].shape == (500, T, 3)


def test_scans_within_scans() -> None:
    def model() -> None:
        def outer(a: Tensor, _: None) -> tuple[Tensor, None]:
            a = ppl.sample("a", dist.Normal(a, 1.0))

            def inner(b: Tensor, _: None) -> tuple[Tensor, None]:
                return ppl.sample("b", dist.Normal(b, 0.1)), None

            ppl.scan(inner, a, length=3)
            return a, None

        ppl.scan(outer, torch.tensor(0.0), length=4)

    torch.manual_seed(5)
    trace = handlers.trace(model).get_trace()
    a, b = trace["a"].tensor, trace["b"].tensor
    assert b.shape == (4, 3)
    before = torch.cat([a[:, None], b[:, :-1]], 1)
    assert torch.allclose(trace.log_prob("b"), dist.Normal(before, 0.1).log_prob(b))
    again = handlers.trace(handlers.replay(model, trace)).get_trace()
    assert torch.allclose(again.log_prob_sum(), trace.log_prob_sum())


def test_subsampled_plate_has_one_subsample_for_all_steps() -> None:
    def model() -> Tensor:
        def step(z: Tensor, _: None) -> tuple[Tensor, Tensor]:
            with ppl.plate("n", 10, subsample_size=4) as index:
                ppl.sample("x", dist.Normal(torch.zeros(4), 1.0))
            return z, index

        return ppl.scan(step, torch.tensor(0.0), length=T)[1]

    torch.manual_seed(6)
    trace = handlers.trace(model).get_trace()
    assert (trace.returned == trace.returned[0]).all()
    expected = 2.5 * dist.Normal(0.0, 1.0).log_prob(trace["x"].tensor)
    assert torch.allclose(trace.log_prob("x"), expected)


def test_steps_of_many_kinds() -> None:
    """A step may choose its distribution by the carry, as long as the shapes agree."""

    def model() -> None:
        def step(t: int, _: None) -> tuple[int, None]:
            ppl.sample("x", dist.Normal(0.0, 1.0) if t % 2 else dist.Laplace(1.0, 2.0))
            return t + 1, None

        ppl.scan(step, 0, length=4)

    torch.manual_seed(8)
    site = (trace := handlers.trace(model).get_trace())["x"]
    x = site.tensor
    expected = [(dist.Normal(0.0, 1.0) if t % 2 else dist.Laplace(1.0, 2.0)).log_prob(x[t]) for t in range(4)]
    assert torch.allclose(trace.log_prob("x"), torch.stack(expected))
    assert torch.equal(site.fn.mean, torch.tensor([1.0, 0.0, 1.0, 0.0])) and site.fn.sample((5,)).shape == (5, 4)


def test_traces_can_be_pickled_and_copied() -> None:
    torch.manual_seed(7)
    trace = handlers.trace(walk).get_trace(XS)
    for other in (pickle.loads(pickle.dumps(trace)), trace.copy(), trace.detach()):
        assert torch.allclose(other.log_prob_sum(), trace.log_prob_sum())


# -- enumerated sites


def chain(table: Tensor, loc: Tensor, xs: Tensor) -> None:
    def step(z: Any, x: Tensor) -> tuple[Tensor, None]:
        z = ppl.sample("z", dist.Categorical(table[z]), infer=PARALLEL)
        ppl.sample("x", dist.Normal(loc[z], 1.0), obs=x)
        return z, None

    ppl.scan(step, 0, xs)


def forward(table: Tensor, loc: Tensor, xs: Tensor) -> Tensor:
    """The log evidence by the forward algorithm, step by step."""
    state = table[0].log() + dist.Normal(loc, 1.0).log_prob(xs[0])
    for x in xs[1:]:
        state = (state[:, None] + table.log()).logsumexp(0) + dist.Normal(loc, 1.0).log_prob(x)
    return state.logsumexp(0)


TABLE = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5], [0.3, 0.3, 0.4]])
LOC = torch.tensor([-1.0, 0.0, 2.0])


@pytest.mark.parametrize("length", [1, 2, 3, 40, 3000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hidden_markov_model(length: int, dtype: torch.dtype) -> None:
    xs = torch.randn(length, generator=torch.Generator().manual_seed(0)).to(dtype)
    table, loc = TABLE.to(dtype), LOC.to(dtype).requires_grad_()
    loss = TraceEnum_ELBO()(chain, nothing, table, loc, xs)
    expected = forward(TABLE, loc.double(), xs.double())
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    assert torch.allclose(-loss.double(), expected, rtol=tolerance)
    ours, theirs = torch.autograd.grad(-loss, loc)[0], torch.autograd.grad(expected, loc)[0]
    assert torch.allclose(ours, theirs, rtol=100 * tolerance, atol=1e-6 if dtype == torch.float32 else 1e-10)


def test_the_step_runs_a_fixed_number_of_times() -> None:
    counts = []
    for length in (10, 1000):
        calls = 0

        def model(xs: Tensor) -> None:
            def step(z: Any, x: Tensor) -> tuple[Tensor, None]:
                nonlocal calls
                calls += 1
                z = ppl.sample("z", dist.Categorical(TABLE[z]), infer=PARALLEL)
                ppl.sample("x", dist.Normal(LOC[z], 1.0), obs=x)
                return z, None

            ppl.scan(step, 0, xs)

        with handlers.enum(first_available_dim=-1):
            model(torch.zeros(length))
        counts.append(calls)
    assert counts[0] == counts[1] <= 3


def carries(kind: str, xs: Tensor) -> tuple[Any, Any, Any]:
    """A step with a carry of some kind, its first carry, and the same written out as a loop."""

    def law(z: Any, level: Any) -> dist.Distribution:
        return dist.Categorical(logits=TABLE.clamp_min(0.05).log()[z] + torch.tensor([0.0, 0.2, -0.3]) * level)

    def step(carry: Any, x: Tensor) -> tuple[Any, None]:
        z, level = carry["z"], carry["level"]
        z = ppl.sample("z", law(z, level), infer=PARALLEL)
        ppl.sample("x", dist.Normal(LOC[z] + 0.1 * level, 1.0), obs=x)
        return {"z": z, "level": after(level, x)}, None

    def after(level: Any, x: Tensor) -> Any:
        return {"counter": lambda: level + 1, "last": lambda: x, "memory": lambda: (0.5 * level + x).tanh()}[kind]()

    def loop() -> None:
        z: Any = 0
        level: Any = 0.0
        for t in ppl.markov(range(len(xs))):
            z = ppl.sample(f"z{t}", law(z, level), infer=PARALLEL)
            ppl.sample(f"x{t}", dist.Normal(LOC[z] + 0.1 * level, 1.0), obs=xs[t])
            level = after(level, xs[t])

    return step, {"z": 0, "level": 0.0 if kind != "last" else torch.tensor(0.0)}, loop


@pytest.mark.parametrize("kind", ["counter", "last", "memory"])
@pytest.mark.parametrize("length", [1, 2, 6])
def test_carries_of_other_things_than_states(kind: str, length: int) -> None:
    xs = torch.randn(length, generator=torch.Generator().manual_seed(0))
    step, init, loop = carries(kind, xs)
    ours = TraceEnum_ELBO()(lambda: ppl.scan(step, init, xs), nothing)
    assert torch.allclose(ours, TraceEnum_ELBO()(loop, nothing), rtol=1e-10)


@pytest.mark.parametrize("event", [False, True])
def test_carries_made_of_states(event: bool) -> None:
    """The carry is a vector that the state chooses, and not the state itself."""
    vectors = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(2, 3, generator=torch.Generator().manual_seed(2))
    xs = torch.randn(5, 2, generator=torch.Generator().manual_seed(3))

    def step(carry: Tensor, x: Tensor) -> tuple[Tensor, None]:
        law: Any = dist.OneHotCategorical if event else dist.Categorical
        z = ppl.sample("z", law(logits=carry @ weights), infer=PARALLEL)
        carry = z @ vectors if event else vectors[z]
        ppl.sample("x", dist.Normal(carry, 1.0).to_event(1), obs=x)
        return carry, None

    loss = TraceEnum_ELBO()(lambda: ppl.scan(step, torch.zeros(2), xs), nothing)
    table = (vectors @ weights).softmax(-1)
    emission = dist.Normal(vectors, 1.0).to_event(1)
    state = torch.full((3,), 1 / 3).log() + emission.log_prob(xs[0])
    for x in xs[1:]:
        state = (state[:, None] + table.log()).logsumexp(0) + emission.log_prob(x)
    assert torch.allclose(-loss, state.logsumexp(0), rtol=1e-10)


@pytest.mark.parametrize("carried", ["maximum", "two back"])
def test_a_carry_that_reaches_too_far_is_refused(carried: str) -> None:
    def step(carry: Any, x: Tensor) -> tuple[Any, None]:
        last, before = carry
        z = ppl.sample("z", dist.Categorical(TABLE[last]), infer=PARALLEL)
        ppl.sample("x", dist.Normal(LOC[before], 1.0), obs=x)
        return ((z, torch.maximum(z, before)) if carried == "maximum" else (z, last)), None

    zero = torch.tensor(0)
    with pytest.raises(ValueError, match=r"enumerated sites \['z'\] of more than 1 steps before.*history=2"):
        TraceEnum_ELBO()(lambda: ppl.scan(step, (zero, zero), torch.zeros(6)), nothing)
    if carried == "two back":
        TraceEnum_ELBO()(lambda: ppl.scan(step, (zero, zero), torch.zeros(6), history=2), nothing)


def test_a_carry_that_reaches_too_far_is_refused_however_it_is_marked() -> None:
    @config_enumerate
    def model() -> None:
        def step(carry: Any, x: Tensor) -> tuple[Any, None]:
            last, before = carry
            z = ppl.sample("z", dist.Categorical(TABLE[last]))
            ppl.sample("x", dist.Normal(LOC[last] + LOC[before], 1.0), obs=x)
            return (z, last), None

        zero = torch.tensor(0)
        ppl.scan(step, (zero, zero), torch.zeros(6))

    for enabled in (True, False):
        with ppl.validation_enabled(enabled), pytest.raises(ValueError, match="of more than 1 steps before"):
            TraceEnum_ELBO()(model, nothing)


def test_preparatory_runs_take_few_steps() -> None:
    calls = 0

    def model(xs: Tensor) -> None:
        def step(z: Any, x: Tensor) -> tuple[Tensor, None]:
            nonlocal calls
            calls += 1
            z = ppl.sample("z", dist.Categorical(TABLE[z]), infer=PARALLEL)
            ppl.sample("x", dist.Normal(ppl.param("loc", LOC)[z], 1.0), obs=x)
            return z, None

        ppl.scan(step, 0, xs)

    svi = SVI(model, nothing, ppl.optim.Adam({"lr": 0.01}), TraceEnum_ELBO())
    svi.step(torch.zeros(500))
    compute_marginals(model, torch.zeros(500))
    assert calls < 30


def test_reductions_over_states_are_noticed() -> None:
    def step(z: Any, x: Tensor) -> tuple[Tensor, None]:
        z = ppl.sample("z", dist.Categorical(TABLE[z]), infer=PARALLEL)
        ppl.sample("x", dist.Normal(LOC[z].mean(), 1.0), obs=x)
        return z, None

    with pytest.raises(ValueError, match="site 'x' was computed from the enumerated site 'z', but does not vary"):
        TraceEnum_ELBO()(lambda: ppl.scan(step, 0, torch.zeros(5)), nothing)


def test_data_of_all_steps_are_checked() -> None:
    def model(xs: Tensor) -> None:
        def step(z: Any, x: Tensor) -> tuple[Tensor, None]:
            z = ppl.sample("z", dist.Categorical(TABLE[z]), infer=PARALLEL)
            ppl.sample("x", dist.Exponential(z + 1.0), obs=x)
            return z, None

        ppl.scan(step, 0, xs)

    xs = torch.ones(9)
    xs[7] = -1.0
    with pytest.raises(ValueError, match=r"site 'x'.*must lie in the support.*-1"):
        TraceEnum_ELBO()(model, nothing, xs)


@pytest.mark.parametrize("bad", [-1, 3, 50])
@pytest.mark.parametrize("place", [0, 1, 6])
def test_categories_outside_are_refused_or_impossible_as_validation_is_switched(bad: int, place: int) -> None:
    def model(xs: Tensor, seen: Tensor) -> None:
        def step(z: Any, at: tuple[Tensor, Tensor]) -> tuple[Tensor, None]:
            z = ppl.sample("z", dist.Categorical(TABLE[z]), infer=PARALLEL)
            with handlers.mask(mask=at[1]):
                ppl.sample("x", dist.Categorical(TABLE[z]), obs=at[0])
            return z, None

        ppl.scan(step, 0, (xs, seen))

    loss, xs, seen = TraceEnum_ELBO(), torch.tensor([0, 1, 2, 2, 1, 0, 1]), torch.ones(7, dtype=torch.bool)
    fine = loss(model, nothing, xs, seen)
    wrong, hidden = xs.clone(), seen.clone()
    wrong[place], hidden[place] = bad, False
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"site 'x'.*must lie in the support.*{bad}"):
            loss(model, nothing, wrong, seen)
        with validation_enabled(False):
            assert loss(model, nothing, wrong, seen) == torch.inf
            assert torch.allclose(loss(model, nothing, xs, seen), fine)
        assert torch.allclose(loss(model, nothing, wrong, hidden), loss(model, nothing, xs, hidden))


def test_first_carry_may_be_enumerated() -> None:
    xs = torch.randn(5, generator=torch.Generator().manual_seed(0))
    first = torch.tensor([0.2, 0.5, 0.3])

    def step(z: Tensor, x: Tensor) -> tuple[Tensor, None]:
        z = ppl.sample("z", dist.Categorical(TABLE[z]), infer=PARALLEL)
        ppl.sample("x", dist.Normal(LOC[z], 1.0), obs=x)
        return z, None

    def model() -> None:
        z = ppl.sample("first", dist.Categorical(first), infer=PARALLEL)
        ppl.scan(step, z, xs)

    state = first.log()
    for x in xs:
        state = (state[:, None] + TABLE.log()).logsumexp(0) + dist.Normal(LOC, 1.0).log_prob(x)
    assert torch.allclose(-TraceEnum_ELBO()(model, nothing), state.logsumexp(0), rtol=1e-10)


def test_guide_draws_what_the_step_does_not_enumerate() -> None:
    """A continuous latent in the step, proposed as one site by the guide, beside an enumerated one."""
    xs = torch.randn(6, generator=torch.Generator().manual_seed(0))

    def model() -> None:
        def step(z: Any, x: Tensor) -> tuple[Any, None]:
            z = ppl.sample("z", dist.Categorical(TABLE[z]), infer=PARALLEL)
            level = ppl.sample("level", dist.Normal(LOC[z], 1.0))
            ppl.sample("x", dist.Normal(level, 0.5), obs=x)
            return z, None

        ppl.scan(step, 0, xs)

    guide = AutoDelta(handlers.block(model, expose=["level"]))
    loss = TraceEnum_ELBO()(model, guide)
    level = guide.median()["level"]
    expected = forward(TABLE, LOC, level) + dist.Normal(level, 0.5).log_prob(xs).sum()
    assert torch.allclose(-loss, expected, rtol=1e-10)
    loss.backward()
    assert all(p.grad is not None for p in guide.parameters())


def test_posterior_of_the_states() -> None:
    xs = torch.randn(8, generator=torch.Generator().manual_seed(0))
    p = compute_marginals(chain, TABLE, LOC, xs)["z"].probs
    assert p.shape == (8, 3) and torch.allclose(p.sum(-1), torch.ones(8))
    trace = handlers.trace(infer_discrete(chain, temperature=0)).get_trace(TABLE, LOC, xs)
    assert trace["z"].tensor.shape == (8,)
    drawn = Predictive(chain, num_samples=400, infer_discrete=True)(TABLE, LOC, xs)["z"]
    frequency = torch.nn.functional.one_hot(drawn, 3).double().mean(0)
    assert ((frequency - p).abs() <= 4 * (p * (1 - p) / 400).sqrt() + 1e-9).all()


def test_steps_that_vmap_refuses_run_one_by_one() -> None:
    xs = torch.randn(5, generator=torch.Generator().manual_seed(0))

    def step(z: Any, x: Tensor) -> tuple[Tensor, None]:
        z = ppl.sample("z", dist.Categorical(TABLE[z]), infer=PARALLEL)
        loc = LOC if float(x) > 0 else -LOC
        ppl.sample("x", dist.Normal(loc[z], 1.0), obs=x)
        return z, None

    state = TABLE[0].log()
    for t, x in enumerate(xs):
        state = (state[:, None] + TABLE.log()).logsumexp(0) if t else state
        state = state + dist.Normal(LOC if x > 0 else -LOC, 1.0).log_prob(x)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss = TraceEnum_ELBO()(lambda: ppl.scan(step, 0, xs), nothing)
    assert any("cannot be run for all steps at once" in str(w.message) for w in caught)
    assert torch.allclose(-loss, state.logsumexp(0), rtol=1e-10)


# -- errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ppl.scan(lambda c, x: (c, x), 0), "give xs or length"),
        (lambda: ppl.scan(lambda c, x: (c, x), 0, torch.zeros(3), length=4), r"agree on the number of steps.*\[3, 4\]"),
        (lambda: ppl.scan(lambda c, x: (c, x), 0, [1, 2]), "tensors with the steps on their first dim"),
        (lambda: ppl.scan(lambda c, x: (c, x), 0, length=0), "at least one step"),
        (lambda: ppl.scan(lambda c, x: c, 0.0, length=2), "must return a pair"),
        (lambda: ppl.scan(lambda c, x: (c, x), 0, length=2, history=0), "history must be a positive int"),
    ],
)
def test_bad_calls(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_step_must_be_callable() -> None:
    with pytest.raises(TypeError, match="must be a function"):
        ppl.scan(3, 0, length=2)  # type: ignore[arg-type]


def test_values_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"site 'z'.*7 steps on its first dim.*\(4,\)"):
        handlers.trace(handlers.condition(walk, {"z": torch.zeros(4)})).get_trace(XS)


def test_steps_with_other_sites_are_refused() -> None:
    def step(z: int, _: None) -> tuple[int, None]:
        ppl.sample("a" if z == 0 else "b", dist.Normal(0.0, 1.0))
        return z + 1, None

    with pytest.raises(ValueError, match=r"sites \['a'\] at step 0, but \['b'\] at step 1"):
        handlers.trace(lambda: ppl.scan(step, 0, length=2)).get_trace()


def test_steps_of_another_shape_are_refused() -> None:
    def step(z: Tensor, _: None) -> tuple[Tensor, None]:
        z = ppl.sample("z", dist.Normal(z, 1.0))
        return z.expand(2), None

    with pytest.raises(ValueError, match=r"site 'z' has another shape at step 1.*Give `init` the shape"):
        handlers.trace(lambda: ppl.scan(step, torch.tensor(0.0), length=2)).get_trace()


def test_guides_that_enumerate_in_a_scan_are_refused() -> None:
    xs = torch.zeros(4)
    with pytest.raises(ValueError, match="site 'z' of the guide is enumerated in a scan"):
        TraceEnum_ELBO()(chain, lambda *a: chain(*a), TABLE, LOC, xs)


def test_enumerated_scans_within_scans_are_refused() -> None:
    def outer(carry: Any, _: None) -> tuple[Any, None]:
        chain(TABLE, LOC, torch.zeros(3))
        return carry, None

    with pytest.raises(ValueError, match="a scan within a scan cannot have enumerated sites"):
        TraceEnum_ELBO()(lambda: ppl.scan(outer, 0, length=2), nothing)


@pytest.mark.parametrize("infer", [None, PARALLEL])
def test_nothing_of_a_scan_waits_for_the_garbage_collector(infer: dict[str, str] | None) -> None:
    def model(xs: Tensor) -> None:
        def step(z: Any, x: Tensor) -> tuple[Tensor, None]:
            with ppl.plate("data", 2):
                z = ppl.sample("z", dist.Categorical(TABLE[z]), infer=infer)
                ppl.sample("x", dist.Normal(LOC[z], 1.0), obs=x)
            return z, None

        ppl.scan(step, 0, xs)

    def take() -> None:
        with handlers.enum(first_available_dim=-2):
            handlers.trace(model).get_trace(torch.zeros(5, 2)).compute_log_prob()

    take()
    gc.collect()
    gc.disable()
    try:
        take()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert not [thing for thing in gc.garbage if type(thing) is Tensor]  # other tests leave fake ones
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
