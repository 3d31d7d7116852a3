"""Random programs: evidence, bounds, gradients, marginals, the most probable values and draws, against sums over the joint."""

from __future__ import annotations

import pytest
import torch
from random_arrangements import Arrangement, arrangement
from random_programs import LARGEST, Network, network

import ppl
from ppl import handlers
from ppl.infer import TraceEnum_ELBO, compute_marginals, infer_discrete

COUNT = 80  # of each kind
MANY = 2500  # under the marker slow
KINDS = ["plain", "sparse", "time", "guided"]
ARRANGED = ["arranged", "arranged and guided", "guided chain"]


def nothing() -> None:
    pass


def assert_same(got: torch.Tensor, expected: torch.Tensor, net: Network) -> None:
    assert torch.allclose(got, expected, rtol=1e-10, atol=1e-10), (got.item(), expected.item())
    leaves = net.leaves()
    ours = torch.autograd.grad(got, leaves, allow_unused=True) if got.requires_grad else [None] * len(leaves)
    theirs = torch.autograd.grad(expected, leaves, allow_unused=True) if expected.requires_grad else ours
    for leaf, a, b in zip(leaves, ours, theirs, strict=True):
        a, b = (torch.zeros_like(leaf) if g is None else g for g in (a, b))
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def solvable(net: Network, guide: bool = False) -> torch.Tensor | None:
    """The loss, or None where the structure is refused for a reason."""
    try:
        return TraceEnum_ELBO()(net.model, net.run_guide if guide else nothing)
    except ValueError as error:
        assert "cannot be summed out together" in str(error) and "sequential" in str(error)
        return None


def check_bound(kind: str, seed: int) -> bool:
    """Whether the program was tractable; its bound and gradients are then right."""
    net = network(seed, time=kind == "time", guided=kind == "guided", sparse=kind == "sparse")
    loss = solvable(net, kind == "guided")
    if loss is None:
        return False
    expected = net.elbo() if kind == "guided" else net.scale * net.evidence()
    if not expected.isfinite():
        assert not loss.isfinite()
        return True
    assert_same(-loss, expected, net)
    return True


def check_arrangement(kind: str, seed: int) -> bool:
    """The same for a program with a loop, a subsample, partly observed sites and supports that depend."""
    guided = "guided" in kind
    net = arrangement(seed, guided, "chain" in kind)
    expected = net.elbo() if guided else net.factor * net.evidence()
    if net.is_refused():
        assert expected == -torch.inf
        with pytest.raises(ValueError, match="must lie in the support"):
            TraceEnum_ELBO()(net.model, net.run_guide if guided else nothing)
        return True
    loss = solvable(net, guided)
    if loss is None:
        return False
    if expected.isfinite():
        assert_same(-loss, expected, net)
    else:  # more successes than any choice, or the guide's, allows
        assert loss == torch.inf
    return True


@pytest.mark.parametrize("seed", range(COUNT))
@pytest.mark.parametrize("kind", KINDS)
def test_bounds_and_gradients(kind: str, seed: int) -> None:
    if not check_bound(kind, seed):
        pytest.skip("not tractable")


@pytest.mark.parametrize("seed", range(3 * COUNT // 4))
@pytest.mark.parametrize("kind", ARRANGED)
def test_bounds_and_gradients_of_arrangements(kind: str, seed: int) -> None:
    if not check_arrangement(kind, seed):
        pytest.skip("not tractable")


def test_a_choice_does_not_depend_on_a_later_one_that_it_makes_impossible() -> None:
    """Found at random: how many values a sequential site has depends on an earlier one in fewer plates."""
    assert check_arrangement("arranged", 10_237)


def test_the_joint_of_an_arrangement_is_small_enough_to_be_written_out() -> None:
    """Seed 10,369 once had 3·10^9 states: its partly observed site was not counted."""
    assert all(arrangement(seed).count() <= LARGEST for seed in (10_369, *range(60)))


def test_the_joint_of_many_choices_that_have_one_value_can_be_summed() -> None:
    """Found at random: 96 entries, most of them of one value, are more dims than torch sums over."""
    assert check_bound("time", 10_110)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(MANY // 100))
@pytest.mark.parametrize("kind", ARRANGED)
def test_many_arrangements(kind: str, hundred: int) -> None:
    assert sum(check_arrangement(kind, 10_000 + seed) for seed in range(100 * hundred, 100 * (hundred + 1))) > 90


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(MANY // 100))
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_bounds_and_gradients(kind: str, hundred: int) -> None:
    tractable = [check_bound(kind, 10_000 + seed) for seed in range(100 * hundred, 100 * (hundred + 1))]
    assert sum(tractable) > 80


def tractable(seed: int, kind: str) -> Network:
    net = network(seed, time=kind == "time", sparse=kind == "sparse")
    if not net.latent or solvable(net) is None or not net.evidence().isfinite():
        pytest.skip("not tractable, or impossible data")
    return net


def tractable_arrangement(seed: int) -> Arrangement:
    net = arrangement(seed)
    if not net.axes() or net.is_refused() or solvable(net) is None or not net.evidence().isfinite():
        pytest.skip("not tractable, or impossible data")
    return net


FEWER = max(4, COUNT // 4)


def check_marginals(net: Network) -> None:
    marginals = compute_marginals(net.model)
    for name, cell in net.axes():
        site, sizes, place = net.locate(name, cell)
        d = marginals[site] if site in marginals else marginals[f"{site}_unobserved"]
        got = torch.stack([d.log_prob(torch.tensor(k)).exp().reshape(sizes)[place] for k in range(net.node(name).size)])
        assert torch.allclose(got.detach(), net.marginal(name, cell).detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(FEWER))
@pytest.mark.parametrize("kind", ["plain", "sparse", "time"])
def test_marginals(kind: str, seed: int) -> None:
    net = tractable(1000 + seed, kind)
    assert set(compute_marginals(net.model)) == {node.name for node in net.latent}
    check_marginals(net)


@pytest.mark.parametrize("seed", range(2 * FEWER))
def test_marginals_of_arrangements(seed: int) -> None:
    check_marginals(tractable_arrangement(1000 + seed))


def values_of(net: Network, trace: ppl.trace.Trace) -> tuple[int, ...]:
    """The values of all latent entries, in the order of the joint's axes."""
    found = [net.locate(name, cell) for name, cell in net.axes()]
    return tuple(int(trace[site].value.reshape(sizes)[place]) for site, sizes, place in found)


def check_most_probable_values(net: Network) -> None:
    trace = handlers.trace(infer_discrete(net.model, temperature=0)).get_trace()
    joint = net.joint(weigh_masked=False).detach()
    assert torch.allclose(joint[values_of(net, trace)], joint.max(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(FEWER))
@pytest.mark.parametrize("kind", ["plain", "sparse", "time"])
def test_most_probable_values(kind: str, seed: int) -> None:
    check_most_probable_values(tractable(2000 + seed, kind))


@pytest.mark.parametrize("seed", range(2 * FEWER))
def test_most_probable_values_of_arrangements(seed: int) -> None:
    check_most_probable_values(tractable_arrangement(2000 + seed))


def test_what_is_observed_counts_no_values_of_its_own() -> None:
    """Found at random: a partly observed site whose number of values depends on a site that is maximised over."""
    check_most_probable_values(arrangement(142))


def check_draws(net: Network, seed: int) -> None:
    """The frequency of each joint state, within 4.5 standard errors."""
    torch.manual_seed(seed)
    count = 1500

    def many() -> None:
        with ppl.plate("draw", count, dim=-1 - len(net.plates)):
            net.model()

    trace = handlers.trace(infer_discrete(many, temperature=1)).get_trace()
    p = net.joint().detach()
    p = (p - p.logsumexp(tuple(range(p.dim())))).exp()
    index = []
    for name, cell in net.axes():
        site, sizes, place = net.locate(name, cell)
        index.append(trace[site].value.long().reshape(count, *sizes)[(slice(None), *place)])
    frequency = torch.zeros_like(p).index_put(tuple(index), torch.ones(count), accumulate=True) / count
    error = (p * (1 - p) / count).sqrt()
    assert ((frequency - p).abs() <= 4.5 * error + 5.0 / count).all()
    assert not frequency[p == 0].any()


@pytest.mark.parametrize("seed", range(FEWER))
@pytest.mark.parametrize("kind", ["plain", "sparse", "time"])
def test_draws(kind: str, seed: int) -> None:
    check_draws(tractable(3000 + seed, kind), seed)


@pytest.mark.parametrize("seed", range(FEWER))
def test_draws_of_arrangements(seed: int) -> None:
    check_draws(tractable_arrangement(3000 + seed), seed)
