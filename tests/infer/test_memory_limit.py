"""memory_limit: random programs whose plates are worked off in slices give what they give without a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from random_programs import Network, network

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.infer import TraceEnum_ELBO, compute_marginals, config_enumerate, infer_discrete
from ppl.infer.elbo.enumerated import enumerate_program
from ppl.tensors.live_bytes import LiveBytes

KINDS = ["plain", "sparse", "time", "guided"]
ENOUGH = 10**9


def nothing() -> None:
    pass


def least(run: Callable[[int], Any]) -> int:
    """About the smallest limit with which something can be run: a quarter less is too little."""
    low, high = 0, 1
    while not fits(run, high):
        low, high = high, 2 * high
    while high - low > 1 and 3 * high > 4 * low:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(run, middle) else (middle, high)
    return high


def fits(run: Callable[[int], Any], limit: int) -> bool:
    try:
        run(limit)
    except ValueError as error:
        assert "memory_limit is" in str(error)
        return False
    return True


def tractable(kind: str, seed: int) -> Network | None:
    """A network that has something to sum out, and can be."""
    net = network(seed, time=kind == "time", guided=kind == "guided", sparse=kind == "sparse")
    try:
        loss = TraceEnum_ELBO()(net.model, net.run_guide if kind == "guided" else nothing)
    except ValueError:
        return None
    if not net.latent or not loss.isfinite():
        return None
    return net


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every use of a plan in slices."""
    import ppl.tensors.chunks as chunks

    seen: list[Any] = []
    sliced = chunks._sliced
    monkeypatch.setattr(chunks, "_sliced", lambda inside, query, c: (seen.append(c), sliced(inside, query, c))[1])
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_and_gradients(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uses = counted(monkeypatch)
    sliced = 0
    for seed in range(4000, 4010):
        uses.clear()
        check_bound(kind, seed)
        sliced += bool(uses)
    assert sliced >= 2


def check_bound(kind: str, seed: int) -> None:
    net = tractable(kind, seed)
    if net is None:
        return
    guide = net.run_guide if kind == "guided" else nothing
    leaves = net.leaves()

    def loss(limit: int | None) -> torch.Tensor:
        return TraceEnum_ELBO(memory_limit=limit)(net.model, guide)

    smallest = least(loss)
    expected = loss(None)
    wanted = torch.autograd.grad(expected, leaves, allow_unused=True)
    for limit in (smallest, 2 * smallest, ENOUGH):
        got = loss(limit)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
        for a, b in zip(torch.autograd.grad(got, leaves, allow_unused=True), wanted, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["plain", "sparse", "time"])
def test_marginals_and_most_probable_values(kind: str, seed: int) -> None:
    net = tractable(kind, 5000 + seed)
    if net is None:
        pytest.skip("nothing to sum out, not tractable, or impossible data")
    expected = compute_marginals(net.model)
    got = compute_marginals(net.model, memory_limit=least(lambda n: compute_marginals(net.model, memory_limit=n)))
    for name, d in expected.items():
        torch.testing.assert_close(got[name].probs, d.probs, rtol=0, atol=1e-10)

    def best(limit: int | None) -> ppl.trace.Trace:
        return handlers.trace(infer_discrete(net.model, temperature=0, memory_limit=limit)).get_trace()

    whole, sliced = best(None), best(least(best))
    for node in net.latent:
        assert torch.equal(whole[node.name].value, sliced[node.name].value)


@pytest.mark.parametrize(("kind", "seed"), [("plain", 0), ("plain", 2), ("time", 0), ("time", 2)])
def test_draws(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frequency of every value of every entry, within 4.5 standard errors."""
    net = tractable(kind, 6000 + seed)
    assert net is not None
    count = 1500

    def many() -> None:
        with ppl.plate("draw", count, dim=-1 - len(net.plates)):
            net.model()

    def drawn(limit: int | None) -> ppl.trace.Trace:
        torch.manual_seed(seed)
        return handlers.trace(infer_discrete(many, memory_limit=limit)).get_trace()

    whole, limited, sliced = drawn(None), drawn(ENOUGH), None
    for node in net.latent:
        assert torch.equal(whole[node.name].value, limited[node.name].value)  # the rehearsal draws no random numbers
    uses = counted(monkeypatch)
    limit = 40_000  # bytes, for 1500 draws of a network
    while not fits(drawn, limit):
        limit *= 2
    sliced = drawn(limit)
    assert uses
    for node in net.latent:
        value = sliced[node.name].value
        for cell in net.cells(node):
            place = [0] * (value.dim() - 1)
            for plate, i in zip(node.home, cell, strict=True):
                place[-1 - plate] = i
            p = net.marginal(node.name, cell).detach()
            frequency = torch.bincount(value[(slice(None), *place)].expand(count), minlength=node.size) / count
            assert ((frequency - p).abs() <= 4.5 * (p * (1 - p) / count).sqrt() + 1e-12).all()


@config_enumerate
def nested(weights: torch.Tensor, data: torch.Tensor) -> None:
    """Three choices a page that depend on each other in a ring: densities of 8² values, and products of 8³."""
    a = ppl.sample("a", dist.Categorical(torch.ones(2)))
    with ppl.plate("book", 10, dim=-1):
        b = ppl.sample("b", dist.Bernoulli(0.3 + 0.2 * a))
        with ppl.plate("page", 20, dim=-2):
            c = ppl.sample("c", dist.Categorical(weights[b.long()]))
            d = ppl.sample("d", dist.Categorical(weights[c]))
            e = ppl.sample("e", dist.Categorical(weights[d]))
            ppl.sample("x", dist.Categorical(weights[(c + 2 * e) % 8]), obs=data)


def test_bytes_of_a_whole_bound() -> None:
    """Of all that is alive in a step, a limit takes away what the elimination makes; the densities stay."""
    weights = torch.randn(8, 8).softmax(-1).requires_grad_()
    data = torch.randint(8, (20, 10))

    def held(limit: int | None) -> int:
        elbo = TraceEnum_ELBO(max_plate_nesting=2, memory_limit=limit)
        elbo(nested, nothing_of, weights, data)  # the first run checks, and plans
        with LiveBytes() as counter:
            elbo(nested, nothing_of, weights, data).backward()
        return counter.peak

    cost = ppl.explain_enumeration(nested, weights, data)
    gradients = sum(8 * f.tensor.numel() for f in enumerate_program(nested, (weights, data), {}, None).factors.values())
    free = held(None)
    for limit in (100_000, 800_000):
        assert held(limit) <= cost.program + gradients + 1.1 * limit < 0.7 * free


def nothing_of(*args: Any) -> None:
    pass


def test_what_does_not_fit_names_sites_and_plates() -> None:
    weights, data = torch.ones(8, 8), torch.zeros(20, 10, dtype=torch.long)
    with pytest.raises(ValueError, match=r"sites \['.'.*plate 'book', 'page'.*memory_limit is 50"):
        TraceEnum_ELBO(memory_limit=50)(nested, nothing_of, weights, data)
    with pytest.raises(ValueError, match=r"memory_limit is 50"):
        compute_marginals(nested, weights, data, memory_limit=50)

    @config_enumerate
    def flat() -> None:
        a = ppl.sample("a", dist.Categorical(torch.ones(9)))
        ppl.sample("x", dist.Normal(a.double(), 1.0), obs=torch.zeros(()))

    with pytest.raises(ValueError, match=r"\['a'\].*no plate.*memory_limit is 10\b"):
        TraceEnum_ELBO(memory_limit=10)(flat, nothing)


@pytest.mark.parametrize("limit", [0, -5, 2.5])
def test_a_limit_is_a_positive_number_of_bytes(limit: Any) -> None:
    for use in (TraceEnum_ELBO, infer_discrete):
        with pytest.raises(ValueError, match="positive whole number"):
            use(memory_limit=limit)
    with pytest.raises(ValueError, match="compute_marginals"):
        compute_marginals(nothing, memory_limit=limit)
