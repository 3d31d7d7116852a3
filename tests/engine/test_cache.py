"""Finished programs on disk."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from ppl import engine
from ppl.engine import cache
from ppl.engine.cache import find, keep, key_of

KEYS = [key_of(f"program {k}") for k in range(5)]
MB = 1_000_000


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("PPL_CACHE_SIZE", raising=False)
    monkeypatch.setattr(cache, "_refuge", None)
    monkeypatch.setattr(cache, "_size", None)
    monkeypatch.setattr(cache, "_warned", set())


@pytest.fixture
def program(tmp_path):
    file = tmp_path / "made.pt2"
    file.write_bytes(b"machine code" * 100)
    return file


def test_a_kept_program_is_found_under_its_key_alone(program):
    assert find(KEYS[0]) is None
    kept = keep(KEYS[0], program)
    assert kept.parent == cache.folder()
    assert kept.suffix == ".pt2"
    assert kept.read_bytes() == program.read_bytes()
    assert find(KEYS[0]) == kept
    assert find(KEYS[1]) is None
    assert os.listdir(cache.folder()) == [kept.name]


def test_importing_makes_no_folder(tmp_path):
    assert cache.folder() == tmp_path / "cache"
    assert find(KEYS[0]) is None
    engine.clear_cache()
    assert not cache.folder().exists()


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"HOME": "/home/u"}, "/home/u/.cache/ppl"),
        ("linux", {"HOME": "/home/u", "XDG_CACHE_HOME": "/fast"}, "/fast/ppl"),
        ("darwin", {"HOME": "/home/u"}, "/home/u/Library/Caches/ppl"),
        ("win32", {"HOME": "/home/u", "LOCALAPPDATA": "/local"}, "/local/ppl"),
        ("linux", {"HOME": "/home/u", "PPL_CACHE_DIR": "~/mine"}, "/home/u/mine"),
    ],
)
def test_the_folder_is_where_the_platform_keeps_caches(monkeypatch, platform, variables, expected):
    for name in ("PPL_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache.folder() == Path(expected)


def test_a_relative_folder_does_not_move_with_the_process(monkeypatch, tmp_path):
    monkeypatch.setenv("PPL_CACHE_DIR", "programs")
    monkeypatch.chdir(tmp_path)
    assert cache.folder() == tmp_path / "programs"


# -- keys


def test_a_key_tells_contents_apart_and_where_they_end():
    keys = [key_of("ab"), key_of("a", "b"), key_of(b"ab", b""), key_of("b", "a"), key_of()]
    assert len(set(keys)) == len(keys)
    assert key_of("ab") == key_of(b"ab")
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in keys)


def test_a_key_is_the_same_in_another_process():
    code = "from ppl.engine.cache import key_of; print(key_of('graph'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == key_of("graph")


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("torch.__version__", "2.99.0"),
        ("sys.version", "3.99.0"),
        ("ppl.__version__", "9.9"),
        ("platform.machine", lambda: "riscv64"),
        ("platform.libc_ver", lambda: ("glibc", "1.0")),
        ("torch.backends.cpu.get_cpu_capability", lambda: "AVX9"),
        ("ppl.engine.cache._processor", lambda: "flags: fpu"),
    ],
)
def test_a_key_changes_with_what_the_machine_code_depends_on(monkeypatch, target, value):
    before = key_of("graph")
    monkeypatch.setattr(target, value)
    cache._surroundings.cache_clear()
    changed = key_of("graph")
    monkeypatch.undo()
    cache._surroundings.cache_clear()
    assert changed != before == key_of("graph")


@pytest.mark.parametrize("changing", ["worker.py", "kept.h"])
def test_a_key_changes_with_the_sources_of_the_engine(changing, monkeypatch, tmp_path):
    before = key_of("graph")
    for source in Path(cache.__file__).parent.rglob("*.*"):
        if source.suffix in (".py", ".h"):
            (tmp_path / source.name).write_text(source.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))
    cache._surroundings.cache_clear()
    same = key_of("graph")
    with (tmp_path / changing).open("a") as source:
        source.write("\n")
    cache._surroundings.cache_clear()
    changed = key_of("graph")
    cache._surroundings.cache_clear()
    assert same == before != changed


@pytest.mark.skipif(sys.platform != "linux", reason="tells of Linux's /proc")
def test_the_processor_is_told_by_its_instructions():
    assert "flags" in cache._processor() or "Features" in cache._processor()
    assert "MHz" not in cache._processor()  # which changes from moment to moment


# -- files that cannot be trusted


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_program_is_no_program_and_is_removed(program, damage):
    kept = keep(KEYS[0], program)
    content = kept.read_bytes()
    bad = {"truncated": content[:-1], "flipped": bytes([content[0] ^ 1]) + content[1:], "empty": b""}[damage]
    kept.write_bytes(bad)
    assert find(KEYS[0]) is None
    assert not kept.exists()

    assert keep(KEYS[0], program) == find(KEYS[0])


def test_a_damaged_program_does_not_hide_a_whole_one(program, tmp_path):
    whole = keep(KEYS[0], program)
    other = tmp_path / "other.pt2"
    other.write_bytes(b"other")
    later = keep(KEYS[0], other)
    os.utime(whole, (1, 1))
    assert find(KEYS[0]) == later
    later.write_bytes(b"oth")
    assert find(KEYS[0]) == whole


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_a_program_of_another_user_is_not_loaded(program):
    kept = keep(KEYS[0], program)
    os.chown(kept, 12345, 12345)
    assert find(KEYS[0]) is None
    assert kept.exists()


def test_files_that_are_no_programs_are_left_alone(program, monkeypatch):
    cache.folder().mkdir()
    foreign = [cache.folder() / name for name in ("thesis.tex", f"{KEYS[0]}-notes.txt", "a-b.pt2")]
    for file in foreign:
        file.write_bytes(b"x" * 1000)
        os.utime(file, (1, 1))
    (cache.folder() / f"{KEYS[2]}-folder").mkdir()
    monkeypatch.setenv("PPL_CACHE_SIZE", "0")
    keep(KEYS[1], program)
    assert find(KEYS[0]) is None
    assert find(KEYS[2]) is None
    engine.clear_cache()
    assert find(KEYS[1]) is None
    assert all(file.exists() for file in foreign)


def test_a_program_that_vanishes_while_it_is_read_is_a_miss(program, monkeypatch):
    kept = keep(KEYS[0], program)
    listed = cache._files(cache.folder(), "*")
    kept.unlink()
    monkeypatch.setattr(cache, "_files", lambda *_: listed)
    assert find(KEYS[0]) is None
    cache.evict()
    engine.clear_cache()


# -- size


def fill(tmp_path, keys, size=MB):
    for age, key in enumerate(keys):
        file = tmp_path / "big.pt2"
        file.write_bytes(bytes([age]) * size)
        os.utime(keep(key, file), (1000 + age, 1000 + age))


def test_beyond_the_limit_the_least_recently_used_go(monkeypatch, tmp_path):
    monkeypatch.setenv("PPL_CACHE_SIZE", "3.5")
    fill(tmp_path, KEYS[:3])
    assert find(KEYS[0])  # used now: the second is the oldest
    fill(tmp_path, KEYS[3:4])
    assert [find(key) is not None for key in KEYS] == [True, False, True, True, False]


def test_a_program_larger_than_the_limit_stays_until_the_next(program):
    engine.set_cache_size(0)
    assert keep(KEYS[0], program).exists()
    assert keep(KEYS[1], program).exists()
    assert find(KEYS[0]) is None


def test_the_limit_can_be_set_and_must_be_a_number(monkeypatch):
    assert cache.cache_size() == 2000
    monkeypatch.setenv("PPL_CACHE_SIZE", "7.5")
    assert cache.cache_size() == 7.5
    engine.set_cache_size(3)
    assert cache.cache_size() == 3
    for bad in (-1, float("nan")):
        with pytest.raises(ValueError, match="set_cache_size: expected megabytes"):
            engine.set_cache_size(bad)


@pytest.mark.parametrize("text", ["two", "-1", "nan"])
def test_a_limit_in_the_environment_that_is_no_number_warns_once(monkeypatch, text):
    monkeypatch.setenv("PPL_CACHE_SIZE", text)
    with pytest.warns(UserWarning, match=f"PPL_CACHE_SIZE: expected megabytes, such as 2000, got '{text}'"):
        assert cache.cache_size() == 2000
    assert cache.cache_size() == 2000


def test_what_killed_processes_left_is_swept_up_when_it_is_old(program):
    cache.folder().mkdir()
    old, young = (cache.folder() / f"{KEYS[0]}.{name}.partial" for name in ("abc123", "def456"))
    lock = cache.folder() / f"{KEYS[1]}.lock"
    for file in (old, young, lock):
        file.touch()
    for file in (old, lock):
        os.utime(file, (1, 1))
    keep(KEYS[2], program)
    assert not old.exists()
    assert not lock.exists()
    assert young.exists()


def test_clearing_removes_all_and_a_program_in_use_goes_on(program):
    kept = keep(KEYS[0], program)
    keep(KEYS[1], program)
    with kept.open("rb") as loaded:
        engine.clear_cache()
        assert loaded.read() == program.read_bytes()
    assert os.listdir(cache.folder()) == []


# -- folders that cannot be written


def is_unwritable(program, reason):
    """`keep` warns once, and what it kept is found in a folder of this process."""
    with pytest.warns(UserWarning, match=reason) as caught:
        kept = keep(KEYS[0], program)
    assert len(caught) == 1
    text = str(caught[0].message)
    assert str(cache.folder()) in text
    assert "PPL_CACHE_DIR" in text
    again = keep(KEYS[1], program)  # a second warning would be an error
    assert kept.parent == again.parent != cache.folder()
    assert find(KEYS[0]) == kept
    cache.evict()
    engine.clear_cache()
    assert find(KEYS[0]) is None


def test_a_folder_that_cannot_be_made_warns_once_and_is_replaced(program, monkeypatch):
    monkeypatch.setenv("PPL_CACHE_DIR", str(program / "below" / "a file"))
    is_unwritable(program, "Not a directory")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_full_or_read_only_folder_warns_once_and_is_replaced(program, monkeypatch, number):
    real, main = cache.place, cache.folder()

    def place(file, key, folder):
        if folder == main:
            raise OSError(number, os.strerror(number))
        return real(file, key, folder)

    monkeypatch.setattr(cache, "place", place)
    is_unwritable(program, os.strerror(number))


def test_a_disk_that_fills_up_while_a_program_is_written_leaves_nothing_there(program, monkeypatch):
    def replace(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", replace)
    with pytest.warns(UserWarning, match="No space left"):
        assert keep(KEYS[0], program) == program  # the temporary folder is full too
    assert os.listdir(cache.folder()) == []


def test_programs_in_a_read_only_folder_are_used(program, monkeypatch):
    kept = keep(KEYS[0], program)

    def utime(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "utime", utime)
    assert find(KEYS[0]) == kept


def test_a_folder_of_this_process_is_removed_by_it_alone(program, monkeypatch, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    cache._remove_refuge(folder, os.getpid() + 1)  # a process that was forked ends
    assert folder.exists()
    cache._remove_refuge(folder, os.getpid())
    assert not folder.exists()


# -- several at once


def test_many_threads_keep_find_evict_and_clear_at_once(tmp_path, monkeypatch):
    engine.set_cache_size(0.02)
    files = []
    for k in range(4):
        files.append(tmp_path / f"{k}.pt2")
        files[k].write_bytes(bytes([k]) * 8000)

    def work(k):
        seen = 0
        for turn in range(40):
            keep(KEYS[k], files[k])
            found = find(KEYS[(k + 1) % 4])
            if found is not None:
                with suppress(FileNotFoundError):
                    assert found.read_bytes() == files[(k + 1) % 4].read_bytes()
                    seen += 1
            if k == 0 and turn % 10 == 0:
                engine.clear_cache()
        return seen

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) > 0
    assert not [name for name in os.listdir(cache.folder()) if name.endswith(".partial")]
