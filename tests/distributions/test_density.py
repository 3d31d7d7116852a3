"""Densities of each row of the table: right far out in the tails, at the ends of the parameters' ranges, at and beyond
the edges of the support, and with integral 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import CASES, Case
from quadrature import grid, is_integrable
from tails import errors, has_tails

import ppl.distributions as dist

DTYPES = (torch.float64, torch.float32)
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


def named(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


UNBATCHED = [case for case in CASES if not case.batch]
TAILS = [case for case in UNBATCHED if has_tails(case)]


def test_every_univariate_family_has_tails() -> None:
    univariate = {case.cls for case in CASES if case.event == () and case.integrates and "test_tails" not in case.skips}
    wrappers = {case.cls for case in CASES if case.build_from is not None}
    missing = {cls.__name__ for cls in univariate - wrappers - {case.cls for case in TAILS}}
    assert not missing, f"give these rows `exact`: {sorted(missing)}"


@named(TAILS)
@pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
def test_tails(case: Case, dtype: torch.dtype) -> None:
    found = errors(case, dtype)
    assert found, "no point lies inside the support"
    worst = max(found, key=lambda e: e.size)
    assert worst.size <= TOLERANCE[dtype], worst


def edges(support: Any) -> list[float]:
    """The finite ends of an interval."""
    ends = [getattr(support, name, None) for name in ("lower_bound", "upper_bound")]
    return [float(e) for e in ends if e is not None and np.isfinite(float(e))]


@named([case for case in UNBATCHED if case.event == ()])
class TestEdges:
    def test_minus_infinity_outside(self, case: Case) -> None:
        with dist.validation_enabled(False):
            d = case.build()
        ends = edges(d.support)
        tried = torch.tensor(
            [-1e6, -7.0, -1.0, -1e-3, 0.5, 1.5, 2.0, 1e6, *(e + s for e in ends for s in (-1.0, -1e-3, 1e-3, 1.0))],
            dtype=torch.float64,
        )
        outside = tried[~d.support.check(tried)]
        if not len(outside):
            pytest.skip("everything is inside")
        with dist.validation_enabled(False):
            log_prob = d.log_prob(outside)
        assert log_prob.tolist() == [-np.inf] * len(outside)
        with pytest.raises(ValueError, match="must lie in the support"):
            case.build().log_prob(outside)

    def test_gradients_outside_are_no_nan(self, case: Case) -> None:
        with dist.validation_enabled(False):
            d = case.build()
            tried = torch.tensor([-2.5, -1.0, 0.5, 1e6, *(e + s for e in edges(d.support) for s in (-1, 1))])
        tried = tried.double()
        outside = tried[~d.support.check(tried)]
        if not len(outside):
            pytest.skip("everything is inside")
        for gradient in gradients(case, outside):
            assert not gradient.isnan().any()

    def test_at_the_edges(self, case: Case) -> None:
        d = case.build()
        at = torch.tensor(edges(d.support), dtype=torch.float64)
        at = at[d.support.check(at)]
        if not len(at):
            pytest.skip("no edge belongs to the support")
        log_prob = d.log_prob(at)
        assert not log_prob.isnan().any()
        finite = at[log_prob.isfinite()]
        for x in finite:
            for gradient in gradients(case, x.reshape(1)):
                assert not gradient.isnan().any()


def gradients(case: Case, x: torch.Tensor) -> list[torch.Tensor]:
    """The gradients of the log density in the value (if continuous) and the parameters."""
    tensors = {
        k: v.requires_grad_(k not in case.no_gradient) for k, v in case.tensors().items() if v.is_floating_point()
    }
    with dist.validation_enabled(False):
        d = case.of(**(case.tensors() | tensors))
        x = x.clone().requires_grad_(not d.is_discrete)
        log_prob = d.log_prob(x)
    wanted = [v for v in (x, *tensors.values()) if v.requires_grad]
    if not log_prob.requires_grad or not wanted:
        return []
    found = torch.autograd.grad(log_prob.sum(), wanted, allow_unused=True)
    return [g for g in found if g is not None]


@named(UNBATCHED)
def test_integrates_to_one(case: Case) -> None:
    d = case.build()
    if not case.integrates or not is_integrable(d):
        pytest.skip("more than two free dims, or no bijection to the support")
    total = float(grid(d).probabilities(d).sum())
    assert total == pytest.approx(1.0, abs=1e-5)


@named(UNBATCHED)
class TestStatistics:
    """`mean`, `variance`, `entropy`, `cdf` and `icdf`, where there are any, against quadrature."""

    def quadrature(self, case: Case) -> Any:
        d = case.build()
        if not case.integrates or not is_integrable(d):
            pytest.skip("more than two free dims, or no bijection to the support")
        return d, grid(d)

    def given(self, d: Any, name: str) -> torch.Tensor:
        try:
            found = getattr(d, name)
            return found() if callable(found) else found
        except (NotImplementedError, AttributeError):
            pytest.skip(f"no {name}")

    def test_mean(self, case: Case) -> None:
        d, g = self.quadrature(case)
        mean = self.given(d, "mean")
        assert mean.shape == d.event_shape
        if not mean.isfinite().all():
            self.agree_with_law(case, "mean", mean)
            return
        torch.testing.assert_close(mean, g.expectation(d, lambda x: x.to(mean.dtype)), rtol=1e-5, atol=1e-5)

    def test_variance(self, case: Case) -> None:
        d, g = self.quadrature(case)
        variance = self.given(d, "variance")
        assert variance.shape == d.event_shape
        if not variance.isfinite().all():
            self.agree_with_law(case, "var", variance)
            return
        mean = g.expectation(d, lambda x: x.to(variance.dtype))
        expected = g.expectation(d, lambda x: (x.to(variance.dtype) - mean) ** 2)
        torch.testing.assert_close(variance, expected, rtol=1e-4, atol=1e-6)

    def agree_with_law(self, case: Case, name: str, value: torch.Tensor) -> None:
        """Where a moment does not exist, scipy must think so, too."""
        make = case.law or getattr(case.log_density, "law", None)
        assert make is not None, "an infinite or undefined moment needs a `law` that confirms it"
        law = make(**{k: np.asarray(v, dtype=float) for k, v in case.params.items()}, **case.options)
        assert not np.isfinite(getattr(law, name)())
        assert value.dim() == 0

    def test_entropy(self, case: Case) -> None:
        d, g = self.quadrature(case)
        entropy = self.given(d, "entropy")
        p = g.probabilities(d)
        log_prob = d.log_prob(g.points)
        expected = -torch.where(p > 0, p * log_prob, torch.zeros_like(p)).sum()
        torch.testing.assert_close(entropy, expected, rtol=1e-4, atol=1e-5)

    def test_cdf(self, case: Case) -> None:
        d, g = self.quadrature(case)
        if d.event_shape:
            pytest.skip("not univariate")
        kept = g.log_weights.isfinite()
        points, order = g.points[kept].sort()
        p = g.probabilities(d)[kept][order]
        try:
            cdf = d.cdf(points)
        except NotImplementedError:
            pytest.skip("no cdf")
        expected = p.cumsum(0) if d.is_discrete else p.cumsum(0) - p / 2
        torch.testing.assert_close(cdf, expected, rtol=0.0, atol=1e-9 if d.is_discrete else 2e-3)
        assert bool((cdf.diff() >= -1e-12).all())
        if not d.is_discrete:  # the density is its derivative, at draws
            torch.manual_seed(0)
            x = d.sample((30,)).requires_grad_()
            (slope,) = torch.autograd.grad(d.cdf(x).sum(), [x])
            torch.testing.assert_close(slope, d.log_prob(x).exp(), rtol=1e-5, atol=1e-7)

    def test_icdf(self, case: Case) -> None:
        d, _ = self.quadrature(case)
        if d.event_shape:
            pytest.skip("not univariate")
        q = torch.tensor([1e-9, 1e-4, 0.01, 0.2, 0.5, 0.7, 0.95, 0.999], dtype=torch.float64)
        try:
            x = d.icdf(q)
        except NotImplementedError:
            pytest.skip("no icdf")
        assert bool(d.support.check(x).all())
        if d.is_discrete:
            assert bool((d.cdf(x) >= q - 1e-12).all())
            return
        torch.testing.assert_close(d.cdf(x), q, rtol=1e-6, atol=1e-12)
