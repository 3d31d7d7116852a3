"""Classic models with discrete latents, against their textbook likelihoods."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hmmlearn.hmm import CategoricalHMM, GaussianHMM
from sklearn.mixture import GaussianMixture

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.infer import TraceEnum_ELBO, compute_marginals, config_enumerate, infer_discrete


def nothing(*args: object) -> None:
    pass


def log_evidence(model: object, *args: object) -> torch.Tensor:
    return -TraceEnum_ELBO()(config_enumerate(model), nothing, *args)


@pytest.mark.parametrize(("coupling", "field"), [(0.4, 0.0), (-1.3, 0.2), (3.0, -0.7)])
def test_partition_function_of_an_ising_chain(coupling: float, field: float) -> None:
    """Against the transfer matrix: log Z of an open chain of 50 spins."""
    length = 50

    def chain() -> None:
        before = None
        for t in ppl.markov(range(length)):
            spin = 2 * ppl.sample(f"spin_{t}", dist.Bernoulli(torch.tensor(0.5))) - 1
            energy = field * spin if before is None else field * spin + coupling * spin * before
            ppl.factor(f"energy_{t}", energy)
            before = spin

    spins = np.array([-1.0, 1.0])
    transfer = np.exp(coupling * spins[:, None] * spins + field * spins)
    state, scale = np.exp(field * spins), 0.0
    for _ in range(length - 1):
        state = state @ transfer
        scale += math.log(state.sum())
        state = state / state.sum()
    expected = scale + math.log(state.sum())
    got = log_evidence(chain) + length * math.log(2)  # the prior gives each configuration 2^-T
    assert got.item() == pytest.approx(expected, rel=1e-12)


def test_a_gaussian_mixture_scores_and_assigns_as_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    data = np.concatenate([rng.normal(m, s, (40, 2)) for m, s in (((0, 0), 1.0), ((4, 1), 0.5), ((-2, 3), 0.8))])
    fitted = GaussianMixture(3, random_state=0).fit(data)
    locs, covariances = torch.tensor(fitted.means_), torch.tensor(fitted.covariances_)

    def mixture(x: torch.Tensor) -> None:
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", dist.Categorical(torch.tensor(fitted.weights_)))
            ppl.sample("x", dist.MultivariateNormal(locs[z], covariances[z]), obs=x)

    x = torch.tensor(data)
    assert log_evidence(mixture, x).item() == pytest.approx(fitted.score_samples(data).sum(), rel=1e-10)
    marginals = compute_marginals(config_enumerate(mixture), x)
    np.testing.assert_allclose(marginals["z"].probs, fitted.predict_proba(data), rtol=0, atol=1e-8)
    best = handlers.trace(infer_discrete(config_enumerate(mixture), temperature=0)).get_trace(x)
    np.testing.assert_array_equal(best["z"].value, fitted.predict(data))


def test_annotators_of_dawid_and_skene() -> None:
    """Items with a true class each, and annotators with a confusion matrix each."""
    torch.manual_seed(0)
    items, annotators, classes = 12, 4, 3
    share = torch.rand(classes).softmax(-1)
    confusion = torch.rand(annotators, classes, classes).softmax(-1)
    votes = torch.randint(classes, (annotators, items))

    def model() -> None:
        with ppl.plate("item", items):
            truth = ppl.sample("truth", dist.Categorical(share))
            with ppl.plate("annotator", annotators):
                who = torch.arange(annotators)[:, None]
                ppl.sample("vote", dist.Categorical(ppl.vindex(confusion, (who, truth))), obs=votes)

    each = torch.stack([confusion[torch.arange(annotators)[:, None], k, votes].log().sum(0) for k in range(classes)])
    expected = (share.log()[:, None] + each).logsumexp(0).sum()
    assert log_evidence(model).item() == pytest.approx(expected.item(), rel=1e-12)


def test_capture_and_recapture_of_cormack_jolly_and_seber() -> None:
    """Animals that survive with probability phi and are seen with probability p, from their first capture on."""
    phi, p = 0.7, 0.4
    seen = torch.tensor([[1, 0, 1, 0, 0], [1, 1, 0, 0, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])

    def model() -> None:
        with ppl.plate("animal", len(seen)):
            alive = torch.ones(len(seen))
            for t in ppl.markov(range(1, seen.shape[1])):
                alive = ppl.sample(f"alive_{t}", dist.Bernoulli(alive * phi))
                ppl.sample(f"seen_{t}", dist.Bernoulli(alive * p), obs=seen[:, t])

    expected = 0.0
    for history in seen.tolist():
        last = max(t for t, was in enumerate(history) if was)
        for t in range(1, last + 1):  # surely alive until it was seen for the last time
            expected += math.log(phi * (p if history[t] else 1 - p))
        never = 1.0  # the chance of never being seen again, from the end backwards
        for _ in range(len(history) - 1 - last):
            never = 1 - phi + phi * (1 - p) * never
        expected += math.log(never)
    assert log_evidence(model).item() == pytest.approx(expected, rel=1e-12)
    marginals = compute_marginals(config_enumerate(model))
    assert marginals["alive_2"].probs[0].item() == pytest.approx(1.0, abs=1e-12)  # it was seen then
    unseen = phi * (1 - p) / (1 - phi + phi * (1 - p))
    assert marginals["alive_4"].probs[2].item() < marginals["alive_1"].probs[2].item() < unseen


def test_topics_of_documents() -> None:
    """Latent Dirichlet allocation at given topics: each word's topic is summed out by itself."""
    torch.manual_seed(1)
    topics, words, length, documents = 4, 9, 7, 3
    weights = torch.rand(documents, topics).softmax(-1)
    topic = torch.rand(topics, words).softmax(-1)
    data = torch.randint(words, (length, documents))

    def model() -> None:
        with ppl.plate("document", documents), ppl.plate("word", length):
            which = ppl.sample("topic", dist.Categorical(weights))
            ppl.sample("word_seen", dist.Categorical(topic[which]), obs=data)

    expected = (weights @ topic)[torch.arange(documents), data].log().sum()
    assert log_evidence(model).item() == pytest.approx(expected.item(), rel=1e-12)


def hidden_markov(model_of: object, sequences: np.ndarray, emit: object) -> object:
    """A chain with hmmlearn's start and transition probabilities, in a plate over sequences."""
    start, transition = torch.tensor(model_of.startprob_), torch.tensor(model_of.transmat_)

    @config_enumerate
    def model() -> None:
        with ppl.plate("sequence", len(sequences)):
            z = None
            for t in ppl.markov(range(sequences.shape[1])):
                z = ppl.sample(f"z_{t}", dist.Categorical(start if z is None else transition[z]))
                ppl.sample(f"x_{t}", emit(z), obs=torch.tensor(sequences[:, t]))

    return model


def check_against_hmmlearn(theirs: object, sequences: np.ndarray, emit: object) -> None:
    model = hidden_markov(theirs, sequences, emit)
    length = sequences.shape[1]
    rows = [x.reshape(length, -1) for x in sequences]
    evidence = -TraceEnum_ELBO()(model, nothing)
    assert evidence.item() == pytest.approx(sum(theirs.score(x) for x in rows), rel=1e-10)
    marginals = compute_marginals(model)
    smoothed = np.stack([theirs.predict_proba(x) for x in rows])
    best = handlers.trace(infer_discrete(model, temperature=0)).get_trace()
    decoded = np.stack([theirs.decode(x)[1] for x in rows])
    for t in range(length):
        np.testing.assert_allclose(marginals[f"z_{t}"].probs, smoothed[:, t], rtol=0, atol=1e-9)
        np.testing.assert_array_equal(best[f"z_{t}"].value, decoded[:, t])


def test_a_chain_with_symbols_is_hmmlearns() -> None:
    rng = np.random.default_rng(0)
    theirs = CategoricalHMM(4)
    theirs.startprob_, theirs.transmat_ = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4), 4)
    theirs.emissionprob_ = rng.dirichlet(np.ones(6), 4)
    emission = torch.tensor(theirs.emissionprob_)
    check_against_hmmlearn(theirs, rng.integers(6, size=(5, 15)), lambda z: dist.Categorical(emission[z]))


def test_a_chain_with_vectors_is_hmmlearns() -> None:
    rng = np.random.default_rng(1)
    theirs = GaussianHMM(3, "diag")
    theirs.startprob_, theirs.transmat_ = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3)
    variances = rng.uniform(0.3, 1.0, (3, 2))
    theirs.n_features, theirs.means_, theirs.covars_ = 2, rng.normal(size=(3, 2)), variances
    loc, scale = torch.tensor(theirs.means_), torch.tensor(variances).sqrt()
    check_against_hmmlearn(theirs, rng.normal(size=(4, 12, 2)), lambda z: dist.Normal(loc[z], scale[z]).to_event(1))
