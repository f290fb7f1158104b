"""Checkpoints: the file that a long run goes on from, whatever ended it.

A checkpoint is a file of ``storage`` (arrays and a JSON header, every array with its digest, no pickle). It is written
beside its place, synced and moved there, so that it is there whole or not at all, and the one before it is kept under
the name ``PATH.previous``: where the newest is damaged, the run goes on from that, with a warning. Its header holds
the settings that decide the bits of the result, and a run of other settings is refused with the name of one that
differs. It is written every ``INTERVAL`` seconds (seldomer where writing takes long), on Ctrl-C and SIGTERM, and at the
end: a run that is asked for again once it is finished returns at once.

While a run with a checkpoint is on in the main thread, SIGTERM does what Ctrl-C does. One run at a time may use a
file: it holds a lock on ``PATH.lock``, of which nothing is left when a process ends, however it ends.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from ..errors import CheckpointError
from . import storage, stream
from .identity import Setting

INTERVAL = 30.0  # seconds between two checkpoints
_SHARE = 20.0  # writing them takes no more than this fraction of the time
_LONGEST = 10.0  # of the interval, which a slow disk stretches no further

Arrays = dict[str, np.ndarray]


class Checkpoint:
    """The checkpoint of one run: use it in a with statement.

    Parameters
    ----------
    path : where the file is, or is to be.
    kind : what is run ("simulation", "training", …).
    """

    def __init__(self, path: Any, kind: str) -> None:
        self.path, self.kind = checked_path(path), kind
        self.settings: dict[str, Setting] = {}
        self.shown = os.fspath(path)
        self._found: tuple[dict[str, Any], Arrays] | None = None
        self._looked = False
        self._trusted = True  # the file at the path, if there is one, is worth keeping as the previous one
        self._fresh = True  # nothing was found at the path: a previous file is none of this run
        self._last, self._cost, self._warned = time.monotonic(), 0.0, False
        self._signals = _Signals()
        self._lock = _Lock(self.path.with_name(self.path.name + ".lock"), self.shown)

    @property
    def previous(self) -> pathlib.Path:
        """Where the checkpoint before the newest is."""
        return self.path.with_name(self.path.name + ".previous")

    def __enter__(self) -> Self:
        self._lock.take()
        for path in storage.temporaries(self.path):
            path.unlink(missing_ok=True)
        self._signals.listen()
        self._last = time.monotonic()
        return self

    def __exit__(self, *problem: Any) -> None:
        self._signals.forget()
        self._lock.release()

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Put Ctrl-C and SIGTERM off for a moment in which the state of the run is in pieces."""
        return self._signals.held()

    # ---- reading

    def begin(self, settings: dict[str, Setting]) -> Arrays | None:
        """What a run of these settings goes on from, or None where it starts.

        ``settings`` are all that decide the bits of the result; the versions are added here.

        Raises
        ------
        CheckpointError
            Where the file is of another run, or is damaged and there is no previous one.
        """
        library = getattr(sys.modules[__package__.partition(".")[0]], "__version__", "")
        self.settings = {**settings, "stream_version": stream.VERSION, "sdesim": library}
        self._look()
        if self._found is None:
            return None
        found, arrays = self._found
        self._found = None
        self._compare(found)
        if not self._trusted:
            self._replace_damaged()
        return arrays

    @property
    def exists(self) -> bool:
        """Whether there is something to go on from."""
        self._look()
        return self._found is not None

    def seed(self, seed: Any) -> Any:
        """The seed given, or for None that of the run in the file, where there is one."""
        self._look()
        return self._found[0].get("seed") if seed is None and self._found is not None else seed

    def wrong(self, what: str) -> CheckpointError:
        """The error that says what is wrong with the content."""
        said = f"checkpoint {self.shown} has {storage.brief(what)}; give another file, or delete this one"
        return CheckpointError(said)

    def _look(self) -> None:
        if self._looked or not self.path.exists():
            self._looked = True
            return
        self._looked, self._fresh = True, False
        try:
            kind, settings, arrays = storage.read(self.path)
        except (ValueError, OSError) as error:
            kind, settings, arrays = self._from_previous(error)
        if kind != self.kind:
            raise CheckpointError(
                f"checkpoint {self.shown} holds a {storage.brief(kind)}, not a {self.kind}; give another file"
            )
        self._found = settings, arrays

    def _from_previous(self, error: Exception) -> tuple[str, dict[str, Any], Arrays]:
        self._trusted = False
        try:
            found = storage.read(self.previous)
        except (ValueError, OSError):
            raise CheckpointError(
                f"checkpoint {self.shown}: {storage.brief(error)}; there is no previous one, delete it to start again"
            ) from None
        warnings.warn(
            f"checkpoint {self.shown}: {storage.brief(error)}; the run goes on from the one before it, "
            f"{self.previous.name}",
            RuntimeWarning,
            stacklevel=4,
        )
        return found

    def _replace_damaged(self) -> None:
        """Put a copy of the one before in the place of the newest: a run that was finished in it writes no other."""
        copy = storage.temporary(self.path)
        try:
            shutil.copyfile(self.previous, copy)
            os.replace(copy, self.path)
            self._trusted = True
        except OSError:  # a full disk, which the next write speaks of
            with contextlib.suppress(OSError):
                copy.unlink()

    def _compare(self, found: dict[str, Any]) -> None:
        missing = "nothing"
        differing = [
            f"{name} {found.get(name, missing)} != {self.settings.get(name, missing)}"
            for name in {**self.settings, **found}
            if found.get(name, missing) != self.settings.get(name, missing)
        ]
        if differing:
            named = ", ".join(differing[:3]) + (f" and {len(differing) - 3} more" if len(differing) > 3 else "")
            raise CheckpointError(
                f"checkpoint {self.shown} belongs to a different run: {storage.brief(named)}; give another file, or "
                "delete this one"
            )

    # ---- writing

    def due(self) -> bool:
        """Whether it is time to write."""
        interval = min(max(INTERVAL, _SHARE * self._cost), _LONGEST * INTERVAL)
        return time.monotonic() - self._last >= interval

    def write(self, arrays: Arrays, *, wait: bool = True) -> bool:
        """Write what the run can go on from; whether that was possible.

        ``wait=False``, in answer to Ctrl-C, does not wait for the disk. A Ctrl-C meanwhile waits until the file is
        there: to begin anew with it would take longer. A disk that is full costs a warning and not the run: the
        checkpoint before stays.
        """
        start, done = time.monotonic(), True
        with self.held():
            try:
                self._write(arrays, wait)
            except OSError as error:
                done = False
                if not self._warned:
                    self._warned = True
                    warnings.warn(
                        f"checkpoint {self.shown} could not be written ({error}); the run goes on, what is there stays",
                        RuntimeWarning,
                        stacklevel=3,
                    )
            self._last = time.monotonic()
            self._cost = self._last - start
        return done

    def _write(self, arrays: Arrays, wait: bool) -> None:
        new = storage.write_beside(self.path, self.kind, self.settings, arrays, wait=wait)
        made = [new]
        try:
            if self._fresh:
                self.previous.unlink(missing_ok=True)
            elif self._trusted and (second := self._second_name()) is not None:
                made.append(second)
            os.replace(new, self.path)
            if len(made) > 1:
                os.replace(made[1], self.previous)
        except BaseException:
            for path in made:
                with contextlib.suppress(OSError):
                    path.unlink()
            raise
        self._trusted, self._fresh = True, False

    def _second_name(self) -> pathlib.Path | None:
        """A second name of the newest file, which becomes the one before once another one is there.

        So there are two files at every moment: one at the path, and the one before it.
        """
        second = storage.temporary(self.path)
        try:
            os.link(self.path, second)
        except FileNotFoundError:
            return None
        except OSError:  # a file system without links
            os.replace(self.path, self.previous)
            return None
        return second


def checked_path(path: Any) -> pathlib.Path:
    """A path that a checkpoint can be written to: found out before the run, by a file made in its folder."""
    if not isinstance(path, (str, os.PathLike)) or isinstance(os.fspath(path), bytes):
        raise TypeError(f"checkpoint must be the path of a file, got {path!r}")
    shown, target = os.fspath(path), pathlib.Path(os.fspath(path)).absolute()
    if target.is_dir():
        raise ValueError(f"checkpoint path is a folder: {shown}; give the path of a file in it")
    if target.exists() and not target.is_file():
        raise ValueError(f"checkpoint path is no regular file: {shown}")
    if target.parent.exists() and not target.parent.is_dir():
        raise NotADirectoryError(f"checkpoint {shown} cannot be written: {target.parent} is not a folder")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"checkpoint {shown} cannot be written: the folder {target.parent} does not exist")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise PermissionError(f"checkpoint {shown} cannot be written into {target.parent}: {error.strerror}") from None
    return target


class _Lock:
    """A lock on a file, which the operating system takes back when the process ends."""

    def __init__(self, path: pathlib.Path, shown: str) -> None:
        self.path, self.shown = path, shown
        self._file: Any = None

    def take(self) -> None:
        """Raise CheckpointError where another run has it."""
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            return
        while True:
            file = open(self.path, "ab")  # noqa: SIM115
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise CheckpointError(
                    f"checkpoint {self.shown} is in use by another run; wait for it, or give another file"
                ) from None
            except OSError:  # a file system without locks
                file.close()
                return
            # the run before may have deleted the file between our opening it and its letting go
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(self.path), os.fstat(file.fileno())):
                    self._file = file
                    return
            file.close()

    def release(self) -> None:
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None


class _Signals:
    """SIGTERM as Ctrl-C, and both put off where they must wait; in the main thread only, which alone hears them."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._holding, self._waiting = 0, 0

    def listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if before is None or before is signal.SIG_IGN or (number == signal.SIGINT and before is signal.SIG_DFL):
                continue
            self._before[number] = before
            signal.signal(number, self._hear)

    def forget(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def _hear(self, number: int, frame: Any) -> None:
        if self._holding:
            self._waiting = number
            return
        before = self._before.get(number)
        if callable(before):
            before(number, frame)
        else:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self._holding += 1
        try:
            yield
        finally:
            self._holding -= 1
        if self._waiting and not self._holding:
            number, self._waiting = self._waiting, 0
            self._hear(number, None)
