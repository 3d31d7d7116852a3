"""escape leaves a program in the middle."""

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers


def test_the_program_is_left_at_the_first_site_that_fits():
    reached = []

    def model():
        for name in "abc":
            ppl.sample(name, dist.Normal(0.0, 1.0))
            reached.append(name)

    with pytest.raises(handlers.NonlocalExit, match="left the program at site 'b'") as caught:
        handlers.escape(model, escape_fn=lambda site: site.name == "b")()
    assert reached == ["a"]
    assert caught.value.site.name == "b" and caught.value.site.value is None
    assert not ppl.stack.is_running()


def test_without_a_fitting_site_the_program_ends():
    run = handlers.escape(lambda: ppl.sample("x", dist.Delta(torch.tensor(2.0))), escape_fn=lambda site: False)
    assert run().item() == 2.0


def test_only_sample_sites_are_asked():
    def model():
        ppl.param("w", 1.0)
        with ppl.plate("p", 2):
            ppl.deterministic("d", torch.zeros(2))
        return 5

    assert handlers.escape(model, escape_fn=lambda site: True)() == 5


def test_what_was_recorded_before_the_exit_is_there():
    def model():
        ppl.sample("a", dist.Normal(0.0, 1.0))
        ppl.sample("b", dist.Normal(0.0, 1.0))

    with (
        handlers.trace() as tr,
        pytest.raises(handlers.NonlocalExit),
        handlers.escape(escape_fn=lambda site: site.name == "b"),
    ):
        model()
    assert list(tr) == ["a"]


def test_escape_fn_must_be_a_function():
    with pytest.raises(TypeError, match=r"handlers\.escape: escape_fn must be a function of a site, got None"):
        handlers.escape(lambda: None)
