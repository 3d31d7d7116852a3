"""explain_enumeration: the factors that it announces are those that an elimination makes."""

from __future__ import annotations

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.infer import TraceEnum_ELBO, config_enumerate
from ppl.infer.elbo.enumerated import enumerate_program
from ppl.tensors.live_bytes import LiveBytes
from ppl.tensors.semiring import log_sum_exp


def test_a_chain_in_a_plate(capsys: pytest.CaptureFixture[str]) -> None:
    @config_enumerate
    def model(num_steps: int) -> None:
        with ppl.plate("sequence", 5):
            z = torch.zeros(5, dtype=torch.long)
            for t in ppl.markov(range(num_steps)):
                z = ppl.sample(f"z_{t}", dist.Categorical(torch.eye(3)[z] * 0.5 + 0.1))
                ppl.sample(f"x_{t}", dist.Normal(z.double(), 1.0), obs=torch.zeros(5))

    cost = ppl.explain_enumeration(model, 4)
    printed = capsys.readouterr().out
    assert [site.name for site in cost.sites] == [f"z_{t}" for t in range(4)]
    for site in cost.sites:
        assert site.size == 3 and site.plates == (("sequence", 5),)
    assert cost.largest == 5 * 3 * 3  # two neighbouring states of each sequence
    assert cost.num_factors == 8
    long, longer = (ppl.explain_enumeration(model, steps) for steps in (8, 12))
    assert longer.largest == long.largest == cost.largest
    assert longer.operations - long.operations == 4 * 5 * 9  # linear in the number of steps
    assert {"z_2", "z_3"} <= set(long.sites[2].largest)
    assert "sequence[5]" in printed and "45 entries" in printed


def test_nested_plates_and_joint_factors() -> None:
    @config_enumerate
    def model() -> None:
        a = ppl.sample("a", dist.Categorical(torch.ones(4)))
        with ppl.plate("outer", 6):
            b = ppl.sample("b", dist.Categorical(torch.ones(4, 3)[a]))
            with ppl.plate("inner", 7):
                c = ppl.sample("c", dist.Bernoulli(torch.full((4, 3), 0.4)[a, b]))
                ppl.sample("x", dist.Normal(c, 1.0), obs=torch.zeros(7, 6))

    cost = ppl.explain_enumeration(model)
    entries = {site.name: site.entries for site in cost.sites}
    assert entries == {"c": 7 * 6 * 4 * 3 * 2, "b": 6 * 4 * 3, "a": 4}
    assert cost.largest == 7 * 6 * 4 * 3 * 2


def test_nothing_enumerated(capsys: pytest.CaptureFixture[str]) -> None:
    ppl.explain_enumeration(lambda: ppl.sample("x", dist.Normal(0.0, 1.0)))
    assert "config_enumerate" in capsys.readouterr().out


def test_an_intractable_structure_names_its_plates() -> None:
    @config_enumerate
    def model() -> None:
        rows, columns = ppl.plate("row", 3, dim=-1), ppl.plate("column", 2, dim=-2)
        with rows:
            a = ppl.sample("a", dist.Bernoulli(0.5))
        with columns:
            b = ppl.sample("b", dist.Bernoulli(0.5))
        with rows, columns:
            ppl.sample("x", dist.Normal(a + b, 1.0), obs=torch.zeros(2, 3))

    with pytest.raises(ValueError, match=r"'column', 'row'.*\['x'\]"):
        ppl.explain_enumeration(model)


def mixture(w: torch.Tensor) -> None:
    with ppl.plate("point", 500):
        z = ppl.sample("z", dist.Categorical(w.softmax(-1)[0]))
        ppl.sample("x", dist.Normal(w[1][z], 1.0), obs=torch.linspace(-2, 2, 500))


def topics(w: torch.Tensor) -> None:
    with ppl.plate("document", 40), ppl.plate("word", 20):
        z = ppl.sample("z", dist.Categorical(w.softmax(-1)[0]))
        ppl.sample("x", dist.Categorical(w.softmax(-1)[z]), obs=torch.arange(800).reshape(20, 40) % 8)


def chain(w: torch.Tensor) -> None:
    with ppl.plate("sequence", 30):
        z = torch.zeros(30, dtype=torch.long)
        for t in ppl.markov(range(12)):
            z = ppl.sample(f"z_{t}", dist.Categorical(w.softmax(-1)[z]))
            ppl.sample(f"x_{t}", dist.Normal(z.double(), 1.0), obs=torch.zeros(30))


def two_plates(w: torch.Tensor) -> None:
    a = ppl.sample("a", dist.Categorical(w.softmax(-1)[0]))
    with ppl.plate("outer", 20, dim=-1):
        b = ppl.sample("b", dist.Categorical(w.softmax(-1)[a]))
        with ppl.plate("inner", 15, dim=-2):
            c = ppl.sample("c", dist.Categorical(w.softmax(-1)[b]))
            d = ppl.sample("d", dist.Categorical(w.softmax(-1)[c]))
            ppl.sample("x", dist.Normal((b + c + d).double(), 1.0), obs=torch.zeros(15, 20))


@pytest.mark.parametrize("model", [mixture, topics, chain, two_plates])
def test_what_is_announced_is_what_a_step_takes(model: object) -> None:
    """Bytes and operations within a factor of 1.5 (five for each entry of a product)."""
    w = torch.randn(8, 8).requires_grad_()
    marked = config_enumerate(model)
    cost = ppl.explain_enumeration(marked, w)
    elbo = TraceEnum_ELBO(max_plate_nesting=2)
    elbo(marked, lambda *args: None, w)  # the first run checks
    with LiveBytes() as both:
        elbo(marked, lambda *args: None, w).backward()
    assert 1 / 1.5 < (cost.memory + cost.gradients) / both.peak < 1.5
    with torch.no_grad():
        with LiveBytes() as forward:
            elbo(marked, lambda *args: None, w)
        unlearned = ppl.explain_enumeration(marked, w)
        assert 1 / 1.5 < unlearned.memory / forward.peak < 1.5
        found = enumerate_program(marked, (w,), {}, None)
        with LiveBytes() as summing:
            found.eliminate(log_sum_exp)
    assert 1 / 1.5 < 5 * cost.operations / summing.entries < 1.5


def test_a_limit_tells_its_slices(capsys: pytest.CaptureFixture[str]) -> None:
    w = torch.randn(8, 8)
    marked = config_enumerate(two_plates)
    free = ppl.explain_enumeration(marked, w, memory_limit=10**9)
    assert free.slices == () and "everything at once" in capsys.readouterr().out
    cost = ppl.explain_enumeration(marked, w, memory_limit=300_000)
    (first, *_) = cost.slices
    assert first.count == -(-{"outer": 20, "inner": 15}[first.plate] // first.elements) > 1
    assert f"plate '{first.plate}' in {first.count} slices of {first.elements}" in capsys.readouterr().out
    assert cost.memory <= free.memory
    deep = ppl.explain_enumeration(marked, w, memory_limit=95_000)
    assert any(s.within for s in deep.slices) and "within each slice of" in capsys.readouterr().out
    with pytest.raises(ValueError, match="memory_limit is 100"):
        ppl.explain_enumeration(marked, w, memory_limit=100)
    with pytest.raises(ValueError, match="explain_enumeration: memory_limit"):
        ppl.explain_enumeration(marked, w, memory_limit=0)
