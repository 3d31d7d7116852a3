"""Random programs with a scan: evidence, gradients, marginals, the most probable values and draws, against brute force."""

from __future__ import annotations

import pytest
import torch
from random_programs import Network
from random_scans import Scanned, scanned

import ppl
from ppl import handlers
from ppl.infer import TraceEnum_ELBO, compute_marginals, infer_discrete

pytestmark = pytest.mark.usefixtures("sweeps")

COUNT = 150
MANY = 2000  # under the marker slow


def nothing() -> None:
    pass


def loss_of(program: Scanned) -> torch.Tensor | None:
    """The loss, or None where the structure is refused for a reason."""
    try:
        return TraceEnum_ELBO()(program.model, nothing)
    except ValueError as error:
        assert "cannot be summed out together" in str(error)
        return None


def check(seed: int) -> bool:
    """Whether the program was tractable; its evidence and gradients are then right."""
    program = scanned(seed)
    loss = loss_of(program)
    if loss is None:
        return False
    expected = program.scale * program.network().evidence()
    if not expected.isfinite():
        assert not loss.isfinite()
        return True
    assert torch.allclose(-loss, expected, rtol=1e-10, atol=1e-10), (-loss.item(), expected.item())
    leaves = program.leaves()
    none = [None] * len(leaves)  # where nothing is observed, and the evidence is 1 whatever the parameters are
    ours = torch.autograd.grad(-loss, leaves, allow_unused=True) if loss.requires_grad else none
    theirs = torch.autograd.grad(expected, leaves, allow_unused=True) if expected.requires_grad else none
    for leaf, a, b in zip(leaves, ours, theirs, strict=True):
        a, b = (torch.zeros_like(leaf) if g is None else g for g in (a, b))
        assert torch.allclose(a, b.nan_to_num(), rtol=1e-9, atol=1e-9)
    return True


@pytest.mark.parametrize("seed", range(COUNT))
def test_evidence_and_gradients(seed: int) -> None:
    if not check(seed):
        pytest.skip("not tractable")


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(MANY // 100))
def test_two_thousand(hundred: int) -> None:
    tractable = [check(10_000 + seed) for seed in range(100 * hundred, 100 * (hundred + 1))]
    assert sum(tractable) > 70


def tractable(seed: int) -> tuple[Scanned, Network]:
    program = scanned(seed)
    network = program.network()
    if loss_of(program) is None or not network.evidence().isfinite():
        pytest.skip("not tractable, or impossible data")
    return program, network


@pytest.mark.parametrize("seed", range(1000, 1040))
def test_marginals(seed: int) -> None:
    program, network = tractable(seed)
    marginals = compute_marginals(program.model)
    latent = {p.name for p in program.parts if p.data is None}
    assert set(marginals) == latent | ({"root"} if program.root else set())
    for part in program.parts:
        if part.data is not None:
            continue
        for t in range(program.length):
            p = marginals[part.name].probs[t]
            for cell in network.cells(network.node(f"{part.name}[{t}]")):
                expected = network.marginal(f"{part.name}[{t}]", cell)
                assert torch.allclose(p[cell], expected, rtol=0, atol=1e-10)


def values_of(program: Scanned, network: Network, trace: ppl.trace.Trace) -> tuple[int, ...]:
    """The values of all latent entries, in the order of the joint's axes."""
    found = []
    for name, cell in network.axes():
        if name == "root":
            found.append(int(trace["root"].value))
            continue
        base, t = name.removesuffix("]").split("[")
        found.append(int(trace[base].value[int(t)][cell]))
    return tuple(found)


@pytest.mark.parametrize("seed", range(2000, 2040))
def test_most_probable_values(seed: int) -> None:
    program, network = tractable(seed)
    trace = handlers.trace(infer_discrete(program.model, temperature=0)).get_trace()
    joint = network.joint().detach()
    assert torch.allclose(joint[values_of(program, network, trace)], joint.max(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(3000, 3020))
def test_draws(seed: int) -> None:
    """The frequencies of the joint states within 4.5 standard errors."""
    program, network = tractable(seed)
    torch.manual_seed(seed)
    count = 1500

    def many() -> None:
        with ppl.plate("draw", count, dim=-2):
            program.model()

    trace = handlers.trace(infer_discrete(many, temperature=1)).get_trace()
    p = network.joint().detach()
    p = (p - p.logsumexp(tuple(range(p.dim())))).exp()
    index = []
    for name, cell in network.axes():
        if name == "root":
            value = trace["root"].value
        else:
            base, t = name.removesuffix("]").split("[")
            value = trace[base].value[int(t)]
        value = value[(..., *(cell or (0,)))] if value.dim() > 1 else value
        index.append(value.reshape(-1).expand(count))
    frequency = torch.zeros_like(p).index_put(tuple(index), torch.ones(count), accumulate=True) / count
    error = (p * (1 - p) / count).sqrt()
    assert ((frequency - p).abs() <= 4.5 * error + 5.0 / count).all()
    assert not frequency[p == 0].any()
