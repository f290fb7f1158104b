"""BLAS on one thread, whichever threads ask for it and in whatever order they leave."""

import threading
from types import SimpleNamespace

import scipy.linalg
import threadpoolctl

from sdesim.core import blas


def numbers():
    """How many threads each library would use now."""
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}


def test_any_thread_can_ask_after_another_has():
    """The main thread was first, and still is the one that threadpoolctl 3.8 listens to."""
    assert scipy.linalg.__name__  # it has a library of its own
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        with blas.single_threaded():
            assert numbers() == {1}
        seen = []

        def work():
            with blas.single_threaded():
                seen.append(numbers())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [{1}]
        assert numbers() == {2}


def test_the_last_to_leave_gives_the_number_back():
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        inside, go, seen = threading.Event(), threading.Event(), []

        def first():
            with blas.single_threaded(), blas.single_threaded():
                inside.set()
                go.wait(60)

        thread = threading.Thread(target=first)
        thread.start()
        inside.wait(60)
        with blas.single_threaded():
            go.set()
            thread.join()  # the one that set it has left, and has not ended before
            seen.append(numbers())
        assert seen == [{1}]
        assert numbers() == {2}


def test_libraries_on_openmp_are_asked_by_every_thread(monkeypatch):
    own = threading.local()
    library = SimpleNamespace(
        internal_api="openblas", threading_layer="openmp", get_num_threads=lambda: getattr(own, "n", 8),
        set_num_threads=lambda n: setattr(own, "n", n),
    )  # fmt: skip
    monkeypatch.setattr(blas._libraries, "found", [library])
    monkeypatch.setattr(blas._libraries, "with_scipy", True)
    seen = []

    def work():
        before = library.get_num_threads()
        with blas.single_threaded():
            seen.append((before, library.get_num_threads()))
        seen.append(library.get_num_threads())

    with blas.single_threaded():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert library.get_num_threads() == 1
    assert seen == [(8, 1), 8]
    assert library.get_num_threads() == 8
