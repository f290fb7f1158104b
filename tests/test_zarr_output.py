"""simulate(out="….zarr"): the same bits as in memory, in chunks of one block each; whole or partial, never lost."""

import concurrent.futures
import errno
import json
import math
import multiprocessing
import pickle
import shutil
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sdesim as sde
from sdesim import execution
from sdesim.core import blocks
from sdesim.core.zarr_output import ZarrOutput

zarr = pytest.importorskip("zarr")

OU = sde.OrnsteinUhlenbeck(1.0, 0.3, 0.8)
TURNING = sde.ito(lambda x, t: (x[1], -x[0]), lambda x, t: (0.3, 0.2), dim=2)
COMMON = {"n_steps": 12, "n_paths": 3000, "seed": 5, "first_path": 512, "workers": 2}


def run(process=OU, x0=0.5, **settings):
    return sde.simulate(process, x0, (0.0, 1.2), **{**COMMON, **settings})


def left(folder):
    return sorted(entry.name for entry in folder.iterdir())


def stopping(at, error=KeyboardInterrupt):
    def progress(done, total):
        if done >= at:
            raise error("stopped")

    return progress


@pytest.mark.parametrize("save", ["final", "all", 5, [0.0, 0.3]])
@pytest.mark.parametrize(("process", "x0", "dtype"), [(OU, 0.5, "f8"), (OU, 0.5, "f4"), (TURNING, (1.0, 0.0), "f8")])
def test_the_same_bits_as_in_memory(tmp_path, process, x0, dtype, save):
    filed = run(process, x0, save=save, dtype=dtype, out=tmp_path / "x.zarr")
    plain = run(process, x0, save=save, dtype=dtype)
    assert left(tmp_path) == ["x.zarr"]
    group = zarr.open_group(tmp_path / "x.zarr", mode="r")
    for found in (group["x"], filed.x, pickle.loads(pickle.dumps(filed)).x):
        assert found.dtype == np.dtype(dtype)
        assert found[:].tobytes() == plain.x.tobytes()
    assert filed.final.tobytes() == plain.final.tobytes()
    assert group["time"][:].tobytes() == plain.t.tobytes()
    assert group["x"].metadata.dimension_names == (
        ("path", "time", "component") if process is TURNING else ("path", "time")
    )
    assert filed.success
    with pytest.raises((ValueError, PermissionError)):
        filed.x[0] = 0.0


def test_the_group_says_how_to_have_it_again(tmp_path):
    filed = run(save=3, out=tmp_path / "x.zarr")
    about = dict(zarr.open_group(tmp_path / "x.zarr", mode="r").attrs)
    assert about == filed.attributes
    process = getattr(sde, about["process"])(**json.loads(about["parameters"]))
    again = sde.simulate(
        process, json.loads(about["x0"])[0], tuple(about["t_span"]), save=3,
        **{name: about[name] for name in ("n_steps", "n_paths", "first_path", "seed", "method", "dtype")},
    )  # fmt: skip
    assert again.x.tobytes() == filed.x[:].tobytes()


@settings(max_examples=200, deadline=None)
@given(
    leaf=st.integers(0, 2**40), n=st.integers(1, 300_000), n_times=st.integers(1, 10_000), d=st.integers(1, 5),
    size=st.integers(1, 70_000),
)  # fmt: skip
def test_no_two_blocks_share_a_chunk(tmp_path_factory, leaf, n, n_times, d, size):
    out = ZarrOutput(tmp_path_factory.getbasetemp() / "x.zarr", (n, n_times, d), np.dtype("f8"), first_path=256 * leaf)
    rows, times, components = out.chunks
    assert rows >= 256
    assert rows * times * components * 8 <= 2**24
    assert components == d
    assert 1 <= times <= n_times
    plan = blocks.cut(256 * leaf, n, out.block(size))
    assert all(block.offset % rows == 0 for block in plan)
    assert all(block.size == rows for block in plan[:-1])
    assert out.n_bytes >= 8 * n * n_times * d


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_executors_write_the_same_group(tmp_path, kind):
    if kind == "threads":
        pool = concurrent.futures.ThreadPoolExecutor(3)
    else:
        pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with pool:
        filed = run(save="all", out=tmp_path / "x.zarr", executor=pool)
    assert filed.x[:].tobytes() == run(save="all").x.tobytes()


def test_states_in_a_group_take_no_memory(tmp_path):
    run(n_paths=300, out=tmp_path / "warm.zarr")
    tracemalloc.start()
    try:
        filed = run(n_paths=100_000, n_steps=40, save="all", workers=1, out=tmp_path / "x.zarr")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = sum(f.stat().st_size for f in (tmp_path / "x.zarr").rglob("*"))
    assert size > 32 * 10**6
    assert peak < size / 3  # a block of 8192 paths, and what Zarr makes of it
    assert filed.x.shape == (100_000, 41)


# ---- what stays where a run did not come to its end


@pytest.mark.parametrize("reduce", [None, [sde.Moments()]])
def test_ctrl_c_leaves_the_finished_paths_under_the_partial_name(tmp_path, reduce):
    plain = run(save="all")
    paths = run(save="all", out=tmp_path / "x.zarr", progress=stopping(1200), workers=1, reduce=reduce)
    n = paths.n_paths
    assert 1200 <= n < 3000
    assert paths.message.endswith("x.zarr.partial")
    assert left(tmp_path) == ["x.zarr.partial"]
    found = zarr.open_group(tmp_path / "x.zarr.partial", mode="r")["x"]
    for states in (found, paths.x, pickle.loads(pickle.dumps(paths)).x):
        assert states.shape == (n, 13)
        assert states[:].tobytes() == plain.x[:n].tobytes()
    assert paths.final.tobytes() == plain.final[:n].tobytes()


@pytest.mark.parametrize("damaged", [False, True])
def test_a_group_is_gone_on_with_from_a_checkpoint(tmp_path, damaged):
    settings = {"save": "all", "out": tmp_path / "x.zarr", "workers": 1, "checkpoint": tmp_path / "c.npz"}
    part = run(progress=stopping(1200), **settings)
    assert 1200 <= part.n_paths < 3000
    del part
    seen = []
    settings["progress"] = lambda done, total: seen.append(done)
    if damaged:  # a chunk that is not what was written
        zarr.open_array(tmp_path / "x.zarr.partial" / "x", mode="r+")[0:1, 3] = 7.0
        with pytest.warns(RuntimeWarning, match="1 of . blocks in x.zarr.partial are not what was written"):
            paths = run(**settings)
    else:
        paths = run(**settings)
    assert paths.x[:].tobytes() == run(save="all").x.tobytes()
    assert seen[0] >= (512 if damaged else 1200)
    assert (tmp_path / "x.zarr").is_dir()
    assert not (tmp_path / "x.zarr.partial").exists()


def test_an_error_leaves_what_was_written_and_says_where(tmp_path):
    with pytest.raises(LookupError, match="stopped") as caught:
        run(save="all", out=tmp_path / "x.zarr", progress=stopping(1200, LookupError), workers=1)
    assert any("x.zarr is in" in note and "x.zarr.partial" in note for note in caught.value.__notes__)
    found = zarr.open_group(tmp_path / "x.zarr.partial", mode="r")["x"]
    assert found[:1024].tobytes() == run(save="all").x[:1024].tobytes()


def test_a_full_disk_in_the_middle_is_told(tmp_path, monkeypatch):
    def full(self, first, rows):
        if first:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(self, first, rows)

    put = ZarrOutput.put
    monkeypatch.setattr(ZarrOutput, "put", full)
    with pytest.raises(OSError, match="No space left") as caught:
        run(out=tmp_path / "x.zarr")
    assert caught.value.errno == errno.ENOSPC
    assert "x.zarr.partial" in caught.value.__notes__[0]
    assert left(tmp_path) == ["x.zarr.partial"]


# ---- what is refused


@pytest.mark.parametrize("name", ["x.zarr", "x.zarr.partial"])
def test_nothing_is_overwritten(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "precious").touch()
    with pytest.raises(FileExistsError, match="delete it, or give another name"):
        run(out=tmp_path / "x.zarr")
    assert left(tmp_path / name) == ["precious"]


def test_a_group_made_meanwhile_is_not_overwritten(tmp_path):
    def progress(done, total):
        (tmp_path / "x.zarr").mkdir(exist_ok=True)

    with pytest.warns(RuntimeWarning, match=r"by somebody else meanwhile, the states are in .*\.partial"):
        paths = run(out=tmp_path / "x.zarr", progress=progress)
    assert left(tmp_path / "x.zarr") == []
    assert paths.x[:].tobytes() == run().x.tobytes()


def test_what_cannot_be_done_is_said_before_anything_is(tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "work", None)
    with pytest.raises(ValueError, match=r"first_path=700 is no multiple of 256.*start at 512, or write a \.npy file"):
        run(out=tmp_path / "x.zarr", first_path=700)
    with pytest.raises(FileNotFoundError, match=r"does not exist; make it before writing x\.zarr"):
        run(out=tmp_path / "none" / "x.zarr")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
        with pytest.raises(OSError, match=r"the states need .* GiB are free") as caught:
            run(out=tmp_path / "x.zarr")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"needs zarr; install it by pip install 'sdesim\[zarr\]'"):
        run(out=tmp_path / "x.zarr")
    assert left(tmp_path) == []


# ---- controls


def test_blocks_that_share_a_chunk_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ZarrOutput, "block", lambda self, size: 256)
    monkeypatch.setattr(ZarrOutput, "chunks", property(lambda self: (512, 1)))
    with pytest.raises(RuntimeError, match="are not whole chunks of 512"):
        run(out=tmp_path / "x.zarr")


def test_a_group_that_is_not_shortened_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(ZarrOutput, "shorten", lambda self, n: None)
    run(save="all", out=tmp_path / "x.zarr", progress=stopping(1200), workers=1)
    found = zarr.open_group(tmp_path / "x.zarr.partial", mode="r")["x"]
    assert found.shape == (3000, 13)
    assert math.isnan(found[-1, -1])
