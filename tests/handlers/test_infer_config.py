"""infer_config sets inference options by a function of the site."""

import pytest

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.site import Infer


def model():
    ppl.sample("x", dist.Bernoulli(0.5), infer={"enumerate": "sequential", "expand": True})
    ppl.sample("y", dist.Normal(0.0, 1.0))


def options(config_fn):
    tr = handlers.trace(handlers.infer_config(model, config_fn=config_fn)).get_trace()
    return tr["x"].infer, tr["y"].infer


def test_a_dict_updates_and_none_leaves():
    x, y = options(lambda site: {"enumerate": "parallel"} if site.fn.has_enumerate_support else None)
    assert x == Infer("parallel", expand=True) and y == Infer()


def test_typed_options_replace():
    x, _ = options(lambda site: Infer(is_auxiliary=True))
    assert x == Infer(is_auxiliary=True)


def test_only_sample_sites_are_asked():
    asked = []

    def program():
        ppl.param("w", 1.0)
        with ppl.plate("p", 2):
            ppl.sample("x", dist.Normal(0.0, 1.0))

    handlers.infer_config(program, config_fn=lambda site: asked.append(site.name))()
    assert asked == ["x"]


def test_an_unknown_option_names_the_site():
    with pytest.raises(ValueError, match="site 'x': unknown inference option 'parallel'"):
        options(lambda site: {"parallel": True})


def test_config_fn_must_be_a_function():
    with pytest.raises(TypeError, match=r"handlers\.infer_config: config_fn must be a function of a site"):
        handlers.infer_config(model, config_fn={"enumerate": "parallel"})
