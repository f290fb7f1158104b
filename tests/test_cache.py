"""The disk cache: whatever befalls its folder costs one warning and a compilation, never an answer."""

import contextlib
import errno
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import warnings

import numpy as np
import pytest
from numba import njit
from numba.core import caching

from sdesim.core import cache, compile

SRC = pathlib.Path(__file__).parents[1] / "src"
TEXT = """\
from numba import njit, types

@njit(types.float64(types.float64), cache=CACHE)
def kernel(x):
    return _formula(x)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cold cache folder, in a process that has neither loaded nor warned."""
    home = tmp_path / "cache"
    monkeypatch.setenv("SDESIM_CACHE_DIR", str(home))
    monkeypatch.setattr(cache, "_state", {"folder": None, "warned": False})
    monkeypatch.setattr(cache, "_modules", {})
    return home


def load(function):
    """The kernel of a formula as a new process would get it: from the folder, or compiled."""
    cache._modules.clear()
    return cache.load(TEXT, {"_formula": compile.formula(function)}).kernel


def hits(kernel):
    return sum(kernel.stats.cache_hits.values())


def line(slope=0.5):
    return lambda x: slope * x + 1.0


def files(folder):
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@contextlib.contextmanager
def exactly_one_warning(match):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [w.category for w in caught] == [RuntimeWarning], [str(w.message) for w in caught]
    assert match in str(caught[0].message)
    assert "SDESIM_CACHE_DIR" in str(caught[0].message)


# ---- hits and misses ----------------------------------------------------------------------------------------


def test_a_lambda_made_twenty_times_is_compiled_once(folder):
    first = load(line())
    assert hits(first) == 0
    assert first(2.0) == 2.0
    before = files(folder)
    assert len(before) == 5  # text, index, data, seal, lock
    for _ in range(20):
        again = load(line())
        assert hits(again) == 1
        assert again(2.0) == 2.0
    assert files(folder) == before
    if os.name == "posix":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


SCRIPT = """
import sys, warnings
warnings.simplefilter("error")
from sdesim.core import cache, compile
TEXT = sys.argv[1]
SLOPE = float(sys.argv[2])
def helper(x): return SLOPE * x
def other_helper(x): return helper(x) + 1.0
kernel = cache.load(TEXT, {"_formula": compile.formula(lambda x: other_helper(x))}).kernel
print(kernel(2.0), sum(kernel.stats.cache_hits.values()), "sdesim" in cache.__file__)
"""


def started(folder, slope, source=SRC):
    environment = {**os.environ, "PYTHONPATH": str(source), "SDESIM_CACHE_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, TEXT, str(slope)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(process):
    out, errors = process.communicate(timeout=60)
    assert not errors, errors
    value, hit, _ = out.split()
    return float(value), int(hit)


def test_the_next_process_hits_and_an_edited_helper_misses(folder):
    assert finished(started(folder, 0.5)) == (2.0, 0)
    before = files(folder)
    assert finished(started(folder, 0.5)) == (2.0, 1)
    assert files(folder) == before
    # the helper of the helper reads another constant; raw Numba would go on with the old one
    assert finished(started(folder, 5.0)) == (11.0, 0)


@pytest.mark.slow
def test_four_processes_at_once_on_a_cold_folder(folder):
    processes = [started(folder, 0.5) for _ in range(4)]
    assert [finished(process)[0] for process in processes] == [2.0] * 4
    assert len(files(folder)) == 5
    assert finished(started(folder, 0.5)) == (2.0, 1)


def test_what_another_process_is_writing_is_not_called_damaged(folder):
    fcntl = pytest.importorskip("fcntl")
    assert finished(started(folder, 0.5)) == (2.0, 0)
    (entry,) = (p for p in folder.rglob("*") if p.suffix == ".nbc")
    (lock,) = folder.glob("*.lock")
    whole = entry.read_bytes()
    with lock.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        entry.write_bytes(whole[:-1])  # as if it were being written, and not sealed yet
        os.utime(entry, (1, 1))
        waiting = started(folder, 0.5)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(3.0)
        entry.write_bytes(whole)
    assert finished(waiting) == (2.0, 1)


@pytest.mark.slow
def test_an_upgraded_library_misses(folder, tmp_path):
    """No formula names the function that its np.exp becomes, so the library itself is part of the fingerprint."""
    copy = tmp_path / "copy"
    shutil.copytree(SRC / "sdesim", copy / "sdesim", ignore=shutil.ignore_patterns("__pycache__"))
    assert finished(started(folder, 0.5, copy)) == (2.0, 0)
    with (copy / "sdesim" / "core" / "functions.py").open("a", encoding="utf-8") as file:
        file.write("\n_UPGRADED = True\n")
    assert finished(started(folder, 0.5, copy)) == (2.0, 0)


def made_of(text, **names):
    scope = {"np": np, **names}
    exec(text, scope)
    return scope["f"]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (line(0.5), line(0.25)),
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x: x + 1, lambda x: x + 1.0),
        (lambda x: x + 0.0, lambda x: x + -0.0),
        (lambda x: np.sin(x), lambda x: np.cos(x)),
        (lambda x, k=1.0: x + k, lambda x, k=2.0: x + k),
        (made_of("def f(x): return K * x", K=1.0), made_of("def f(x): return K * x", K=np.float32(1.0))),
        (made_of("def f(x): return K[0] * x", K=np.zeros(2)), made_of("def f(x): return K[0] * x", K=np.zeros(3))),
        (made_of("def f(x): return K[0] * x", K=np.arange(2000.0)),
         made_of("def f(x): return K[0] * x", K=np.where(np.arange(2000) == 1000, 7.0, np.arange(2000)))),
        (made_of("def f(x): return g(x)", g=njit(lambda x: x)), made_of("def f(x): return g(x)", g=njit(lambda x: -x))),
        (made_of("def f(x): return g(x)", g=njit(lambda x: x)),
         made_of("def f(x): return g(x)", g=njit(fastmath=True)(lambda x: x))),
        (made_of("def f(x): return (lambda: K * x)()", K=1.0), made_of("def f(x): return (lambda: K * x)()", K=2.0)),
    ],
)  # fmt: skip
def test_another_meaning_is_another_fingerprint(a, b):
    def print_of(function):
        return cache.fingerprint(TEXT, {"_formula": compile.formula(function)})

    assert print_of(a) == print_of(a)
    assert print_of(a) != print_of(b)
    assert print_of(a) != cache.fingerprint(TEXT + " ", {"_formula": compile.formula(a)})


class Opaque:
    pass


def test_what_cannot_be_fingerprinted_is_compiled_and_not_kept(folder):
    unused = Opaque()
    function = made_of("def f(x):\n    if x > 1e300:\n        return unused\n    return x", unused=unused)
    with pytest.raises(cache.NotCacheable):
        cache.fingerprint(TEXT, {"_formula": function})
    kernel = cache.load(TEXT, {"_formula": njit(lambda x: 2.0 * x), "_ignored": unused}).kernel
    assert kernel(2.0) == 4.0
    assert not folder.exists()


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


def test_the_folder_is_pruned_and_cleared(folder, monkeypatch):
    for slope in (0.5, 0.25, 0.125):
        load(line(slope))
    assert len(files(folder)) == 15
    oldest = min(folder.glob("kernel_*.py"), key=lambda p: p.stat().st_mtime_ns)
    for entry in folder.rglob(f"{oldest.stem}*"):
        os.utime(entry, (1, 1))
    total = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    monkeypatch.setattr(cache, "LIMIT_BYTES", total - 1)
    assert load(line(2.0))(2.0) == 5.0
    assert not list(folder.rglob(f"{oldest.stem}*"))
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < total
    assert load(line(0.5))(2.0) == 2.0
    cache.clear()
    assert not files(folder)
    assert load(line(0.5))(2.0) == 2.0


def test_two_programs_with_one_formula_share_a_folder(tmp_path):
    """An entry names the module that its formula was defined in; a program without that module compiles anew."""
    body = (
        "import sdesim as sde\n"
        "p = sde.ito(lambda x, t: 0.3 - 1.7 * x, lambda x, t: 0.2 + 0.1 * x)\n"
        "print(sde.simulate(p, 1.0, (0.0, 1.0), n_steps=4, n_paths=4, seed=1).final.sum())\n"
    )
    (tmp_path / "module_of_the_first.py").write_text(body)
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "main.py").write_text(body)
    env = {**os.environ, "SDESIM_CACHE_DIR": str(tmp_path / "cache")}
    found = []
    for where, command in ((tmp_path, ["-c", "import module_of_the_first"]), (tmp_path / "second", ["main.py"])):
        done = subprocess.run(
            [sys.executable, "-W", "error", *command], cwd=where, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert found[0] == found[1]
