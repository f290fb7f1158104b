"""The disk cache: what hits, what misses, and who shares it. ``faults/test_compiled_code.py`` has what befalls it."""

import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from numba import njit

from kernel_cache import TEXT, files, finished, hits, line, load, started
from sdesim.core import cache, compile

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
