import pytest
import rough_runs

from ppl.engine import background, cache
from ppl.engine.background import Compilation
from ppl.engine.native import Folder, compiler
from ppl.engine.noise import fast_draws
from ppl.engine.training import Blocks
from ppl.infer import compiled as programs


@pytest.fixture(scope="session")
def compiled(request):
    """The library of draws, compiled once a checkout."""
    if compiler() is None:
        pytest.skip("there is no C++ compiler on this machine")
    library = fast_draws(build=True, store=Folder(request.config.cache.mkdir("native")))
    assert library is not None, "the library draws other numbers than torch"
    return library


@pytest.fixture(params=["compiled", "plain"])
def library(request):
    return request.getfixturevalue("compiled") if request.param == "compiled" else None


@pytest.fixture
def alone(monkeypatch):
    """Nothing is known from other tests: programs, warnings, folders."""
    monkeypatch.setattr(programs, "_loaded", {})
    monkeypatch.setattr(programs, "_warned", set())
    monkeypatch.setattr(cache, "_warned", set())
    monkeypatch.setattr(cache, "_refuge", None)


@pytest.fixture
def at_once(monkeypatch):
    """Runs with compile="auto" go over to the recorded program at once, and never start a compiler.

    To be called with what takes the steps, `Blocks` or `Descent`: then it tells, by each call, what `note` says of it.
    """
    monkeypatch.setenv("PPL_COMPILE", "auto")
    monkeypatch.setattr(programs, "LONG", 0.0)
    monkeypatch.setattr(programs, "VERY_LONG", float("inf"))
    monkeypatch.setattr(programs, "APART", 1)
    monkeypatch.setattr(programs, "PATIENCE", float("inf"))

    def count(kind, note=lambda n, blocks: n):
        taken, run = [], kind.run

        def counted(self, n, *rest):
            losses = run(self, n, *rest)
            taken.append(note(0 if losses is None else n, self))
            return losses

        monkeypatch.setattr(kind, "run", counted)
        return taken

    return count


@pytest.fixture
def quick(alone, at_once):
    """The same for blocks; tells how many steps each call of a program took, and whether it was compiled."""
    return at_once(Blocks, lambda n, blocks: (n, blocks.is_compiled))


@pytest.fixture
def replayed(at_once):
    """The same for blocks; tells how many steps each call took."""
    return at_once(Blocks)


@pytest.fixture
def eager_to_compile(monkeypatch, quick):
    """The compiler is started at once, too."""
    monkeypatch.setattr(programs, "VERY_LONG", 0.0)
    return quick


@pytest.fixture(scope="session")
def package():
    """A compiled program of `rough_runs.schools`."""
    if background.compiler() is None:
        pytest.skip("there is no C++ compiler on this machine")
    svi = rough_runs.schools()
    svi.setup(*rough_runs.ARGS)
    job = programs.blocks_of(svi, programs.rehearse(svi, rough_runs.ARGS, {}).step).job().encode()
    return Compilation(job, cache.key_of(job)).wait()
