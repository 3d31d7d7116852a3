"""Libraries are compiled once for a source, a torch and a machine; without a compiler nothing breaks."""

import ctypes
import subprocess
import sys
import threading

import pytest
import torch

from ppl.engine import native
from ppl.engine.native import CannotCompile, Folder, compile_library, compiler, library, library_key

SMALL = 'extern "C" int twice(int x) { return 2 * x; }\n'


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A folder with the source of a small library, in place of the engine's."""
    (tmp_path / "twice.cpp").write_text(SMALL)
    monkeypatch.setattr(native, "SOURCES", tmp_path)
    monkeypatch.setattr(native, "_loaded", {})
    return tmp_path


@pytest.fixture
def gpp():
    if compiler() is None:
        pytest.skip("there is no C++ compiler on this machine")


def test_a_library_is_compiled_when_asked_and_found_from_then_on(sources, gpp, monkeypatch):
    store = Folder(sources / "store")
    assert library("twice", store=store) is None
    built = library("twice", build=True, store=store)
    assert isinstance(built, ctypes.CDLL)
    assert built.twice(21) == 42
    assert library("twice", store=store) is built
    monkeypatch.setattr(native, "_loaded", {})  # another process, where nothing can be compiled
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    found = library("twice", build=True, store=store)
    assert found is not None
    assert found.twice(4) == 8
    assert [file.name for file in (sources / "store").iterdir()] == [library_key(sources / "twice.cpp")]


def test_a_broken_file_counts_as_none(sources, gpp):
    store = Folder(sources / "store")
    store.path.mkdir()
    (store.path / library_key(sources / "twice.cpp")).write_bytes(b"no library")
    assert library("twice", store=store) is None
    built = library("twice", build=True, store=store)
    assert built is not None
    assert built.twice(1) == 2


class Refusing:
    """A store that can keep nothing, and says that the file lies where it was."""

    def find(self, key):
        return None

    def keep(self, key, file):
        return file


def test_a_store_that_keeps_nothing_serves_its_process(sources, gpp):
    built = library("twice", build=True, store=Refusing())
    assert built is not None
    assert built.twice(1) == 2
    assert library("twice", store=Refusing()) is built


def test_threads_that_ask_at_once_compile_once(sources, gpp, monkeypatch):
    calls = []
    compile_it = compile_library
    monkeypatch.setattr(native, "compile_library", lambda *args: (calls.append(args), compile_it(*args)))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(library("twice", True, Folder(sources / "store"))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(found) == 4
    assert len(set(map(id, found))) == 1


def test_the_key_depends_on_the_source_and_on_torch(sources, monkeypatch):
    source = sources / "twice.cpp"
    key = library_key(source)
    assert library_key(source) == key
    source.write_text(SMALL + "\n")
    assert library_key(source) != key
    source.write_text(SMALL)
    monkeypatch.setattr(torch, "__version__", "0.1")
    assert library_key(source) != key


def test_without_a_compiler_it_is_said_what_to_install(sources, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    store = Folder(sources / "store")
    assert library("twice", store=store) is None
    with pytest.raises(CannotCompile, match=r"twice.cpp: there is no C\+\+ compiler; install g\+\+ or set CXX"):
        library("twice", build=True, store=store)
    assert not (sources / "store").exists()


def test_what_the_compiler_says_is_passed_on(sources, gpp):
    (sources / "twice.cpp").write_text("int twice(int x) { return 2 * y; }\n")
    with pytest.raises(CannotCompile, match=r"twice.cpp: .* failed:\n(.|\n)*error"):
        library("twice", build=True, store=Folder(sources / "store"))


def test_a_store_that_cannot_be_written_is_an_error_of_the_system(sources, gpp):
    (sources / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        library("twice", build=True, store=Folder(sources / "file"))


def test_looking_for_a_library_imports_no_compiler_of_torch():
    code = "import sys, ppl.engine.noise as n; n.fast_draws(); print([m for m in sys.modules if m in "
    code += "('torch._dynamo', 'torch._inductor', 'torch.utils.cpp_extension', 'setuptools')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
