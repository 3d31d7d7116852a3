"""Linear Gaussian models against the joint normal of states and observations, and against a Kalman filter in numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.integrate as si
import scipy.stats as st
import torch

import ppl
import ppl.distributions as dist

N, D = 2, 3
LENGTHS = (1, 2, 3, 7, 64)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def vector(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def spd(n: int, *batch: int) -> torch.Tensor:
    a = vector(*batch, n, n)
    return a @ a.mT + torch.eye(n, dtype=torch.float64)


def normal(n: int, *batch: int) -> dist.MultivariateNormal:
    return dist.MultivariateNormal(vector(*batch, n), spd(n, *batch))


def model(length: int, cls: Any = dist.GaussianHMM) -> Any:
    """A model whose parameters all vary in time."""
    transition = 0.6 * vector(length, N, N)
    return cls(normal(N), transition, normal(N, length), vector(length, N, D), normal(D, length), duration=length)


@dataclass
class Dense:
    """The joint normal of states and observations, each flat: means, and covariances of states and observations."""

    z: Any
    x: Any
    zz: Any
    zx: Any
    xx: Any

    def posterior(self, x: torch.Tensor) -> tuple[Any, Any]:
        gain = np.linalg.solve(self.xx, self.zx.T).T
        return self.z + gain @ (x.numpy().reshape(-1) - self.x), self.zz - gain @ self.zx.T

    def log_prob(self, x: torch.Tensor) -> float:
        return float(st.multivariate_normal(self.x, self.xx).logpdf(x.numpy().reshape(-1)))


def dense(d: Any, length: int) -> Dense:
    m = d.model.over(length)
    f, h = m.transition.numpy(), m.observation.numpy()
    at, spread = m.initial_loc.numpy(), m.initial_cov.numpy()
    z, blocks = [], np.zeros((length, N, length, N))
    for t in range(length):
        at, spread = at @ f[t] + m.transition_loc[t].numpy(), f[t].T @ spread @ f[t] + m.transition_cov[t].numpy()
        z.append(at)
        across = blocks[t, :, t] = spread
        for s in range(t + 1, length):
            across = across @ f[s]
            blocks[t, :, s], blocks[s, :, t] = across, across.T
    out = np.zeros((length, N, length, D))
    for t in range(length):
        out[t, :, t] = h[t]
    zz, out = blocks.reshape(length * N, -1), out.reshape(length * N, -1)
    xx = out.T @ zz @ out
    for t in range(length):
        xx[t * D : (t + 1) * D, t * D : (t + 1) * D] += m.observation_cov[t].numpy()
    states = np.concatenate(z)
    return Dense(states, states @ out + m.observation_loc.numpy().reshape(-1), zz, zz @ out, xx)


@pytest.mark.parametrize("length", LENGTHS)
def test_against_the_joint_normal(length: int) -> None:
    d = model(length)
    joint = dense(d, length)
    x = d.sample()
    assert d.log_prob(x).item() == pytest.approx(joint.log_prob(x), rel=1e-9)
    loc, covariance = joint.posterior(x)
    smooth, last = d.smooth(x), d.filter(x)
    np.testing.assert_allclose(smooth.mean.reshape(-1), loc, rtol=1e-7, atol=1e-8)
    blocks = covariance.reshape(length, N, length, N)
    for t in range(length):
        np.testing.assert_allclose(smooth.covariance_matrix[t], blocks[t, :, t], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(last.mean, loc[-N:], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(last.covariance_matrix, covariance[-N:, -N:], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(d.mean.reshape(-1), joint.x, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(d.variance.reshape(-1), joint.xx.diagonal(), rtol=1e-7)
    assert d.entropy().item() == pytest.approx(st.multivariate_normal(joint.x, joint.xx).entropy(), rel=1e-9)


def fits(x: Any, loc: Any, covariance: Any) -> None:
    """Moments within 4.5 standard errors, and the squared distances distributed as they should be."""
    x = np.asarray(x).reshape(len(x), -1)
    se = np.sqrt(covariance.diagonal() / len(x))
    assert (abs(x.mean(0) - loc) < 4.5 * se).all()
    error = np.sqrt((covariance**2 + np.outer(covariance.diagonal(), covariance.diagonal())) / len(x))
    assert (abs(np.cov(x.T) - covariance) < 4.5 * error).all()
    distances = ((x - loc) * np.linalg.solve(covariance, (x - loc).T).T).sum(1)
    assert st.kstest(distances, st.chi2(x.shape[1]).cdf).pvalue > 1e-4


@pytest.mark.parametrize("length", [1, 4])
def test_draws(length: int) -> None:
    d = model(length)
    joint = dense(d, length)
    fits(d.sample((20_000,)).flatten(1), joint.x, joint.xx)
    x = d.sample()
    fits(d.rsample_posterior(x, (20_000,)).flatten(1), *joint.posterior(x))


def kalman(x: Any, f: Any, q: Any, h: Any, r: Any, s0: Any) -> tuple[float, Any]:
    loc, cov, total = np.zeros(len(f)), np.diag(s0**2), 0.0
    for row in x:
        loc, cov = loc @ f, f.T @ cov @ f + np.diag(q**2)
        s = h.T @ cov @ h + np.diag(r**2)
        total += st.multivariate_normal(np.zeros(len(s)), s).logpdf(row - loc @ h)
        gain = np.linalg.solve(s, h.T @ cov).T
        loc, rest = loc + gain @ (row - loc @ h), np.eye(len(f)) - gain @ h.T
        cov = rest @ cov @ rest.T + gain @ np.diag(r**2) @ gain.T
    return float(total), loc


TREND = {"f": [[1.0, 0.0], [1.0, 1.0]], "q": [0.5, 0.01], "h": [[1.0], [0.0]], "r": [1.0], "s0": [100.0, 10.0]}
#: name -> the model, the level of the data, the tolerance in float64 and in float32
LONG = {
    "trend": (TREND, 0.0, 1e-12, 1e-5),
    "vague prior": ({**TREND, "s0": [1e6, 1e6]}, 1e5, 1e-7, 1e-3),
    "small noise": (
        {**TREND, "f": [[0.9, 0.1], [0.0, 0.5]], "q": [1.0, 1e-3], "r": [1e-2], "s0": [1.0, 1.0]},
        0.0,
        1e-12,
        1e-5,
    ),
    "nearly deterministic": ({**TREND, "q": [1e-4, 1e-6], "r": [1e-3]}, 0.0, 1e-7, 1e-4),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", LONG)
def test_two_thousand_steps_against_a_kalman_filter(name: str, dtype: torch.dtype) -> None:
    params, level, *tolerances = LONG[name]
    tolerance = tolerances[dtype == torch.float32]
    p = {k: torch.tensor(v, dtype=dtype) for k, v in params.items()}
    arrays = {k: v.double().numpy() for k, v in p.items()}
    rng = np.random.default_rng(0)
    state, x = np.zeros(2), []
    for _ in range(2000):
        state = state @ arrays["f"] + rng.normal(size=2) * arrays["q"]
        x.append(state @ arrays["h"] + rng.normal(size=1) * arrays["r"] + level)
    value = torch.tensor(np.array(x), dtype=dtype)
    d = dist.GaussianHMM(
        dist.Normal(torch.zeros_like(p["s0"]), p["s0"]).to_event(1),
        p["f"],
        dist.Normal(torch.zeros_like(p["q"]), p["q"]).to_event(1),
        p["h"],
        dist.Normal(torch.zeros_like(p["r"]), p["r"]).to_event(1),
        duration=2000,
    )
    expected, last = kalman(value.double().numpy(), **arrays)
    assert d.log_prob(value).item() == pytest.approx(expected, rel=tolerance)
    rounding = 1e-6 * abs(level) if dtype == torch.float32 else 0.0  # of the observations themselves
    np.testing.assert_allclose(d.filter(value).mean.double(), last, rtol=1e-4, atol=1e-4 + rounding)


@pytest.mark.parametrize("cls", ["whole", "entries"])
def test_observations_that_are_missing(cls: str) -> None:
    length = 5
    d = model(length)
    x = d.sample()
    scale = vector(D).exp()
    if cls == "whole":
        seen = torch.tensor([True, False, False, True, False])
        keep = seen[:, None].expand(length, D)
        noise = dist.Normal(torch.zeros(length, D, dtype=torch.float64), scale).to_event(1).mask(seen)
    else:
        keep = torch.rand(length, D) < 0.5
        noise = dist.Normal(torch.zeros(length, D, dtype=torch.float64), scale).mask(keep).to_event(1)
    parts = (d.initial_dist, d.transition_matrix, d.transition_dist, d.observation_matrix)
    masked = dist.GaussianHMM(*parts, noise)
    whole = dense(
        dist.GaussianHMM(*parts, dist.Normal(torch.zeros(length, D, dtype=torch.float64), scale).to_event(1)), length
    )
    index = keep.reshape(-1).numpy()
    part = Dense(whole.z, whole.x[index], whole.zz, whole.zx[:, index], whole.xx[np.ix_(index, index)])
    holes = torch.where(keep, x, torch.nan)
    assert masked.log_prob(holes).item() == pytest.approx(part.log_prob(x[keep]), rel=1e-10)
    loc, _ = part.posterior(x[keep])
    np.testing.assert_allclose(masked.smooth(holes).mean.reshape(-1), loc, atol=1e-10)
    with ppl.handlers.trace() as trace:
        ppl.sample("x", masked, obs=holes)
    torch.testing.assert_close(trace.log_prob_sum(), masked.log_prob(holes))
    with pytest.raises(ValueError, match="must lie in the support"):
        masked.log_prob(torch.where(keep, torch.nan, x))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(masked.log_prob(x), [x])
    assert not gradient[~keep].any() and gradient.isfinite().all()
    assert masked.sample((2,)).isfinite().all()


def test_gradients() -> None:
    x = vector(3, 1)
    leaves = [0.5 * vector(2, 2), vector(2), vector(2), vector(2, 1), vector(1)]

    def log_prob(f: Any, q: Any, s: Any, h: Any, r: Any) -> torch.Tensor:
        zero = torch.zeros_like
        d = dist.GaussianHMM(
            dist.Normal(zero(s), s.exp()).to_event(1),
            f,
            dist.Normal(zero(q), q.exp()).to_event(1),
            h,
            dist.Normal(zero(r), r.exp()).to_event(1),
            duration=3,
        )
        return d.log_prob(x) + d.smooth(x).mean.sum() + d.entropy()

    leaves = [v.requires_grad_() for v in leaves]
    assert torch.autograd.gradcheck(log_prob, leaves)
    assert torch.autograd.gradgradcheck(log_prob, leaves)


def test_posterior_draws_carry_gradients() -> None:
    d = model(4)
    x = d.sample().requires_grad_()
    torch.manual_seed(1)
    assert torch.autograd.gradcheck(lambda x: _seeded(lambda: d.rsample_posterior(x, (2,))), [x])


def _seeded(f: Any) -> Any:
    torch.manual_seed(3)
    return f()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_forecasts(count: int) -> None:
    d = model(5)
    x = d.sample()
    rest = d.prefix_condition(x[:count])
    joint = dense(d, 5)
    cut = count * D
    before = Dense(joint.z, joint.x[:cut], joint.zz, joint.zx[:, :cut], joint.xx[:cut, :cut])
    assert rest.event_shape == (5 - count, D)
    expected = joint.log_prob(x) - before.log_prob(x[:count])
    assert rest.log_prob(x[count:]).item() == pytest.approx(expected, rel=1e-9)
    batch = d.prefix_condition(x[:count].expand(7, -1, -1))
    assert batch.batch_shape == (7,) and batch.sample((2,)).shape == (2, 7, 5 - count, D)
    np.testing.assert_allclose(rest.filter(x[count:]).mean, d.filter(x).mean, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_conjugate_updates(length: int) -> None:
    d = model(length)
    for other in (
        dist.Normal(vector(length, D), vector(length, D).exp()).to_event(2),
        normal(D, length).to_event(1),
        dist.Normal(vector(4, length, D), 0.7).to_event(2),
    ):
        updated, log_normalizer = d.conjugate_update(other)
        x = vector(3, *other.batch_shape, length, D)
        assert (updated.batch_shape, updated.event_shape) == (other.batch_shape, (length, D))
        torch.testing.assert_close(
            d.log_prob(x) + other.log_prob(x), updated.log_prob(x) + log_normalizer, rtol=1e-9, atol=1e-9
        )
    open_ended, _ = homogeneous().conjugate_update(dist.Normal(vector(4, D), 1.0).to_event(2))
    assert open_ended.duration == 4
    with pytest.raises(ValueError, match="'other' must be"):
        d.conjugate_update(normal(D, length))


def test_nothing_left_to_forecast() -> None:
    d = model(3)
    with pytest.raises(ValueError, match="nothing is left"):
        d.prefix_condition(d.sample())


def homogeneous(duration: int | None = None, **more: Any) -> Any:
    matrices = torch.eye(N, dtype=torch.float64) * 0.7, torch.ones(N, D, dtype=torch.float64)
    return dist.GaussianHMM(normal(N), matrices[0], normal(N), matrices[1], normal(D), duration=duration, **more)


def test_without_a_duration() -> None:
    d = homogeneous()
    x = vector(6, D)
    assert d.duration is None and d.event_shape == (1, D)
    parts = (d.initial_dist, d.transition_matrix, d.transition_dist, d.observation_matrix, d.observation_dist)
    torch.testing.assert_close(d.log_prob(x), dist.GaussianHMM(*parts, duration=6).log_prob(x))
    torch.testing.assert_close(d.log_prob(x), d.log_prob(x[:2]) + d.prefix_condition(x[:2]).log_prob(x[2:]))
    with pytest.raises(ValueError, match="pass duration="):
        d.sample()
    with ppl.handlers.trace() as trace:
        ppl.sample("x", d, obs=x)
    torch.testing.assert_close(trace.log_prob_sum(), d.log_prob(x))
    with pytest.raises(ValueError, match="event shape"):
        d.log_prob(x[..., :2])


def test_no_steps() -> None:
    d = homogeneous(0)
    x = d.sample((4,))
    assert x.shape == (4, 0, D)
    assert d.log_prob(x).tolist() == [0.0] * 4
    torch.testing.assert_close(d.filter(x[0]).mean, d.initial_dist.mean)


@pytest.mark.parametrize(
    ("position", "argument", "match"),
    [
        (0, lambda: dist.Normal(0.0, 1.0), "'initial_dist' must be a normal vector"),
        (0, lambda: normal(3), r"'initial_dist' must have event shape \(2,\)"),
        (1, lambda: vector(2, 3), r"'transition_matrix' must have event shape \(2, 2\)"),
        (1, lambda: vector(2), "'transition_matrix' must be a matrix"),
        (2, lambda: dist.StudentT(3.0, vector(2), 1.0).to_event(1), "'transition_dist' must be a normal vector"),
        (4, lambda: normal(2), r"'observation_dist' must have event shape \(3,\)"),
        (4, lambda: normal(3, 4), "do not broadcast"),
    ],
)
def test_bad_arguments(position: int, argument: Any, match: str) -> None:
    arguments: list[Any] = [normal(N), vector(6, N, N), normal(N), vector(N, D), normal(D)]
    arguments[position] = argument()
    with pytest.raises(ValueError, match=match):
        dist.GaussianHMM(*arguments)


class TestUnknownScale:
    """`GammaGaussianHMM` against the integral over the scale of a `GaussianHMM`."""

    def at(self, length: int = 3) -> Any:
        gamma = dist.Gamma(torch.tensor(2.5, dtype=torch.float64), torch.tensor(1.4, dtype=torch.float64))
        d = model(length, lambda *args, **kwargs: dist.GammaGaussianHMM(gamma, *args, **kwargs))
        return d, d.sample()

    def given(self, d: Any, s: float) -> dist.GaussianHMM:
        def shrunk(normal: Any) -> dist.MultivariateNormal:
            return dist.MultivariateNormal(normal.loc, normal.covariance_matrix / s)

        return dist.GaussianHMM(
            shrunk(d.initial_dist),
            d.transition_matrix,
            shrunk(d.transition_dist),
            d.observation_matrix,
            shrunk(d.observation_dist),
        )

    def integral(self, d: Any, x: torch.Tensor, f: Any) -> float:
        prior = st.gamma(2.5, scale=1 / 1.4)
        value, _ = si.quad(
            lambda s: f(s) * prior.pdf(s) * self.given(d, s).log_prob(x).exp().item(), 0, np.inf, epsrel=1e-10, epsabs=0
        )
        return value

    def test_density_and_filter(self) -> None:
        d, x = self.at()
        total = self.integral(d, x, lambda s: 1.0)
        assert d.log_prob(x).item() == pytest.approx(np.log(total), rel=1e-9)
        scale, state = d.filter(x)
        assert scale.mean.item() == pytest.approx(self.integral(d, x, lambda s: s) / total, rel=1e-8)
        given = self.given(d, 1.7).filter(x)
        torch.testing.assert_close(given.mean, state.mean)
        torch.testing.assert_close(given.covariance_matrix, state.covariance_matrix / 1.7)

    def test_forecast(self) -> None:
        d, x = self.at(4)
        rest = d.prefix_condition(x[:3])
        without = dist.GammaGaussianHMM(
            d.scale_dist,
            d.initial_dist,
            d.transition_matrix[:3],
            dist.MultivariateNormal(d.transition_dist.loc[:3], d.transition_dist.covariance_matrix[:3]),
            d.observation_matrix[:3],
            dist.MultivariateNormal(d.observation_dist.loc[:3], d.observation_dist.covariance_matrix[:3]),
        )
        torch.testing.assert_close(rest.log_prob(x[3:]), d.log_prob(x) - without.log_prob(x[:3]))

    def test_draws(self) -> None:
        d, _ = self.at()
        x = d.sample((20_000,))
        joint = dense(d, 3)
        off = x.numpy().reshape(len(x), -1) - joint.x
        # the squared distance, by its number of dims, is F distributed for a multivariate t
        distances = (off * np.linalg.solve(joint.xx * 1.4 / 2.5, off.T).T).sum(1) / off.shape[1]
        assert st.kstest(distances, st.f(off.shape[1], 2 * 2.5).cdf).pvalue > 1e-4
        assert (abs(x.mean(0) - d.mean) < 4.5 * x.std(0) / len(x) ** 0.5).all()

    def test_a_scale_that_is_no_gamma(self) -> None:
        with pytest.raises(ValueError, match="'scale_dist' must be a Gamma"):
            model(2, lambda *args, **kwargs: dist.GammaGaussianHMM(dist.LogNormal(0.0, 1.0), *args, **kwargs))


class TestFactors:
    """`GaussianMRF` beyond its row."""

    def test_states_given_observations(self) -> None:
        d = dist.GaussianMRF(normal(N), normal(2 * N, 4), normal(N + D, 4))
        x = d.sample()
        precision, info = np.zeros((5 * N, 5 * N)), np.zeros(5 * N)

        def add(factor: Any, where: slice, seen: Any = None) -> None:
            p, loc = np.linalg.inv(factor.covariance_matrix.numpy()), factor.loc.numpy()
            k = where.stop - where.start
            off = (loc[k:] - seen) if seen is not None else loc[k:]
            precision[where, where] += p[:k, :k]
            info[where] += p[:k, :k] @ loc[:k] + p[:k, k:] @ off

        add(d.initial_dist, slice(0, N))
        for t in range(4):
            pair = dist.MultivariateNormal(d.transition_dist.loc[t], d.transition_dist.covariance_matrix[t])
            add(pair, slice(t * N, (t + 2) * N))
            both = dist.MultivariateNormal(d.observation_dist.loc[t], d.observation_dist.covariance_matrix[t])
            add(both, slice((t + 1) * N, (t + 2) * N), x[t].numpy())
        loc = np.linalg.solve(precision, info)
        np.testing.assert_allclose(d.smooth(x).mean.reshape(-1), loc[N:], rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(d.filter(x).mean, loc[-N:], rtol=1e-8, atol=1e-9)
        covariance = np.linalg.inv(precision)[N:, N:]
        fits(d.rsample_posterior(x, (20_000,)).flatten(1), loc[N:], covariance)
        forecast = d.prefix_condition(x[:2])
        torch.testing.assert_close(forecast.filter(x[2:]).mean, d.filter(x).mean)

    def test_of_any_length(self) -> None:
        d = dist.GaussianMRF(normal(N), normal(2 * N), normal(N + D))
        x = vector(6, D)
        torch.testing.assert_close(
            d.log_prob(x),
            dist.GaussianMRF(d.initial_dist, d.transition_dist, d.observation_dist, duration=6).log_prob(x),
        )

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="'transition_dist' must have event shape"):
            dist.GaussianMRF(normal(N), normal(N), normal(N + D))
        with pytest.raises(ValueError, match="'observation_dist' must have an event larger"):
            dist.GaussianMRF(normal(N), normal(2 * N), normal(N))


class TestAnyNoise:
    """`LinearHMM` where the noise is not normal, and `IndependentHMM`."""

    def heavy(self, observation: Any) -> dist.LinearHMM:
        start, matrix = dist.Normal(torch.zeros(N), 1.0).to_event(1), 0.8 * torch.eye(N)
        noise = dist.StudentT(5.0, torch.zeros(N), 0.3).to_event(1)
        return dist.LinearHMM(start, matrix, noise, torch.ones(N, 1), observation, duration=4)

    def test_draws(self) -> None:
        d = self.heavy(dist.Laplace(torch.ones(1), 0.5).to_event(1))
        x = d.rsample((40_000,))
        assert d.has_rsample and x.shape == (40_000, 4, 1)
        variance = 1.0
        for t in range(4):
            variance = 0.64 * variance + 0.09 * 5 / 3
            total = 2 * variance + 2 * 0.25
            assert abs(x[:, t].mean() - 1.0) < 4.5 * (total / len(x)) ** 0.5
            assert x[:, t].var().item() == pytest.approx(total, rel=0.05)

    def test_there_is_no_density(self) -> None:
        d = self.heavy(dist.Normal(torch.zeros(1), 0.5).to_event(1))
        with pytest.raises(NotImplementedError, match=r"only where .* are normal.*'transition_dist'"):
            d.log_prob(d.sample())

    def test_transforms_apply_to_the_whole_observation(self) -> None:
        for observation in (
            dist.LogNormal(torch.zeros(1), 0.5).to_event(1),
            dist.TransformedDistribution(dist.Normal(torch.zeros(1), 0.5).to_event(1), dist.transforms.ExpTransform()),
        ):
            d = self.heavy(observation)
            assert d.support.check(d.sample()) and not d.support.check(-d.sample())
            assert d.sample((1000,)).log().mean().abs() < 1.0

    def test_an_observation_without_rsample(self) -> None:
        d = self.heavy(dist.Poisson(torch.ones(1)).to_event(1))
        assert not d.has_rsample and d.sample().shape == (4, 1)

    def test_side_by_side(self) -> None:
        base = model(4).expand((3,))
        one = dist.GaussianHMM(
            base.initial_dist,
            base.transition_matrix,
            base.transition_dist,
            base.observation_matrix[..., :1],
            dist.Normal(vector(3, 4, 1), 1.0).to_event(1),
        )
        d = dist.IndependentHMM(one)
        x = d.sample()
        assert (d.batch_shape, d.event_shape, d.duration) == ((), (4, 3), 4)
        forecast = d.prefix_condition(x[:2])
        torch.testing.assert_close(
            forecast.log_prob(x[2:]), one.prefix_condition(x[:2].mT[..., None]).log_prob(x[2:].mT[..., None]).sum()
        )
        with pytest.raises(ValueError, match="must have batch shape"):
            dist.IndependentHMM(model(4))
