"""block hides all and only what it says."""

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers


def model():
    ppl.param("w", torch.tensor(1.0))
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    with ppl.plate("data", 2):
        y = ppl.sample("y", dist.Normal(x, 1.0), obs=torch.zeros(2))
    ppl.deterministic("d", 2 * x)
    return y


ALL = ["w", "x", "data", "y", "d"]
CHOICES = {
    "nothing said: all": ({}, []),
    "hide_all": ({"hide_all": True}, []),
    "hide_all False": ({"hide_all": False}, ALL),
    "expose_all": ({"expose_all": True}, ALL),
    "hide names": ({"hide": ["x", "d"]}, ["w", "data", "y"]),
    "hide no names": ({"hide": []}, ALL),
    "expose names": ({"expose": ["x", "d"]}, ["x", "d"]),
    "expose no names": ({"expose": []}, []),
    "hide kinds": ({"hide_types": ["sample"]}, ["w", "data", "d"]),
    "expose kinds": ({"expose_types": ["param", "plate"]}, ["w", "data"]),
    "hide name and kind": ({"hide": ["x"], "hide_types": ["param"]}, ["data", "y", "d"]),
    "expose name and kind": ({"expose": ["x"], "expose_types": ["param"]}, ["w", "x"]),
    "exposed wins over hidden": ({"hide_types": ["sample"], "expose": ["x"]}, ["w", "x", "data", "d"]),
    "hide all but": ({"hide_all": True, "expose": ["y"]}, ["y"]),
    "hide_fn": ({"hide_fn": lambda site: site.observed}, ["w", "x", "data", "d"]),
    "expose_fn": ({"expose_fn": lambda site: site.kind == "sample" and not site.observed}, ["x"]),
}


@pytest.mark.parametrize(("options", "seen"), CHOICES.values(), ids=CHOICES)
def test_block_hides_all_and_only_what_it_says(options, seen):
    tr = handlers.trace(handlers.block(model, **options)).get_trace()
    assert list(tr) == seen


def test_hidden_statements_still_have_their_meaning():
    ppl.param("w", torch.tensor(7.0))
    blocked = handlers.block(lambda: (ppl.param("w"), model()))
    w, y = blocked()
    assert w.item() == 7.0 and y.tolist() == [0.0, 0.0]


def test_what_is_hidden_is_out_of_reach_for_outer_handlers_only():
    program = handlers.block(
        handlers.condition(lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), data={"x": torch.tensor(3.0)})
    )
    assert handlers.condition(program, data={"x": torch.tensor(5.0)})().item() == 3.0
    with handlers.trace() as inner, handlers.block(), handlers.trace() as innermost:
        model()
    assert list(inner) == [] and list(innermost) == ALL


def test_an_obs_fits_its_site_when_hidden_too():
    with pytest.raises(ValueError, match="site 'x'"):
        handlers.block(lambda: ppl.sample("x", dist.Gamma(1.0, 1.0), obs=torch.tensor(-1.0)))()


@pytest.mark.parametrize(
    "options",
    [
        {"hide_fn": lambda site: True, "expose_fn": lambda site: True},
        {"hide_fn": lambda site: True, "hide": ["x"]},
        {"expose_fn": lambda site: True, "expose_types": ["sample"]},
        {"hide_all": True, "expose_all": True},
    ],
)
def test_contradictory_choices_are_refused(options):
    with pytest.raises(ValueError, match=r"handlers\.block: choose the sites in one way only"):
        handlers.block(model, **options)


def test_a_string_is_no_list_of_names():
    with pytest.raises(ValueError, match=r"handlers\.block: expected a list of names, got the string 'x'.*\['x'\]"):
        handlers.block(model, hide="x")
