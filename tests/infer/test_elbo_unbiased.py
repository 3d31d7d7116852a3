"""Every gradient estimator against the exact gradient, within 4 standard errors."""

import math

import models
import pytest
import torch
from models import CASES, Case

import ppl
from ppl.infer import Trace_ELBO, TraceEnum_ELBO

LIMIT = 4.0  # standard errors


def exact_gradients(case: Case, store: ppl.ParamStore) -> torch.Tensor:
    leaves = [leaf for _, leaf in store.named_unconstrained()]
    grads = torch.autograd.grad(-case.elbo(store), leaves)
    return torch.cat([g.flatten() for g in grads])


def draws_of_gradient(case, elbo, store, num_draws):
    """Losses (draws,) and gradients (draws, D) with respect to the unconstrained parameters."""
    leaves = [leaf for _, leaf in store.named_unconstrained()]
    losses, rows = [], []
    for _ in range(num_draws):
        with store:
            loss = elbo(case.model, case.guide, *case.args)
        grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    torch.zeros_like(x).flatten() if g is None else g.flatten()
                    for g, x in zip(grads, leaves, strict=True)
                ]
            )
        )
        losses.append(loss.detach())
    return torch.stack(losses), torch.stack(rows)


def check(case, elbo, num_draws, resolution):
    """Loss and gradient are unbiased, and the standard error is small enough for that to say something."""
    store = ppl.ParamStore()
    with store, torch.no_grad():
        case.guide(*case.args)
        case.model(*case.args)
    exact = exact_gradients(case, store)
    losses, rows = draws_of_gradient(case, elbo, store, num_draws)
    se = rows.std(0) / math.sqrt(num_draws)
    off = (rows.mean(0) - exact).abs()
    assert (off <= LIMIT * se + 1e-9).all(), f"{case}: off by {(off / (se + 1e-12)).max():.1f} standard errors"
    assert se.norm() <= resolution * exact.norm(), f"{case}: standard error {se.norm()} against {exact.norm()}"
    se_of_loss = losses.std() / math.sqrt(num_draws)
    assert (losses.mean() + case.elbo(store).detach()).abs() <= LIMIT * se_of_loss + 1e-9


def particles(elbo, count, vectorised):
    return elbo(num_particles=count, vectorize_particles=vectorised)


DRAWN = [case.name for case in models.DRAWN]
ENUMERATED = [case.name for case in models.ENUMERATED]


@pytest.mark.parametrize("name", DRAWN)
def test_the_gradient_of_vectorised_particles_is_unbiased(name):
    check(CASES[name], particles(Trace_ELBO, 40, True), 120, 0.35)


@pytest.mark.parametrize("name", DRAWN)
def test_the_gradient_of_single_draws_is_unbiased(name):
    check(CASES[name], Trace_ELBO(), 250, 1.0)


@pytest.mark.parametrize("name", ["normal-normal, score function", "mixture, all drawn", "local discrete, subsampled"])
def test_the_gradient_of_looped_particles_is_unbiased(name):
    check(CASES[name], particles(Trace_ELBO, 3, False), 150, 1.0)


@pytest.mark.parametrize("name", ENUMERATED)
@pytest.mark.parametrize("vectorised", [True, False])
def test_the_gradient_of_an_enumerated_objective_is_unbiased(name, vectorised):
    elbo = particles(TraceEnum_ELBO, 20, True) if vectorised else TraceEnum_ELBO()
    check(CASES[name], elbo, 60, 0.5 if vectorised else 1.0)


@pytest.mark.parametrize("name", ["normal-normal, pathwise", "mixture, all drawn", "nested plates, all drawn"])
def test_the_enumerating_objective_draws_what_is_not_marked(name):
    check(CASES[name], particles(TraceEnum_ELBO, 40, True), 60, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("vectorised", [True, False])
def test_the_gradient_is_unbiased_over_many_draws(name, vectorised):
    case = CASES[name]
    elbo = TraceEnum_ELBO if case.enumerates else Trace_ELBO
    check(case, particles(elbo, 100 if vectorised else 2, vectorised), 4000 if vectorised else 8000, 0.05)
