"""scope prefixes names, so that parts can be repeated."""

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers


def part():
    w = ppl.param("w", torch.tensor(1.0))
    with ppl.plate("data", 3):
        x = ppl.sample("x", dist.Normal(w, 1.0))
    return ppl.deterministic("total", x.sum())


def test_all_names_inside_get_the_prefix():
    tr = handlers.trace(handlers.scope(part, prefix="a")).get_trace()
    assert list(tr) == ["a/w", "a/data", "a/x", "a/total"]
    assert [frame.name for frame in tr["a/x"].plates] == ["a/data"]
    assert ppl.get_param_store().keys() == ["a/w"]


def test_a_part_can_be_repeated():
    def twice():
        with handlers.scope(prefix="first"):
            part()
        with handlers.scope(prefix="second"):
            part()

    assert len(handlers.trace(twice).get_trace()) == 8


def test_scopes_nest_outermost_first_and_the_divider_can_be_chosen():
    tr = handlers.trace(handlers.scope(handlers.scope(part, prefix="in"), prefix="out", divider=".")).get_trace()
    assert list(tr) == ["out.in/w", "out.in/data", "out.in/x", "out.in/total"]


def test_hidden_kinds_keep_their_names():
    tr = handlers.trace(handlers.scope(part, prefix="a", hide_types=["param", "deterministic"])).get_trace()
    assert list(tr) == ["w", "a/data", "a/x", "total"]


@pytest.mark.parametrize(("hidden", "plate", "site"), [("plate", "data", "a/x"), ("sample", "a/data", "x")])
def test_a_sites_plates_have_the_name_of_the_plates_own_site(hidden, plate, site):
    tr = handlers.trace(handlers.scope(part, prefix="a", hide_types=[hidden])).get_trace()
    assert plate in tr
    assert [frame.name for frame in tr[site].plates] == [plate]


def test_plates_around_a_scope_keep_their_names():
    def model():
        with ppl.plate("outer", 2, dim=-2), handlers.scope(prefix="a"):
            part()

    tr = handlers.trace(model).get_trace()
    assert [frame.name for frame in tr["a/x"].plates] == ["outer", "a/data"]


def test_handlers_outside_know_the_long_name_and_inside_the_short_one():
    inside = handlers.scope(handlers.condition(part, data={"x": torch.ones(3)}), prefix="a")
    assert inside().item() == 3.0
    outside = handlers.condition(handlers.scope(part, prefix="a"), data={"a/x": torch.ones(3)})
    assert outside().item() == 3.0


def test_densities_and_draws_stay():
    ppl.set_rng_seed(1)
    plain = handlers.trace(part).get_trace()
    ppl.set_rng_seed(1)
    scoped = handlers.trace(handlers.scope(part, prefix="a")).get_trace()
    assert torch.equal(scoped["a/x"].tensor, plain["x"].tensor)
    assert scoped.log_prob_sum().item() == plain.log_prob_sum().item()


@pytest.mark.parametrize("bad", ["", None, 3])
def test_a_prefix_must_be_a_string(bad):
    with pytest.raises(ValueError, match=r"handlers\.scope: prefix must be a string that is not empty, got"):
        handlers.scope(part, prefix=bad)
