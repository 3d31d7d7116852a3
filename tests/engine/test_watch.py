"""What a program does besides computing tensors is seen, named with its line, and undone."""

import functools
import io
import logging
import random
import sys
import threading
import types
import warnings

import numpy as np
import pytest
import torch

import ppl
from ppl.engine.watch import watch

COUNT = 0
RATE = 0.5
HISTORY = []
TABLE = {"losses": []}
KNOWN = np.zeros(3)
GENERATOR = np.random.default_rng(0)
DICE = random.Random(0)
LOGGER = logging.getLogger("test")
BATCHES = iter([1, 2, 3])


def effects_of(function, *args):
    with watch(function, args) as seen:
        function(*args)
    return seen.effects


def the_effect(function, *args):
    (effect,) = effects_of(function, *args)
    return effect


def harmless(x):
    words = [str(i) for i in range(3)]
    words.append("more")
    return torch.exp(x) * RATE + len(words) + len(HISTORY)


def test_a_program_that_only_computes_has_no_effects():
    assert effects_of(harmless, torch.ones(3)) == []


def prints(x):
    print("hello", x.shape)
    print("again", file=sys.stderr)


def test_output_is_held_back_and_named(capsys):
    first, second = effects_of(prints, torch.ones(2))
    assert capsys.readouterr() == ("", "")
    assert first.kind == second.kind == "output"
    assert "'hello" in first.what
    assert 'print("hello", x.shape)' in first.line
    assert "test_watch.py" in first.line


def test_warnings_and_other_threads_are_no_effects(capsys):
    def program():
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            warnings.warn("careful", stacklevel=1)
        thread = threading.Thread(target=print, args=("from elsewhere",))
        thread.start()
        thread.join()

    assert effects_of(program) == []
    assert "from elsewhere" in capsys.readouterr().out


def test_logging_is_output(caplog):
    def program():
        LOGGER.warning("careful")

    effect = the_effect(program)
    assert (effect.kind, "'careful'" in effect.what) == ("output", True)
    assert 'LOGGER.warning("careful")' in effect.line
    assert not caplog.records
    program()
    assert len(caplog.records) == 1


def draws_from_numpy():
    return np.random.normal()


def draws_from_random():
    return random.gauss(0, 1)


def draws_from_a_generator():
    return GENERATOR.normal() + DICE.random()


def test_numpys_and_pythons_random_states_are_as_before():
    np.random.seed(3)
    random.seed(3)
    here = np.random.get_state()[2], random.getstate(), GENERATOR.bit_generator.state, DICE.getstate()
    effect = the_effect(draws_from_numpy)
    assert effect.kind == "numpy"
    assert "np.random.normal()" in effect.line
    effect = the_effect(draws_from_random)
    assert effect.kind == "random"
    assert "random.gauss(0, 1)" in effect.line
    assert {e.kind for e in effects_of(draws_from_a_generator)} == {"numpy", "random"}
    assert here == (np.random.get_state()[2], random.getstate(), GENERATOR.bit_generator.state, DICE.getstate())


def counts():
    global COUNT
    COUNT += 1


def collects():
    HISTORY.append(1.0)


def collects_deep():
    TABLE["losses"].append(2.0)


def writes_into_an_array():
    KNOWN[1] = 5.0


@pytest.mark.parametrize(
    ("program", "name", "line"),
    [
        (counts, "the global 'COUNT'", "COUNT += 1"),
        (collects, "'HISTORY'", "HISTORY.append(1.0)"),
        (collects_deep, "'TABLE'", 'TABLE["losses"].append(2.0)'),
        (writes_into_an_array, "'KNOWN'", "KNOWN[1] = 5.0"),
    ],
)
def test_changed_globals_are_named_and_put_back(program, name, line):
    effect = the_effect(lambda: program())
    assert effect.kind == "change"
    assert name in effect.what
    assert line in effect.line
    assert (COUNT, HISTORY, TABLE, KNOWN.tolist()) == (0, [], {"losses": []}, [0.0, 0.0, 0.0])


def test_closures_arguments_and_defaults():
    total, seen = 0.0, {1}

    def program(log, known=[]):  # noqa: B006
        nonlocal total
        total += 1.0
        seen.add(2)
        log.append(3)
        known.append(4)

    log = []
    found = effects_of(functools.partial(program, log))
    assert len(found) == 4
    assert {"total", "seen"} <= {e.what.split("'")[1] for e in found if "'" in e.what}
    assert (total, seen, log, program.__defaults__) == (0.0, {1}, [], ([],))


class Model:
    calls = 0

    def __init__(self):
        self.step, self.log = 0, []

    def __call__(self, x):
        self.step += 1
        self.log.append(self.step)
        type(self).calls += 1
        self.latest = x
        return x


def test_attributes_of_objects_and_classes():
    model = Model()
    for program in (model, model.__call__):
        found = effects_of(program, torch.ones(2))
        assert sorted(e.what.split("'")[1] for e in found) == ["calls", "latest", "log", "step"]
        assert all("test_watch.py" in e.line for e in found)
        assert (vars(model), Model.calls) == ({"step": 0, "log": []}, 0)


def test_namespaces():
    state = types.SimpleNamespace(count=0)

    def program():
        state.count += 1

    assert "'count'" in the_effect(program).what
    assert state.count == 0


class Slots:
    __slots__ = ("count",)

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1


def test_slots():
    model = Slots()
    assert "'count'" in the_effect(model).what
    assert model.count == 0


class Running(torch.nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.in_place, self.calls = in_place, 0
        self.inner = torch.nn.BatchNorm1d(2)

    def forward(self, x):
        y = self.inner(x)
        if self.in_place:
            self.mean.mul_(0.9)
        else:
            self.mean = 0.9 * self.mean + x.mean()
            self.calls += 1
        return y


def test_a_buffer_that_is_replaced_is_named_but_not_one_that_is_written_into():
    x = torch.randn(5, 2)
    assert effects_of(Running(True), x) == []
    net = Running(False)
    mean = net.mean
    first, second = effects_of(lambda: net(x))
    assert {"the buffer 'mean' of Running", "the attribute 'calls' of Running"} == {
        e.what.split(" ", 2)[2] for e in (first, second)
    }
    assert "copy_" in first.instead + second.instead
    assert net.mean is mean
    assert net.calls == 0


def test_files(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def program():
        with open(path) as file:
            found = file.read()
        with io.open(path, "w") as file:  # noqa: UP020
            file.write("new")
        (tmp_path / "other").write_text("new")
        return found

    found = effects_of(program)
    assert [e.kind for e in found] == ["file"] * 3
    assert "open(path)" in found[0].line
    assert path.read_text() == "old"
    assert not (tmp_path / "other").exists()
    assert open is io.open  # as before


def test_iterators_are_named_before_they_are_used_up():
    def program():
        return next(BATCHES)

    (effect,) = watch(program).look()
    assert effect.kind == "iterator"
    assert "BATCHES" in effect.what
    assert "next(BATCHES)" in effect.line
    assert list(BATCHES) == [1, 2, 3]


def test_functions_inside_handlers_and_guides():
    log = []

    def model():
        log.append(1)
        return ppl.sample("z", ppl.distributions.Normal(0.0, 1.0))

    for program in (ppl.handlers.scale(model, 2.0), ppl.infer.autoguide.AutoNormal(model)):
        assert any("'log'" in e.what for e in effects_of(program))
        assert log == []


def test_everything_is_put_back_after_an_error(capsys):
    def program():
        counts()
        print("hello")
        raise RuntimeError("no")

    streams = sys.stdout, sys.stderr, open
    with pytest.raises(RuntimeError, match="no"), watch(program) as seen:
        program()
    assert {e.kind for e in seen.effects} == {"change", "output"}
    assert COUNT == 0
    assert (sys.stdout, sys.stderr, open) == streams
    assert capsys.readouterr().out == ""
