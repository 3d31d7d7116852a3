"""Log-quadratic functions against torch's multivariate normal, and against dense joint normals."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from ppl.tensors.gaussian import (
    Gaussian,
    gaussian_tensordot,
    matrix_and_mvn_to_gaussian,
    moments_to_gaussian,
    mvn_to_gaussian,
    sequential_gaussian_tensordot,
    suffix_products,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def spd(n: int, *batch: int) -> torch.Tensor:
    a = torch.randn(*batch, n, n, dtype=torch.float64)
    return a @ a.mT + torch.eye(n, dtype=torch.float64)


def vector(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def normal(n: int, *batch: int) -> MultivariateNormal:
    return MultivariateNormal(vector(*batch, n), spd(n, *batch))


def random(n: int, *batch: int) -> Gaussian:
    return Gaussian(vector(*batch), vector(*batch, n), spd(n, *batch))


def test_of_a_multivariate_normal() -> None:
    mvn = normal(3, 2)
    x = vector(5, 2, 3)
    g = mvn_to_gaussian(mvn)
    assert g.dim == 3 and g.batch_shape == (2,)
    torch.testing.assert_close(g.log_density(x), mvn.log_prob(x))
    torch.testing.assert_close(g.event_logsumexp(), torch.zeros(2, dtype=torch.float64))
    loc, covariance = g.moments()
    torch.testing.assert_close(loc, mvn.loc)
    torch.testing.assert_close(covariance, mvn.covariance_matrix)
    again = moments_to_gaussian(loc, covariance)
    torch.testing.assert_close(again.log_density(x), mvn.log_prob(x))


def test_of_independent_normals() -> None:
    d = torch.distributions.Independent(Normal(vector(2, 3), vector(2, 3).exp()), 1)
    x = vector(2, 3)
    torch.testing.assert_close(mvn_to_gaussian(d).log_density(x), d.log_prob(x))
    with pytest.raises(ValueError, match="expected a MultivariateNormal"):
        mvn_to_gaussian(Normal(0.0, 1.0))


def test_of_an_affine_conditional() -> None:
    matrix, noise = vector(2, 3, 4), normal(4, 2)
    x, y = vector(5, 2, 3), vector(5, 2, 4)
    g = matrix_and_mvn_to_gaussian(matrix, noise)
    expected = noise.log_prob(y - (x[..., None, :] @ matrix).squeeze(-2))
    torch.testing.assert_close(g.log_density(torch.cat((x, y), -1)), expected)
    # flat in x after y is integrated out: a density for each x
    flat = g.marginalize(right=4)
    torch.testing.assert_close(flat.log_density(x), torch.zeros(5, 2, dtype=torch.float64))
    torch.testing.assert_close(flat.precision, torch.zeros_like(flat.precision))


def test_sum_pad_and_permute() -> None:
    f, g = random(2, 3), random(3)
    x = vector(3, 4)
    both = f.pad(right=2) + g.pad(left=1)
    torch.testing.assert_close(both.log_density(x), f.log_density(x[..., :2]) + g.log_density(x[..., 1:]))
    torch.testing.assert_close((f + 2.0).log_density(x[..., :2]), f.log_density(x[..., :2]) + 2.0)
    order = [2, 0, 1]
    torch.testing.assert_close(g.permute(order).log_density(x[..., order]), g.log_density(x[..., [0, 1, 2]]))
    assert f.time(1).batch_shape == (2,) and f.at(0).batch_shape == ()


@pytest.mark.parametrize(("left", "right"), [(0, 0), (1, 0), (0, 2), (2, 1)])
def test_marginalize(left: int, right: int) -> None:
    mvn = normal(4, 2)
    x = vector(2, 4 - left - right)
    keep = slice(left, 4 - right)
    expected = MultivariateNormal(mvn.loc[..., keep], mvn.covariance_matrix[..., keep, keep])
    torch.testing.assert_close(mvn_to_gaussian(mvn).marginalize(left, right).log_density(x), expected.log_prob(x))


def test_event_logsumexp_is_the_integral() -> None:
    g = Gaussian(*(torch.tensor(v, dtype=torch.float64) for v in (0.3, [0.7], [[2.0]])))
    assert g.event_logsumexp().item() == pytest.approx(0.3 + 0.7**2 / 4 + 0.5 * math.log(math.pi), rel=1e-12)


def test_condition() -> None:
    g, x = random(4, 2), vector(2, 4)
    torch.testing.assert_close(g.condition(x[..., 1:]).log_density(x[..., :1]), g.log_density(x))


def test_tensordot_integrates_what_is_shared() -> None:
    x, y = random(3, 2), random(4, 2)
    got = gaussian_tensordot(x, y, 2)
    assert got.dim == 3
    value = vector(2, 3)
    joint = x.pad(right=2) + y.pad(left=1)  # (a, b b, c c): conditioned on a and c, what is left is over b
    inside = joint.permute([1, 2, 0, 3, 4]).condition(value)
    torch.testing.assert_close(got.log_density(value), inside.event_logsumexp())


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_chains(length: int) -> None:
    chain = random(4, length)
    dense = Gaussian(*(torch.zeros(s, dtype=torch.float64) for s in ((), 2 * length + 2, (2 * length + 2,) * 2)))
    for t in range(length):
        dense = dense + chain.at(t).pad(2 * t, 2 * (length - 1 - t))
    n = dense.dim
    if length > 1:
        dense = dense.permute([0, 1, n - 2, n - 1, *range(2, n - 2)]).marginalize(right=n - 4)
    x = vector(4)
    torch.testing.assert_close(sequential_gaussian_tensordot(chain).log_density(x), dense.log_density(x))
    torch.testing.assert_close(suffix_products(chain).at(0).log_density(x), dense.log_density(x))
    last = suffix_products(chain).at(length - 1)
    torch.testing.assert_close(last.log_density(x), chain.at(length - 1).log_density(x))


def test_draws() -> None:
    g = random(3, 2)
    x = g.rsample((40_000,))
    assert x.shape == (40_000, 2, 3)
    loc, covariance = g.moments()
    for i in range(2):
        error = (x[:, i].mean(0) - loc[i]).abs() / (x[:, i].std(0) / 200)
        assert error.max() < 4  # standard errors
        torch.testing.assert_close(torch.cov(x[:, i].mT), covariance[i], rtol=0.05, atol=0.03)


def test_gradients() -> None:
    root, info = vector(3, 3).requires_grad_(), vector(3).requires_grad_()

    def integral(root: torch.Tensor, info: torch.Tensor) -> torch.Tensor:
        g = Gaussian(info.sum(), info, root @ root.mT + torch.eye(3, dtype=torch.float64))
        return g.marginalize(left=1).event_logsumexp()

    assert torch.autograd.gradcheck(integral, [root, info])
