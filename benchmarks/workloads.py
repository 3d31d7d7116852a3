"""The data of the SVI benchmarks and how long each is trained, the same for every system."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

# steps after which the loss is compared, of which the last tenth is averaged
STEPS = {
    "schools": 2000,
    "logistic": 1000,
    "hierarchical": 2000,
    "vae": 200,
    "mixture": 500,
    "hmm": 100,
    "sparse_gp": 400,
}
TITLES = {
    "schools": "eight schools",
    "logistic": "logistic regression 1000×20",
    "hierarchical": "hierarchical regression, 85 groups",
    "vae": "VAE 784–400–50, batch 128",
    "mixture": "mixture of 10, 10,000 points",
    "hmm": "HMM, 16 states, 20×60",
    "sparse_gp": "sparse GP, 2,000 points, 50 inducing",
}
PIXELS, HIDDEN, CODE, BATCH = 784, 400, 50, 128
STATES, SEQUENCES, LENGTH, SYMBOLS = 16, 20, 60, 10
COMPONENTS, POINTS = 10, 10_000
ROWS, GROUPS = 919, 85


def make(workload: str) -> Arrays:
    """The data and the first values of a workload, in float32 and int64."""
    arrays: Arrays = MAKERS[workload](np.random.default_rng(0))
    return {name: x.astype(np.int64 if x.dtype.kind == "i" else np.float32) for name, x in arrays.items()}


def schools(rng: np.random.Generator) -> Arrays:
    return {
        "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
        "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
    }


def logistic(rng: np.random.Generator) -> Arrays:
    x, w = rng.standard_normal((1000, 20)), rng.standard_normal(20)
    return {"x": x, "y": (rng.random(1000) < 1 / (1 + np.exp(-x @ w))).astype(float)}


def hierarchical(rng: np.random.Generator) -> Arrays:
    """Groups of very different sizes, as the counties of the radon survey."""
    sizes = rng.dirichlet(np.full(GROUPS, 0.7))
    group = np.concatenate([np.arange(GROUPS), rng.choice(GROUPS, ROWS - GROUPS, p=sizes)])
    x = (rng.random(ROWS) < 0.17).astype(float)
    intercept, slope = 1.5 + 0.3 * rng.standard_normal(GROUPS), -0.6 + 0.3 * rng.standard_normal(GROUPS)
    return {"group": group, "x": x, "y": intercept[group] + slope[group] * x + 0.75 * rng.standard_normal(ROWS)}


def vae(rng: np.random.Generator) -> Arrays:
    """Binary images made by a random decoder of eight numbers, and the networks' first weights."""
    logits = 2 * rng.standard_normal((BATCH, 8)) @ rng.standard_normal((8, PIXELS))
    arrays = {"images": (rng.random((BATCH, PIXELS)) < 1 / (1 + np.exp(-logits))).astype(float)}
    for name, inside, outside in (
        ("encoder.0", PIXELS, HIDDEN),
        ("encoder.2", HIDDEN, 2 * CODE),
        ("decoder.0", CODE, HIDDEN),
        ("decoder.2", HIDDEN, PIXELS),
    ):
        bound = inside**-0.5
        arrays[f"{name}.weight"] = rng.uniform(-bound, bound, (outside, inside))
        arrays[f"{name}.bias"] = rng.uniform(-bound, bound, outside)
    return arrays


def mixture(rng: np.random.Generator) -> Arrays:
    centers = np.linspace(-12, 12, COMPONENTS)
    return {
        "x": centers[rng.integers(COMPONENTS, size=POINTS)] + rng.standard_normal(POINTS),
        "weights": np.full(COMPONENTS, 1 / COMPONENTS),
        "loc": centers + rng.standard_normal(COMPONENTS),
    }


def hmm(rng: np.random.Generator) -> Arrays:
    """Sequences of a hidden Markov model, time first, and two matrices to start from (equal rows would never part)."""
    tr, em = rng.dirichlet(np.full(STATES, 0.3), STATES), rng.dirichlet(np.full(SYMBOLS, 0.3), STATES)
    z, seen = np.zeros(SEQUENCES, int), []
    for _ in range(LENGTH):
        z = np.array([rng.choice(STATES, p=tr[i]) for i in z])
        seen.append([rng.choice(SYMBOLS, p=em[i]) for i in z])
    return {
        "x": np.array(seen),
        "tr": rng.dirichlet(np.full(STATES, 5.0), STATES),
        "em": rng.dirichlet(np.full(SYMBOLS, 5.0), STATES),
    }


def sparse_gp(rng: np.random.Generator) -> Arrays:
    x = rng.uniform(-3, 3, (2000, 2))
    y = np.sin(2 * x[:, 0]) * np.cos(x[:, 1]) + 0.2 * rng.standard_normal(2000)
    return {"x": x, "y": y, "inducing": rng.uniform(-3, 3, (50, 2))}


MAKERS = {
    "schools": schools,
    "logistic": logistic,
    "hierarchical": hierarchical,
    "vae": vae,
    "mixture": mixture,
    "hmm": hmm,
    "sparse_gp": sparse_gp,
}
