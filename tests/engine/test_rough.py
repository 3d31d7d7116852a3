"""Without a compiler, with broken files, and when a run goes over to a program at all."""

from pathlib import Path

import pytest
import torch
from rough_runs import ARGS, X, close, eager_losses, fresh, run, schools, stubbed

import ppl
from ppl.engine import background, loading
from ppl.infer import compiled

pytestmark = pytest.mark.usefixtures("alone")

# -- what the machine lacks


@pytest.mark.parametrize("compile", ["auto", "always"])
def test_without_a_compiler_there_is_one_warning(compile, eager_to_compile, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match=r"goes on without compiling. there is no C\+\+ compiler") as caught:
        losses = run(schools(), 40, *ARGS, compile=compile)
    assert len(caught) == 1
    close(losses, eager_losses(40))
    assert sum(n for n, _ in eager_to_compile) > 30  # recorded operations, one by one
    close(run(schools(), 40, *ARGS, compile=compile), eager_losses(40))  # without another warning


def test_a_cache_that_cannot_be_written_is_warned_of_once(package, quick, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path / "file" / "cache"))
    stubbed(monkeypatch, package)
    with pytest.warns(UserWarning, match="cannot be kept in") as caught:
        losses = run(schools(), 40, *ARGS, compile="always")
    assert len(caught) == 1
    close(losses, eager_losses(40))
    assert quick[-1][1]


def test_a_damaged_program_is_compiled_again(package, quick, monkeypatch, tmp_path):
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path))
    made = stubbed(monkeypatch, package)
    run(schools(), 10, *ARGS, compile="always")
    (kept,) = tmp_path.glob("*.pt2")
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 255
    kept.write_bytes(content)
    compiled._loaded.clear()
    close(run(schools(), 40, *ARGS, compile="always"), eager_losses(40))
    assert quick[-1][1]
    assert len(made) == 2
    assert kept.read_bytes() == Path(package).read_bytes()


@pytest.mark.parametrize("compile", ["auto", "always"])
def test_a_program_that_vanished_counts_as_none(compile, package, quick, monkeypatch, tmp_path):
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path))
    stubbed(monkeypatch, package)
    run(schools(), 10, *ARGS, compile="always")
    ppl.engine.clear_cache()
    monkeypatch.setattr(loading, "_loaded", {})  # as in another process
    assert list(map(Path.exists, compiled._loaded.values())) == [False]
    close(run(schools(), 40, *ARGS, compile=compile), eager_losses(40))
    assert quick[-1][1] == (compile == "always")
    svi = schools()
    ppl.engine.clear_cache()
    monkeypatch.setattr(loading, "_loaded", {})
    svi.compile(*ARGS)
    close(torch.tensor([svi.step(*ARGS) for _ in range(10)]), eager_losses(10))


def test_a_file_that_is_no_program_is_given_up(quick, monkeypatch, tmp_path):
    if background.compiler() is None:
        pytest.skip("no process would be started")
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path))
    made = stubbed(monkeypatch, "", build="copy")
    with pytest.warns(UserWarning, match="cannot be loaded"):
        losses = run(schools(), 40, *ARGS, compile="always")
    close(losses, eager_losses(40))
    assert len(made) == 2
    with pytest.raises(ValueError, match=r"SVI\.compile: the compiled program cannot be loaded"):
        schools().compile(*ARGS)


# -- when something is recorded, and when it is compiled


def test_a_short_run_records_nothing(monkeypatch):
    monkeypatch.setenv("PPL_COMPILE", "auto")
    monkeypatch.setattr(compiled, "LONG", 60.0)  # this machine may be slow
    monkeypatch.setattr(compiled, "rehearse", None)
    monkeypatch.setattr(compiled, "Compilation", None)
    close(run(schools(), 60, *ARGS), eager_losses(60))


class Slowly:
    """A compilation that takes so many looks."""

    def __init__(self, package, looks):
        self.package, self.looks, self.cancelled = package, looks, False

    def __call__(self, job, key):
        self.key = key
        return self

    def poll(self):
        self.looks -= 1
        return None if self.looks > 0 else self.package

    def cancel(self):
        self.cancelled = True


def test_a_long_run_goes_over_to_the_compiled_program(package, eager_to_compile, monkeypatch, tmp_path):
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled, "Compilation", Slowly(package, 3))
    svi = schools()
    close(run(svi, 800, *ARGS), eager_losses(800))
    kinds = [is_compiled for _, is_compiled in eager_to_compile]
    assert kinds[0] is False
    assert kinds[-1] is True
    assert kinds == sorted(kinds)
    monkeypatch.setattr(compiled, "Compilation", None)  # from here on the program is known
    eager_to_compile.clear()
    more = run(svi, 100, *ARGS)
    assert all(is_compiled for _, is_compiled in eager_to_compile)
    close(more, eager_losses(900)[800:])
    close(run(schools(), 50, *ARGS), eager_losses(50))  # another SVI


def test_a_run_that_ends_before_its_compiler_ends_that(eager_to_compile, monkeypatch, tmp_path):
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path))
    compilation = Slowly(None, 1000)
    monkeypatch.setattr(compiled, "Compilation", compilation)
    run(schools(), 30, *ARGS)
    assert compilation.cancelled


# -- what is shown


def test_the_bar_moves_with_blocks_and_shows_the_loss(quick, capsys):
    svi = fresh()
    result = svi.run(3000, X, compile="auto")
    shown = capsys.readouterr().err
    assert "3000/3000" in shown
    assert f"loss {result.losses[-25:].mean():.4g}" in shown
    assert shown.count("\r") > 3
    assert max(n for n, _ in quick) > 16
