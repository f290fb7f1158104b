"""How the suite runs on several processes, in the background, and with or without a GPU.

``SDESIM_TEST_CUDA`` is ``auto`` (default: tests marked ``gpu`` run where there is a device and are skipped, with the
reason, elsewhere), ``sim`` (tests marked ``cudasim`` run in numba's simulator) or ``off``. Numba reads at its first
import whether kernels are simulated, so that a process has one mode.
"""

import gc
import os
import signal
import threading

import pytest
import threadpoolctl

MODE = os.environ.get("SDESIM_TEST_CUDA", "auto")
if MODE not in ("auto", "sim", "off"):
    raise pytest.UsageError(f"SDESIM_TEST_CUDA must be auto, sim or off, got {MODE!r}")
if MODE == "sim":
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0")

if "PYTEST_XDIST_WORKER" in os.environ:  # the cores are taken: threads of BLAS would spin in each other's way
    threadpoolctl.threadpool_limits(1, user_api="blas")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of what is loaded later, and of processes

# Compilers make many objects and few cycles: looking for those at every 700 new ones takes a tenth of their time.
gc.set_threshold(100_000, 20, 100)

# Shells start background jobs with SIGINT ignored, which processes inherit; the tests of Ctrl-C need it.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Groups for ``--dist loadgroup``: a file compiles its kernels once, examples run in processes of their own.

    Batteries of others take a minute and find nothing new in the same code: they run where they are asked for.
    """
    asked = "battery" in config.getoption("markexpr")
    for item in items:
        if item.get_closest_marker("battery") and not asked:
            item.add_marker(pytest.mark.skip(reason="a battery of others; ask for it by -m battery"))
        if item.path.name != "test_examples.py":
            item.add_marker(pytest.mark.xdist_group(item.path.name))
        if item.get_closest_marker("cudasim") and MODE != "sim":
            item.add_marker(pytest.mark.skip(reason="needs the simulator: SDESIM_TEST_CUDA=sim"))
        if item.get_closest_marker("gpu"):
            missing = _no_device()
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


def _no_device() -> str:
    """Why no kernel can run on a device, or nothing where one can."""
    if MODE != "auto":
        return f"SDESIM_TEST_CUDA={MODE}"
    from sdesim.cuda import backend

    ready, reason = backend.available()
    return "" if ready else reason


def pytest_report_header() -> str:
    """Which kernels these tests run."""
    return f"CUDA: SDESIM_TEST_CUDA={MODE}, {_no_device() or 'a device'}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cold cache folder, in a process that has neither loaded nor warned."""
    from sdesim.core import cache

    home = tmp_path / "cache"
    monkeypatch.setenv("SDESIM_CACHE_DIR", str(home))
    monkeypatch.setattr(cache, "_state", {"folder": None, "warned": False})
    monkeypatch.setattr(cache, "_modules", {})
    return home
