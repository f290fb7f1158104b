"""Where results go: F4 a full disk, F5 a target that cannot be written, F22 a reader that has gone, F23 two writers."""

import errno
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import sdesim as sde
from sdesim import cli, execution
from sdesim.core import output, storage

SRC = pathlib.Path(__file__).parents[2] / "src"
# What is printed waits in a buffer, as it does for users: a failure may then come as late as at shutdown.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
ENVIRONMENT["PYTHONPATH"] = str(SRC)
RUN = {"n_steps": 4, "n_paths": 600, "seed": 1}
needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")


def left(folder):
    return sorted(entry.name for entry in folder.iterdir())


def no_space(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ---- F4: a full disk


def test_a_network_that_does_not_fit_leaves_the_old_file(tmp_path, monkeypatch):
    path, net = tmp_path / "net.npz", sde.ScoreMLP(2, (4,), seed=1)
    sde.save(net, path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match=r"net\.npz could not be written: No space left.*as it was") as caught:
            sde.save(sde.ScoreMLP(2, (4,), seed=2), path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert left(tmp_path) == ["net.npz"]
    sde.save(net, path)


@pytest.mark.parametrize("suffix", ["npy", "zarr"])
def test_states_that_do_not_fit_are_not_begun(tmp_path, monkeypatch, suffix):
    pytest.importorskip("zarr")
    monkeypatch.setattr(output.shutil, "disk_usage", lambda path: output.shutil._ntuple_diskusage(10**6, 10**6, 4096))
    with pytest.raises(OSError, match=r"the states need .* GiB are free.*save fewer times") as caught:
        sde.simulate(sde.Wiener(), 0.0, (0, 1), out=tmp_path / f"x.{suffix}", **RUN)
    assert caught.value.errno == errno.ENOSPC
    assert left(tmp_path) == []


def test_a_disk_that_is_full_when_the_room_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(output.os, "posix_fallocate", no_space, raising=False)
    with pytest.raises(OSError, match="the states need") as caught:
        sde.simulate(sde.Wiener(), 0.0, (0, 1), out=tmp_path / "x.npy", **RUN)
    assert caught.value.errno == errno.ENOSPC
    assert left(tmp_path) == []


@needs_full
@pytest.mark.parametrize("command", [["doctor"], ["cache", "path"], ["random", "--raw"]])
def test_a_command_whose_output_does_not_fit_fails_in_one_line(command):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sdesim", *command], stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["sdesim: OSError: [Errno 28] No space left on device"]


# ---- F5: a target that cannot be written is found before the run


@pytest.fixture
def nothing_runs(monkeypatch):
    monkeypatch.setattr(execution, "work", None)


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("suffix", ["npy", "zarr"])
def test_no_folder_and_a_file_in_its_place(tmp_path, suffix):
    pytest.importorskip("zarr")
    with pytest.raises(FileNotFoundError, match="does not exist; make it before writing"):
        sde.simulate(sde.Wiener(), 0.0, (0, 1), out=tmp_path / "none" / f"x.{suffix}", **RUN)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file, and no folder"):
        sde.simulate(sde.Wiener(), 0.0, (0, 1), out=tmp_path / "file" / f"x.{suffix}", **RUN)
    assert left(tmp_path) == ["file"]


@pytest.mark.usefixtures("nothing_runs")
def test_a_folder_that_takes_no_file(tmp_path, monkeypatch):
    def read_only(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(output.tempfile, "TemporaryFile", read_only)
    with pytest.raises(
        OSError, match=r"x\.npy' cannot be written \(Read-only file system\); write elsewhere"
    ) as caught:
        sde.simulate(sde.Wiener(), 0.0, (0, 1), out=tmp_path / "x.npy", **RUN)
    assert caught.value.errno == errno.EROFS


def test_a_network_saved_to_a_folder_or_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    net = sde.ScoreMLP(2, (4,))
    with pytest.raises(IsADirectoryError, match="is a folder; give the name of a file"):
        sde.save(net, tmp_path)
    with pytest.raises(NotADirectoryError, match="is a file, and no folder"):
        sde.save(net, tmp_path / "file" / "net.npz")


@pytest.mark.parametrize("command", ["demo", "sample"])
def test_a_picture_that_cannot_be_written(tmp_path, command, capsys, monkeypatch):
    from sdesim import demo, sampling

    monkeypatch.setattr(demo, "run", None)
    monkeypatch.setattr(sampling, "shipped", None)
    (tmp_path / "file").touch()
    assert cli.main([command, "--out", str(tmp_path / "file" / "x.png")]) == 1
    assert "cannot be written into" in capsys.readouterr().err


def test_without_the_look_at_the_folder_the_run_would_start(tmp_path, monkeypatch):
    """The control."""
    monkeypatch.setattr(output.storage, "check_folder", lambda target: None)
    monkeypatch.setattr(output.Output, "_check_writable", lambda self: None)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        sde.simulate(sde.Wiener(), 0.0, (0, 1), out=tmp_path / "file" / "x.npy", **RUN)


# ---- F22: a reader that has gone


@pytest.mark.parametrize(
    ("command", "reader"),
    [
        ("random --raw", "head -c 10"),
        ("random --normals --words", "head -c 9000000"),
        ("doctor", "true"),
        ("--help", "true"),
    ],
)
def test_a_reader_that_has_gone_is_no_error(command, reader):
    run = f"{sys.executable} -m sdesim {command}"
    done = subprocess.run(
        ["bash", "-c", f"{run} | {reader} >/dev/null; echo ${{PIPESTATUS[0]}}"],
        env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "141")


def test_a_broken_pipe_is_quiet_at_once(monkeypatch, capsys):
    """Whatever command writes; and without the guard it would be told as an error."""

    def gone(options):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(cli, "_doctor", gone)
    monkeypatch.setattr(cli, "_say_no_more", lambda: None)
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().err == ""


# ---- F23: two writers; the whole of it is in tests/test_output.py and tests/test_zarr_output.py


@pytest.mark.parametrize("suffix", ["npy", "zarr"])
def test_of_two_runs_to_one_name_the_second_is_refused(tmp_path, suffix):
    pytest.importorskip("zarr")
    out, seen = tmp_path / f"x.{suffix}", []

    def while_the_first_runs(done, total):
        with pytest.raises(FileExistsError, match="another run writes it") as caught:
            sde.simulate(sde.Wiener(), 5.0, (0, 1), out=out, **RUN)
        seen.append(caught.value)

    first = sde.simulate(sde.Wiener(), 0.0, (0, 1), out=out, progress=while_the_first_runs, **RUN)
    assert seen
    assert np.asarray(first.x[:]).tobytes() == sde.simulate(sde.Wiener(), 0.0, (0, 1), **RUN).x.tobytes()
    assert left(tmp_path) == [f"x.{suffix}"]


def test_of_two_networks_to_one_name_one_is_whole(tmp_path, monkeypatch):
    """Saving is one renaming: a save that comes between is not mixed in."""
    replace, nets = os.replace, [sde.ScoreMLP(2, (4,), seed=k) for k in (1, 2)]
    path = tmp_path / "net.npz"

    def interrupted(source, target):
        monkeypatch.setattr(storage.os, "replace", replace)
        sde.save(nets[1], path)
        replace(source, target)

    monkeypatch.setattr(storage.os, "replace", interrupted)
    sde.save(nets[0], path)
    for name, array in sde.load(path).stored()[1].items():
        assert array.tobytes() == nets[0].stored()[1][name].tobytes()
    assert left(tmp_path) == ["net.npz"]
