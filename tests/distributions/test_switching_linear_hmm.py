"""Switching linear Gaussian models against sums over all paths of regimes of dense normals."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.special as sp
import scipy.stats as st
import torch
from rows_switching import path_moments, paths
from torch import Tensor

import ppl.distributions as dist

N, D = 2, 2


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def vector(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def spd(n: int, *batch: int) -> Tensor:
    a = vector(*batch, n, n)
    return a @ a.mT + 0.5 * torch.eye(n, dtype=torch.float64)


def normal(n: int, *batch: int) -> dist.MultivariateNormal:
    return dist.MultivariateNormal(vector(*batch, n), spd(n, *batch))


def model(length: int, size: int, exact: bool = True, **changed: Any) -> dist.SwitchingLinearHMM:
    """Parameters that vary by step and regime, the initial state by regime."""
    params: dict[str, Any] = {
        "initial_logits": vector(size),
        "initial_mvn": normal(N, size),
        "transition_logits": vector(length, size, size),
        "transition_matrix": 0.6 * vector(length, size, N, N),
        "transition_mvn": normal(N, length, size),
        "observation_matrix": vector(length, size, N, D),
        "observation_mvn": normal(D, length, size),
    }
    return dist.SwitchingLinearHMM(**{**params, **changed}, exact=exact, duration=length)


def twin(d: dist.SwitchingLinearHMM, exact: bool) -> dist.SwitchingLinearHMM:
    """The same model, exact or not."""
    return dist.SwitchingLinearHMM(
        d.initial_logits,
        d.initial_mvn,
        d.transition_logits,
        d.transition_matrix,
        d.transition_mvn,
        d.observation_matrix,
        d.observation_mvn,
        exact=exact,
        duration=d.duration,
    )


def steps_of(d: dist.SwitchingLinearHMM) -> list[Any]:
    """Matrices, means and covariances by step and regime, as `path_moments` takes them."""
    batch = d.event_shape[0], d.num_regimes
    z, x = d.transition_mvn, d.observation_mvn
    parts = {d.transition_matrix: 2, z.loc: 1, z.covariance_matrix: 2, d.observation_matrix: 2, x.loc: 1}
    parts[x.covariance_matrix] = 2
    return [p.expand((*batch, *p.shape[p.dim() - events :])).numpy() for p, events in parts.items()]


def start_of(d: dist.SwitchingLinearHMM, k: int) -> tuple[Any, Any]:
    start = d.initial_mvn.expand((d.num_regimes,))
    return start.loc[k].numpy(), start.covariance_matrix[k].numpy()


def components(d: dist.SwitchingLinearHMM) -> Any:
    """Each path z_0 … z_T, its log probability, and the mean and covariance of all observations on it."""
    parts, length = steps_of(d), d.event_shape[0]
    chain = d.transition_logits.expand((length, -1, -1)).numpy()
    for z, weight in paths(d.initial_logits.numpy(), chain, length):
        yield z, weight, *path_moments(z[1:], *start_of(d, z[0]), *parts)


def brute_force(d: dist.SwitchingLinearHMM, x: Tensor) -> dict[tuple[int, ...], float]:
    """The log density of each path together with the observations."""
    flat = x.numpy().reshape(-1)
    return {z: w + st.multivariate_normal(m, c).logpdf(flat) for z, w, m, c in components(d)}


def total(d: dist.SwitchingLinearHMM, x: Tensor) -> float:
    return float(sp.logsumexp(list(brute_force(d, x).values())))


SIZES = [(1, 1), (1, 3), (2, 2), (3, 3), (4, 3), (6, 2)]


@pytest.mark.parametrize(("length", "size"), SIZES)
@pytest.mark.parametrize("shared", [True, False])
def test_exact_density(length: int, size: int, shared: bool) -> None:
    d = model(length, size, **({"initial_mvn": normal(N)} if shared else {}))
    x = d.sample()
    assert d.log_prob(x).item() == pytest.approx(total(d, x), rel=1e-10)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_merging_is_exact_where_nothing_differs(length: int) -> None:
    alike = {
        "initial_mvn": normal(N),
        "transition_matrix": vector(length, 1, N, N),
        "transition_mvn": normal(N, length, 1),
        "observation_matrix": vector(N, D),
        "observation_mvn": normal(D),
    }
    short: dict[int, list[dict[str, Any]]] = {1: [{}], 2: [{"initial_mvn": normal(N)}]}
    models = [model(length, 1, False), model(length, 3, False, **alike)]
    models += [model(length, 3, False, **changed) for changed in short.get(length, [])]
    for d in models:
        x = d.sample()
        assert d.log_prob(x).item() == pytest.approx(total(d, x), rel=1e-10)
        assert twin(d, True).log_prob(x).item() == pytest.approx(d.log_prob(x).item(), rel=1e-10)


def blended(pull: float) -> dist.SwitchingLinearHMM:
    """Regimes that differ by a share of what random ones do."""

    def closer(x: Tensor, dim: int) -> Tensor:
        return x.mean(dim, keepdim=True) + pull * (x - x.mean(dim, keepdim=True))

    def both(d: dist.MultivariateNormal) -> dist.MultivariateNormal:
        return dist.MultivariateNormal(closer(d.loc, -2), closer(d.covariance_matrix, -3))

    d = model(5, 2)
    return dist.SwitchingLinearHMM(
        d.initial_logits,
        both(d.initial_mvn),
        d.transition_logits,
        closer(d.transition_matrix, -3),
        both(d.transition_mvn),
        closer(d.observation_matrix, -3),
        both(d.observation_mvn),
        exact=True,
    )


@pytest.mark.parametrize(("pull", "median", "largest"), [(1.0, 5e-3, 0.5), (0.3, 5e-4, 0.1), (0.1, 5e-5, 0.01)])
def test_merging_is_close_elsewhere(pull: float, median: float, largest: float) -> None:
    """The error of log densities of five steps, over 100 random models."""
    errors = []
    for _ in range(100):
        d = blended(pull)
        x = d.sample()
        errors.append((d.log_prob(x) - twin(d, False).log_prob(x)).abs().item())
    assert np.median(errors) < median and max(errors) < largest


def last_state(d: dist.SwitchingLinearHMM, z: tuple[int, ...], x: Any) -> tuple[Any, Any]:
    """Mean and covariance of the last state on a path, by the plain recursion."""
    loc, cov = start_of(d, z[0])
    f, b, q, h, a, r = steps_of(d)
    for t, k in enumerate(z[1:]):
        loc, cov = loc @ f[t, k] + b[t, k], f[t, k].T @ cov @ f[t, k] + q[t, k]
        gain = np.linalg.solve(h[t, k].T @ cov @ h[t, k] + r[t, k], h[t, k].T @ cov).T
        loc, cov = loc + gain @ (x[t] - loc @ h[t, k] - a[t, k]), cov - gain @ h[t, k].T @ cov
    return loc, cov


@pytest.mark.parametrize("shared", [True, False])
def test_regimes_and_last_state_given_observations(shared: bool) -> None:
    length, size = 3, 3
    d = model(length, size, **({"initial_mvn": normal(N)} if shared else {}))
    x = d.sample()
    regime, state = d.filter(x)
    assert (regime.batch_shape, state.batch_shape, state.event_shape) == ((), (size,), (N,))
    logs = brute_force(d, x)
    whole = total(d, x)
    for t, found in enumerate(d.smooth(x).probs):
        expected = [np.exp(sp.logsumexp([v for z, v in logs.items() if z[t + 1] == k]) - whole) for k in range(size)]
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(regime.probs, expected, rtol=1e-9)
    for k in range(size):
        parts = [(weight, *last_state(d, z, x.numpy())) for z, weight in logs.items() if z[-1] == k]
        share = sp.softmax([weight for weight, _, _ in parts])
        mean = sum(s * m for s, (_, m, _) in zip(share, parts, strict=True))
        cov = sum(s * (c + np.outer(m - mean, m - mean)) for s, (_, m, c) in zip(share, parts, strict=True))
        np.testing.assert_allclose(state.loc[k], mean, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(state.covariance_matrix[k], cov, rtol=1e-8, atol=1e-9)


def test_smoothing_where_the_states_tell_nothing() -> None:
    """Without dynamics the model is a DiscreteHMM of independent observations, and merging loses nothing."""
    size, length = 3, 7
    chain, loc = vector(length, size, size), vector(size, D)
    noise = 0.8 * torch.eye(D, dtype=torch.float64)
    d = dist.SwitchingLinearHMM(
        vector(size),
        normal(N),
        chain,
        torch.zeros(N, N, dtype=torch.float64),
        dist.MultivariateNormal(torch.zeros(N, dtype=torch.float64), 0.3 * torch.eye(N, dtype=torch.float64)),
        torch.eye(N, dtype=torch.float64),
        dist.MultivariateNormal(loc, noise),
    )
    flat = dist.DiscreteHMM(
        d.initial_logits, chain, dist.MultivariateNormal(loc, noise + 0.3 * torch.eye(D, dtype=torch.float64))
    )
    x = d.sample((2,))
    torch.testing.assert_close(d.log_prob(x), flat.log_prob(x), rtol=1e-10, atol=0.0)
    torch.testing.assert_close(d.smooth(x).probs, flat.smooth(x).probs, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(d.filter(x)[0].probs, flat.filter(x).probs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_a_known_path_over_many_steps(dtype: torch.dtype, rtol: float) -> None:
    """Where the chain can take one path only, what is left is a GaussianHMM; everything stays finite."""
    length, size = 200, 2
    path = torch.randint(size, (length,))
    chain = torch.full((length, size, size), -torch.inf, dtype=torch.float64)
    chain[torch.arange(length), :, path] = 0.0
    d = model(length, size, exact=False, transition_logits=chain, transition_matrix=0.4 * vector(1, size, N, N))
    at = torch.arange(length), path
    plain = dist.GaussianHMM(
        dist.MultivariateNormal(*_first(d)),
        d.transition_matrix[0][path],
        dist.MultivariateNormal(d.transition_mvn.loc[at], d.transition_mvn.covariance_matrix[at]),
        d.observation_matrix[at],
        dist.MultivariateNormal(d.observation_mvn.loc[at], d.observation_mvn.covariance_matrix[at]),
    )
    start = torch.tensor([0.0, -torch.inf], dtype=torch.float64)
    cast = {
        "initial_logits": start,
        "initial_mvn": d.initial_mvn,
        "transition_logits": chain,
        "transition_matrix": d.transition_matrix,
        "transition_mvn": d.transition_mvn,
        "observation_matrix": d.observation_matrix,
        "observation_mvn": d.observation_mvn,
    }
    leaves: list[Tensor] = []

    def of(v: Any) -> Any:
        if isinstance(v, Tensor):
            leaves.append(v.to(dtype).clone().requires_grad_())
            return leaves[-1]
        return dist.MultivariateNormal(of(v.loc), of(v.covariance_matrix))

    switching_model = dist.SwitchingLinearHMM(**{k: of(v) for k, v in cast.items()})
    x = plain.sample()
    found = switching_model.log_prob(x.to(dtype))
    assert found.item() == pytest.approx(plain.log_prob(x).item(), rel=rtol)
    for gradient in torch.autograd.grad(found, leaves):
        assert gradient.isfinite().all()
    assert switching_model.smooth(x.to(dtype)).probs.argmax(-1).equal(path)
    assert switching_model.sample_path((3,)).regimes.eq(path).all()
    regime, state = switching_model.filter(x.to(dtype))
    assert regime.probs[path[-1]] == 1.0 and regime.logits[1 - path[-1]] == -torch.inf
    torch.testing.assert_close(state.loc[path[-1]].double(), plain.filter(x).mean, rtol=10 * rtol, atol=10 * rtol)


def _first(d: dist.SwitchingLinearHMM) -> tuple[Tensor, Tensor]:
    return d.initial_mvn.loc[0], d.initial_mvn.covariance_matrix[0]


def test_draws() -> None:
    length, size = 3, 2
    d = model(length, size)
    parts = list(components(d))
    weights = np.exp([w for _, w, _, _ in parts])
    mean = sum(w * m for w, (_, _, m, _) in zip(weights, parts, strict=True))
    off = [m - mean for _, _, m, _ in parts]
    cov = sum(w * (c + np.outer(o, o)) for w, (_, _, _, c), o in zip(weights, parts, off, strict=True))
    np.testing.assert_allclose(d.mean.reshape(-1), mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(d.variance.reshape(-1), cov.diagonal(), rtol=1e-9)
    count = 40_000
    z, states, x = d.sample_path((count,))
    assert (z.shape, states.shape, x.shape) == ((count, length), (count, length, N), (count, length, D))
    flat = x.reshape(count, -1).numpy()
    assert (abs(flat.mean(0) - mean) < 4 * np.sqrt(cov.diagonal() / count)).all()
    spread = (flat - mean)[:, :, None] * (flat - mean)[:, None]
    assert (abs(spread.mean(0) - cov) < 4.5 * spread.std(0) / count**0.5).all()
    for path in itertools.product(range(size), repeat=length):
        chosen = (z == torch.tensor(path)).all(-1)
        p = sum(w for w, (full, _, _, _) in zip(weights, parts, strict=True) if full[1:] == path)
        assert abs(chosen.double().mean() - p) < 4 * (p * (1 - p) / count) ** 0.5
        # and the sequences drawn on the path are those of its normal
        share = [w for w, (full, _, _, _) in zip(weights, parts, strict=True) if full[1:] == path]
        means = [m for full, _, m, _ in parts if full[1:] == path]
        inside = flat[chosen.numpy()]
        expected = sum(s * m for s, m in zip(share, means, strict=True)) / p
        assert (abs(inside.mean(0) - expected) < 4.5 * inside.std(0) / len(inside) ** 0.5).all()
    noise = x - (states[..., None, :] @ d.observation_matrix[torch.arange(length), z]).squeeze(-2)
    noise = noise - d.observation_mvn.loc[torch.arange(length), z]
    steps = [noise[:, t][z[:, t] == k] for t in range(length) for k in range(size)]
    for part, expected in zip(steps, d.observation_mvn.covariance_matrix.flatten(0, 1), strict=True):
        assert st.kstest((part[:, 0] / expected[0, 0] ** 0.5).numpy(), st.norm.cdf).pvalue > 1e-4


@pytest.mark.parametrize("exact", [True, False])
def test_missing_observations(exact: bool) -> None:
    length, size = 2 if not exact else 4, 2
    observation = normal(D, length, size)
    keep = torch.tensor([True, False, True, True])[:length]
    params = {"initial_mvn": normal(N)}
    d = model(length, size, exact, observation_mvn=observation.mask(keep[:, None]), **params)
    x = d.sample()
    flat = keep.repeat_interleave(D).numpy()
    expected = sp.logsumexp(
        [
            w + st.multivariate_normal(m[flat], c[flat][:, flat]).logpdf(x[keep].reshape(-1))
            for _, w, m, c in components(d)
        ]
    )
    gaps = torch.where(keep[:, None], x, torch.nan)
    assert d.log_prob(gaps).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("exact", [True, False])
def test_gradients(exact: bool) -> None:
    length, size = 3, 2
    d = model(length, size)
    x = d.sample()
    start, z, y = d.initial_mvn, d.transition_mvn, d.observation_mvn
    leaves = [d.initial_logits, start.loc, start.scale_tril, d.transition_logits, d.transition_matrix, z.loc]
    leaves += [z.scale_tril, d.observation_matrix, y.loc, y.scale_tril, x]
    leaves = [v.detach().clone().requires_grad_() for v in leaves]

    def log_prob(*v: Tensor) -> Tensor:
        def mvn(loc: Tensor, tril: Tensor) -> Any:
            return dist.MultivariateNormal(loc, scale_tril=tril.tril())

        built = dist.SwitchingLinearHMM(v[0], mvn(*v[1:3]), v[3], v[4], mvn(*v[5:7]), v[7], mvn(*v[8:10]), exact=exact)
        return built.log_prob(v[10])

    with dist.validation_enabled(False):
        assert torch.autograd.gradcheck(log_prob, leaves)


def test_batches() -> None:
    """Every parameter with a batch dim of its own, against one model after the other."""
    length, size, b = 3, 2, 2
    parts = {
        "initial_logits": vector(b, 1, size),
        "initial_mvn": normal(N, b, size),
        "transition_logits": vector(b, 1, length, size, size),
        "transition_matrix": vector(b, 1, size, N, N),
        "transition_mvn": normal(N, b, 1, length, size),
        "observation_matrix": vector(b, 1, 1, size, N, D),
        "observation_mvn": normal(D, b, length, size),
    }
    for exact in (True, False):
        d = dist.SwitchingLinearHMM(**parts, exact=exact)
        assert (d.batch_shape, d.event_shape, d.duration) == ((b, b), (length, D), length)
        x = d.sample((3,))
        assert x.shape == (3, b, b, length, D)
        found = d.log_prob(x)
        for i, j in itertools.product(range(b), repeat=2):
            first, z, y = parts["initial_mvn"], parts["transition_mvn"], parts["observation_mvn"]
            one = dist.SwitchingLinearHMM(
                parts["initial_logits"][i, 0],
                dist.MultivariateNormal(first.loc[j], first.covariance_matrix[j]),
                parts["transition_logits"][i, 0],
                parts["transition_matrix"][j],
                dist.MultivariateNormal(z.loc[i, 0], z.covariance_matrix[i, 0]),
                parts["observation_matrix"][i, 0],
                dist.MultivariateNormal(y.loc[j], y.covariance_matrix[j]),
                exact=exact,
            )
            torch.testing.assert_close(found[:, i, j], one.log_prob(x[:, i, j]))
            torch.testing.assert_close(d.smooth(x).probs[:, i, j], one.smooth(x[:, i, j]).probs)
            torch.testing.assert_close(d.filter(x)[1].loc[:, i, j], one.filter(x[:, i, j])[1].loc)
            torch.testing.assert_close(d.mean[i, j], one.mean)


def test_forecast() -> None:
    d = model(5, 2, exact=False)
    x = d.sample()
    rest = d.prefix_condition(x[:3])
    assert rest.event_shape == (2, D)
    before = dist.SwitchingLinearHMM(
        d.initial_logits,
        d.initial_mvn,
        d.transition_logits[:3],
        d.transition_matrix[:3],
        dist.MultivariateNormal(d.transition_mvn.loc[:3], d.transition_mvn.covariance_matrix[:3]),
        d.observation_matrix[:3],
        dist.MultivariateNormal(d.observation_mvn.loc[:3], d.observation_mvn.covariance_matrix[:3]),
    )
    torch.testing.assert_close(rest.log_prob(x[3:]), d.log_prob(x) - before.log_prob(x[:3]))
    torch.testing.assert_close(rest.filter(x[3:])[1].loc, d.filter(x)[1].loc)
    with pytest.raises(ValueError, match="nothing is left"):
        d.prefix_condition(x)


def test_of_any_length() -> None:
    params = [vector(2), normal(N), vector(2, 2), 0.5 * vector(2, N, N), normal(N, 2), vector(2, N, D), normal(D, 2)]
    d = dist.SwitchingLinearHMM(*params)
    x = vector(6, D)
    torch.testing.assert_close(d.log_prob(x), dist.SwitchingLinearHMM(*params, duration=6).log_prob(x))
    assert d.log_prob(x[:0]).item() == 0.0
    regime, state = d.filter(x[:0])
    torch.testing.assert_close(regime.logits, d.initial_logits)
    torch.testing.assert_close(state.loc, params[1].loc.expand(2, N))
    assert d.smooth(x[:0]).batch_shape == (0,)
    with pytest.raises(ValueError, match="pass duration="):
        d.sample()


def test_regimes_that_share_a_part_of_the_initial_law() -> None:
    loc, covariance = vector(N), spd(N, 3)
    for start in (dist.MultivariateNormal(loc, covariance), dist.Normal(loc, covariance[:, 0].abs()).to_event(1)):
        d = model(2, 3, initial_mvn=start)
        x = d.sample()
        assert d.log_prob(x).item() == pytest.approx(total(d, x), rel=1e-10)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"keep 2097152 normals.*exact=False"):
        model(21, 2, initial_mvn=normal(N))
    d = dist.SwitchingLinearHMM(
        vector(3), normal(N), vector(3, 3), vector(3, N, N), normal(N, 3), vector(3, N, D), normal(D, 3), exact=True
    )
    with pytest.raises(ValueError, match=r"3 regimes over 13 steps"):
        d.log_prob(vector(13, D))
    for changed, message in (
        ({"initial_logits": 0.0}, "'initial_logits' must be a tensor"),
        ({"transition_logits": vector(2, 2)}, r"'transition_logits' must end in \(3, 3\)"),
        ({"transition_mvn": normal(N, 2)}, r"'transition_mvn' must be the regime, of size 3 \(or 1\)"),
        ({"observation_mvn": normal(D + 1)}, "'observation_mvn' must have event shape"),
        ({"transition_matrix": vector(2, 3, N, N), "transition_logits": vector(4, 3, 3)}, "do not broadcast"),
        ({"initial_mvn": dist.StudentT(3.0, torch.zeros(N)).to_event(1)}, "'initial_mvn' must be a normal vector"),
    ):
        with pytest.raises(ValueError, match=message):
            model(1, 3, **changed)
