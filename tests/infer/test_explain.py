"""explain_enumeration: the factors that it announces are those that an elimination makes."""

from __future__ import annotations

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.infer import config_enumerate


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
