"""Chains of log matrices against loops in log space, in float64, and against brute force."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from ppl.tensors import chain as chain_module
from ppl.tensors import sweep
from ppl.tensors.chain import chain_evidence, chain_filter, chain_forward, chain_product
from ppl.tensors.chain_paths import chain_best, chain_sample

pytestmark = pytest.mark.usefixtures("sweeps")

LENGTHS = (0, 1, 2, 3, 8, 9, 60, 61)
INF = torch.inf


def loop(initial: Tensor, matrices: Tensor, emissions: Tensor | None = None) -> Tensor:
    """log weights after each step, by the definition, in float64; rows of -inf have no gradient."""
    x = matrices.double() if emissions is None else matrices.double() + emissions.double()[..., None, :]
    vector = initial.double().expand((*torch.broadcast_shapes(initial.shape[:-1], x.shape[:-3]), x.shape[-1]))
    found = [vector]
    for t in range(x.shape[-3]):
        terms = vector[..., :, None] + x[..., t, :, :]
        possible = ~(terms == -INF).all(-2)
        safe = torch.where(possible[..., None, :], terms, 0.0).logsumexp(-2)
        vector = torch.where(possible, safe, -INF)
        found.append(vector)
    return torch.stack(found, -2)


def evidence(initial: Tensor, matrices: Tensor, final: Tensor, emissions: Tensor | None = None) -> Tensor:
    last = loop(initial, matrices, emissions)[..., -1, :] + final.double()
    possible = ~(last == -INF).all(-1)
    return torch.where(possible, torch.where(possible[..., None], last, 0.0).logsumexp(-1), -INF)


def product(matrices: Tensor, emissions: Tensor | None = None) -> Tensor:
    k = matrices.shape[-1]
    unit = torch.where(torch.eye(k, dtype=torch.bool), 0.0, -INF).double()
    x = matrices if emissions is None else matrices + emissions[..., None, :]
    return loop(unit, x[..., None, :, :, :])[..., -1, :]


def some(
    length: int, k: int = 4, batch: tuple[int, ...] = (3,), dtype: torch.dtype = torch.float64, spread: float = 1.0
) -> list[Tensor]:
    torch.manual_seed(100 * length + k)
    shapes = (*batch, k), (*batch, length, k, k), (*batch, k), (*batch, length, k)
    return [(spread * torch.randn(shape, dtype=torch.float64)).to(dtype).requires_grad_() for shape in shapes]


def same_gradients(got: Tensor, expected: Tensor, inputs: list[Tensor], tolerance: float = 1e-10) -> None:
    torch.manual_seed(7)
    weights = torch.where(expected.isfinite(), torch.randn_like(expected), 0.0)
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)
    if not expected.requires_grad:
        return
    for g, w in zip(
        torch.autograd.grad(got, inputs, weights.to(got.dtype), allow_unused=True),
        torch.autograd.grad(expected, inputs, weights, allow_unused=True),
        strict=True,
    ):
        if g is None or w is None:
            assert g is None or not g.any()
            assert w is None or not w.any()
        else:
            torch.testing.assert_close(g.double(), w.double(), rtol=tolerance, atol=tolerance)


@pytest.fixture(params=["plain", "blocks"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Chains of any length go by blocks too."""
    if request.param == "blocks":
        monkeypatch.setattr(chain_module, "SHORT", 9)
    return str(request.param)


@pytest.mark.parametrize("length", LENGTHS)
def test_evidence_forward_and_product(length: int, cut: str) -> None:
    initial, matrices, final, emissions = some(length)
    same_gradients(
        chain_evidence(initial, matrices, final, emissions),
        evidence(initial, matrices, final, emissions),
        [initial, matrices, final, emissions],
    )
    same_gradients(
        chain_forward(initial, matrices), loop(initial, matrices)[..., -1, :], [initial, matrices]
    )  # cotangents of both signs
    same_gradients(chain_product(matrices, emissions), product(matrices, emissions), [matrices, emissions])
    torch.testing.assert_close(
        chain_filter(initial, matrices, emissions), loop(initial, matrices, emissions), rtol=1e-10, atol=1e-10
    )


def test_brute_force() -> None:
    initial, matrices, final, _ = some(3, 3, ())
    weights = torch.stack(
        [
            initial[a] + matrices[0, a, b] + matrices[1, b, c] + matrices[2, c, d] + final[d]
            for a, b, c, d in itertools.product(range(3), repeat=4)
        ]
    )
    torch.testing.assert_close(chain_evidence(initial, matrices, final), weights.logsumexp(0), rtol=1e-12, atol=1e-12)
    best = list(itertools.product(range(3), repeat=4))[int(weights.argmax())]
    assert tuple(chain_best(initial, matrices, final).tolist()) == best


def test_gradients_are_posteriors() -> None:
    initial, matrices, final, emissions = some(2, 3, ())
    total = chain_evidence(initial, matrices, final, emissions)
    pairs, states = torch.autograd.grad(total, [matrices, emissions])
    for j, k in itertools.product(range(3), repeat=2):
        paths = [
            initial[a] + matrices[0, a, j] + emissions[0, j] + matrices[1, j, k] + emissions[1, k] + final[k]
            for a in range(3)
        ]
        torch.testing.assert_close(pairs[1, j, k], (torch.stack(paths).logsumexp(0) - total).exp())
    torch.testing.assert_close(pairs.sum(-2), states)
    torch.testing.assert_close(pairs[1].sum(-1), states[0])


@pytest.mark.parametrize("length", [2, 20])
def test_finite_differences_once_and_twice(length: int, cut: str) -> None:
    inputs = some(length, 2, (2,))
    assert torch.autograd.gradcheck(chain_evidence, inputs)
    assert torch.autograd.gradcheck(chain_forward, inputs[:2])
    assert torch.autograd.gradcheck(chain_product, inputs[1:2])
    assert torch.autograd.gradgradcheck(chain_evidence, inputs)


@pytest.mark.parametrize("length", [1, 2, 3, 60, 61])
def test_best_paths_and_products(length: int) -> None:
    initial, matrices, final, emissions = (x.detach() for x in some(length))
    x = matrices + emissions[..., None, :]
    path = chain_best(initial, matrices, final, emissions)
    at = [initial.gather(-1, path[..., :1])[..., 0], final.gather(-1, path[..., -1:])[..., 0]]
    for t in range(length):
        row = x[:, t].gather(-2, path[:, t, None, None].expand(3, 1, 4))[:, 0]
        at.append(row.gather(-1, path[:, t + 1, None])[:, 0])
    whole = chain_product(matrices, emissions, largest=True)
    expected = (initial[..., :, None] + whole + final[..., None, :]).flatten(-2).amax(-1)
    torch.testing.assert_close(torch.stack(at).sum(0), expected)
    torch.testing.assert_close(
        chain_filter(initial, matrices, emissions, largest=True)[..., -1, :], (initial[..., :, None] + whole).amax(-2)
    )


@pytest.mark.parametrize("loops", [False, True])
def test_draws_have_the_posteriors_frequencies(loops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if loops:
        monkeypatch.setattr("ppl.tensors.chain_paths.MAPS", 0)
    initial, matrices, final, emissions = (x.detach() for x in some(2, 3, ()))
    count = 40_000
    torch.manual_seed(3)
    draws = chain_sample(initial.expand(count, 3), matrices, final, emissions)
    assert draws.shape == (count, 3)
    joint = initial[:, None, None] + (matrices[0] + emissions[0])[:, :, None] + matrices[1] + emissions[1] + final
    expected = joint.flatten().softmax(0)
    seen = torch.bincount((draws * torch.tensor([9, 3, 1])).sum(-1), minlength=27) / count
    assert ((seen - expected).abs() <= 4 * (expected * (1 - expected) / count).sqrt()).all()


def test_paths_by_maps_and_by_loops_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    initial, matrices, final, emissions = some(61)
    by_maps = chain_best(initial, matrices, final, emissions)
    monkeypatch.setattr("ppl.tensors.chain_paths.MAPS", 0)
    assert torch.equal(chain_best(initial, matrices, final, emissions), by_maps)
    assert torch.equal(
        chain_best(initial[0], matrices, final[1], emissions[2:]),
        chain_best(initial[:1], matrices, final[1:2], emissions[2]),
    )


@pytest.mark.parametrize("batch", [(), (2, 3), (0,), (2, 0)])
def test_batches(batch: tuple[int, ...], cut: str) -> None:
    inputs = some(11, 3, batch)
    same_gradients(chain_evidence(*inputs), evidence(*inputs), inputs)
    assert chain_product(inputs[1]).shape == (*batch, 3, 3)
    assert chain_sample(*inputs).shape == (*batch, 12)
    assert chain_best(*inputs).shape == (*batch, 12)


@pytest.mark.parametrize(
    ("initial", "matrices", "emissions"),
    [
        ((3,), (1, 3, 3), (5, 12, 3)),
        ((5, 3), (12, 3, 3), (5, 1, 3)),
        ((2, 1, 3), (5, 1, 3, 3), (12, 3)),
        ((3,), (2, 1, 12, 3, 3), (5, 12, 3)),
        ((2, 5, 3), (1, 1, 1, 3, 3), (12, 3)),
    ],
)
def test_what_is_shared_is_broadcast(
    initial: tuple[int, ...], matrices: tuple[int, ...], emissions: tuple[int, ...], cut: str
) -> None:
    torch.manual_seed(1)
    inputs = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in (initial, matrices, (3,), emissions)
    ]
    same_gradients(chain_evidence(*inputs), evidence(*inputs), inputs)
    same_gradients(chain_product(inputs[1], inputs[3]), product(inputs[1], inputs[3]), [inputs[1], inputs[3]])
    path = chain_best(inputs[0], inputs[1], inputs[2], inputs[3])
    assert path.shape == (*evidence(*inputs).shape, 13)


def test_one_state() -> None:
    inputs = some(9, 1)
    same_gradients(chain_evidence(*inputs), evidence(*inputs), inputs)
    assert not chain_best(*inputs).any()


@pytest.mark.parametrize("length", [1, 3, 61])
def test_impossible_steps(length: int, cut: str) -> None:
    inputs = some(length, 4)
    closed = [x.detach().clone() for x in inputs]
    closed[0][0, 1] = -INF
    closed[1][:, :, 2, :2] = -INF  # a row that is half closed
    closed[1][1, length // 2, 3] = -INF  # no way out of a state
    closed[3][2, length - 1] = -INF  # nothing possible in the whole of one chain
    closed[2][0, 2] = -INF
    inputs = [x.requires_grad_() for x in closed]
    expected = evidence(*inputs)
    assert expected.isneginf().tolist() == [False, False, True]
    same_gradients(chain_evidence(*inputs), expected, inputs)
    same_gradients(chain_product(inputs[1], inputs[3]), product(inputs[1], inputs[3]), [inputs[1], inputs[3]])
    same_gradients(chain_forward(*inputs[:2]), loop(*inputs[:2])[..., -1, :], inputs[:2])


def test_nothing_possible_anywhere() -> None:
    inputs = [torch.full_like(x, -INF).requires_grad_() for x in some(5)]
    total = chain_evidence(*inputs)
    assert total.isneginf().all()
    assert all(not g.any() for g in torch.autograd.grad(total.sum(), inputs))


def left_to_right(length: int, stay: float, go: float, k: int = 16) -> Tensor:
    matrix = torch.full((k, k), -INF, dtype=torch.float64)
    for i in range(k):
        matrix[i, i] = stay
        if i + 1 < k:
            matrix[i, i + 1] = go
    return matrix.expand(length, k, k).clone()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("go", [-2.0, -40.0, -900.0])
def test_left_to_right_chains_whose_only_path_underflows(go: float, dtype: torch.dtype) -> None:
    """From the first state to the last in 2000 steps: C(2000, 15) ways, each of 15 steps on and 1985 stays."""
    matrices = left_to_right(2000, -0.25, go).to(dtype).requires_grad_()
    ends = torch.full((2, 16), -INF, dtype=dtype)
    ends[0, 0] = ends[1, 15] = 0.0
    expected = math.lgamma(2001) - math.lgamma(16) - math.lgamma(1986) + 15 * go + 1985 * -0.25
    total = chain_evidence(ends[0], matrices, ends[1])
    tolerance = 1e-4 if dtype is torch.float32 else 1e-9
    assert abs(total.item() - expected) <= tolerance * abs(expected)
    (pairs,) = torch.autograd.grad(total, [matrices])
    stays = pairs.diagonal(dim1=-1, dim2=-2).sum(-1)
    assert abs(stays.sum().item() - 1985) < 1.0
    torch.testing.assert_close(pairs.sum((-1, -2)), torch.ones(2000, dtype=dtype), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [30.0, 1000.0])
def test_weights_far_apart(spread: float, dtype: torch.dtype, cut: str) -> None:
    inputs = some(61, 4, (3,), dtype, spread)
    tolerance = 3e-5 if dtype is torch.float32 else 1e-10
    same_gradients(chain_evidence(*inputs), evidence(*inputs), inputs, tolerance)
    same_gradients(
        chain_product(inputs[1], inputs[3]), product(inputs[1], inputs[3]), [inputs[1], inputs[3]], tolerance
    )
    torch.testing.assert_close(
        chain_filter(inputs[0], inputs[1], inputs[3]).double(),
        loop(inputs[0], inputs[1], inputs[3]),
        rtol=tolerance,
        atol=0.1 * tolerance,
    )


def test_a_state_that_looked_hopeless_is_the_only_way_on() -> None:
    """e^-2000 after the first step, and then all that is left."""
    matrices = torch.full((2, 2, 2), -INF)
    matrices[0] = torch.tensor([[0.0, -2000.0], [0.0, -INF]])
    matrices[1, 1, 0] = -3.0
    for dtype in (torch.float32, torch.float64):
        x = matrices.to(dtype).requires_grad_()
        assert chain_product(x).tolist() == [[-2003.0, -INF], [-INF, -INF]]
        total = chain_evidence(torch.zeros(2, dtype=dtype), x, torch.zeros(2, dtype=dtype))
        assert total.item() == -2003.0
        (gradient,) = torch.autograd.grad(total, [x])
        assert gradient.tolist() == [[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]]


def test_absorbing_states() -> None:
    """A chain that leaves its first state at a rate and ends in the last one: all mass is absorbed, little by little."""
    matrix = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64).log()
    got = chain_product(matrix.expand(2000, 3, 3))
    assert torch.equal(got.isneginf(), torch.ones(3, 3).tril(-1).bool())
    torch.testing.assert_close(
        got.diagonal(), torch.tensor([2000 * math.log(0.9), 2000 * math.log(0.5), 0.0], dtype=torch.float64)
    )
    assert abs(got[0, 2].item()) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_usual_chain_stays_in_real_space(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Structural zeros and emissions hundreds of e-folds apart are no reason to take logs."""

    def refuse(*_: object) -> None:
        raise AssertionError("went to log space")

    for name in ("log_forward", "log_gradients"):
        monkeypatch.setattr(chain_module, name, refuse)
    torch.manual_seed(0)
    matrix = torch.rand(16, 16, dtype=torch.float64).softmax(-1).log()
    matrix[3, 5] = matrix[:, 7] = -INF
    matrices = matrix[None].to(dtype).requires_grad_()
    emissions = (-(20 * torch.randn(3, 400, 16, dtype=torch.float64) ** 2)).to(dtype).requires_grad_()
    zeros = torch.zeros(16, dtype=dtype)
    tolerance = 1e-3 if dtype is torch.float32 else 1e-9
    same_gradients(
        chain_evidence(zeros, matrices, zeros, emissions),
        evidence(zeros, matrices, zeros, emissions),
        [matrices, emissions],
        tolerance,
    )


def test_under_transforms() -> None:
    initial, matrices, final, emissions = (x.detach() for x in some(9))
    got = torch.vmap(chain_evidence)(initial, matrices, final, emissions)
    torch.testing.assert_close(got, evidence(initial, matrices, final, emissions))
    slope = torch.func.grad(lambda x: chain_evidence(initial, x, final, emissions).sum())(matrices)
    needs = matrices.clone().requires_grad_()
    (expected,) = torch.autograd.grad(evidence(initial, needs, final, emissions).sum(), needs)
    torch.testing.assert_close(slope, expected)
    paths = torch.vmap(chain_best)(initial, matrices, final, emissions)
    assert torch.equal(paths, chain_best(initial, matrices, final, emissions))
    torch.vmap(chain_sample, randomness="different")(initial, matrices, final, emissions)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_captured_as_a_graph(mode: str) -> None:
    initial, matrices, final, emissions = (x.detach() for x in some(9))

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        needs = [x.detach().requires_grad_() for x in inputs]
        total = chain_evidence(*needs)
        paths = chain_best(*inputs)
        return total, *torch.autograd.grad(total.sum(), needs), paths, chain_product(inputs[1], inputs[3])

    graph: Callable[..., tuple[Tensor, ...]] = make_fx(run, tracing_mode=mode)(initial, matrices, final, emissions)
    hidden = matrices.clone()
    hidden[:, 4, :, 1] = -INF  # values that were not there when the graph was made
    for x in (matrices, hidden):
        for got, expected in zip(graph(initial, x, final, emissions), run(initial, x, final, emissions), strict=True):
            torch.testing.assert_close(got, expected)


def test_without_data() -> None:
    initial, matrices, final, emissions = (x.detach().to("meta") for x in some(9))
    assert chain_evidence(initial, matrices, final, emissions).shape == (3,)


def test_scales_are_taken_out_in_time() -> None:
    """Weights that shrink by far more than a float holds between two scalings need no log space."""
    assert sweep.PERIOD == 8
    x = torch.full((61, 3, 3), -30.0, dtype=torch.float64)
    emissions = torch.full((61, 3), -500.0, dtype=torch.float64)
    zeros = torch.zeros(3, dtype=torch.float64)
    torch.testing.assert_close(chain_evidence(zeros, x, zeros, emissions).item(), 62 * math.log(3.0) - 61 * 530.0)


@pytest.mark.parametrize("at", [6, 7, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_scaled_up_was_exact(at: int, dtype: torch.dtype) -> None:
    """One state's weight is lost just before the other's makes the scale small."""
    stay = torch.where(torch.eye(2, dtype=torch.bool), 0.0, -INF).to(dtype).expand(12, 2, 2)
    emissions = torch.zeros(12, 2, dtype=dtype)
    emissions[at, 0] = -740.0 if dtype == torch.float64 else -102.0
    initial = torch.tensor([0.0, -460.0 if dtype == torch.float64 else -70.0], dtype=dtype)
    final = torch.tensor([0.0, -INF], dtype=dtype)
    assert chain_evidence(initial, stay, final, emissions) == emissions[at, 0]
