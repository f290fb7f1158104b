"""Checkpoints: how they are written and read, what tells one run from another, and what each verb keeps."""

import dataclasses
import errno
import functools
import os
import signal
import threading

import numpy as np
import pytest

import sdesim as sde
from sdesim import execution
from sdesim.core import checkpoint, identity, storage
from sdesim.core.checkpoint import Checkpoint, checked_path
from sdesim.errors import CheckpointError

OU = sde.OrnsteinUhlenbeck(1.0, 0.0, 0.7)
ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "n": np.array(4), "bytes": np.arange(3, dtype=np.uint8)}


def kept(path, **settings):
    """A checkpoint at a path that has begun."""
    found = Checkpoint(path, "test")
    found.begin({"n": 1, **settings})
    return found


# ---- the file


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "c.npz"
    assert kept(path).write(ARRAYS)
    found = Checkpoint(path, "test").begin({"n": 1})
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array)


def test_the_same_content_has_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        kept(tmp_path / name).write(ARRAYS)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_the_one_before_is_kept(tmp_path):
    path = tmp_path / "c.npz"
    file = kept(path)
    file.write({"a": np.array(1.0)})
    assert not file.previous.exists()
    file.write({"a": np.array(2.0)})
    assert storage.read(path)[2]["a"] == 2.0
    assert storage.read(file.previous)[2]["a"] == 1.0
    path.unlink()  # to start anew is to delete the file; what was before it is then none of this run
    kept(path).write({"a": np.array(3.0)})
    assert not file.previous.exists()


def test_there_are_two_checkpoints_at_every_moment_of_writing(tmp_path, monkeypatch):
    """And they are two files: what befalls the one does not befall the other."""
    path = tmp_path / "c.npz"
    file = kept(path)
    for value in (1.0, 2.0):
        file.write({"a": np.array(value)})
    seen = []

    def look():
        pair = (path, file.previous)
        assert not os.path.samefile(*pair)
        seen.append(tuple(float(storage.read(place)[2]["a"]) for place in pair))

    def watching(name):
        inner = getattr(os, name)

        def call(*given):
            look()
            inner(*given)
            look()

        monkeypatch.setattr(os, name, call)

    watching("replace"), watching("link")
    file.write({"a": np.array(3.0)})
    assert seen == [(2.0, 1.0)] * 3 + [(3.0, 1.0)] * 2 + [(3.0, 2.0)]


def test_a_file_system_without_links_keeps_the_one_before_too(tmp_path, monkeypatch):
    def refused(*given):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "c.npz"
    file = kept(path)
    for value in (1.0, 2.0):
        file.write({"a": np.array(value)})
    assert storage.read(path)[2]["a"] == 2.0
    assert storage.read(file.previous)[2]["a"] == 1.0


def test_only_ones_own_stale_files_are_deleted(tmp_path):
    own = [tmp_path / "c.npz.0123abcd.tmp", tmp_path / "c.npz.ffffffff.tmp"]
    others = [tmp_path / name for name in ("c.npz.tmp", "c.npz.0123abcd", "bc.npz.0123abcd.tmp", "c.npzx.0123abcd.tmp")]
    for path in (*own, *others):
        path.write_bytes(b"")
    with Checkpoint(tmp_path / "c.npz", "test"):
        pass
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_full_disk_costs_a_warning_and_leaves_what_was_there(tmp_path, monkeypatch):
    """F4: the run goes on, and the checkpoint before is intact."""
    path = tmp_path / "c.npz"
    file = kept(path)
    file.write({"a": np.array(1.0)})
    before = path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(RuntimeWarning, match=r"could not be written .*No space left.*the run goes on"):
        assert not file.write({"a": np.array(2.0)})
    assert not file.write({"a": np.array(2.0)})  # and is told once
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    assert file.write({"a": np.array(2.0)})


def test_it_is_written_every_interval_and_seldomer_where_that_takes_long(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    file = kept(tmp_path / "c.npz")
    assert checkpoint.INTERVAL == 30.0
    clock[0] = 29.0
    assert not file.due()
    clock[0] = 31.0
    assert file.due()
    inner = file._write
    monkeypatch.setattr(file, "_write", lambda *given: (inner(*given), clock.__setitem__(0, clock[0] + 4.0)))
    file.write(ARRAYS)  # takes four seconds
    clock[0] = 35.0 + 79.0
    assert not file.due()
    clock[0] = 35.0 + 81.0
    assert file.due()


# ---- the path, looked at before the run


@pytest.mark.parametrize("verb", ["simulate", "evolve_density", "fit_score", "sample", "expect"])
def test_a_path_that_cannot_be_written_is_found_before_the_run(verb, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    vp = sde.VariancePreserving()
    score = sde.marginal_score(vp, sde.targets.Gaussian(0.0, 1.0))
    grid = sde.Grid(-6, 6, 40)
    calls = {
        "simulate": lambda c: sde.simulate(OU, 0.0, (0.0, 1.0), n_steps=1, n_paths=1, checkpoint=c),
        "evolve_density": lambda c: sde.evolve_density(OU, sde.gaussian(grid, 0, 1), grid, (0.0, 1.0), checkpoint=c),
        "fit_score": lambda c: sde.fit_score(sde.ScoreMLP(1, (2,)), np.arange(9.0), n_iterations=1, checkpoint=c),
        "sample": lambda c: sde.sample(vp, score, 3, n_steps=1, checkpoint=c),
        "expect": lambda c: sde.expect(OU, lambda x: x, 0.0, (0.0, 1.0), 0.1, checkpoint=c),
    }
    cases = [
        (tmp_path / "folder", ValueError, "checkpoint path is a folder: .*folder"),
        (tmp_path / "file" / "c.npz", NotADirectoryError, "is not a folder"),
        (tmp_path / "nowhere" / "c.npz", FileNotFoundError, "nowhere does not exist"),
        (7, TypeError, "checkpoint must be the path of a file, got 7"),
    ]
    for path, kind, said in cases:
        with pytest.raises(kind, match=said):
            calls[verb](path)


def test_a_folder_without_leave_to_write(tmp_path, monkeypatch):
    def refused(dir):  # as root, modes keep nobody out
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(checkpoint.tempfile, "TemporaryFile", refused)
    with pytest.raises(PermissionError, match=r"checkpoint .*c.npz cannot be written into .*: Permission denied"):
        checked_path(tmp_path / "c.npz")


# ---- one run at a time


def test_one_run_at_a_time(tmp_path):
    path = tmp_path / "c.npz"
    with Checkpoint(path, "test"):
        with pytest.raises(CheckpointError, match="is in use by another run"), Checkpoint(path, "test"):
            pass
        with Checkpoint(tmp_path / "d.npz", "test"):
            pass
    with Checkpoint(path, "test"):
        pass
    assert list(tmp_path.iterdir()) == []


# ---- signals


def test_ctrl_c_waits_while_the_state_is_in_pieces(tmp_path):
    steps = []

    def work(file):
        with file.held():
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("finished")
            with file.held():
                pass
            steps.append("and what is around it")

    with Checkpoint(tmp_path / "c.npz", "test") as file:
        with pytest.raises(KeyboardInterrupt):
            work(file)
        steps.append("heard")
    assert steps == ["finished", "and what is around it", "heard"]


def test_another_thread_leaves_signals_alone(tmp_path):
    before, seen = signal.getsignal(signal.SIGTERM), []

    def elsewhere():
        with Checkpoint(tmp_path / "c.npz", "test"):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]


# ---- what tells one run from another


@dataclasses.dataclass
class Point:
    x: float
    y: float


def test_settings_name_the_parts():
    found = identity.settings(process=OU, n=3, when=(0.0, 1.0), point=Point(1.0, 2.0), far=np.inf)
    assert found["process"] == "OrnsteinUhlenbeck"
    assert found["process.theta"] == 1.0
    assert found["when"] == "(0.0, 1.0)"
    assert (found["point.x"], found["far"]) == (1.0, "inf")


def scaled(factor):
    return lambda x, t: factor * x


class Owner:
    def __init__(self, value):
        self.value = value

    def method(self, x):
        return self.value * x


CONSTANT = 2.0


def reads_a_global(x):
    return CONSTANT * x


DIFFERENT = [
    (1.0, 2.0), ("a", "b"), (None, 0), (np.ones(3), np.ones(3) + 1e-15), (np.zeros(3), np.zeros((3, 1))),
    (np.zeros(3), np.zeros(3, np.float32)), (-np.zeros(3), np.zeros(3)), (scaled(1.0), scaled(2.0)),
    (lambda x: x + 1, lambda x: x + 2), (Owner(1).method, Owner(2).method), (Owner([1]), Owner([2])),
    (functools.partial(scaled, 1.0), functools.partial(scaled, 2.0)), ([1, [2, "a"]], [1, [2, "b"]]),
    ({"a": np.zeros(2)}, {"a": np.ones(2)}), (list(range(100)), list(range(101))), (np.exp, np.sin), ({1, 2}, {1, 3}),
    (sde.targets.Gaussian(0.0, 1.0), sde.targets.Gaussian(0.0, 2.0)), (sde.Moments(), sde.Histogram(0, 1, 5)),
    (sde.Histogram(0, 1, 5), sde.Histogram(0, 1, 6)), (sde.FirstPassage(0.0), sde.FirstPassage(0.0, keep=True)),
    (sde.Walls(-1, 1, "absorbing"), sde.Walls(-1, 1)), (sde.Grid(0, 1, 5).edges, sde.Grid(0, 1, 6).edges),
    (sde.Observable(lambda x: x), sde.Observable(lambda x: x * x)),
    (sde.ScoreMLP(1, (3,), seed=1), sde.ScoreMLP(1, (3,), seed=2)),
    (sde.ito(scaled(1.0), lambda x, t: 1.0), sde.ito(scaled(2.0), lambda x, t: 1.0)),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), DIFFERENT, ids=[str(k) for k in range(len(DIFFERENT))])
def test_different_values_have_different_settings(a, b):
    assert identity.settings(v=a) == identity.settings(v=a)
    assert identity.settings(v=a) != identity.settings(v=b)


def test_a_function_is_told_by_the_globals_that_it_reads(monkeypatch):
    before = identity.settings(f=reads_a_global)
    monkeypatch.setitem(globals(), "CONSTANT", 3.0)
    assert identity.settings(f=reads_a_global) != before


def test_a_process_of_ones_own_is_told_by_its_methods():
    def written(rate):
        @dataclasses.dataclass(frozen=True, eq=False)
        class Mine(sde.Process):
            theta: float = 1.0

            def drift(self, x, t):
                return -rate * self.theta * x

            def diffusion(self, x, t):
                return 1.0

        return Mine

    class Score:
        def __call__(self, x, t):
            return -x

    class Other(Score):
        def __call__(self, x, t):
            return -2 * x

    Other.__qualname__ = Score.__qualname__
    first, second = written(1.0), written(2.0)
    assert identity.settings(process=first()) == identity.settings(process=written(1.0)())
    assert identity.settings(process=first()) != identity.settings(process=second())
    assert identity.settings(process=first(2.0))["process.theta"] == 2.0
    assert identity.settings(score=Score()) == identity.settings(score=Score())
    assert identity.settings(score=Score()) != identity.settings(score=Other())


def test_equal_values_made_twice_have_equal_settings():
    for make in (lambda: scaled(1.5), lambda: Owner(np.arange(3)), lambda: sde.Langevin(sde.targets.Gaussian(0.0, 1.0)),
                 lambda: sde.marginal_score(sde.EDM(), sde.targets.Gaussian(0.0, 1.0))):  # fmt: skip
        assert identity.settings(v=make()) == identity.settings(v=make())
    score = sde.marginal_score(sde.EDM(), sde.targets.Gaussian(0.0, 1.0))
    before = identity.settings(v=score)
    score(np.zeros(3), 1.0)  # what it remembers of having been used is none of its settings
    assert identity.settings(v=score) == before
    array = np.arange(5.0)
    assert identity.settings(v=array) == identity.settings(v=array.copy())


def test_what_cannot_be_looked_into_is_refused():
    with pytest.raises(TypeError, match="a checkpoint must tell this run from others, and cannot look into a lock"):
        identity.settings(score=threading.Lock())


def test_versions_are_settings(tmp_path, monkeypatch):
    path = tmp_path / "c.npz"
    kept(path).write(ARRAYS)
    monkeypatch.setattr(sde, "__version__", "9.9")
    with pytest.raises(CheckpointError, match=r"belongs to a different run: sdesim 0.1.0 != 9.9"):
        kept(path)


# ---- verbs


def test_a_seed_that_was_not_given_is_that_of_the_run(tmp_path):
    given = {"n_steps": 3, "n_paths": 5, "checkpoint": tmp_path / "c.npz"}
    first = sde.simulate(OU, 0.0, (0.0, 1.0), **given)
    again = sde.simulate(OU, 0.0, (0.0, 1.0), **given)
    assert again.seed == first.seed
    assert np.array_equal(again.x, first.x)


class Counting:
    """A reduction of a user, without a form as arrays."""

    def check(self, d):
        pass

    def start(self, block, d, n_times):
        return sde.Moments().start(block, d, n_times)

    def result(self, parts, t, state_shape):
        return sde.Moments().result(parts, t, state_shape)


def test_a_reduction_that_cannot_be_kept_is_refused(tmp_path):
    given = {"n_steps": 3, "n_paths": 500, "seed": 1, "reduce": [Counting()]}
    with pytest.raises(TypeError, match=r"cannot keep a Counting, which has no restored\(arrays, block, d, n_times\)"):
        sde.simulate(OU, 0.0, (0.0, 1.0), **given, checkpoint=tmp_path / "c.npz")
    whole = sde.simulate(OU, 0.0, (0.0, 1.0), **given)

    class Kept(Counting):
        def restored(self, arrays, block, d, n_times):
            return sde.Moments().restored(arrays, block, d, n_times)

    given["reduce"] = [Kept()]
    for _ in range(2):
        found = sde.simulate(OU, 0.0, (0.0, 1.0), **given, checkpoint=tmp_path / "c.npz")
        assert np.array_equal(found.reductions[0].mean, whole.reductions[0].mean)


def test_states_too_large_for_a_checkpoint_are_sent_to_a_file(tmp_path):
    with pytest.raises(ValueError, match=r"would hold states of .* GiB .*out='paths.npy'"):
        sde.simulate(OU, 0.0, (0.0, 1.0), n_steps=1, n_paths=2 * 10**8, seed=1, checkpoint=tmp_path / "c.npz")


def test_blocks_that_are_known_are_not_run_again(tmp_path, monkeypatch):
    """Whatever the number of workers is when the run goes on: the cut of the paths is that of the checkpoint."""
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(execution, "block_size", lambda run, workers: 256 * workers)
    given = {"n_steps": 3, "n_paths": 5000, "seed": 1, "save": 1}

    def stop(done, total):
        if done > 2000:
            raise KeyboardInterrupt

    part = sde.simulate(OU, 0.0, (0.0, 1.0), **given, workers=1, checkpoint=tmp_path / "c.npz", progress=stop)
    seen = []
    whole = sde.simulate(
        OU, 0.0, (0.0, 1.0), **given, workers=3, checkpoint=tmp_path / "c.npz",
        progress=lambda done, total: seen.append(done),
    )  # fmt: skip
    assert seen[0] >= part.n_paths > 0
    assert np.array_equal(whole.x, sde.simulate(OU, 0.0, (0.0, 1.0), **given).x)


def test_non_finite_paths_are_told_of_also_when_they_come_from_a_checkpoint(tmp_path):
    cubic = sde.ito(lambda x, t: x * x * x, lambda x, t: 1.0)
    given = {"n_steps": 20, "n_paths": 600, "seed": 1, "checkpoint": tmp_path / "c.npz"}
    messages = []
    for _ in range(2):
        with pytest.raises(sde.errors.NonFiniteError) as told:
            sde.simulate(cubic, 2.0, (0.0, 4.0), **given)
        messages.append(str(told.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("blocks", lambda a: a[::-1]),
        ("blocks", lambda a: a + 10**6),
        ("bad", lambda a: a[:1]),
        ("final", lambda a: a[:-1]),
        ("final", lambda a: a.astype(np.float32)),
        ("block_size", lambda a: np.array(0)),
        ("0.values", lambda a: a[:-1]),
        ("0.levels", None),
    ],
)
def test_a_checkpoint_from_which_no_simulation_can_go_on(name, change, tmp_path):
    path = tmp_path / "c.npz"
    given = {"n_steps": 3, "n_paths": 700, "seed": 1, "workers": 1, "checkpoint": path}
    if name.startswith("0."):
        given["reduce"] = [sde.Moments()]
    sde.simulate(OU, 0.0, (0.0, 1.0), **given)
    kind, settings, arrays = storage.read(path)
    if change is None:
        del arrays[name]
    else:
        arrays[name] = change(arrays[name])
    storage.write(path, kind, settings, arrays)
    with pytest.raises(CheckpointError, match=r"checkpoint .* has "):
        sde.simulate(OU, 0.0, (0.0, 1.0), **given)


@pytest.mark.parametrize("change", [lambda a: a[:-1], lambda a: np.nan * a, None])
def test_a_checkpoint_from_which_no_density_can_go_on(change, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    path, grid = tmp_path / "c.npz", sde.Grid(-3, 3, 40)
    p0, count = sde.gaussian(grid, 0.5, 0.5), []
    write = Checkpoint.write

    def stop(self, arrays, *, wait=True):
        write(self, arrays, wait=wait)
        count.append(1)
        if len(count) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "write", stop)
    with pytest.warns(RuntimeWarning, match="interrupted at t = "):
        part = sde.evolve_density(OU, p0, grid, (0.0, 1.0), method="tr_bdf2", checkpoint=path)
    assert not part.success
    assert 0.0 < part.t[-1] < 1.0
    assert part.mass[-1] == pytest.approx(1.0)
    monkeypatch.setattr(Checkpoint, "write", write)
    kind, settings, arrays = storage.read(path)
    m = arrays.pop("at.m")
    storage.write(path, kind, settings, arrays if change is None else {**arrays, "at.m": change(m)})
    with pytest.raises(CheckpointError, match="has a state that cannot be gone on from"):
        sde.evolve_density(OU, p0, grid, (0.0, 1.0), method="tr_bdf2", checkpoint=path)
