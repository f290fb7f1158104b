"""simulate(out=...): the same bits in a file as in memory, whole or under a partial name; no old file is lost."""

import concurrent.futures
import contextlib
import dataclasses
import errno
import multiprocessing
import os
import pathlib
import pickle
import shutil
import tracemalloc

import numpy as np
import pytest

import sdesim as sde
from sdesim import execution, preparation
from sdesim.core import blocks, executors, output
from sdesim.errors import MemoryLimitError, NonFiniteError

OU = sde.OrnsteinUhlenbeck(1.0, 0.3, 0.8)
COMMON = {"n_steps": 12, "n_paths": 3000, "seed": 5, "first_path": 700, "workers": 2}


@dataclasses.dataclass(frozen=True)
class Turning(sde.Process):
    """Two components."""

    dim = 2

    def drift(self, x, t):
        return x[1], -x[0]

    def diffusion(self, x, t):
        return 0.3, 0.2


class Batches(sde.OrnsteinUhlenbeck):
    """The same process through the whole-array engine."""

    batch_only = True


@dataclasses.dataclass(frozen=True)
class Cubic(sde.Process):
    """Explodes from afar."""

    def drift(self, x, t):
        return x * x * x

    def diffusion(self, x, t):
        return 0.5


def run(process=OU, x0=0.5, **settings):
    return sde.simulate(process, x0, (0.0, 1.2), **{**COMMON, **settings})


def left(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of one leaf, so that there are many."""
    cut = blocks.cut
    monkeypatch.setattr(blocks, "cut", lambda first, n, size: cut(first, n, 256))


def stopping(at, kind=KeyboardInterrupt):
    def progress(done, total):
        if done >= at:
            raise kind("stopped")

    return progress


# ---- the same bits


@pytest.mark.parametrize("save", ["final", "all", 5, [0.3, 0.6], [0.0]])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("process", "x0"),
    [(OU, 0.5), (Batches(1.0, 0.3, 0.8), 0.5), (Turning(), [1.0, 0.0])],
    ids=["tiles", "batch", "2-D"],
)
def test_a_file_has_the_bits_of_memory(tmp_path, process, x0, dtype, save):
    plain = run(process, x0, dtype=dtype, save=save)
    filed = run(process, x0, dtype=dtype, save=save, out=tmp_path / "x.npy")
    assert left(tmp_path) == ["x.npy"]
    whole = np.load(tmp_path / "x.npy")
    assert whole.dtype == filed.x.dtype == dtype
    assert whole.shape == filed.x.shape == plain.x.shape == (3000, len(plain.t), *np.shape(x0))
    for found in (whole, filed.x):
        assert found.tobytes() == plain.x.tobytes()
    assert filed.final.tobytes() == plain.final.tobytes()
    assert isinstance(filed.x, np.memmap)
    assert not filed.x.flags.writeable
    assert filed.success
    assert filed.message == plain.message


@pytest.mark.parametrize("method", ["exact", "sri", "adaptive_sri", "weak_second", "implicit_euler"])
def test_every_engine_writes_the_same_bits(tmp_path, method):
    plain, filed = run(method=method, save=4), run(method=method, save=4, out=tmp_path / "x.npy")
    assert filed.x.tobytes() == plain.x.tobytes()
    assert filed.final.tobytes() == plain.final.tobytes()


def test_statistics_and_states_in_one_run(tmp_path):
    wanted = [sde.Moments(), sde.Histogram(-3, 3, 30), sde.FirstPassage(-0.5, 1.5, bins=10)]
    both = run(save="all", reduce=wanted, out=tmp_path / "x.npy")
    plain, reduced = run(save="all"), run(save="all", reduce=wanted)
    assert both.x.tobytes() == plain.x.tobytes()
    assert both.final.tobytes() == plain.final.tobytes()
    for one, other in zip(both.reductions, reduced.reductions, strict=True):
        assert pickle.dumps(one) == pickle.dumps(other)
    only_end = run(reduce=wanted[:1], out=tmp_path / "end.npy")
    assert only_end.x.tobytes() == run().x.tobytes()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_executors_write_the_same_file(tmp_path, kind):
    plain = run(save="all")
    if kind == "threads":
        pool = concurrent.futures.ThreadPoolExecutor(2)
    else:
        pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with pool:
        filed = run(save="all", out=tmp_path / "x.npy", executor=pool)
    assert filed.x.tobytes() == plain.x.tobytes()
    assert left(tmp_path) == ["x.npy"]


def test_a_worker_that_does_not_see_the_file_says_so(tmp_path):
    class Elsewhere(concurrent.futures.ThreadPoolExecutor):
        def submit(self, task, block, run, *rest):
            there = dataclasses.replace(run.out, path=tmp_path / "other" / "x.npy")
            return super().submit(task, block, dataclasses.replace(run, out=there), *rest)

    with Elsewhere(1) as pool, pytest.raises(FileNotFoundError, match="a file system that all workers share"):
        run(out=tmp_path / "x.npy", executor=pool)


# ---- memory


def traced(**settings):
    tracemalloc.start()
    try:
        paths = run(n_paths=100_000, n_steps=40, save="all", workers=1, **settings)
        return paths, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("small_blocks")
def test_states_in_a_file_take_no_memory(tmp_path):
    run()
    path = tmp_path / "x.npy"
    paths, peak = traced(out=path)
    size = path.stat().st_size
    assert size > 32 * 10**6
    assert peak < size / 8
    assert traced()[1] > size  # the control: without a file they do
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists():  # the blocks have let go of their rows
        assert sum(str(tmp_path) in line for line in maps.read_text().splitlines()) == 1
    assert len(pickle.dumps(paths)) < 20_000
    assert (pickle.loads(pickle.dumps(paths)).x[::1000] == paths.x[::1000]).all()


def test_what_does_not_fit_into_memory_fits_into_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "_available_memory", lambda: 1e5)
    with pytest.raises(MemoryLimitError, match=r"save=k.*reduce=.*out='paths\.npy'"):
        run(save="all")
    assert run(save="all", out=tmp_path / "x.npy").x.shape == (3000, 13)
    with pytest.raises(MemoryLimitError):  # the states at the end are kept beside those at 0, in memory
        run(save=[0.0], n_paths=20_000, out=tmp_path / "y.npy")
    assert left(tmp_path) == ["x.npy"]


# ---- what stays where a run did not come to its end


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("reduce", [None, [sde.Moments()]])
def test_ctrl_c_leaves_the_finished_paths_under_the_partial_name(tmp_path, reduce):
    plain = run(save="all")
    paths = run(save="all", out=tmp_path / "x.npy", progress=stopping(1500), workers=1, reduce=reduce)
    n = paths.n_paths
    assert 1500 <= n < 3000
    assert not paths.success
    assert paths.message.startswith(f"interrupted: {n} of 3000 paths came to the end; their states are in ")
    assert paths.message.endswith("x.npy.partial")
    assert left(tmp_path) == ["x.npy.partial"]
    found = np.load(tmp_path / "x.npy.partial")  # an array like any other, of the finished paths
    assert found.shape == (n, 13)
    for states in (found, paths.x, pickle.loads(pickle.dumps(paths)).x):
        assert states.tobytes() == plain.x[:n].tobytes()
    assert paths.final.tobytes() == plain.final[:n].tobytes()


@pytest.mark.parametrize("save", ["final", "all", [0.3]])
def test_ctrl_c_before_the_first_path(tmp_path, save, monkeypatch):
    monkeypatch.setattr(executors.Threads, "wait", lambda crew: stopping(0)(0, 0))
    monkeypatch.setattr(executors.Threads, "done", lambda crew: dict)
    paths = run(save=save, out=tmp_path / "x.npy")
    assert paths.n_paths == 0
    assert paths.x.shape[0] == len(paths.final) == 0
    assert np.load(tmp_path / "x.npy.partial").shape == (0, len(paths.t))


@pytest.mark.usefixtures("small_blocks")
def test_an_error_leaves_what_was_written_and_says_where(tmp_path):
    with pytest.raises(LookupError, match="stopped") as caught:
        run(save="all", out=tmp_path / "x.npy", progress=stopping(1500, LookupError), workers=1)
    assert any("x.npy is in" in note and "x.npy.partial" in note for note in caught.value.__notes__)
    assert left(tmp_path) == ["x.npy.partial"]
    found = np.load(tmp_path / "x.npy.partial", mmap_mode="r")
    assert found[:1024].tobytes() == run(save="all").x[:1024].tobytes()


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_paths_that_are_not_finite(tmp_path):
    settings = dict(process=Cubic(), x0=np.array([0.1] * 20 + [40.0]), n_paths=None, save="all")
    with pytest.raises(NonFiniteError, match=r"1 of 21 paths.*; the states are in .*x\.npy\.partial"):
        run(**settings, out=tmp_path / "x.npy")
    assert left(tmp_path) == ["x.npy.partial"]
    for policy in ("freeze", "ignore"):
        with pytest.warns(RuntimeWarning, match="1 of 21"):
            filed = run(**settings, out=tmp_path / f"{policy}.npy", on_nonfinite=policy)
        with pytest.warns(RuntimeWarning, match="1 of 21"):
            plain = run(**settings, on_nonfinite=policy)
        assert filed.x.tobytes() == plain.x.tobytes()
        assert filed.final.tobytes() == plain.final.tobytes()
        assert (tmp_path / f"{policy}.npy").exists()


# ---- what is refused


def test_no_file_is_overwritten(tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="exists and is not overwritten; delete it, or give another name"):
        run(out=path)
    assert path.read_bytes() == b"precious"
    (tmp_path / "y.npy.partial").write_bytes(b"of another")
    with pytest.raises(FileExistsError, match="another run writes it"):
        run(out=tmp_path / "y.npy")
    assert (tmp_path / "y.npy.partial").read_bytes() == b"of another"


def test_a_file_made_meanwhile_is_not_overwritten(tmp_path):
    path = tmp_path / "x.npy"
    with pytest.warns(RuntimeWarning, match=r"by somebody else meanwhile, the states are in .*\.partial"):
        paths = run(out=path, progress=lambda done, total: path.write_bytes(b"precious"))
    assert path.read_bytes() == b"precious"
    assert paths.x.tobytes() == run().x.tobytes()


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("x.npz", ValueError, "path that ends in .npy or .zarr, got"),
        ("x", ValueError, "path that ends in .npy or .zarr, got"),
        ("none/x.npy", FileNotFoundError, "does not exist; make it before writing x.npy"),
        (True, TypeError, "path that ends in .npy or .zarr, got True"),
    ],
)
def test_bad_paths_are_refused_before_anything_is_done(tmp_path, monkeypatch, name, error, message):
    monkeypatch.setattr(execution, "work", None)
    with pytest.raises(error, match=message):
        run(out=name if name is True else tmp_path / name)
    assert left(tmp_path) == []


def test_a_disk_without_room_is_known_at_the_start(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    whole = run(save="all")
    for place, name, stand_in in (
        (shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000)),
        (output.Output, "_reserve", full),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, stand_in)
            with pytest.raises(OSError, match=r"the states need .* GiB are free where x\.npy is to be") as caught:
                run(save="all", out=tmp_path / "x.npy")
        assert caught.value.errno == errno.ENOSPC
        assert left(tmp_path) == []
    assert run(save="all", out=tmp_path / "x.npy").x.tobytes() == whole.x.tobytes()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no blocks")
def test_the_file_has_no_holes_that_a_full_disk_could_not_fill(tmp_path):
    place = output.Output.at(tmp_path / "x.npy", (1000, 50, 2), np.dtype(np.float64))
    place.create()
    found = place.partial.stat()
    assert found.st_size == place.n_bytes
    assert found.st_blocks * 512 >= place.n_bytes


# ---- controls


@pytest.mark.usefixtures("small_blocks")
def test_rows_in_a_wrong_place_are_seen(tmp_path, monkeypatch):
    rows = output.Output.rows
    monkeypatch.setattr(output.Output, "rows", lambda self, first, n: rows(self, max(0, first - 1), n))
    filed = run(save="all", out=tmp_path / "x.npy")
    assert filed.x.tobytes() != run(save="all").x.tobytes()


@pytest.mark.usefixtures("small_blocks")
def test_a_partial_file_that_is_not_shortened_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(output.Output, "shorten", lambda self, n: None)
    with contextlib.suppress(KeyboardInterrupt):
        run(save="all", out=tmp_path / "x.npy", progress=stopping(1500), workers=1)
    assert len(np.load(tmp_path / "x.npy.partial")) == 3000
