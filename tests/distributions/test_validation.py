"""Validation: what it says, and where it is on."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.distributions import Distribution as TorchDistribution

import ppl
import ppl.distributions as dist
from ppl.distributions import constraints, validation
from ppl.distributions.validation import holds, validation_enabled
from ppl.handlers import mask, substitute, trace


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    torchs = TorchDistribution._validate_args
    yield
    dist.enable_validation(True)
    assert TorchDistribution._validate_args is torchs  # torch's own switch is never touched


BAD_ARGUMENTS: list[tuple[Callable[[], Any], str]] = [
    (lambda: dist.Normal(0.0, -1.0), r"^Normal: argument 'scale' must satisfy positive \(> 0\), but got -1\.$"),
    (
        lambda: dist.Normal(float("nan"), 1.0),
        r"^Normal: argument 'loc' must satisfy real, but got nan \(NaN: .*diverged",
    ),
    (
        lambda: dist.Normal(torch.zeros(3), torch.tensor([1.0, -2.0, 0.0])),
        r"^Normal: argument 'scale' .* got -2 at index \(1,\), 0 at index \(2,\) \(2 of 3 entries\)",
    ),
    (
        lambda: dist.Gamma(torch.ones(2, 5), torch.zeros(2, 5)),
        r"^Gamma: argument 'rate' .* got 0 at index \(0, 0\), .* and 7 more \(10 of 10 entries\)",
    ),
    (lambda: dist.LogNormal(0.0, torch.tensor([1.0, -1.0])), r"^LogNormal: argument 'scale' .* -1 at index \(1,\)"),
    (lambda: dist.Beta(1.0, -1.0), "^Beta: argument 'concentration0' "),
    (lambda: dist.StudentT(-1.0), "^StudentT: argument 'df' "),
    (lambda: dist.FisherSnedecor(1.0, -1.0), "^FisherSnedecor: argument 'df2' "),
    (lambda: dist.Gumbel(0.0, -1.0), "^Gumbel: argument 'scale' "),
    (lambda: dist.Weibull(1.0, -1.0), "^Weibull: argument 'concentration' "),
    (lambda: dist.Pareto(1.0, -1.0), "^Pareto: argument 'alpha' "),
    (lambda: dist.Kumaraswamy(1.0, -1.0), "^Kumaraswamy: argument 'concentration0' "),
    (lambda: dist.InverseGamma(1.0, -1.0), "^InverseGamma: argument 'rate' "),
    (lambda: dist.HalfNormal(-1.0), "^HalfNormal: argument 'scale' "),
    (lambda: dist.LogisticNormal(torch.zeros(2), -torch.ones(2)), "^LogisticNormal: argument 'scale' "),
    (lambda: dist.RelaxedBernoulli(torch.tensor(0.5), torch.tensor(1.5)), "^RelaxedBernoulli: argument 'probs' "),
    (lambda: dist.Bernoulli(1.5), r"^Bernoulli: argument 'probs' must satisfy unit_interval \(0 to 1\), but got 1\.5"),
    (lambda: dist.Bernoulli(logits=torch.tensor(torch.nan)), "^Bernoulli: argument 'logits' "),
    (
        lambda: dist.Categorical(torch.tensor([[0.5, 0.5], [1.5, -0.5]])),
        r"^Categorical: argument 'probs' must satisfy simplex .* got \[1\.5, -0\.5\] at index \(1,\) \(1 of 2 entries\)",
    ),
    (lambda: dist.OneHotCategorical(torch.tensor([1.5, -0.5])), "^OneHotCategorical: argument 'probs' "),
    (lambda: dist.Multinomial(3, torch.tensor([1.5, -0.5])), "^Multinomial: argument 'probs' "),
    (lambda: dist.Binomial(-1, 0.5), "^Binomial: argument 'total_count' must satisfy nonnegative_integer"),
    (lambda: dist.Dirichlet(torch.tensor([1.0, -1.0])), "^Dirichlet: argument 'concentration' "),
    (
        lambda: dist.MultivariateNormal(torch.zeros(2), -torch.eye(2)),
        r"^MultivariateNormal: argument 'covariance_matrix' must satisfy PositiveDefinite",
    ),
]


@pytest.mark.parametrize(
    ("build", "message"), BAD_ARGUMENTS, ids=[m.split(":")[0][1:] + str(i) for i, (_, m) in enumerate(BAD_ARGUMENTS)]
)
class TestArguments:
    def test_message(self, build: Callable[[], Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            build()

    def test_a_program_names_the_site(self, build: Callable[[], Any], message: str) -> None:
        with ppl.handlers.trace(), pytest.raises(ValueError, match=r"^site 'z': " + message[1:]):
            ppl.sample("z", build())

    def test_derived_distributions_wait_too(self, build: Callable[[], Any], message: str) -> None:
        mask = torch.tensor(True)
        for derive in (
            lambda: build().to_event(1),
            lambda: build().expand((3, 2)).mask(mask),
            lambda: build().expand_by((2,)),
            lambda: dist.Independent(build(), 1),
            lambda: dist.MaskedDistribution(build(), mask),
            lambda: dist.TransformedDistribution(build(), [dist.transforms.ExpTransform()]),
            lambda: dist.MixtureSameFamily(build(), dist.Normal(torch.zeros(2), 1.0)),
        ):
            with ppl.handlers.trace(), pytest.raises(ValueError, match=r"^site 'z': " + message[1:]):
                ppl.sample("z", derive())


@pytest.mark.parametrize("build", [b for b, m in BAD_ARGUMENTS if "Multivariate" not in m])
def test_nothing_is_checked_when_off(build: Callable[[], Any]) -> None:
    with dist.validation_enabled(False):
        assert isinstance(build(), dist.Distribution)


def test_using_a_badly_built_distribution_in_a_program_raises() -> None:
    with ppl.handlers.trace():
        bad = dist.Normal(0.0, -1.0)
        for use in (lambda: bad.sample(), lambda: bad.loc, lambda: bad(), lambda: bad.log_prob(torch.zeros(()))):
            with pytest.raises(ValueError, match=r"^Normal: argument 'scale'"):
                use()


BAD_VALUES: list[tuple[Callable[[], Any], torch.Tensor, str]] = [
    (
        lambda: dist.Normal(0.0, 1.0),
        torch.tensor(torch.nan),
        "^Normal: the value must lie in the support real, but got nan",
    ),
    (
        lambda: dist.Exponential(torch.ones(3)),
        torch.tensor([1.0, -1.0, 2.0]),
        r"^Exponential: .*got -1 at index \(1,\) \(1 of 3",
    ),
    (
        lambda: dist.Uniform(torch.zeros(3), torch.tensor([1.0, 3.0, 1.0])),
        torch.tensor(2.0),
        r"^Uniform: .*2 at index \(0,\), 2 at index \(2,\)",
    ),
    (
        lambda: dist.Bernoulli(0.5),
        torch.tensor([0.0, 2.0]),
        r"^Bernoulli: .*boolean \(0 or 1\), but got 2 at index \(1,\)",
    ),
    (lambda: dist.Categorical(torch.ones(3)), torch.tensor([0, 3]), r"^Categorical: .*got 3 at index \(1,\)"),
    (lambda: dist.Poisson(1.0), torch.tensor(0.5), "^Poisson: .*nonnegative_integer, but got 0.5"),
    (lambda: dist.LogNormal(0.0, 1.0), torch.tensor(-1.0), "^LogNormal: .*positive"),
    (
        lambda: dist.Dirichlet(torch.ones(2)),
        torch.tensor([[0.5, 0.5], [0.9, 0.9]]),
        r"^Dirichlet: .*simplex.*\[0\.9, 0\.9\] at index \(1,\)",
    ),
    (lambda: dist.Normal(torch.zeros(2), 1.0).to_event(1), torch.tensor([0.0, torch.nan]), "^Independent: "),
    (
        lambda: dist.Dirichlet(torch.ones(3)),
        torch.ones(2) / 2,
        r"^Dirichlet: the value's last 1 dims must be the event shape \(3,\), but the value's shape is \(2,\)",
    ),
    (lambda: dist.Dirichlet(torch.ones(3)), torch.tensor(1.0), r"^Dirichlet: the value's last 1 dims .*shape is \(\)"),
    (
        lambda: dist.Wishart(torch.tensor(3.0), torch.eye(2)),
        torch.eye(3),
        r"^Wishart: the value's last 2 dims must be the event shape \(2, 2\)",
    ),
    (
        lambda: dist.Normal(torch.zeros(3), 1.0),
        torch.zeros(2),
        r"^Normal: the value's shape \(2,\) does not broadcast with batch shape \(3,\)",
    ),
    (
        lambda: dist.Normal(0.0, 1.0),
        1.0,
        r"^Normal: a value must be a torch.Tensor, but got float; write torch.as_tensor",
    ),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("build", "value", "message"), BAD_VALUES)
def test_values(build: Callable[[], Any], value: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build().log_prob(value)


@pytest.mark.parametrize(("build", "value", "message"), BAD_VALUES[:-1])
def test_a_program_names_the_site_of_an_observation(
    build: Callable[[], Any], value: torch.Tensor, message: str
) -> None:
    with ppl.handlers.trace(), pytest.raises(ValueError, match="site 'x'"):
        ppl.sample("x", build(), obs=value)


def test_values_are_not_checked_when_off() -> None:
    with dist.validation_enabled(False):
        assert dist.Normal(0.0, 1.0).log_prob(torch.tensor(torch.nan)).isnan()
        assert dist.LogNormal(0.0, 1.0).log_prob(torch.tensor(-1.0)).item() == -torch.inf
    assert dist.Normal(0.0, 1.0, validate_args=False).log_prob(torch.tensor(torch.nan)).isnan()
    assert dist.LogNormal(0.0, 1.0, validate_args=False).log_prob(torch.tensor(-1.0)).item() == -torch.inf


def test_an_explicit_wish_wins() -> None:
    with dist.validation_enabled(False), pytest.raises(ValueError, match="Normal: argument 'scale'"):
        dist.Normal(0.0, -1.0, validate_args=True)
    with dist.validation_enabled(False), pytest.raises(ValueError, match="LogNormal: argument 'scale'"):
        dist.LogNormal(0.0, -1.0, validate_args=True)
    assert dist.Normal(0.0, -1.0, validate_args=False).scale == -1.0
    assert dist.LogNormal(0.0, -1.0, validate_args=False).scale == -1.0


def test_an_expanded_one_checks_as_before() -> None:
    for d in (dist.Exponential(1.0), dist.LogNormal(0.0, 1.0), dist.Exponential(torch.ones(1)).to_event(0)):
        with pytest.raises(ValueError, match="the value must lie"):
            d.expand((3,)).log_prob(torch.tensor(-1.0))
    with dist.validation_enabled(False):
        quiet = dist.Exponential(1.0)
    assert quiet.expand((3,)).log_prob(torch.tensor(-1.0)).shape == (3,)


def test_globally() -> None:
    dist.enable_validation(False)
    assert not dist.is_validation_enabled()
    dist.Normal(0.0, -1.0)
    with dist.validation_enabled(True), pytest.raises(ValueError, match="scale"):
        dist.Normal(0.0, -1.0)
    dist.enable_validation()
    assert dist.is_validation_enabled()


def test_blocks_nest_and_end_after_an_error() -> None:
    with pytest.raises(RuntimeError, match="inside"), dist.validation_enabled(False):
        with dist.validation_enabled(True):
            assert dist.is_validation_enabled()
        assert not dist.is_validation_enabled()
        raise RuntimeError("inside")
    assert dist.is_validation_enabled()


def test_a_block_is_of_its_thread() -> None:
    inside, checked = threading.Event(), threading.Event()
    seen: list[bool] = []

    def quiet() -> None:
        with dist.validation_enabled(False):
            inside.set()
            checked.wait(10)
            seen.append(dist.is_validation_enabled())

    thread = threading.Thread(target=quiet)
    thread.start()
    assert inside.wait(10)
    assert dist.is_validation_enabled()
    with pytest.raises(ValueError, match="scale"):
        dist.Normal(0.0, -1.0)
    checked.set()
    thread.join()
    assert seen == [False]


def test_switched_off_in_a_program_too() -> None:
    with ppl.handlers.trace(), dist.validation_enabled(False):
        assert ppl.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(torch.nan)).isnan()


@pytest.mark.parametrize(("argument", "name"), [([1.0], "list"), ("1", "str"), (None, "NoneType")])
def test_arguments_of_another_type(argument: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"Normal: arguments must be numbers or tensors, but got {name}"):
        dist.Normal(argument, 1.0)


EDGES = (math.nan, math.inf, -math.inf, -1.0, -0.0, 0.0, 1e-40, 0.5, 1.0, 1.5, 2.0, 3.0)
SUMS = (1.0, 1 + 9e-7, 1 - 9e-7, 1 + 1.1e-6, 1 - 1.1e-6, math.nan, math.inf)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize(
    "constraint",
    [
        constraints.real,
        constraints.positive,
        constraints.nonnegative,
        constraints.unit_interval,
        constraints.integer_interval(0, 2),
        constraints.boolean,
        constraints.nonnegative_integer,
    ],
    ids=str,
)
def test_the_quick_look_agrees_with_the_constraint(constraint: Any, dtype: torch.dtype) -> None:
    for first in EDGES:
        for second in EDGES:
            if not dtype.is_floating_point and not (math.isfinite(first) and math.isfinite(second)):
                continue
            for value in (torch.tensor(first).to(dtype), torch.tensor([first, second]).to(dtype)):
                assert holds(constraint, value) == bool(constraint.check(value).all()), value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_quick_look_at_a_simplex_agrees_with_the_constraint(dtype: torch.dtype) -> None:
    for total in SUMS:
        for other in SUMS:
            for low in (0.0, -1e-9, 0.2):
                value = torch.tensor([[low, total - low], [0.5, other - 0.5]], dtype=dtype)
                assert holds(constraints.simplex, value) == bool(constraints.simplex.check(value).all()), value


@pytest.mark.parametrize("build", [dist.HalfNormal, dist.HalfCauchy, dist.Exponential, lambda s: dist.LogNormal(s, s)])
def test_an_impossible_value_under_a_mask_has_no_density_and_no_gradient(build: Callable[..., Any]) -> None:
    scale = torch.tensor([1.0, 2.0]).requires_grad_()
    value = torch.tensor([0.5, -3.0])
    with trace() as record, substitute(data={"x": value}), ppl.plate("p", 2), mask(mask=torch.tensor([True, False])):
        ppl.sample("x", build(scale))
    log_prob = record.log_prob("x")
    (gradient,) = torch.autograd.grad(log_prob.sum(), scale)
    assert log_prob[1] == 0 and gradient[1] == 0 and bool(gradient.isfinite().all())
    with validation_enabled(False), trace() as record, substitute(data={"x": value}), ppl.plate("p", 2):
        ppl.sample("x", build(scale))
        assert record.log_prob("x")[1] == -math.inf


class TestLookingOnce:
    """Data are looked at once, and again when something may have changed."""

    @staticmethod
    def counted(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
        looks: list[torch.Tensor] = []

        def look(constraint: Any, value: torch.Tensor) -> bool:
            looks.append(value)
            return holds(constraint, value)

        monkeypatch.setattr(validation, "holds", look)
        return looks

    def test_the_same_tensor_and_its_views_are_looked_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looks = self.counted(monkeypatch)
        data = torch.tensor([[0, 1, 2], [2, 1, 0]])

        def model() -> None:
            for i in range(2):
                ppl.sample(f"x{i}", dist.Categorical(torch.ones(3) / 3).expand([3]), obs=data[i])

        for _ in range(3):
            trace(model).get_trace()
        assert [value is data for value in looks] == [True]

    def test_constant_arguments_are_looked_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looks = self.counted(monkeypatch)
        loc, scale = torch.zeros(3), torch.ones(3)
        for _ in range(3):
            dist.Normal(loc, scale)
        assert len(looks) == 2

    @pytest.mark.parametrize(
        "write", [lambda x: x.fill_(-1.0), lambda x: x[1:].neg_(), lambda x: x.__setitem__(2, -1.0)]
    )
    def test_a_write_is_noticed(self, write: Callable[[torch.Tensor], Any]) -> None:
        data = torch.ones(3)
        d = dist.Exponential(torch.ones(3))
        d.log_prob(data)
        view = data[2:]
        dist.Exponential(torch.ones(1)).log_prob(view)
        write(data)
        for value in (data, data[2:], view):
            with pytest.raises(ValueError, match="must lie in the support"):
                dist.Exponential(torch.ones(len(value))).log_prob(value)

    def test_a_part_of_impossible_data_may_be_possible(self) -> None:
        data = torch.tensor([1.0, -1.0])
        for _ in range(2):
            dist.Exponential(torch.ones(1)).log_prob(data[:1])
            with pytest.raises(ValueError, match="must lie in the support"):
                dist.Exponential(torch.ones(1)).log_prob(data[1:])

    def test_the_bits_of_data_read_as_another_type_are_other_data(self) -> None:
        data = torch.tensor([0x40000000_BF800000]).view(torch.float64).clone()  # 2 and a bit; its lower half is -1
        dist.Exponential(torch.ones(1)).log_prob(data)
        with pytest.raises(ValueError, match="must lie in the support"):
            dist.Exponential(torch.ones(2)).log_prob(data.view(torch.float32))

    def test_one_constraint_says_nothing_of_another(self) -> None:
        data = torch.tensor([0.5, 2.0])
        dist.Exponential(torch.ones(2)).log_prob(data)
        with pytest.raises(ValueError, match="must lie in the support"):
            dist.Beta(torch.ones(2), torch.ones(2)).log_prob(data)
        with pytest.raises(ValueError, match="must lie in the support"):
            dist.Categorical(torch.ones(2, 2)).log_prob(torch.tensor([0, 2]))

    def test_data_without_versions_are_looked_at_each_time(self) -> None:
        with torch.inference_mode():
            data = torch.ones(2)
        dist.Exponential(torch.ones(2)).log_prob(data)
        with torch.inference_mode():
            data.neg_()
        with pytest.raises(ValueError, match="must lie in the support"):
            dist.Exponential(torch.ones(2)).log_prob(data)


class TestLeastEntry:
    """Two constraints on one tensor ask for its least entry, which is looked at once while nobody writes into it."""

    def test_a_write_and_another_tensor_in_its_place_are_noticed(self) -> None:
        x = torch.tensor([0.5, 0.5], requires_grad=True)
        assert holds(constraints.simplex, x) and holds(constraints.positive, x)
        with torch.no_grad():
            x.copy_(torch.tensor([0.0, 1.0]))
        assert holds(constraints.simplex, x) and not holds(constraints.positive, x)
        for low in (0.1, -0.1) * 20:  # made and dropped, so that ids come again
            assert holds(constraints.positive, torch.tensor([low, 1.0])) is (low > 0)

    def test_it_is_looked_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looks: list[torch.Tensor] = []
        real = torch.Tensor.min
        monkeypatch.setattr(torch.Tensor, "min", lambda x, *args: looks.append(x) or real(x, *args))
        x = torch.tensor([0.5, 0.5], requires_grad=True)
        assert holds(constraints.simplex, x) and holds(constraints.positive, x) and holds(constraints.nonnegative, x)
        assert len(looks) == 1

    def test_nan_and_inference_mode(self) -> None:
        x = torch.tensor([math.nan, 1.0])
        assert not holds(constraints.positive, x) and not holds(constraints.positive, x)
        with torch.inference_mode():
            y = torch.tensor([1.0, 2.0])
            assert holds(constraints.positive, y)
            y[0] = -1.0
            assert not holds(constraints.positive, y)
