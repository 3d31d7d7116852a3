"""What every distribution must do, tested on each row of the table in `cases.py`."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest
import scipy.stats as st
import torch
from cases import ABSTRACT, CASES, Case
from torch.utils._python_dispatch import TorchDispatchMode

import ppl.distributions as dist

DTYPES = (torch.float64, torch.float32)


def named(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


@pytest.fixture(params=DTYPES, ids=["float64", "float32"])
def default_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def draw(case: Case, sample_shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float64) -> torch.Tensor:
    torch.manual_seed(0)
    return case.build(dtype).sample(sample_shape)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())


def test_every_exported_distribution_has_a_row() -> None:
    exported = {getattr(dist, name) for name in dist.__all__}
    classes = {c for c in exported if inspect.isclass(c) and issubclass(c, torch.distributions.Distribution)}
    assert classes - ABSTRACT == {case.cls for case in CASES}


def test_names_of_rows_differ() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@named(CASES)
class TestShapes:
    def test_sample_and_log_prob(self, case: Case) -> None:
        d = case.build()
        assert (d.batch_shape, d.event_shape) == (case.batch, case.event)
        assert d.event_dim == len(case.event)
        for sample_shape in ((), (3,), (2, 1, 4)):
            shape = sample_shape + case.batch
            assert d.shape(sample_shape) == shape + case.event
            x = d.sample(torch.Size(sample_shape))
            assert x.shape == shape + case.event
            assert not x.requires_grad
            assert d.log_prob(x).shape == shape
            if d.has_rsample:
                assert d.rsample(torch.Size(sample_shape)).shape == shape + case.event
            assert d(sample_shape).shape == shape + case.event

    def test_expand(self, case: Case) -> None:
        d = case.build()
        for batch in (case.batch, (3, *case.batch), (2, 1, *case.batch)):
            e = d.expand(torch.Size(batch))
            assert isinstance(e, dist.Distribution)
            assert (e.batch_shape, e.event_shape) == (batch, case.event)
            x = e.sample((5,))
            assert x.shape == (5, *batch, *case.event)
            assert torch.allclose(e.log_prob(x), d.log_prob(x), equal_nan=True)
            assert e.has_rsample == d.has_rsample and e.has_enumerate_support == d.has_enumerate_support
            assert e.is_discrete == d.is_discrete
            again = e.expand((7, *batch))
            assert again.sample().shape == (7, *batch, *case.event)

    def test_expand_by(self, case: Case) -> None:
        e = case.build().expand_by((4, 3))
        assert e.batch_shape == (4, 3, *case.batch)
        x = e.sample()
        assert x.shape == (4, 3, *case.batch, *case.event)
        assert e.log_prob(x).shape == e.batch_shape

    def test_to_event(self, case: Case) -> None:
        d = case.build()
        assert d.to_event(0) is d
        for n in range(1, len(case.batch) + 1):
            e, cut = d.to_event(n), len(case.batch) - n
            assert (e.batch_shape, e.event_shape) == (case.batch[:cut], case.batch[cut:] + case.event)
            x = e.sample((5,))
            assert torch.allclose(e.log_prob(x), d.log_prob(x).flatten(-n).sum(-1))
            assert bool(e.support.check(x).all())
            assert e.support.check(x).shape == (5, *case.batch[:cut])
        assert d.to_event().batch_shape == ()
        with pytest.raises(ValueError):
            d.to_event(len(case.batch) + 1)

    def test_mask(self, case: Case) -> None:
        d = case.build()
        mask = (torch.arange(3) != 1).reshape(3, *(1 for _ in case.batch))
        m = d.mask(mask)
        assert (m.batch_shape, m.event_shape) == ((3, *case.batch), case.event)
        x = m.sample((2,))
        assert x.shape == (2, 3, *case.batch, *case.event)
        full = mask.expand(m.batch_shape)
        expected = torch.where(full, d.log_prob(x), torch.zeros((), dtype=torch.float64))
        assert torch.allclose(m.log_prob(x), expected)
        assert same(d.mask(True).log_prob(x), d.log_prob(x))
        assert torch.equal(d.mask(False).log_prob(x), torch.zeros_like(expected))

    def test_empty_batch(self, case: Case) -> None:
        d = case.build().expand((0, *case.batch))
        x = d.sample((2,))
        assert x.shape == (2, 0, *case.batch, *case.event)
        assert d.log_prob(x).shape == (2, 0, *case.batch)
        assert d.mask(torch.ones(d.batch_shape, dtype=torch.bool)).log_prob(x).shape == (2, 0, *case.batch)
        assert d.to_event(1 + len(case.batch)).log_prob(x).tolist() == [0.0, 0.0]

    def test_values_broadcast(self, case: Case) -> None:
        with dist.validation_enabled(False):  # one value for all may lie outside the support of some
            d = case.build()
        x = draw(case, (3,))[(slice(None), *(0 for _ in case.batch))]
        for value in (x.reshape(3, *(1 for _ in case.batch), *case.event), x[0]):
            sample_shape = value.shape[: max(value.dim() - len(case.batch) - len(case.event), 0)]
            whole = value.expand(sample_shape + d.batch_shape + d.event_shape)
            assert same(d.log_prob(value), d.log_prob(whole))

    def test_infer_shapes(self, case: Case) -> None:
        if case.build_from is not None or case.cls is dist.LKJCholesky:
            pytest.skip("its shapes follow from other distributions, or from a number")

        class NoTensors(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                raise AssertionError(f"infer_shapes called {func}")

        shapes = {k: v.shape for k, v in case.tensors().items()}
        counts = {k: () for k in case.options if k == "total_count"}
        options = {k: v for k, v in case.options.items() if k not in counts}
        with NoTensors():
            assert case.cls.infer_shapes(**shapes, **counts, **options) == (case.batch, case.event)


@named(CASES)
class TestDensity:
    @pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
    def test_log_prob_is_the_reference(self, case: Case, dtype: torch.dtype) -> None:
        x = draw(case, (20,), dtype)
        got = case.build(dtype).log_prob(x)
        tolerance = 1e-9 if dtype == torch.float64 else 1e-4
        np.testing.assert_allclose(got.double(), case.reference(x, dtype), rtol=tolerance, atol=tolerance)

    def test_gradients_of_parameters(self, case: Case) -> None:
        tensors = {
            k: v.requires_grad_(k not in case.no_gradient) for k, v in case.tensors().items() if v.is_floating_point()
        }
        free = [k for k, v in tensors.items() if v.requires_grad]
        if not free:
            pytest.skip("log_prob is not differentiated by any parameter")
        x = draw(case, (3,))

        def log_prob(*values: torch.Tensor) -> torch.Tensor:
            params = case.tensors() | dict(zip(free, values, strict=True))
            for name in params:
                if name.endswith("_matrix"):  # finite differences must stay symmetric
                    params[name] = (params[name] + params[name].mT) / 2
            with dist.validation_enabled(False):
                d = case.of(**params)
            return d.log_prob(x)

        assert torch.autograd.gradcheck(log_prob, [tensors[k] for k in free])

    def test_gradient_of_the_value(self, case: Case) -> None:
        d = case.build()
        if d.is_discrete or not case.integrates:
            pytest.skip("no density in a free value")
        try:
            transform = dist.biject_to(d.support)
        except (NotImplementedError, ValueError):
            transform = dist.transform_to(d.support)
        u = transform.inv(draw(case, (3,))).detach().requires_grad_()

        def along_the_support(u: torch.Tensor) -> torch.Tensor:
            with dist.validation_enabled(False):
                return case.build().log_prob(transform(u))

        assert torch.autograd.gradcheck(along_the_support, [u])

    def test_score_parts(self, case: Case) -> None:
        d = case.build()
        x = d.sample((4,))
        log_prob = d.log_prob(x)
        parts = d.score_parts(x)
        assert torch.allclose(parts.log_prob, log_prob)
        pathwise, score = (log_prob, 0.0) if d.has_rsample else (0.0, log_prob)
        torch.testing.assert_close(
            torch.as_tensor(parts.entropy_term, dtype=log_prob.dtype) + 0 * log_prob, pathwise + 0 * log_prob
        )
        torch.testing.assert_close(
            torch.as_tensor(parts.score_function, dtype=log_prob.dtype) + 0 * log_prob, score + 0 * log_prob
        )

    def test_enumerate_support(self, case: Case) -> None:
        with dist.validation_enabled(case.note != "counts"):  # listed values lie outside of smaller supports
            d = case.build()
        if not d.has_enumerate_support:
            with pytest.raises((ValueError, NotImplementedError)):
                d.enumerate_support()
            return
        small, full = d.enumerate_support(expand=False), d.enumerate_support(expand=True)
        assert full.shape == (len(full), *case.batch, *case.event)
        assert torch.equal(small.expand(full.shape), full)
        if case.cls is not dist.Empirical:
            assert small.shape == (len(full), *(1 for _ in case.batch), *case.event)
        assert len(torch.unique(full, dim=0)) == len(full)
        for values in (small, full):
            log_prob = d.log_prob(values)
            assert log_prob.shape == (len(full), *case.batch)
            torch.testing.assert_close(log_prob.exp().sum(0), torch.ones(case.batch, dtype=torch.float64))

    def test_support_contains_draws(self, case: Case) -> None:
        d = case.build()
        inside = d.support.check(d.sample((50,)))
        assert bool(inside.all())
        assert d.is_discrete == d.support.is_discrete
        assert d.support.event_dim == len(case.event)


@named(CASES)
class TestObject:
    def test_has_rsample(self, case: Case) -> None:
        d = case.build()
        reparameterised = d.has_rsample
        assert d.has_rsample_(False) is d and d.has_rsample is False
        for derived in (d.expand((3, *case.batch)), d.to_event(), d.mask(True), copy.deepcopy(d)):
            assert derived.has_rsample is False
        assert not isinstance(d.score_parts(d.sample()).score_function, float) or case.note == "all"
        assert not d().requires_grad
        assert case.build().has_rsample is reparameterised  # of this object alone
        if reparameterised:
            assert d.has_rsample_(True).has_rsample is True
        elif case.cls is not dist.Unit:
            with pytest.raises(ValueError, match="no reparameterised sampler"):
                d.has_rsample_(True)

    def test_rsample_carries_gradients(self, case: Case) -> None:
        tensors = {k: v.requires_grad_() for k, v in case.tensors().items() if v.is_floating_point()}
        with dist.validation_enabled(False):
            d = case.of(**(case.tensors() | tensors))
        assert not d.sample().requires_grad
        if d.has_rsample and case.cls is not dist.Unit and not case.integers:
            assert d.rsample().requires_grad and d().requires_grad

    def test_pickle_and_deepcopy(self, case: Case) -> None:
        d = case.build()
        x = d.sample((3,))
        for twin in (pickle.loads(pickle.dumps(d)), copy.deepcopy(d), copy.copy(d)):
            assert type(twin) is type(d)
            assert (twin.batch_shape, twin.event_shape) == (case.batch, case.event)
            assert same(twin.log_prob(x), d.log_prob(x))
            assert twin.expand((2, *case.batch)).sample().shape == (2, *case.batch, *case.event)

    @pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
    def test_dtype_follows_arguments(self, case: Case, dtype: torch.dtype) -> None:
        d = case.build(dtype)
        x = d.sample((2,))
        if not case.integers:
            assert x.dtype in (dtype, torch.int64)
            assert d.log_prob(x).dtype == dtype

    def test_default_dtype_for_numbers(self, case: Case, default_dtype: torch.dtype) -> None:
        if not all(isinstance(v, float) for v in case.params.values()) or case.build_from:
            pytest.skip("not made of numbers")
        d = case.cls(**case.params, **case.options)
        x = d.sample((2,))
        assert d.batch_shape == ()
        assert x.dtype == default_dtype
        assert d.log_prob(x).dtype == default_dtype

    def test_prints(self, case: Case) -> None:
        assert type(case.build()).__name__ in repr(case.build())


class TestNormalSamplers:
    """Goodness of fit of `Normal`'s own samplers; eight tests at p > 1e-3."""

    @pytest.mark.parametrize("method", ["sample", "rsample", "__call__"])
    @pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
    def test_fits(self, method: str, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        d = dist.Normal(torch.tensor([-3.0, 2.0], dtype=dtype), torch.tensor([0.1, 4.0], dtype=dtype))
        x = getattr(d, method)((20_000,)).double().numpy()
        for i, (loc, scale) in enumerate(((-3.0, 0.1), (2.0, 4.0))):
            assert st.kstest(x[:, i], st.norm(loc, scale).cdf).pvalue > 1e-3

    def test_numbers_and_tensors_mix(self) -> None:
        for loc, scale in ((0.5, torch.ones(2)), (torch.ones(2), 2), (0, torch.ones(1))):
            loc, scale = (v.float() if isinstance(v, torch.Tensor) else v for v in (loc, scale))
            d = dist.Normal(loc, scale)
            assert d.loc.shape == d.scale.shape == d.batch_shape
            assert d.loc.dtype == d.scale.dtype == torch.float32

    def test_integers_become_floats(self) -> None:
        d = dist.Normal(torch.tensor([0, 1]), 0.5)
        assert d.loc.dtype == d.scale.dtype == torch.get_default_dtype()
        assert d.sample().shape == (2,) and d.scale.tolist() == [0.5, 0.5]

    def test_a_subclass_without_init_expands(self) -> None:
        class Mine(dist.Normal):
            """Nothing new."""

        e = Mine(0.0, 1.0).expand((3,))
        assert isinstance(e, Mine) and e.sample().shape == (3,)

    def test_a_subclass_with_its_own_init_expands_by_the_wrapper(self) -> None:
        class Mine(dist.Normal):
            def __init__(self, loc: torch.Tensor, flag: bool) -> None:
                super().__init__(loc, 1.0)
                self.flag = flag

        e = Mine(torch.zeros(2), True).expand_by((3,))
        assert e.batch_shape == (3, 2) and e.sample().shape == (3, 2)


def test_one_hot_sampler_fits() -> None:
    torch.manual_seed(0)
    probs = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    x = dist.OneHotCategorical(torch.tensor(probs)).sample((10_000,))
    assert x.sum(-1).eq(1).all()
    for counts, p in zip(x.sum(0).numpy(), probs, strict=True):
        assert st.chisquare(counts, 10_000 * p).pvalue > 1e-3


def test_wishart_sampler_fits() -> None:
    torch.manual_seed(0)
    covariance = torch.tensor([[1.3, 0.4, -0.2], [0.4, 0.9, 0.1], [-0.2, 0.1, 0.6]], dtype=torch.float64)
    df = torch.tensor(4.5, dtype=torch.float64)
    x = dist.Wishart(df, covariance).sample((20_000,))
    trace = torch.linalg.solve(covariance, x).diagonal(dim1=-2, dim2=-1).sum(-1)
    assert st.kstest(trace.numpy(), st.chi2(3 * 4.5).cdf).pvalue > 1e-3
    for i in range(3):  # x_ii / c_ii is chi-squared with df degrees of freedom
        assert st.kstest((x[:, i, i] / covariance[i, i]).numpy(), st.chi2(4.5).cdf).pvalue > 1e-3
    error = (x.mean(0) - 4.5 * covariance).abs() / (x.std(0) / 20_000**0.5)
    assert error.max() < 4  # standard errors


shapes = some.lists(some.integers(1, 3), max_size=3).map(tuple)


def _normal(batch: tuple[int, ...]) -> tuple[Any, Any]:
    loc = torch.randn(batch, dtype=torch.float64)
    scale = torch.rand(batch, dtype=torch.float64) + 0.5
    return dist.Normal(loc, scale), lambda x: st.norm(loc.numpy(), scale.numpy()).logpdf(x)


def _poisson(batch: tuple[int, ...]) -> tuple[Any, Any]:
    rate = torch.rand(batch, dtype=torch.float64) + 0.5
    return dist.Poisson(rate), lambda x: st.poisson(rate.numpy()).logpmf(x)


def _foreign(batch: tuple[int, ...]) -> tuple[Any, Any]:
    loc = torch.randn(batch, dtype=torch.float64)
    lifted = dist.lift(torch.distributions.Laplace(loc, torch.ones_like(loc)))
    return lifted, lambda x: st.laplace(loc.numpy()).logpdf(x)


def _unexpandable(batch: tuple[int, ...]) -> tuple[Any, Any]:
    d, log_density = _normal(batch)
    return dist.ExpandedDistribution(d, d.batch_shape), log_density


@hypothesis.settings(derandomize=True, max_examples=120, deadline=None)
@hypothesis.given(
    make=some.sampled_from([_normal, _poisson, _foreign, _unexpandable]),
    batch=shapes,
    sample_shape=shapes,
    chain=some.lists(
        some.tuples(some.sampled_from(["expand", "to_event", "mask"]), some.integers(0, 2), some.integers(0, 10**6)),
        max_size=5,
    ),
)
def test_chains_of_expand_to_event_and_mask(
    make: Any, batch: tuple[int, ...], sample_shape: tuple[int, ...], chain: list[tuple[str, int, int]]
) -> None:
    torch.manual_seed(0)
    d, elementwise = make(batch)
    event: tuple[int, ...] = ()
    steps: list[tuple[str, Any]] = []  # what the plain definition does, in order
    for method, count, seed in chain:
        rng = np.random.default_rng(seed)
        if method == "expand":
            grown = tuple(int(rng.integers(1, 4)) if size == 1 else size for size in batch)
            batch = tuple(int(size) for size in rng.integers(1, 3, count)) + grown
            d = d.expand(batch)
        elif method == "to_event":
            n = min(count, len(batch))
            event, batch = batch[len(batch) - n :] + event, batch[: len(batch) - n]
            d = d.to_event(n)
            steps.append(("sum", n))
        else:
            shape = tuple(size if rng.integers(2) else 1 for size in batch[min(count, len(batch)) :])
            mask = rng.integers(2, size=shape).astype(bool)
            d = d.mask(torch.tensor(mask))
            steps.append(("mask", mask))
        assert (d.batch_shape, d.event_shape) == (batch, event)
    x = d.sample(torch.Size(sample_shape))
    assert x.shape == sample_shape + batch + event == d.shape(sample_shape)
    expected = np.asarray(elementwise(x.numpy()))
    for step, how in steps:
        if step == "mask":
            expected = np.where(how, expected, 0.0)
        elif how:
            expected = expected.sum(tuple(range(-how, 0)))
    got = d.log_prob(x)
    assert got.shape == sample_shape + batch
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
    parts = d.score_parts(x)
    torch.testing.assert_close(parts.log_prob, got)
    assert bool(d.support.check(x).all())
