"""Linear Gaussian chains whose matrices a discrete latent chooses, against sums of dense normal densities."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import scipy.special as sp
import scipy.stats as st
import torch
from torch import Tensor

import ppl
import ppl.distributions as dist
from ppl.infer import TraceEnum_ELBO, compute_marginals, config_enumerate, infer_discrete

K, T, N = 2, 6, 4
PROBS = torch.tensor([0.3, 0.7], dtype=torch.float64)
START = (np.array([0.5, -1.0]), np.diag([1.2, 0.7]) ** 2)
F = torch.tensor([[[0.9, 0.3], [-0.2, 0.7]], [[-0.5, 0.1], [0.4, 0.8]]], dtype=torch.float64)
Q = torch.tensor([[0.8, 0.5], [0.3, 1.1]], dtype=torch.float64)  # standard deviations, by regime
H = torch.tensor([[[1.0], [0.6]], [[0.2], [-1.1]]], dtype=torch.float64)
R = torch.tensor([[0.6], [0.9]], dtype=torch.float64)
Params = dict[str, Tensor]
PARAMS: Params = {"f": F, "q": Q, "h": H, "r": R}


def hmm(params: Params, regime: Tensor, kind: Any = dist.GaussianHMM) -> Any:
    """The sequence whose step t is governed by the regime at t. Shapes: regime (*batch, T)."""
    loc = torch.as_tensor(START[0])
    return kind(
        dist.MultivariateNormal(loc, torch.as_tensor(START[1])),
        params["f"][regime],
        dist.Normal(torch.zeros_like(loc), params["q"][regime]).to_event(1),
        params["h"][regime],
        dist.Normal(torch.zeros_like(loc[:1]), params["r"][regime]).to_event(1),
    )


def log_density(params: Params, regimes: Sequence[int], x: Tensor) -> float:
    """The log density of one sequence according to the dense normal of all its observations."""
    f, q, h, r = (params[k].detach().numpy() for k in "fqhr")
    steps = len(regimes)
    mean, cov = START
    states, blocks = [], np.zeros((steps, 2, steps, 2))
    for t, k in enumerate(regimes):
        mean, cov = mean @ f[k], f[k].T @ cov @ f[k] + np.diag(q[k] ** 2)
        states.append(mean)
        across = blocks[t, :, t] = cov
        for s in range(t + 1, steps):
            across = across @ f[regimes[s]]
            blocks[t, :, s], blocks[s, :, t] = across, across.T
    out = np.zeros((steps, 2, steps, 1))
    for t, k in enumerate(regimes):
        out[t, :, t] = h[k]
    out = out.reshape(2 * steps, steps)
    noise = np.diag(np.concatenate([r[k] ** 2 for k in regimes]))
    whole = st.multivariate_normal(np.concatenate(states) @ out, out.T @ blocks.reshape(2 * steps, -1) @ out + noise)
    return float(whole.logpdf(x.numpy().reshape(-1)))


def data(*shape: int) -> Tensor:
    torch.manual_seed(3)
    return 2 * torch.randn((*shape, 1), dtype=torch.float64)


X = data(N, T)


def by_series(params: Params, x: Tensor = X) -> None:
    """One regime a series."""
    with ppl.plate("series", len(x)):
        z = ppl.sample("z", dist.Categorical(PROBS))
        ppl.sample("x", hmm(params, z[..., None]), obs=x)


def change_point(params: Params, x: Tensor = X) -> None:
    """In each series, the matrices change at an unknown time."""
    time = torch.arange(T)
    with ppl.plate("series", len(x)):
        change = ppl.sample("change", dist.Categorical(torch.ones(T + 1, dtype=torch.float64)))
        ppl.sample("x", hmm(params, (time >= change[..., None]).long()), obs=x)


def shared_change_point(params: Params, x: Tensor = X) -> None:
    """All series change at the same unknown time."""
    time = torch.arange(T)
    change = ppl.sample("change", dist.Categorical(torch.ones(T + 1, dtype=torch.float64)))
    with ppl.plate("series", len(x)):
        ppl.sample("x", hmm(params, (time >= change[..., None]).long()), obs=x)


def by_block(params: Params, x: Tensor = X) -> None:
    """Three blocks of two steps, each with a regime of its own, which follows from the one before."""
    with ppl.plate("series", len(x)):
        z, regimes = None, []
        for block in range(3):
            probs = PROBS if z is None else torch.stack([PROBS, PROBS.flip(0)])[z]
            z = ppl.sample(f"z{block}", dist.Categorical(probs))
            regimes.append(z)
        regime = torch.stack(torch.broadcast_tensors(*regimes), -1).repeat_interleave(2, -1)
        ppl.sample("x", hmm(params, regime), obs=x)


def changes() -> list[tuple[dict[str, int], float, list[int]]]:
    return [({"change": c}, -np.log(T + 1), [int(t >= c) for t in range(T)]) for c in range(T + 1)]


def series() -> list[tuple[dict[str, int], float, list[int]]]:
    return [({"z": k}, float(PROBS[k].log()), [k] * T) for k in range(K)]


def blocks() -> list[tuple[dict[str, int], float, list[int]]]:
    found = []
    for path in itertools.product(range(K), repeat=3):
        follow = [PROBS[path[0]], *(PROBS[a ^ b] for a, b in itertools.pairwise(path))]
        weight = sum(float(p.log()) for p in follow)
        found.append(({f"z{i}": k for i, k in enumerate(path)}, weight, [k for k in path for _ in range(2)]))
    return found


#: the program, its choices in one series (names and values, log weight, regimes by step), whether all series share them
PROGRAMS: dict[str, tuple[Callable[..., None], Any, bool]] = {
    "series": (by_series, series, False),
    "change": (change_point, changes, False),
    "shared": (shared_change_point, changes, True),
    "blocks": (by_block, blocks, False),
}


def weights(name: str, params: Params = PARAMS, x: Tensor = X) -> np.ndarray:
    """Log weights of the choices and the data. Shapes: (choices, series), or (choices, 1) where all series share one."""
    _, choices, shared = PROGRAMS[name]
    table = np.array([[log_density(params, regimes, row) for row in x] for _, _, regimes in choices()])
    prior = np.array([weight for _, weight, _ in choices()])[:, None]
    return (table.sum(1, keepdims=True) if shared else table) + prior


def evidence(name: str, params: Params) -> Tensor:
    program = config_enumerate(PROGRAMS[name][0])
    return -TraceEnum_ELBO()(program, lambda *_: None, params)


@pytest.mark.parametrize("name", PROGRAMS)
class TestChosenMatrices:
    def test_evidence(self, name: str) -> None:
        assert evidence(name, PARAMS).item() == pytest.approx(sp.logsumexp(weights(name), 0).sum(), rel=1e-10)

    def test_gradients(self, name: str) -> None:
        leaves = {k: v.clone().requires_grad_() for k, v in PARAMS.items()}
        found = torch.autograd.grad(evidence(name, leaves), list(leaves.values()))
        for key, gradient in zip(leaves, found, strict=True):
            for index in itertools.product(*map(range, gradient.shape)):
                sides = []
                for step in (1e-4, -1e-4):
                    moved = PARAMS[key].clone()
                    moved[index] += step
                    sides.append(sp.logsumexp(weights(name, {**PARAMS, key: moved}), 0).sum())
                assert gradient[index].item() == pytest.approx((sides[0] - sides[1]) / 2e-4, rel=1e-5, abs=1e-5)

    def test_marginals(self, name: str) -> None:
        program, choices, shared = PROGRAMS[name]
        found = compute_marginals(config_enumerate(program), PARAMS)
        table = weights(name)
        posterior = np.exp(table - sp.logsumexp(table, 0))
        for site, marginal in found.items():
            expected = np.zeros((table.shape[1], marginal.probs.shape[-1]))
            for (named, _, _), row in zip(choices(), posterior, strict=True):
                expected[:, named[site]] += row
            np.testing.assert_allclose(marginal.probs, expected[0] if shared else expected, rtol=1e-9, atol=1e-12)

    def test_most_probable(self, name: str) -> None:
        program, choices, shared = PROGRAMS[name]
        trace = ppl.handlers.trace(infer_discrete(config_enumerate(program), temperature=0)).get_trace(PARAMS)
        best = weights(name).argmax(0)
        for site in choices()[0][0]:
            expected = [choices()[i][0][site] for i in best]
            assert trace.nodes[site].tensor.reshape(-1).tolist() == expected
        assert trace.nodes["x"].fn.batch_shape == (N,)
        total = sum(log_density(PARAMS, choices()[i][2], row) for i, row in zip(_each(best, shared), X, strict=True))
        assert trace.log_prob("x").sum().item() == pytest.approx(total, rel=1e-10)

    def test_posterior_draws(self, name: str) -> None:
        program, choices, _ = PROGRAMS[name]
        drawn = infer_discrete(config_enumerate(program), temperature=1)
        table = weights(name)
        posterior = np.exp(table - sp.logsumexp(table, 0))
        torch.manual_seed(0)
        draws = 400
        counts = np.zeros_like(posterior)
        position = {tuple(named.values()): i for i, (named, _, _) in enumerate(choices())}
        for _ in range(draws):
            nodes = ppl.handlers.trace(drawn).get_trace(PARAMS).nodes
            columns = torch.stack([nodes[site].tensor.reshape(-1) for site in choices()[0][0]], -1)
            for row, values in enumerate(columns.tolist()):
                counts[position[tuple(values)], row] += 1
        spread = np.sqrt(posterior * (1 - posterior) / draws)
        assert (abs(counts / draws - posterior) <= 4 * spread + 1 / draws).all()


#: laws of the observations by regimes at each step, (*batch, T), and how they see the data
KIN: dict[str, tuple[Callable[[Tensor], Any], Callable[[Tensor], Tensor]]] = {
    "gamma": (
        lambda k: hmm(PARAMS, k, lambda *a: dist.GammaGaussianHMM(dist.Gamma(Q[k[..., 0], 0], 1.3), *a)),
        lambda x: x,
    ),
    "linear": (lambda k: hmm(PARAMS, k, dist.LinearHMM), lambda x: x),
    "independent": (
        lambda k: dist.IndependentHMM(hmm(PARAMS, k[..., None, :]).expand((*k.shape[:-1], 3))),
        lambda x: torch.cat([x, x + 1, x - 1], -1),
    ),
    "factors": (
        lambda k: dist.GaussianMRF(
            dist.MultivariateNormal(torch.as_tensor(START[0]), torch.as_tensor(START[1])),
            dist.Normal(torch.zeros_like(Q).repeat(1, 2)[0], torch.cat([Q, Q], -1)[k]).to_event(1),
            dist.Normal(torch.cat([Q, R], -1)[k], 1.0).to_event(1),
        ),
        lambda x: x,
    ),
    "discrete": (lambda k: dist.DiscreteHMM(PROBS.log(), F[k], dist.Normal(Q[k], 1.0)), lambda x: x[..., 0]),
}


@pytest.mark.parametrize("name", KIN)
@pytest.mark.parametrize("form", ["series", "change"])
def test_kin_under_enumeration(name: str, form: str) -> None:
    build, see = KIN[name]
    time, changes = torch.arange(T), form == "change"
    probs = torch.full((T + 1,), 1 / (T + 1), dtype=torch.float64) if changes else PROBS
    obs = see(X)

    def law(z: Tensor) -> Any:
        return build((time >= z[..., None]).long() if changes else z[..., None])

    @config_enumerate
    def model() -> None:
        with ppl.plate("series", N):
            ppl.sample("x", law(ppl.sample("z", dist.Categorical(probs))), obs=obs)

    each = [[law(torch.tensor(z)).log_prob(row).item() for row in obs] for z in range(len(probs))]
    expected = sp.logsumexp(np.array(each) + probs.log().numpy()[:, None], 0).sum()
    assert TraceEnum_ELBO().loss(model, lambda: None) == pytest.approx(-expected, rel=1e-10)


def test_regimes_of_groups_and_of_series_in_them() -> None:
    x = data(3, N, T)
    follow = torch.stack([PROBS, PROBS.flip(0)])

    @config_enumerate
    def model() -> None:
        with ppl.plate("groups", 3, dim=-2):
            a = ppl.sample("a", dist.Categorical(PROBS))
            with ppl.plate("series", N, dim=-1):
                z = ppl.sample("z", dist.Categorical(follow[a]))
                regime = torch.stack(torch.broadcast_tensors(a, a, z, z, a, z), -1)
                ppl.sample("x", hmm(PARAMS, regime), obs=x)

    expected = 0.0
    for group in x:
        each = [
            [[log_density(PARAMS, [a, a, z, z, a, z], row) + float(follow[a, z].log()) for z in (0, 1)] for a in (0, 1)]
            for row in group
        ]
        expected += sp.logsumexp(sp.logsumexp(each, -1).sum(0) + PROBS.log().numpy())
    assert TraceEnum_ELBO().loss(model, lambda: None) == pytest.approx(-expected, rel=1e-10)


def test_a_chain_of_regimes_whose_matrices_an_enumerated_site_chooses() -> None:
    """A `SwitchingLinearHMM` in a plate: which of two pairs of matrices its regimes have is a site of its own."""
    tables = torch.stack([F, F.flip(0) * 0.5])  # (pairs, regimes, n, n)
    chain = torch.tensor([[0.8, 0.2], [0.4, 0.6]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    x = X[:, :4]

    def law(pair: Tensor) -> Any:
        return dist.SwitchingLinearHMM(
            PROBS.log(),
            dist.MultivariateNormal(torch.as_tensor(START[0]), torch.as_tensor(START[1])),
            chain.log(),
            tables[pair[..., None]],  # (*pair, time, regimes, n, n)
            dist.Normal(zero, Q).to_event(1),
            H,
            dist.Normal(zero[:1], R).to_event(1),
            exact=True,
        )

    @config_enumerate
    def model() -> None:
        with ppl.plate("series", N):
            ppl.sample("x", law(ppl.sample("pair", dist.Categorical(PROBS))), obs=x)

    table = np.zeros((K, N))
    for pair, row in itertools.product(range(K), range(N)):
        params = {**PARAMS, "f": tables[pair]}
        found = []
        for path in itertools.product(range(K), repeat=5):
            weight = PROBS[path[0]].log() + sum(chain[a, b].log() for a, b in itertools.pairwise(path))
            found.append(weight + log_density(params, path[1:], x[row]))
        table[pair, row] = sp.logsumexp(found) + PROBS[pair].log()
    assert TraceEnum_ELBO().loss(model, lambda: None) == pytest.approx(-sp.logsumexp(table, 0).sum(), rel=1e-10)
    posterior = np.exp(table - sp.logsumexp(table, 0)).T
    np.testing.assert_allclose(compute_marginals(model)["pair"].probs, posterior, rtol=1e-9)


def test_missing_steps_and_series_that_do_not_count() -> None:
    torch.manual_seed(1)
    keep, counted = torch.rand(N, T) > 0.3, torch.tensor([True, False, True, True])
    gaps = torch.where(keep[..., None], X, torch.nan)

    def masked(regime: Tensor) -> Any:
        return hmm(PARAMS, regime, lambda *a: dist.GaussianHMM(*a[:-1], a[-1].mask(keep)))

    @config_enumerate
    def model() -> None:
        with ppl.plate("series", N), ppl.handlers.mask(mask=counted):
            ppl.sample("x", masked(ppl.sample("z", dist.Categorical(PROBS))[..., None]), obs=gaps)

    each = torch.stack([masked(torch.full((N, T), k)).log_prob(gaps) + PROBS[k].log() for k in range(K)])
    expected = each.logsumexp(0)[counted].sum().item()
    assert TraceEnum_ELBO().loss(model, lambda: None) == pytest.approx(-expected, rel=1e-10)


@pytest.mark.parametrize("plate", [True, False])
def test_a_regime_that_is_taken_for_time(plate: bool) -> None:
    """As many regimes as steps, so that all shapes fit."""
    x = data(2, 2) if plate else data(2)

    @config_enumerate
    def model() -> None:
        with ppl.plate("series", 2) if plate else ppl.handlers.mask(mask=True):
            z = ppl.sample("z", dist.Categorical(PROBS))
            ppl.sample("x", hmm(PARAMS, z), obs=x)

    with pytest.raises(ValueError, match=r"site 'x' .* enumerated site 'z'.*table\[z\[\.\.\., None\]\]"):
        TraceEnum_ELBO().loss(model, lambda: None)


def test_regimes_one_after_the_other_that_agree() -> None:
    """Where both regimes have the same matrices, each still has a gradient of its own."""
    same = {k: v[:1].expand_as(v).clone().requires_grad_() for k, v in PARAMS.items()}

    def model() -> None:
        z = ppl.sample("z", dist.Categorical(PROBS), infer={"enumerate": "sequential"})
        ppl.sample("x", hmm(same, z[..., None]), obs=X[0])

    loss = TraceEnum_ELBO()(model, lambda: None)
    for gradient in torch.autograd.grad(loss, list(same.values())):
        torch.testing.assert_close(gradient[0] / PROBS[0], gradient[1] / PROBS[1])


def _each(best: Any, shared: bool) -> list[int]:
    return [int(best[0])] * N if shared else [int(i) for i in best]
