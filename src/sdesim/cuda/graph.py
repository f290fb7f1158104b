"""Launches recorded once and replayed: a CUDA graph.

A launch from Python costs several microseconds, and a step of a sampler is a dozen of them: at small batches that is
many times the work of the device. Recorded, a step is one call.
"""

import warnings
import weakref
from collections.abc import Callable
from typing import Any

from . import backend
from .backend import cuda


def new_stream() -> Any:
    """A stream that launches can be recorded on."""
    driver = _driver()
    if driver is None:
        return cuda.stream()
    cuda.current_context()
    handle = _asked(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value))
    stream = cuda.external_stream(int(handle))
    weakref.finalize(stream, driver.cuStreamDestroy, handle)
    return stream


def record(launches: Callable[[], None], stream: Any) -> Callable[[], None] | None:
    """A function that repeats what ``launches`` puts on the stream, which is recorded, not run.

    None where recording is not to be had: in the simulator, without cuda-bindings, or, with a warning, where something
    in the launches cannot be recorded. All kernels must have run before: compiling one while recording is an error.
    """
    driver = _driver()
    if driver is None:
        return None
    relaxed = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
    place = driver.CUstream(int(stream))
    try:
        _asked(driver.cuStreamBeginCapture(place, relaxed))
        try:
            launches()
        finally:
            graph = _asked(driver.cuStreamEndCapture(place))
        executable = _asked(driver.cuGraphInstantiate(graph, 0))
        _asked(driver.cuGraphDestroy(graph))
    except Exception as error:
        warnings.warn(
            f"the steps could not be recorded as a CUDA graph and are launched one by one, which is slower for small "
            f"batches ({type(error).__name__}: {error})", RuntimeWarning, stacklevel=2,
        )  # fmt: skip
        return None

    def replay() -> None:
        _asked(driver.cuGraphLaunch(executable, place))

    weakref.finalize(replay, driver.cuGraphExecDestroy, executable)
    return replay


def _driver() -> Any:
    """The driver's interface in cuda-bindings."""
    if backend.simulated:
        return None
    try:
        from cuda.bindings import driver
    except ImportError:
        return None
    return driver


def _asked(answer: Any) -> Any:
    """What a driver call returned, after its status."""
    status, *values = answer
    if int(status) != 0:
        raise RuntimeError(f"the CUDA driver says {status}")
    return values[0] if values else None
