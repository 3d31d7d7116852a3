"""enlarge lets what a plate shows stand for more."""

import pytest
import scipy.stats
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers

X = torch.tensor([0.5, -1.0, 2.0])


def model(x, **options):
    m = ppl.sample("m", dist.Normal(0.0, 1.0))
    with ppl.plate("data", options.pop("size", len(x)), **options):
        z = ppl.sample("z", dist.Normal(m, 1.0))
        ppl.sample("x", dist.Normal(z, 1.0), obs=x)


def recorded(program, *args, sizes, **kwargs):
    return handlers.trace(handlers.enlarge(program, sizes=sizes)).get_trace(*args, **kwargs)


def test_densities_within_the_plate_count_as_often_as_its_elements_stand_for_others():
    tr = recorded(model, X, sizes={"data": 12, "other": 5})
    assert [tr[name].scale for name in ("m", "z", "x")] == [1.0, 4.0, 4.0]
    expected = 4 * scipy.stats.norm.logpdf(X, tr["z"].value).sum()
    assert tr.log_prob("x").sum().item() == pytest.approx(expected, rel=1e-12)


def test_it_says_what_the_program_would_say_by_subsampling():
    tr, said = recorded(model, X, sizes={"data": 12}), recorded(model, X, size=12, subsample_size=3, sizes={})
    for name in ("z", "x"):
        assert tr[name].plates == said[name].plates
        assert tr[name].scale == said[name].scale


@pytest.mark.parametrize("options", [{"subsample_size": 3}, {"subsample": torch.tensor([4, 0, 11])}])
def test_a_plate_that_says_so_already_is_left_as_it_is(options):
    tr = recorded(model, X, size=12, **options, sizes={"data": 12})
    assert tr["x"].scale == 4.0


def test_saying_it_twice_is_saying_it_once():
    tr = recorded(handlers.enlarge(model, sizes={"data": 12}), X, sizes={"data": 12})
    assert tr["x"].scale == 4.0


def test_it_joins_other_scales_and_plates():
    def nested():
        with ppl.plate("rows", 2), ppl.plate("columns", 3), handlers.scale(scale=0.5):
            ppl.sample("x", dist.Normal(0.0, 1.0))
        for i in ppl.plate("loop", 2):
            ppl.sample(f"y_{i}", dist.Normal(0.0, 1.0))

    tr = recorded(nested, sizes={"rows": 10, "columns": 6, "loop": 8})
    assert tr["x"].scale == 0.5 * 5 * 2
    assert [f.size for f in tr["x"].plates] == [10, 6]
    assert tr["y_0"].scale == 4.0


def test_what_replaces_a_site_is_scaled_once():
    def centred(name, fn, obs):
        noise = ppl.sample(f"{name}_noise", dist.Normal(0.0, 1.0))
        return None, fn.loc + noise * fn.scale

    tr = recorded(handlers.reparam(model, config={"z": centred}), X, sizes={"data": 12})
    assert tr["z_noise"].scale == 4.0


@pytest.mark.parametrize("size", [0, -3, 2.0, True, "all"])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(ValueError, match=r"handlers.enlarge: the size of plate 'data' must be a positive int, got"):
        handlers.enlarge(sizes={"data": size})


def test_a_plate_with_more_elements_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"'z' .*plate 'data' shows 3 elements, more than the 2 that it shall stand for"
    ):
        recorded(model, X, sizes={"data": 2})


def test_a_subsample_of_another_size_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"'z' .*'data' shall stand for 100 elements, but .* shows 3 of 12.*'data', 3\)"
    ):
        recorded(model, X, size=12, subsample_size=3, sizes={"data": 100})
