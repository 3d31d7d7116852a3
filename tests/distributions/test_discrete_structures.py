"""Spanning trees and matchings: sizes, approximations and samplers that the generic tests do not see."""

from __future__ import annotations

import itertools

import pytest
import torch

import ppl.distributions as dist
from ppl.distributions.matching import OneOneMatchingConstraint
from ppl.tensors import assignment


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check_frequencies(d: dist.Distribution, count: int) -> None:
    values = d.enumerate_support()
    probs = d.log_prob(values).exp()
    torch.manual_seed(0)
    x = d.sample((count,))
    hits = (x.unsqueeze(1) == values).flatten(2).all(-1).double().sum(0)
    assert hits.sum() == count
    assert ((hits - count * probs).abs() < 5 * (count * probs).sqrt() + 2).all()


class TestSpanningTree:
    @pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
    def test_support_and_moments(self, size: int) -> None:
        d = dist.SpanningTree(normal(size * (size - 1) // 2))
        trees = d.enumerate_support()
        assert len(trees) == size ** (size - 2) and d.support.check(trees).all()
        log_prob = d.log_prob(trees)
        torch.testing.assert_close(log_prob.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
        torch.testing.assert_close(d.entropy(), -(log_prob.exp() * log_prob).sum())
        assert torch.equal(d.mode, trees[log_prob.argmax()])
        edge_mean = torch.zeros(size, size, dtype=torch.float64)
        for tree, p in zip(trees.tolist(), log_prob.exp(), strict=True):
            for i, j in tree:
                edge_mean[i, j] += p
                edge_mean[j, i] += p
        torch.testing.assert_close(d.edge_mean, edge_mean)

    def test_sampler(self) -> None:
        check_frequencies(dist.SpanningTree(normal(10)), 20_000)

    def test_extreme_logits(self) -> None:
        # Laplacians with entries from exp(-600) to exp(600) have no accurate determinant
        logits = torch.tensor([600.0, -600.0, 0.0, 300.0, -300.0, 1.0], dtype=torch.float64, requires_grad=True)
        d = dist.SpanningTree(logits)
        weights = [sum(logits[i + j * (j - 1) // 2] for i, j in tree) for tree in d.enumerate_support().tolist()]
        torch.testing.assert_close(d.log_partition_function, torch.stack(weights).logsumexp(0))
        (gradient,) = torch.autograd.grad(d.log_partition_function, logits)
        assert gradient.isfinite().all() and gradient.sum().item() == pytest.approx(3.0)

    def test_large(self) -> None:
        d = dist.SpanningTree(torch.zeros(40 * 39 // 2, dtype=torch.float64))
        assert d.log_partition_function.item() == pytest.approx(38 * torch.tensor(40.0).double().log().item())
        x = d.sample((3,))
        assert d.support.check(x).all() and d.log_prob(x).shape == (3,)
        with pytest.raises(ValueError, match=r"too many to enumerate"):
            d.enumerate_support()

    def test_what_is_no_tree(self) -> None:
        d = dist.SpanningTree(normal(6), validate_args=False)
        bad = torch.tensor([[[0, 1], [1, 2], [0, 2]], [[0, 1], [1, 1], [2, 3]], [[0, 1], [1, 2], [3, 4]]])
        assert d.log_prob(bad).tolist() == [-torch.inf] * 3
        with pytest.raises(ValueError, match=r"V \(V - 1\) / 2"):
            dist.SpanningTree(normal(5))


class TestMatchings:
    @pytest.mark.parametrize(("cls", "capacity"), [(dist.OneOneMatching, 1), (dist.OneTwoMatching, 2)])
    def test_modes_and_samplers(self, cls: type, capacity: int) -> None:
        d = cls(normal(3 * capacity, 3))
        values = d.enumerate_support()
        assert torch.equal(d.mode(), values[d.log_prob(values).argmax()])
        check_frequencies(d, 20_000)

    def test_best_assignment(self) -> None:
        for seed in range(5):
            weights = normal(6, 6, seed=seed)
            ways = torch.tensor(list(itertools.permutations(range(6))))
            best = ways[weights[torch.arange(6), ways].sum(-1).argmax()]
            assert torch.equal(assignment.best_assignment(weights), best)

    @pytest.mark.parametrize(("cls", "capacity"), [(dist.OneOneMatching, 1), (dist.OneTwoMatching, 2)])
    def test_bethe(self, cls: type, capacity: int) -> None:
        logits = 0.3 * normal(5 * capacity, 5)
        exact = cls(logits).log_partition_function
        approximate = cls(logits, bp_iters=30).log_partition_function
        assert exact - 0.5 * 5 * capacity < approximate < exact
        big = cls(normal(30 * capacity, 30), bp_iters=10)
        assert big.log_prob(big.mode()).isfinite()

    def test_bethe_at_equal_weights(self) -> None:
        # Vontobel 2013: the Bethe permanent of ones, at marginals of 1 / N
        n = 6
        value = dist.OneOneMatching(torch.zeros(n, n).double(), bp_iters=50).log_partition_function
        p = torch.tensor(1 / n).double()
        expected = n * n * (-p * p.log() + (1 - p) * torch.log1p(-p))
        torch.testing.assert_close(value, expected)

    def test_sizes_that_are_too_big(self) -> None:
        with pytest.raises(ValueError, match="give bp_iters"):
            _ = dist.OneOneMatching(normal(30, 30)).log_partition_function
        with pytest.raises(ValueError, match="give bp_iters"):
            _ = dist.OneTwoMatching(normal(24, 12)).log_partition_function
        with pytest.raises(ValueError, match="too many to enumerate"):
            dist.OneOneMatching(normal(9, 9)).enumerate_support()
        with pytest.raises(ValueError, match="1 rows"):
            dist.OneOneMatching(normal(3, 4))

    def test_constraint(self) -> None:
        check = OneOneMatchingConstraint(3).check
        assert check(torch.tensor([[0, 1, 2], [0, 0, 2], [1, 2, 3]])).tolist() == [True, False, False]
