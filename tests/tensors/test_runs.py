"""Runs of variables against elimination one by one, and against sums over the joint."""

from __future__ import annotations

import itertools
import random
import time

import pytest
import torch
from torch import Tensor

from ppl.tensors import runs
from ppl.tensors.elimination import Summed, Tape, backtrack, contract, eliminate
from ppl.tensors.factor import Factor, add, take
from ppl.tensors.runs import Run, sum_runs
from ppl.tensors.semiring import log_sum_exp, maximum


@pytest.fixture(autouse=True)
def any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "SHORTEST", 1)


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "SHORTEST", 10**9)


def tables(generator: random.Random, *axes: tuple[str, ...], sizes: dict[str, int] | None = None) -> list[Factor]:
    torch.manual_seed(generator.randrange(2**30))
    known = sizes or {}
    found = []
    for names in axes:
        tensor = torch.randn([known.get(a, 3) for a in names], dtype=torch.float64)
        if generator.random() < 0.3:
            tensor[torch.rand_like(tensor) < 0.2] = -torch.inf
        found.append(Factor(names, tensor.requires_grad_()))
    return found


def shapes(generator: random.Random) -> tuple[list[tuple[str, ...]], list[str], dict[str, int]]:
    """Factors over a random tree or ring of paths, with outer axes and plates, singles and larger factors."""
    count = generator.randrange(2, 7)
    sizes = {"p": 2, "c": 2, **{f"v{i}": 3 if generator.random() < 0.9 else 2 for i in range(count)}}
    axes: list[tuple[str, ...]] = []
    for i in range(1, count):
        parent = i - 1 if generator.random() < 0.8 else generator.randrange(i)
        pair = [f"v{parent}", f"v{i}", *generator.sample(["p", "c"], generator.choice([0, 0, 1]))]
        generator.shuffle(pair)
        axes += [tuple(pair)] * generator.choice([1, 1, 2])
    for i in range(count):
        for _ in range(generator.choice([0, 1, 2])):
            single = [f"v{i}", *generator.sample(["p", "c"], generator.choice([0, 1, 2]))]
            generator.shuffle(single)
            axes.append(tuple(single))
    if count > 3 and generator.random() < 0.3:
        axes.append(tuple(generator.sample([f"v{i}" for i in range(count)], 3)))
    if generator.random() < 0.2:
        axes.append(("v0", f"v{count - 1}"))
    generator.shuffle(axes)
    return axes, [f"v{i}" for i in range(count)], sizes


@pytest.mark.parametrize("seed", range(150))
def test_random_graphs(seed: int) -> None:
    generator = random.Random(seed)
    axes, names, sizes = shapes(generator)
    gone = names if generator.random() < 0.7 else generator.sample(names, len(names) - 1)
    factors = tables(generator, *axes, sizes=sizes)
    total = add(factors)
    dims = [total.axes.index(v) for v in gone if v in total.axes]
    expected = log_sum_exp(total.tensor, dims)
    kept = tuple(a for a in total.axes if a not in gone)
    got = contract(factors, gone)
    torch.testing.assert_close(got.aligned(kept).expand(expected.shape), expected, rtol=1e-10, atol=1e-10)
    weights = torch.where(expected.isfinite(), torch.randn_like(expected), 0.0)
    inputs = [f.tensor for f in factors]
    shown = torch.where(expected.isfinite(), expected, 0.0)
    found = torch.where(expected.isfinite(), got.aligned(kept).expand(expected.shape), 0.0)
    for a, b in zip(
        torch.autograd.grad(found, inputs, weights, allow_unused=True),
        torch.autograd.grad(shown, inputs, weights, allow_unused=True),
        strict=True,
    ):
        assert a is not None and b is not None
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("seed", range(150))
def test_the_way_back_is_the_best(seed: int) -> None:
    generator = random.Random(1000 + seed)
    axes, names, sizes = shapes(generator)
    factors = [Factor(f.axes, f.tensor.detach()) for f in tables(generator, *axes, sizes=sizes)]
    if generator.random() < 0.5:
        names.append("c")  # a variable that all the others may hang on
    tape: Tape = []
    with torch.no_grad():
        left = contract(factors, names, maximum, tape)
    chosen = backtrack(tape, lambda weights: weights.argmax(-1))
    total = add(factors)
    batch = tuple(a for a in total.axes if a not in names)
    picked = take(total, {v: chosen[v] for v in names if v in total.axes}, batch, ())
    torch.testing.assert_close(picked.expand(left.aligned(batch).shape), left.aligned(batch))
    best = total.tensor.amax([total.axes.index(v) for v in names if v in total.axes])
    torch.testing.assert_close(left.aligned(batch).expand(best.shape), best)


def hmm(length: int, k: int = 3, plate: int = 2) -> list[Factor]:
    torch.manual_seed(5)
    steps = torch.randn(k, k, dtype=torch.float64, requires_grad=True)
    first = torch.randn(k, dtype=torch.float64)
    found = [Factor(("z0",), first)]
    found += [Factor((f"z{t}", f"z{t + 1}"), steps) for t in range(length)]
    found += [Factor(("p", f"z{t}"), torch.randn(plate, k, dtype=torch.float64)) for t in range(length + 1)]
    return found


def test_a_chain_is_one_step_and_shares_its_table() -> None:
    tape: Tape = []
    found = contract(hmm(20), [f"z{t}" for t in range(21)], tape=tape)
    assert found.axes == ("p",) and found.tensor.shape == (2,)
    (step,) = tape
    assert isinstance(step, Run) and step.matrices.tensor.shape == (1, 3, 3) and len(step.variables) == 21


def test_draws_have_the_posteriors_frequencies() -> None:
    factors = [Factor(f.axes, f.tensor.detach()) for f in hmm(2)]
    names = ["z0", "z1", "z2"]
    count = 20_000
    many = [
        Factor(f.axes, f.tensor) if "p" not in f.axes else Factor(("draw", *f.axes[1:]), f.tensor[:1].expand(count, -1))
        for f in factors
    ]
    tape: Tape = []
    contract(many, names, tape=tape)
    assert all(isinstance(step, Run) for step in tape)
    torch.manual_seed(0)
    chosen = backtrack(tape, lambda w: torch.distributions.Categorical(logits=w).sample())
    code = sum(chosen[v].aligned(("draw",)) * 3**i for i, v in enumerate(reversed(names)))
    assert isinstance(code, Tensor)
    seen = torch.bincount(code, minlength=27) / count
    total = add([Factor(f.axes, f.tensor) if "p" not in f.axes else Factor(f.axes[1:], f.tensor[0]) for f in factors])
    expected = total.aligned(names).flatten().softmax(0)
    assert ((seen - expected).abs() <= 4 * (expected * (1 - expected) / count).sqrt()).all()


def test_draws_between_ends_that_others_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run between two variables that share a larger factor, with impossible steps: every draw is possible."""
    torch.manual_seed(2)
    ring = [Factor((f"v{i}", f"v{i + 1}"), torch.randn(3, 3, dtype=torch.float64)) for i in range(4)]
    ring[1].tensor[:, 0] = -torch.inf
    ring[1].tensor[2] = -torch.inf
    factors = [*ring, Factor(("v0", "v4", "w"), torch.randn(3, 3, 2, dtype=torch.float64))]
    names = [*(f"v{i}" for i in range(5)), "w"]
    tape: Tape = []
    contract(factors, names, tape=tape)
    assert any(isinstance(step, Run) for step in tape) and any(isinstance(step, Summed) for step in tape)
    total = add(factors)
    for _ in range(50):
        chosen = backtrack(tape, lambda w: torch.distributions.Categorical(logits=w).sample())
        assert take(total, chosen, (), ()).isfinite()


def test_steps_that_differ_in_kind_stay_apart() -> None:
    """Every step hangs on a variable of its own: nothing may broadcast over all of these together."""
    factors = [Factor((f"z{t}", f"z{t + 1}", f"w{t}"), torch.randn(2, 2, 2, dtype=torch.float64)) for t in range(20)]
    left = sum_runs(factors, [f"z{t}" for t in range(21)])
    assert left == factors


def test_within_plates(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = hmm(30)
    variables = {f"z{t}": frozenset({"p"}) for t in range(31)}
    wide = [Factor(("p", *f.axes), f.tensor.expand(2, *f.tensor.shape)) if "p" not in f.axes else f for f in factors]
    together = eliminate(wide, variables, frozenset({"p"}))
    one_by_one(monkeypatch)
    apart = eliminate(wide, variables, frozenset({"p"}))
    torch.testing.assert_close(together[0].tensor, apart[0].tensor, rtol=1e-12, atol=1e-12)


def test_time_grows_linearly() -> None:
    def seconds(length: int) -> float:
        factors = hmm(length)
        start = time.perf_counter()
        contract(factors, [f"z{t}" for t in range(length + 1)])
        return time.perf_counter() - start

    short, long = (min(seconds(length) for _ in range(3)) for length in (500, 5000))
    assert long < 40 * short


def test_brute_force_over_a_long_ring() -> None:
    """A ring has no end to start from, and is summed out all the same."""
    torch.manual_seed(3)
    ring = [Factor((f"v{i}", f"v{(i + 1) % 6}"), torch.randn(2, 2, dtype=torch.float64)) for i in range(6)]
    total = torch.stack(
        [
            torch.stack([f.tensor[values[i], values[(i + 1) % 6]] for i, f in enumerate(ring)]).sum()
            for values in itertools.product(range(2), repeat=6)
        ]
    )
    got = contract(ring, [f"v{i}" for i in range(6)])
    torch.testing.assert_close(got.tensor, total.logsumexp(0))
