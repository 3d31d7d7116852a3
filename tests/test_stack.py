"""The handler stack: the protocol, errors at any depth, threads and tasks."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.site import Site
from ppl.stack import Handler, active, combine_masks, inherit, is_running, perform


class note(Handler):
    """Writes down which sites pass, and who else is active then."""

    def __init__(self, fn=None, name="", log=None):
        super().__init__(fn)
        self.name, self.log = name, [] if log is None else log

    def handle(self, site):
        self.log.append(("in", self.name, [h.name for h in active()]))
        site = perform(site)
        self.log.append(("out", self.name, site.value is not None))
        return site


def test_sites_pass_from_the_innermost_handler_outwards_and_come_back_with_values():
    log = []
    with note(name="outer", log=log), note(name="inner", log=log):
        ppl.sample("x", dist.Normal(0.0, 1.0))
    assert log == [("in", "inner", ["outer"]), ("in", "outer", []), ("out", "outer", True), ("out", "inner", True)]


def test_a_statement_made_inside_handle_goes_outwards_only():
    class asks(Handler):
        def handle(self, site):
            ppl.sample(f"before_{site.name}", dist.Normal(0.0, 1.0))
            return perform(site)

    with handlers.trace() as outer, asks(), handlers.trace() as inner:
        ppl.sample("x", dist.Normal(0.0, 1.0))
    assert list(outer.nodes) == ["before_x", "x"]
    assert list(inner.nodes) == ["x"]


def test_a_handler_that_does_not_perform_hides_the_site():
    class answer(Handler):
        def handle(self, site):
            return site.replace(value=torch.tensor(42.0))

    with handlers.trace() as outer, answer():
        assert ppl.sample("x", dist.Normal(0.0, 1.0)).item() == 42.0
    assert len(outer) == 0


def test_without_handlers_perform_settles():
    site = perform(Site("x", "sample", dist.Delta(torch.tensor(3.0))))
    assert site.tensor.item() == 3.0 and not is_running()


def fail_at(depth):
    if depth == 0:
        raise ArithmeticError("on purpose")
    with note(name=str(depth)):
        fail_at(depth - 1)


@pytest.mark.parametrize("depth", [1, 2, 10])
def test_the_stack_is_empty_after_an_error_at_any_depth(depth):
    with pytest.raises(ArithmeticError):
        fail_at(depth)
    assert not is_running()


def test_an_error_inside_handle_leaves_the_stack_as_it_was():
    class breaks(Handler):
        def handle(self, site):
            raise ArithmeticError("on purpose")

    with note(name="outer") as outer:
        with breaks() as bad, pytest.raises(ArithmeticError):
            ppl.sample("x", dist.Normal(0.0, 1.0))
            assert list(active()) == [bad, outer]
        assert list(active()) == [outer]
    assert not is_running()


def test_an_error_after_the_inner_perform_leaves_the_stack_as_it_was():
    class breaks(Handler):
        def handle(self, site):
            perform(site)
            raise ArithmeticError("on purpose")

    with note(name="a") as outer:
        with pytest.raises(ArithmeticError), breaks(), Handler():
            ppl.sample("x", dist.Normal(0.0, 1.0))
        assert list(active()) == [outer]


def test_a_generator_dropped_in_the_middle_takes_its_handler_along():
    def draws():
        with note(name="inside"):
            yield ppl.sample("x", dist.Normal(0.0, 1.0))
            yield ppl.sample("y", dist.Normal(0.0, 1.0))

    generator = draws()
    next(generator)
    assert is_running()
    generator.close()
    assert not is_running()


def test_an_outer_block_sweeps_away_what_an_inner_one_left():
    with note(name="outer"):
        note(name="never left").__enter__()
        assert len(list(active())) == 2
    assert not is_running()


def test_one_handler_may_be_entered_twice():
    h = note(name="h")
    with h, h:
        ppl.sample("x", dist.Normal(0.0, 1.0))
        assert len(list(active())) == 2
    assert len(h.log) == 4 and not is_running()


def test_a_method_can_be_decorated():
    class Model:
        shift = 10.0

        @handlers.condition(data={"x": torch.tensor(1.0)})
        def run(self, y):
            return ppl.sample("x", dist.Normal(0.0, 1.0)) + self.shift + y

    assert Model().run(100.0).item() == 111.0


def test_a_wrapper_keeps_name_docstring_and_function():
    def model():
        """A model."""

    wrapped = handlers.trace(model)
    assert (wrapped.__name__, wrapped.__doc__, wrapped.__wrapped__) == ("model", "A model.", model)


@pytest.mark.parametrize("thing", [3, "model", None, torch.zeros(2), [1]])
def test_wrapping_what_is_not_callable_is_an_error_that_names_the_handler(thing):
    with pytest.raises(TypeError, match=rf"handlers.mask wraps a callable, but got {type(thing).__name__}"):
        handlers.mask(mask=True)(thing)


def test_calling_a_handler_that_wraps_nothing_says_what_to_do():
    with pytest.raises(TypeError, match=r"handlers.mask wraps nothing yet: call it with the one function"):
        handlers.mask(mask=True)(1, 2)


# -- threads and tasks


def model_of(i):
    def model():
        mean = ppl.sample(f"mean_{i}", dist.Normal(0.0, 1.0))
        with ppl.plate(f"plate_{i}", i + 1):
            ppl.sample(f"obs_{i}", dist.Normal(mean, 1.0), obs=torch.full((i + 1,), float(i)))
        ppl.param(f"param_{i}", torch.tensor(float(i)))
        return i

    return model


def test_sixteen_threads_trace_sixteen_models_at_once():
    gate = threading.Barrier(16)

    def work(i):
        gate.wait()
        traces = [handlers.trace(model_of(i)).get_trace() for _ in range(10)]
        assert not is_running()
        return traces

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(work, range(16)))
    for i, traces in enumerate(results):
        for tr in traces:
            assert list(tr.nodes) == [f"mean_{i}", f"plate_{i}", f"obs_{i}", f"param_{i}"]
            assert tr[f"obs_{i}"].tensor.tolist() == [float(i)] * (i + 1)
            assert tr.returned == i


def test_a_thread_started_inside_a_handler_is_not_inside_it():
    with handlers.trace() as tr:
        thread = threading.Thread(target=model_of(1))
        thread.start()
        thread.join()
    assert len(tr) == 0


def test_one_traced_model_can_be_run_by_many_threads():
    traced = handlers.trace(model_of(2))
    with ThreadPoolExecutor(8) as pool:
        traces = list(pool.map(lambda _: traced.get_trace(), range(40)))
    assert all(list(tr.nodes) == ["mean_2", "plate_2", "obs_2", "param_2"] for tr in traces)
    assert len({tr["mean_2"].tensor.item() for tr in traces}) == 40


def test_interleaved_tasks_each_have_their_own_stack():
    async def run(i):
        with handlers.trace() as tr, handlers.scale(scale=float(i + 1)):
            for step in range(5):
                ppl.sample(f"x_{i}_{step}", dist.Normal(0.0, 1.0))
                await asyncio.sleep(0)
                assert len(list(active())) == 2
        return tr

    async def main():
        return await asyncio.gather(*(run(i) for i in range(8)))

    for i, tr in enumerate(asyncio.run(main())):
        assert list(tr.nodes) == [f"x_{i}_{step}" for step in range(5)]
        assert {site.scale for site in tr.nodes.values()} == {i + 1.0}


# -- what a handler hands on to statements of its own


def test_inherit_hands_on_plates_scale_mask_and_steps():
    frame = ppl.site.Frame("p", 3, 3, -1)
    step = ppl.site.Step(0, 2, 1)
    parent = Site("x", "sample", plates=(frame,), scale=2.0, mask=torch.tensor([True, False, True]), steps=(step,))
    with handlers.trace() as tr, inherit(parent), handlers.scale(scale=5.0):
        ppl.sample("y", dist.Normal(0.0, 1.0))
    site = tr["y"]
    assert site.plates == (frame,) and site.steps == (step,) and site.scale == 10.0
    assert site.mask.tolist() == [True, False, True]
    assert site.fn.batch_shape == (3,)


def test_masks_combine_as_a_conjunction_in_which_none_is_all():
    m = torch.tensor([True, False])
    assert combine_masks(None, None) is None
    assert combine_masks(None, m) is m and combine_masks(m, None) is m
    assert combine_masks(True, m) is m and combine_masks(m, True) is m
    assert combine_masks(m, torch.tensor([True, True])).tolist() == [True, False]
    assert not torch.as_tensor(combine_masks(m, False)).any()
    assert combine_masks(False, None) is False
