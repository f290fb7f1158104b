"""The sentences of a machine on which kernels cannot run, and that nothing of CUDA is imported unasked."""

import os
import subprocess
import sys
import types
from importlib import metadata

import pytest

from sdesim.cuda import backend
from sdesim.errors import DeviceError, MemoryLimitError

SUPPORTED = "0.30.4"


def fake(monkeypatch, *, version=SUPPORTED, ready=True, error=None, driver=(13, 0)):
    """A backend that finds this package and this driver."""

    def found(name):
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    device = types.SimpleNamespace(name=b"NVIDIA H200", compute_capability=(9, 0))
    cuda = types.SimpleNamespace(
        is_available=lambda: ready,
        cuda_error=lambda: error,
        get_current_device=lambda: device,
        cudadrv=types.SimpleNamespace(driver=types.SimpleNamespace(get_version=lambda: driver)),
    )
    monkeypatch.setattr(backend, "cuda", cuda)
    monkeypatch.setattr(backend, "simulated", False)
    monkeypatch.setattr(backend.metadata, "version", found)
    backend._probe.cache_clear()


@pytest.fixture(autouse=True)
def _probe_anew():
    yield
    backend._probe.cache_clear()


CASES = {
    "no numba-cuda": ({"version": None}, "pip install 'sdesim[cuda]'"),
    "old numba-cuda": ({"version": "0.20.1"}, "0.20.1 is installed, and >=0.30.4,<1 is needed"),
    "new numba-cuda": ({"version": "1.0.0"}, "1.0.0 is installed"),
    "no driver": ({"ready": False, "error": "\nCUDA driver library cannot be found.\n"}, "install NVIDIA driver 580"),
    "driver of old": ({"ready": False, "error": "driver version is insufficient for CUDA runtime"}, "too old"),
    "driver for 12.4": ({"driver": (12, 4)}, "knows CUDA 12.4, and kernels are compiled for 13.0"),
    "no device": ({"ready": False}, "no device was found"),
}


@pytest.mark.parametrize(("found", "said"), CASES.values(), ids=CASES)
def test_what_is_missing_is_said_with_what_to_do(monkeypatch, found, said):
    fake(monkeypatch, **found)
    ready, reason = backend.available()
    assert not ready
    assert said in reason
    assert "\n" not in reason
    with pytest.raises(DeviceError, match="device='cuda' cannot be used"):
        backend.require()


def test_a_device_is_named(monkeypatch):
    fake(monkeypatch)
    assert backend.available() == (True, "NVIDIA H200, compute capability 9.0, driver for CUDA 13.0")
    backend.require()


def test_a_broken_driver_is_no_crash(monkeypatch):
    fake(monkeypatch)
    monkeypatch.setattr(backend.cuda, "is_available", lambda: 1 / 0)
    ready, reason = backend.available()
    assert not ready
    assert "does not answer" in reason


def test_a_broken_import_is_said(monkeypatch):
    monkeypatch.setattr(backend, "cuda", None)
    monkeypatch.setattr(backend, "_import_error", "ImportError: cannot import name 'x'")
    assert "cannot import name 'x'" in backend.available()[1]


def test_memory_that_is_refused_is_a_sentence():
    with (
        pytest.raises(MemoryLimitError, match="out of memory; save fewer times"),
        backend.explained("save fewer times"),
    ):
        raise RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(ZeroDivisionError), backend.explained("save fewer times"):
        _ = 1 / 0


def test_the_simulator_is_recognised():
    code = "from sdesim.cuda import backend; print(*backend.available())"
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", "simulator"]


def test_what_the_devices_compiler_refuses_is_told_apart(monkeypatch):
    from numba.core.errors import TypingError

    monkeypatch.setattr(backend, "simulated", False)
    assert backend.is_refusal(TypingError("no such function"))
    assert backend.is_refusal(KeyError("<ufunc 'cbrt'>"))
    assert not backend.is_refusal(ValueError("x"))
    assert backend.first_line(RuntimeError("\n  why\nwhere")) == "why"
    assert backend.first_line(RuntimeError()) == "RuntimeError"
