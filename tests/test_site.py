"""The site: an immutable, typed message."""

import dataclasses
import pickle

import pytest
import torch

import ppl.distributions as dist
from ppl.site import Baseline, Frame, Infer, Site, describe_nan, expand_to_plates, locate, plate_shape

DATA = Frame("data", 5, 5, -1)
GROUP = Frame("group", 3, 3, -2)


def test_a_site_cannot_be_changed():
    site = Site("x", "sample")
    with pytest.raises(dataclasses.FrozenInstanceError):
        site.name = "y"
    assert not hasattr(site, "__dict__")


def test_replace_gives_another_site_and_leaves_the_first():
    site = Site("x", "sample", dist.Normal(0.0, 1.0), scale=2.0)
    other = site.replace(value=torch.tensor(1.0), observed=True)
    assert (site.value, site.observed) == (None, False)
    assert (other.value.item(), other.observed, other.scale, other.name) == (1.0, True, 2.0, "x")
    assert other.distribution is site.distribution


def test_replace_keeps_every_field():
    values = {f.name: object() for f in dataclasses.fields(Site)}
    site = Site(**values)
    assert all(getattr(site.replace(), name) is value for name, value in values.items())
    assert all(getattr(site.replace(**{name: 1}), name) == 1 for name in values)


def test_fn_and_tensor_say_what_is_missing():
    site = Site("w", "param")
    with pytest.raises(ValueError, match="site 'w' is a param and has no distribution"):
        _ = site.fn
    with pytest.raises(ValueError, match="site 'w' has no value yet"):
        _ = site.tensor


def test_a_site_prints_its_name_and_plates():
    assert str(Site("x", "sample")) == "site 'x'"
    assert str(Site("x", "sample", plates=(GROUP, DATA))) == "site 'x' (in plates group[3], data[5])"


@pytest.mark.parametrize(
    ("frames", "shape"),
    [
        ((), ()),
        ((DATA,), (5,)),
        ((GROUP,), (3, 1)),
        ((GROUP, DATA), (3, 5)),
        ((DATA, GROUP), (3, 5)),
        ((Frame("loop", 4, 4, None, 2), DATA), (5,)),
        ((Frame("part", 10, 2, -1),), (2,)),
    ],
)
def test_plate_shape_puts_each_size_at_its_dim(frames, shape):
    assert plate_shape(frames) == shape


def test_frame_scale_is_how_many_each_element_stands_for():
    assert Frame("p", 10, 4, -1).scale == 2.5
    assert Frame("p", 0, 0, -1).scale == 1.0


def test_expand_to_plates_keeps_other_batch_dims():
    d = dist.Normal(torch.zeros(7, 1, 1), 1.0)
    assert expand_to_plates(Site("x", "sample", d, plates=(GROUP, DATA)), d).batch_shape == (7, 3, 5)


def test_expand_to_plates_names_site_plate_and_sizes_that_differ():
    d = dist.Normal(torch.zeros(4), 1.0)
    with pytest.raises(ValueError, match=r"site 'x'.*plate 'data' has size 5 at dim -1.*\(4,\) has size 4 there"):
        expand_to_plates(Site("x", "sample", d, plates=(DATA,)), d)


def test_inference_options_come_typed_from_a_dict():
    options = Infer.of({"enumerate": "parallel", "expand": True, "baseline": {"beta": 0.5}}, "x")
    assert options == Infer("parallel", True, Baseline(beta=0.5))
    assert Infer.of(None) == Infer() and Infer.of(options) is options


def test_inference_options_take_the_older_names_of_baselines():
    value = torch.tensor(1.0)
    options = Infer.of({"use_decaying_avg_baseline": False, "baseline_beta": 0.7, "baseline_value": value})
    assert options.baseline.decaying_average is False
    assert options.baseline.beta == 0.7
    assert options.baseline.value is value


def test_updating_options_keeps_the_others():
    options = Infer.of({"enumerate": "parallel", "baseline": {"beta": 0.5}}).updated({"expand": True})
    assert options == Infer("parallel", True, Baseline(beta=0.5))


def test_an_unknown_option_is_an_error_that_names_site_key_and_choices():
    with pytest.raises(ValueError, match="site 'x': unknown inference option 'enumarate'; known are enumerate, expand"):
        Infer.of({"enumarate": "parallel"}, "x")
    with pytest.raises(ValueError, match=r"site 'x': infer\['enumerate'\] must be 'parallel', 'sequential' or None"):
        Infer.of({"enumerate": "paralel"}, "x")


def test_locate_names_the_plate_index_of_the_first_bad_entry():
    bad = torch.tensor([[False, False], [False, True], [True, False]])
    site = Site("x", "sample", plates=(Frame("g", 3, 3, -2), Frame("d", 9, 2, -1, indices=torch.tensor([7, 4]))))
    assert locate(bad, site) == "plate 'g' index 1, plate 'd' index 4"


def test_describe_nan_names_site_place_and_count():
    site = Site("x", "sample", plates=(DATA,))
    value = torch.tensor([0.0, 1.0, torch.nan, 3.0, torch.nan])
    sentence = describe_nan(site, value, "the log density")
    assert sentence.startswith("site 'x': the log density is NaN at plate 'data' index 2")
    assert "2 of 5 entries" in sentence
    assert describe_nan(site, torch.zeros(5), "the value") is None


def test_a_site_made_by_replace_is_as_frozen_as_any_and_pickles():
    site = Site("x", "deterministic", value=torch.tensor(1.0)).replace(scale=2.0, observed=True)
    assert type(site) is Site and (site.scale, site.observed, site.name) == (2.0, True, "x")
    for change in (lambda: setattr(site, "scale", 3.0), lambda: delattr(site, "scale")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change()
    twin = pickle.loads(pickle.dumps(site))
    assert type(twin) is Site and twin.scale == 2.0
    assert dataclasses.replace(site, scale=4.0).scale == 4.0
    with pytest.raises(AttributeError):
        site.replace(scales=2.0)
    with pytest.raises(TypeError, match="name"):
        Site(kind="sample")
