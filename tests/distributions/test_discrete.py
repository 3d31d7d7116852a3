"""Discrete families: what the table of rows cannot see."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.stats as st
import torch

import ppl.distributions as dist
from ppl.tensors.count_draws import draw_multinomial
from ppl.tensors.gauss_hermite import gauss_hermite
from ppl.tensors.live_bytes import LiveBytes


def gradient(d: Any, parameter: torch.Tensor, value: Any) -> float:
    return float(torch.autograd.grad(d.log_prob(torch.as_tensor(value)).sum(), [parameter])[0].sum())


class TestCertainty:
    """Probabilities of exactly 0 and 1."""

    @pytest.mark.parametrize("validate", [True, False])
    @pytest.mark.parametrize(
        "make, sure, never",
        [
            (lambda p, v: dist.Bernoulli(1 - p, validate_args=v), 1.0, 0.0),
            (lambda p, v: dist.Bernoulli(p, validate_args=v), 0.0, 1.0),
            (lambda p, v: dist.Bernoulli(logits=p - math.inf, validate_args=v), 0.0, 1.0),
            (lambda p, v: dist.Geometric(1 - p, validate_args=v), 0.0, 3.0),
            (lambda p, v: dist.Binomial(4, p, validate_args=v), 0.0, 3.0),
            (lambda p, v: dist.Binomial(4, 1 - p, validate_args=v), 4.0, 3.0),
            (lambda p, v: dist.Binomial(4, logits=p - math.inf, validate_args=v), 0.0, 3.0),
            (lambda p, v: dist.NegativeBinomial(4.0, p, validate_args=v), 0.0, 3.0),
            (lambda p, v: dist.Poisson(p, validate_args=v), 0.0, 3.0),
            (lambda p, v: dist.Categorical(torch.stack([p, p + 1]), validate_args=v), 1, 0),
            (lambda p, v: dist.Categorical(logits=torch.stack([p - math.inf, p]), validate_args=v), 1, 0),
        ],
    )
    def test_values_and_gradients(self, make: Any, sure: float, never: float, validate: bool) -> None:
        p = torch.zeros((), dtype=torch.float64, requires_grad=True)
        d = make(p, validate)
        assert d.log_prob(torch.tensor(sure)) == 0
        assert d.log_prob(torch.tensor(never)) == -math.inf
        values = torch.tensor([sure, never])
        # as an enumeration adds up, where what cannot happen has weight 0
        total = torch.logsumexp(d.log_prob(values), 0)
        (g,) = torch.autograd.grad(total, [p])
        assert not g.isnan()

    def test_gradient_of_the_certain_outcome(self) -> None:
        p = torch.zeros((), dtype=torch.float64, requires_grad=True)
        assert gradient(dist.Bernoulli(p), p, 0.0) == -1
        assert gradient(dist.Binomial(4, p), p, 0.0) == -4
        assert gradient(dist.Poisson(p), p, 0.0) == -1

    def test_entropy_is_zero(self) -> None:
        p = torch.tensor([0.0, 1.0])
        assert dist.Bernoulli(p).entropy().tolist() == [0.0, 0.0]
        assert dist.Categorical(torch.eye(2)).entropy().tolist() == [0.0, 0.0]
        assert dist.Binomial(3, p).entropy().tolist() == [0.0, 0.0]


class TestValues:
    def test_categories_outside_are_clamped(self) -> None:
        d = dist.Categorical(torch.tensor([0.2, 0.8]), validate_args=False)
        got = d.log_prob(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, 1e9]))
        assert got.isfinite().tolist() == [False, True, False, True, False, False]
        assert torch.equal(got[[0, 2, 4, 5]], torch.full((4,), -math.inf))

    def test_integers_and_booleans(self) -> None:
        coin = dist.Bernoulli(torch.tensor(0.3))
        for value in (torch.tensor(True), torch.tensor(1), torch.tensor(1.0)):
            assert coin.log_prob(value) == torch.tensor(0.3).log()
        for d in (dist.Poisson(3.0), dist.Binomial(9, 0.3), dist.BetaBinomial(1.0, 2.0, 9)):
            assert d.log_prob(torch.tensor(4)) == d.log_prob(torch.tensor(4.0))

    def test_bernoulli_between_is_the_cross_entropy(self) -> None:
        x, p = torch.tensor([0.25, 0.5, -0.1, 1.1]), torch.tensor(0.3)
        expected = x[:2] * p.log() + (1 - x[:2]) * (1 - p).log()
        for d in (dist.Bernoulli(p, validate_args=False), dist.Bernoulli(logits=p.logit(), validate_args=False)):
            got = d.log_prob(x)
            torch.testing.assert_close(got[:2], expected)
            assert got[2:].tolist() == [-math.inf, -math.inf]
        with pytest.raises(ValueError, match="must lie in the support"):
            dist.Bernoulli(p).log_prob(x)

    def test_bernoulli_near_its_ends(self) -> None:
        x = torch.tensor([0.0, 1.0, 1e-5, 0.9999, 0.25, 0.5, 0.75], dtype=torch.float64)
        for logit in (-700.0, -30.0, -1e-9, 0.0, 3.0, 30.0, 700.0):
            got = dist.Bernoulli(logits=torch.tensor(logit, dtype=torch.float64), validate_args=False).log_prob(x)
            p, q = 1 / (1 + mpmath.exp(-mpmath.mpf(logit))), 1 / (1 + mpmath.exp(mpmath.mpf(logit)))
            for value, found in zip(x.tolist(), got.tolist(), strict=True):
                exact = value * mpmath.log(p) + (1 - mpmath.mpf(value)) * mpmath.log(q)
                assert found == pytest.approx(float(exact), rel=1e-15 if value in (0, 1) else 1e-13)

    def test_derivatives_of_bernoulli_where_the_coin_is_fair(self) -> None:
        def score(logits: torch.Tensor) -> torch.Tensor:
            return dist.Bernoulli(logits=logits, validate_args=False).log_prob(torch.tensor([0.0, 0.25, 1.0])).sum()

        zero = torch.zeros(3)
        assert torch.func.grad(score)(zero).tolist() == [-0.5, -0.25, 0.5]
        assert torch.autograd.functional.hessian(score, zero).diagonal().tolist() == [-0.25, -0.25, -0.25]

    def test_counts_that_do_not_add_up(self) -> None:
        probs = torch.tensor([0.2, 0.8])
        for d in (
            dist.Multinomial(3, probs, validate_args=False),
            dist.DirichletMultinomial(probs, 3, validate_args=False),
        ):
            assert d.log_prob(torch.tensor([[1.0, 1.0], [2.0, 2.0], [0.5, 2.5], [-1.0, 4.0]])).eq(-math.inf).all()
            assert d.log_prob(torch.tensor([1.0, 2.0])).isfinite()

    def test_multinomial_given_the_sum_of_the_value(self) -> None:
        probs, x = torch.tensor([0.2, 0.8]), torch.tensor([[1.0, 2.0], [0.0, 5.0]])
        got = dist.Multinomial(None, probs).log_prob(x)
        expected = [dist.Multinomial(n, probs).log_prob(v) for n, v in zip((3, 5), x, strict=True)]
        torch.testing.assert_close(got, torch.stack(expected))


class TestTailsOfBetaBinomial:
    def test_against_scipy(self) -> None:
        a, b, n = ([0.3, 1.4], [2.5, 0.6], [3.0, 60.0])
        d = dist.BetaBinomial(*(torch.tensor(v, dtype=torch.float64, requires_grad=v is not n) for v in (a, b, n)))
        x = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.5, 30.0], [2.0, 59.0], [3.0, 60.0], [7.0, 70.0]]).double()
        law = st.betabinom([3, 60], a, b)
        np.testing.assert_allclose(d.cdf(x).detach(), law.cdf(x.numpy()), rtol=1e-10)
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(d.log_cdf(x).detach(), np.log(law.cdf(x.numpy())), rtol=1e-9, atol=1e-12)
        inner = x[1:-2]
        np.testing.assert_allclose(d.log_survival(inner).detach(), np.log(law.sf(inner.numpy())), rtol=1e-8)
        assert d.log_survival(x[-2:]).eq(-torch.inf).all() and d.log_survival(x[0]).eq(0.0).all()
        for tail in (d.cdf, d.log_cdf, d.log_survival):
            found = torch.autograd.grad(tail(inner).sum(), (d.concentration1, d.concentration0))
            assert all(gradient.isfinite().all() for gradient in found)

    @pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
    def test_where_the_probabilities_underflow(self, dtype: torch.dtype, rtol: float) -> None:
        d = dist.BetaBinomial(torch.tensor(3e4, dtype=dtype), torch.tensor(1e4, dtype=dtype), 2000)
        with mpmath.workdps(30):

            def mass(k: int) -> Any:
                return mpmath.binomial(2000, k) * mpmath.beta(k + 3 * 10**4, 2000 - k + 10**4)

            whole = mpmath.beta(3 * 10**4, 10**4)
            low = float(mpmath.log(sum(mass(k) for k in range(301)) / whole))
            high = float(mpmath.log(sum(mass(k) for k in range(1991, 2001)) / whole))
        assert low < -1000 and high < -300
        assert d.log_cdf(torch.tensor(300.0, dtype=dtype)).item() == pytest.approx(low, rel=rtol)
        assert d.log_survival(torch.tensor(1990.0, dtype=dtype)).item() == pytest.approx(high, rel=rtol)


class TestExtended:
    def test_negative_totals(self) -> None:
        total = torch.tensor([3.0, -3.0, -0.5, 0.0, 2.5], requires_grad=True)
        for d in (dist.ExtendedBinomial(total, 0.3), dist.ExtendedBetaBinomial(1.0, 2.0, total)):
            got = d.log_prob(torch.tensor(1.0))
            assert got.isfinite().tolist() == [True, False, False, False, True]
            (g,) = torch.autograd.grad(got[got.isfinite()].sum(), [total])
            assert not g.isnan().any() and (g[1:4] == 0).all()
            assert (d.sample()[1:4] == 0).all()
        assert dist.ExtendedBinomial(0, 0.3).log_prob(torch.tensor(0.0)) == 0

    def test_gradient_of_the_total(self) -> None:
        total = torch.tensor([1.0, 4.0, 2.5], dtype=torch.float64, requires_grad=True)
        x = torch.tensor(1.0)
        assert torch.autograd.gradcheck(lambda n: dist.ExtendedBinomial(n[1:], 0.3).log_prob(x), [total])
        # at x = n, where log(n - x) has no derivative: psi(n + 1) - psi(1) + log(1 - p)
        (g,) = torch.autograd.grad(dist.ExtendedBinomial(total, 0.3).log_prob(x)[0], [total])
        assert g[0] == pytest.approx(1 + math.log(0.7), abs=1e-6)


class TestMixtures:
    """The integral over the conjugate prior, by brute force."""

    def test_beta_binomial(self) -> None:
        x, p = torch.arange(6.0).double(), (torch.arange(20000).double() + 0.5) / 20000
        prior = torch.tensor(st.beta(2.5, 1.7).pdf(p.numpy()))
        mass = dist.Binomial(5, p).log_prob(x.unsqueeze(-1)).exp() * prior
        a, b = (torch.tensor(v, dtype=torch.float64) for v in (2.5, 1.7))
        torch.testing.assert_close(dist.BetaBinomial(a, b, 5).log_prob(x).exp(), mass.mean(-1), rtol=1e-6, atol=0)
        n = torch.tensor(4.0, dtype=torch.float64)
        mass = dist.NegativeBinomial(n, p).log_prob(x.unsqueeze(-1)).exp() * prior
        torch.testing.assert_close(
            dist.BetaNegativeBinomial(a, b, n).log_prob(x).exp(), mass.mean(-1), rtol=1e-6, atol=0
        )

    def test_gamma_poisson(self) -> None:
        x, rate = torch.arange(8.0).double(), (torch.arange(40000).double() + 0.5) / 500
        prior = torch.tensor(st.gamma(2.5, scale=1 / 0.7).pdf(rate.numpy())) / 500
        mass = (dist.Poisson(rate).log_prob(x.unsqueeze(-1)).exp() * prior).sum(-1)
        d = dist.GammaPoisson(torch.tensor(2.5, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64))
        torch.testing.assert_close(d.log_prob(x).exp(), mass, rtol=1e-5, atol=0)
        other = dist.NegativeBinomial2(d.mean, d.concentration)
        torch.testing.assert_close(other.log_prob(x), d.log_prob(x))

    def test_dirichlet_multinomial(self) -> None:
        grid = (torch.arange(600).double() + 0.5) / 600
        a, b = torch.meshgrid(grid, grid, indexing="ij")
        inside = a + b < 1
        p = torch.stack([a[inside], b[inside], 1 - a[inside] - b[inside]], -1)
        concentration = torch.tensor([2.0, 3.0, 2.5], dtype=torch.float64)
        prior = torch.tensor(st.dirichlet(concentration.numpy()).pdf(p.numpy().T)) / 600**2
        x = torch.tensor([1.0, 3.0, 2.0]).double()
        mass = (dist.Multinomial(6, p).log_prob(x).exp() * prior).sum()
        got = dist.DirichletMultinomial(concentration, 6).log_prob(x).exp()
        torch.testing.assert_close(got, mass, rtol=1e-4, atol=0)


class TestEnumeration:
    def test_the_largest_support_is_listed_where_it_differs_along_the_batch(self) -> None:
        ends = torch.tensor([[3, 2], [3, 7]])
        for d, values in (
            (dist.Binomial(torch.tensor([2, 5]), 0.3, validate_args=False), range(6)),
            (dist.BetaBinomial(1.0, 2.0, torch.tensor([2.0, 5.0]), validate_args=False), range(6)),
            (dist.DiscreteUniform(ends[0], ends[1], validate_args=False), range(2, 8)),
        ):
            assert d.has_enumerate_support
            assert d.cardinality == len(values)
            support = d.enumerate_support()
            assert support.shape == (len(values), 2)
            assert support[:, 0].tolist() == list(values)
            torch.testing.assert_close(d.log_prob(support).exp().sum(0), torch.ones(2), check_dtype=False)

    @pytest.mark.parametrize("make", [dist.Poisson, lambda x: dist.NegativeBinomial(x, 0.5), dist.Geometric])
    def test_infinite(self, make: Any) -> None:
        d = make(0.5)
        for ask in (d.enumerate_support, lambda: d.cardinality):
            with pytest.raises(ValueError, match="its support is not a finite set"):
                ask()

    def test_cardinality(self) -> None:
        coin = dist.Bernoulli(torch.full((2,), 0.3))
        assert coin.cardinality == coin.expand((3, 2)).cardinality == coin.mask(False).cardinality == 2
        assert coin.to_event(1).cardinality == 4
        assert dist.ExpandedDistribution(coin, (3, 2)).cardinality == 2
        assert dist.lift(torch.distributions.Bernoulli(0.3)).cardinality == 2
        assert dist.Binomial(5, 0.3).cardinality == 6 and dist.DiscreteUniform(-2, 4).cardinality == 7
        assert dist.Multinomial(4, torch.ones(3)).cardinality == 15
        assert dist.OrderedLogistic(0.0, torch.tensor([-1.0, 1.0])).cardinality == 3
        with pytest.raises(ValueError, match="Normal has no cardinality"):
            _ = dist.Normal(0.0, 1.0).cardinality

    def test_a_number_is_known_without_looking(self) -> None:
        p = torch.empty(3, device="meta")
        with dist.validation_enabled(False):
            assert dist.Binomial(4, p).expand((2, 3)).enumerate_support().shape == (5, 2, 3)

    def test_dtype_of_uniform_integers(self) -> None:
        assert dist.DiscreteUniform(0, torch.tensor([3, 5])).sample().dtype == torch.int64
        assert dist.DiscreteUniform(0, 5).enumerate_support().tolist() == [0, 1, 2, 3, 4, 5]


class TestSamplers:
    """Marginals of multinomials, each of which must be binomial; twenty tests at p > 1e-4."""

    @pytest.mark.parametrize("size", [1, 2, 5, 8])
    def test_multinomial_marginals(self, size: int) -> None:
        torch.manual_seed(0)
        weights = torch.rand(2, size, dtype=torch.float64)
        total = torch.tensor([3.0, 40.0], dtype=torch.float64)
        x = draw_multinomial(total.expand(5000, 2), weights)
        assert torch.equal(x.sum(-1), total.expand(5000, 2))
        probs = (weights / weights.sum(-1, keepdim=True)).numpy()
        for row in range(2):
            for k in range(size):
                n, p = int(total[row]), probs[row, k]
                observed = np.bincount(x[:, row, k].int().numpy(), minlength=n + 1)
                expected = 5000 * st.binom(n, p).pmf(np.arange(n + 1))
                rare = expected < 5
                pairs = [np.append(v[~rare], v[rare].sum()) for v in (observed, expected)]
                if pairs[1][-1] == 0:
                    pairs = [v[:-1] for v in pairs]
                assert len(pairs[0]) == 1 or st.chisquare(*pairs, sum_check=False).pvalue > 1e-4

    def test_impossible_categories_are_never_drawn(self) -> None:
        x = dist.Multinomial(1000, torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0])).sample((50,))
        assert not x[:, [0, 2, 4]].any()

    def test_tiny_concentrations(self) -> None:
        x = dist.BetaBinomial(torch.full((1000,), 1e-30), 1e-30, 5).sample()
        assert set(x.tolist()) == {0.0, 5.0}
        y = dist.DirichletMultinomial(torch.full((3,), 1e-20), 5).sample((1000,))
        assert y.max(-1).values.eq(5).all() and (y.sum(0) > 1000).all()

    def test_graphs_draw_anew(self) -> None:
        def draw(p: torch.Tensor) -> torch.Tensor:
            return torch.stack([dist.Binomial(1000, p).sample(), dist.Binomial(1000, p).sample()])

        with dist.validation_enabled(False):
            torch._dynamo.reset()
            x = torch.compile(draw, backend="aot_eager")(torch.full((5,), 0.5))
        assert not torch.equal(x[0], x[1])

    def test_vmap(self) -> None:
        p = torch.full((4, 3), 0.5)
        with dist.validation_enabled(False):
            x = torch.vmap(lambda p: dist.Binomial(1000, p).sample(), randomness="different")(p)
        assert x.shape == (4, 3) and len(x.unique()) > 4


class TestStraightThrough:
    def test_draws_are_hard_and_have_gradients(self) -> None:
        for d, parameter in (
            (lambda p: dist.RelaxedBernoulliStraightThrough(0.5, p), torch.full((500,), 0.3)),
            (lambda p: dist.RelaxedOneHotCategoricalStraightThrough(0.5, p), torch.full((500, 3), 0.3)),
        ):
            p = parameter.requires_grad_()
            x = d(p).rsample()
            assert set(x.unique().tolist()) == {0.0, 1.0}
            (g,) = torch.autograd.grad(x[..., :1].sum(), [p])
            assert g.abs().sum() > 0
            z = x.detach().requires_grad_()
            assert torch.autograd.grad(d(p).log_prob(z).sum(), [z])[0].abs().sum() > 0

    def test_one_entry_of_temperature_is_no_batch(self) -> None:
        p = torch.tensor([0.2, 0.8])
        assert dist.RelaxedOneHotCategorical(torch.tensor([0.5]), p).batch_shape == ()
        assert dist.RelaxedOneHotCategorical(torch.full((4,), 0.5), p).sample().shape == (4, 2)
        assert dist.RelaxedOneHotCategorical.infer_shapes(temperature=(1,), probs=(2,)) == ((), (2,))

    def test_low_temperatures_give_no_nan(self) -> None:
        for temperature in (0.01, 0.1, 1.0):
            for d in (
                dist.RelaxedBernoulli(temperature, torch.tensor([1e-6, 0.5])),
                dist.RelaxedOneHotCategorical(temperature, torch.tensor([1e-6, 0.5, 0.5])),
            ):
                assert d.log_prob(d.sample((500,))).isfinite().all()


@pytest.mark.parametrize("num_points", [1, 2, 8, 32, 100])
def test_gauss_hermite(num_points: int) -> None:
    z, log_weights = gauss_hermite(num_points, torch.zeros((), dtype=torch.float64))
    weights = log_weights.exp()
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-13)
    if num_points > 4:
        assert float((weights * z**8).sum()) == pytest.approx(105.0, rel=1e-12)


ERRORS: list[tuple[Any, str]] = [
    (lambda: dist.Bernoulli(), "^Bernoulli: give exactly one of 'probs' and 'logits', but neither came"),
    (lambda: dist.Categorical(torch.ones(2), torch.ones(2)), "^Categorical: give exactly one .* both came"),
    (lambda: dist.Categorical(torch.tensor(0.5)), "^Categorical: argument 'probs' needs a last dim"),
    (lambda: dist.Categorical(torch.zeros(3)), "^Categorical: argument 'probs' "),
    (lambda: dist.Categorical(logits=torch.full((3,), -math.inf)), "^Categorical: argument 'logits' "),
    (
        lambda: dist.Geometric(torch.tensor([0.5, 0.0])),
        r"^Geometric: argument 'probs' must be positive .* index \(1,\)",
    ),
    (lambda: dist.DiscreteUniform(3, 2), "^DiscreteUniform: argument 'low' must be at most 'high'"),
    (lambda: dist.Multinomial(-1, torch.ones(2)), "^Multinomial: argument 'total_count' must satisfy nonnegative_int"),
    (lambda: dist.Multinomial(torch.tensor([2, 9]), torch.ones(2), total_count_max=8), "at most total_count_max = 8"),
    (lambda: dist.OrderedLogistic(0.0, torch.tensor([1.0, 0.0])), "^OrderedLogistic: argument 'cutpoints' "),
    (lambda: dist.RelaxedOneHotCategorical(0.0, torch.ones(2)), "argument 'temperature' must satisfy positive"),
    (lambda: dist.LogNormalNegativeBinomial(1.0, 0.0, 1.0, num_quad_points=0), "num_quad_points must be at least 1"),
    (lambda: dist.Poisson.infer_shapes(rates=()), "^Poisson has no argument 'rates'; it has rate"),
]


@pytest.mark.parametrize("make, message", ERRORS)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_categories_of_shared_tables_are_read_in_place():
    """A large table that plates share: same densities and gradients, and no copy of it for each index."""
    logits = torch.randn(5, 1, 1, 100).requires_grad_()
    value = torch.randint(100, (7, 20))
    d = dist.Categorical(logits=logits).expand((5, 7, 20))
    with LiveBytes() as counted:
        found = d.log_prob(value)
        (gradient,) = torch.autograd.grad(found.square().sum(), logits)
    table = logits.log_softmax(-1).expand(5, 7, 20, 100)
    expected = table.gather(-1, value.expand(5, 7, 20)[..., None])[..., 0]
    (wanted,) = torch.autograd.grad(expected.square().sum(), logits)
    assert torch.equal(found, expected)
    torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-12)
    assert counted.peak < 5 * 7 * 20 * 100 * 8 / 5


def test_a_density_that_plates_share_is_not_repeated_for_each():
    d = dist.Categorical(torch.ones(4, 3)).expand((1000, 4))
    assert d.log_prob(torch.arange(3).reshape(3, 1, 1)).shape == (3, 1000, 4)
    assert d.log_prob(torch.arange(3).reshape(3, 1, 1)).untyped_storage().nbytes() == 3 * 4 * 8
    assert d.logits.shape == d.probs.shape == (1000, 4, 3)
