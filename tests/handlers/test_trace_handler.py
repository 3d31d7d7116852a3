"""trace: how runs are recorded. What a record can do is tested in tests/test_trace.py."""

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers


def model(mean=0.0):
    ppl.param("w", torch.tensor(1.0))
    return ppl.sample("x", dist.Normal(mean, 1.0))


def test_get_trace_passes_arguments_on_and_keeps_the_result():
    tr = handlers.trace(model).get_trace(mean=100.0)
    assert tr.returned is tr["x"].tensor and tr["x"].fn.loc.item() == 100.0


def test_every_run_has_a_record_of_its_own():
    traced = handlers.trace(model)
    one, other = traced.get_trace(), traced.get_trace()
    assert one is not other and one["x"].tensor.item() != other["x"].tensor.item()


def test_with_gives_the_record_and_a_call_leaves_it_on_the_handler():
    with handlers.trace() as tr:
        value = model()
    assert tr["x"].tensor is value
    traced = handlers.trace(model)
    value = traced()
    assert traced.trace["x"].tensor is value
    traced()
    assert traced.trace["x"].tensor is not value


def test_param_only_records_parameters():
    assert list(handlers.trace(model, param_only=True).get_trace()) == ["w"]


def test_what_outer_handlers_gave_is_recorded():
    with handlers.scale(scale=2.0), handlers.condition(data={"x": torch.tensor(3.0)}), handlers.trace() as tr:
        model()
    assert tr["x"].scale == 2.0 and tr["x"].observed and tr["x"].tensor.item() == 3.0


def test_subsampling_data_is_not_recorded_and_may_be_repeated():
    def parts():
        with ppl.plate("data", 4, subsample_size=2):
            return ppl.subsample(torch.zeros(4), event_dim=0), ppl.subsample(torch.ones(4), event_dim=0)

    assert list(handlers.trace(parts).get_trace()) == ["data"]


def test_an_error_in_the_program_keeps_what_was_recorded():
    with pytest.raises(ArithmeticError), handlers.trace() as tr:
        model()
        raise ArithmeticError("on purpose")
    assert list(tr) == ["w", "x"]


def test_get_trace_needs_a_function():
    with pytest.raises(TypeError, match=r"handlers\.trace: get_trace needs a wrapped function"):
        handlers.trace().get_trace()
