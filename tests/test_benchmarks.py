"""The SVI benchmarks: their models are what they say, their table is right. Nothing here is timed."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special, stats

from ppl.infer import Trace_ELBO

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def folder_of_benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def training(workload):
    """A training of ppl in double precision, and its data."""
    workloads, workloads_torch = (importlib.import_module(name) for name in ("workloads", "workloads_torch"))
    arrays = {name: x.astype(float) if x.dtype == np.float32 else x for name, x in workloads.make(workload).items()}
    torch.manual_seed(0)
    return workloads_torch.TorchTraining(workloads_torch.library("ppl", False), workload, arrays), arrays


def prior(weights):
    """The log density of rows under flat Dirichlets."""
    return len(np.atleast_2d(weights)) * special.gammaln(weights.shape[-1])


def test_first_loss_of_the_mixture_is_the_sum_over_components():
    made, data = training("mixture")
    weights = data["weights"] / data["weights"].sum()  # float32 sums to 1 but for its rounding
    density = stats.norm.logpdf(data["x"][:, None], data["loc"], 1) + np.log(weights)
    joint = special.logsumexp(density, -1).sum() + stats.norm.logpdf(data["loc"], 0, 10).sum() + prior(weights)
    assert made.step() == pytest.approx(-joint, rel=1e-7)


def test_first_loss_of_the_hidden_markov_model_is_the_forward_algorithms():
    made, data = training("hmm")
    tr, em = (data[name] / data[name].sum(-1, keepdims=True) for name in ("tr", "em"))
    alpha, total = np.eye(len(tr))[[0] * data["x"].shape[1]], 0.0
    for x in data["x"]:
        alpha = (alpha @ tr) * em[:, x].T
        total += np.log(alpha.sum(-1)).sum()
        alpha /= alpha.sum(-1, keepdims=True)
    assert made.step() == pytest.approx(-(total + prior(tr) + prior(em)), rel=1e-7)


def test_sparse_gp_is_the_bound_of_titsias():
    made, data = training("sparse_gp")
    drawn = {"length": torch.tensor([0.7, 1.3]), "variance": torch.tensor(1.1), "noise": torch.tensor(0.3)}
    condition, trace = (getattr(importlib.import_module("ppl.handlers"), name) for name in ("condition", "trace"))
    drawn = {name: x.double() for name, x in drawn.items()}
    found = trace(condition(made.svi.model, data=drawn)).get_trace(*made.args)
    length, variance, noise = (drawn[name].numpy() for name in ("length", "variance", "noise"))

    def kernel(a, b):
        return variance * np.exp(-0.5 * (((a[:, None] - b) / length) ** 2).sum(-1))

    x, y, u = data["x"], data["y"], data["inducing"]
    inner = kernel(u, u) + 1e-3 * variance * np.eye(len(u))
    nystrom = kernel(x, u) @ np.linalg.solve(inner, kernel(u, x))
    covariance = nystrom + noise**2 * np.eye(len(x))
    expected = -0.5 * (np.linalg.slogdet(2 * np.pi * covariance)[1] + y @ np.linalg.solve(covariance, y))
    expected -= 0.5 * (variance * len(x) - np.trace(nystrom)) / noise**2
    hyperparameters = sum(stats.lognorm.logpdf(x, 1).sum() for x in (length, variance, noise))
    assert found.log_prob_sum().item() == pytest.approx(expected + hyperparameters, rel=1e-8)


@pytest.mark.parametrize("workload", ["schools", "logistic", "hierarchical", "vae"])
def test_others_train(workload):
    made, _ = training(workload)
    assert isinstance(made.svi.loss, Trace_ELBO)
    assert all(np.isfinite(made.step()) for _ in range(3))


def test_one_process_prints_json():
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "svi.py"), "ppl", "schools", "--what", "cold"],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    found = json.loads(done.stdout)
    assert found["cold"] > 0 and found["versions"]["torch"] == torch.__version__


def test_table_takes_ratios_round_by_round():
    svi_table = importlib.import_module("svi_table")
    found = {
        "a": {
            "ppl": [{"bulk": 10.0, "loss": 1.5}, {"bulk": 40.0, "loss": 1.0}, {"bulk": 9.0, "loss": 0.75}],
            "pyro": [{"bulk": 1000.0, "loss": 1.0}, {"bulk": 2000.0, "loss": 1.0}, {"bulk": 3000.0, "loss": 1.0}],
            "numpyro": [{"bulk": 20.0, "cold": 5.0}, {"bulk": 20.0, "cold": 4.0}, {"bulk": 20.0, "cold": 6.0}],
        }
    }
    lines = svi_table.table(found, {"a": "some model"}).splitlines()
    assert len(lines) == 2 + 3 and len({line.count("|") for line in lines}) == 1
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert cells[0] == [
        "some model",
        "step in bulk, µs",
        "9.00, 10.0",
        "1000, 2000",
        "20.0, 20.0",
        "0.003, 0.01, 0.02",
        "0.45, 0.5, 2.00",
    ]
    assert cells[1][1:] == ["first step, nothing cached, s", "", "", "4.00, 5.00", "", ""]
    assert cells[2][2:4] == ["0.75, 1.00", "1.00, 1.00"]
    assert cells[2][5:] == ["difference -0.25, +0.00, +0.50", ""]


def test_table_of_one_system_and_of_figures_of_some_rounds():
    svi_table = importlib.import_module("svi_table")
    found = {"a": {"ppl": [{"filling": 20.0}, {}], "numpyro": [{"filling": 5.0}, {}]}}
    assert svi_table.table(found, {"a": "A"}).splitlines()[2].endswith("| 20.0, 20.0 | 5.00, 5.00 | 4.00, 4.00, 4.00 |")
    alone = svi_table.table({"a": {"ppl": [{"bulk": 123.4}]}}, {"a": "A"}).splitlines()
    assert alone[0] == "| | | ppl: min, median |" and alone[2] == "| A | step in bulk, µs | 123, 123 |"


def test_write_replaces_what_stands_between_the_markers(tmp_path):
    svi_table = importlib.import_module("svi_table")
    file = tmp_path / "RESULTS.md"
    file.write_text(f"before\n{svi_table.BEGIN}\nold\n{svi_table.END}\nafter µ\n", encoding="utf-8")
    for text in ("new", "newer\n"):
        svi_table.write(text, file)
    assert file.read_text(encoding="utf-8") == f"before\n{svi_table.BEGIN}\n\nnewer\n\n{svi_table.END}\nafter µ\n"
    file.write_text("no markers")
    with pytest.raises(ValueError, match=r"RESULTS.md must have the lines <!-- svi: begin -->"):
        svi_table.write("new", file)
