"""The cache of compiled code: whatever befalls its folder costs one warning and a compilation, never an answer.

F12 a folder that cannot be written, F13 damaged files, F14 no space, F15 code that has changed since.
"""

import errno
import os
import shutil
import warnings

import pytest
from numba.core import caching

from kernel_cache import (
    SRC,
    TEXT,
    exactly_one_warning,
    files,
    finished,
    hits,
    line,
    load,
    started,
)
from sdesim.core import cache

# ---- F15: stale code -----------------------------------------------------------------------------------------


def test_the_next_process_hits_and_an_edited_helper_misses(folder):
    assert finished(started(folder, 0.5)) == (2.0, 0)
    before = files(folder)
    assert finished(started(folder, 0.5)) == (2.0, 1)
    assert files(folder) == before
    # the helper of the helper reads another constant; raw Numba would go on with the old one
    assert finished(started(folder, 5.0)) == (11.0, 0)


@pytest.mark.slow
def test_an_upgraded_library_misses(folder, tmp_path):
    """No formula names the function that its np.exp becomes, so the library itself is part of the fingerprint."""
    copy = tmp_path / "copy"
    shutil.copytree(SRC / "sdesim", copy / "sdesim", ignore=shutil.ignore_patterns("__pycache__"))
    assert finished(started(folder, 0.5, copy)) == (2.0, 0)
    with (copy / "sdesim" / "core" / "functions.py").open("a", encoding="utf-8") as file:
        file.write("\n_UPGRADED = True\n")
    assert finished(started(folder, 0.5, copy)) == (2.0, 0)


# ---- faults -------------------------------------------------------------------------------------------------


def truncated(data):
    return data[: len(data) // 2]


def garbage(data):
    return b"\x80\x04not a pickle at all" * 9


def empty(data):
    return b""


def flipped(data):
    at = 2 * len(data) // 3
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


@pytest.mark.parametrize("suffix", [".nbi", ".nbc", ".seal"])
@pytest.mark.parametrize("damage", [truncated, garbage, empty, flipped])
def test_a_damaged_entry_is_compiled_anew(folder, suffix, damage):
    assert load(line())(2.0) == 2.0
    (entry,) = (p for p in folder.rglob("*") if p.suffix == suffix)
    entry.write_bytes(damage(entry.read_bytes()))
    if suffix != ".seal":
        os.utime(entry, (1, 1))  # what goes bad on a disk was not written just now
    with exactly_one_warning("damaged"):
        again = load(line())
    assert again(2.0) == 2.0
    assert hits(again) == 0
    assert hits(load(line())) == 1  # and the folder is whole again


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_a_missing_file_is_compiled_anew(folder, suffix):
    load(line())
    (entry,) = (p for p in folder.rglob("*") if p.suffix == suffix)
    entry.unlink()
    with exactly_one_warning("damaged"):
        again = load(line())
    assert again(2.0) == 2.0


def test_entries_without_a_seal_are_not_trusted(folder):
    """A process that was killed between writing and sealing leaves these; nobody needs to hear of it."""
    load(line())
    for seal in folder.glob("*.seal"):
        seal.unlink()
    again = load(line())
    assert (again(2.0), hits(again)) == (2.0, 0)
    assert hits(load(line())) == 1


def test_entries_younger_than_their_seal_are_not_trusted(folder):
    """Another process has met a new type and is still at work; nobody needs to hear of it."""
    load(line())
    (entry,) = (p for p in folder.rglob("*") if p.suffix == ".nbi")
    (seal,) = folder.glob("*.seal")
    entry.write_bytes(flipped(entry.read_bytes()))
    os.utime(seal, (1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load(line())
    assert (again(2.0), hits(again)) == (2.0, 0)
    assert hits(load(line())) == 1


def test_another_text_under_our_name_is_never_run(folder):
    load(line())
    (text,) = folder.glob("kernel_*.py")
    text.write_text("raise SystemExit('foreign code was run')\n")
    assert load(line())(2.0) == 2.0
    assert text.read_text() == TEXT


def test_a_folder_that_cannot_be_made(folder, monkeypatch):
    folder.write_text("a file where the folder should be")
    monkeypatch.setenv("SDESIM_CACHE_DIR", str(folder / "below"))
    with exactly_one_warning("cannot be written"):
        kernels = [load(line(slope)) for slope in (0.5, 0.25)]
    assert [kernel(2.0) for kernel in kernels] == [2.0, 1.5]


def test_the_folder_of_another_user_is_refused(folder, monkeypatch):
    folder.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 123456789, raising=False)
    with exactly_one_warning("belongs to another user"):
        assert load(line())(2.0) == 2.0
    assert not list(folder.iterdir())


def no_space(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["text", "numba"])
def test_a_full_disk(folder, monkeypatch, where):
    with monkeypatch.context() as patch:
        if where == "text":
            patch.setattr(cache, "write_atomic", no_space)
        else:
            patch.setattr(caching.IndexDataCacheFile, "_open_for_write", no_space)
        with exactly_one_warning("No space left"):
            kernels = [load(line(slope)) for slope in (0.5, 0.25)]
        assert [kernel(2.0) for kernel in kernels] == [2.0, 1.5]
    cache._state["warned"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(line())(2.0) == 2.0
        assert hits(load(line())) == 1


def test_a_full_disk_after_the_index_was_written(folder, monkeypatch):
    """Numba writes the index before the data; raw Numba fails in every later process."""
    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", no_space)
    with exactly_one_warning("No space left"):
        assert load(line())(2.0) == 2.0
    monkeypatch.undo()
    monkeypatch.setattr(cache, "_state", {"folder": folder, "warned": True})
    assert load(line())(2.0) == 2.0


def test_an_error_of_the_formula_is_not_blamed_on_the_folder(folder):
    from numba.core.errors import TypingError

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypingError):
            load(lambda x: x.nothing)


# ---- Ctrl-C --------------------------------------------------------------------------------------------------


def test_ctrl_c_on_the_way_out_of_compiled_code_is_no_fault_of_the_cache(monkeypatch):
    """Python makes a SystemError of an exception that a signal's handler leaves beside a result."""

    def leaving(*_):
        inner = SystemError("<function> returned a result with an exception set")
        inner.__cause__ = KeyboardInterrupt()
        raise SystemError("<dispatcher> returned a result with an exception set") from inner

    monkeypatch.setattr(cache.Kernel, "dispatcher", property(lambda self: leaving))
    with pytest.raises(KeyboardInterrupt):
        cache.Kernel(leaving, "")()
